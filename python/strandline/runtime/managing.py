"""Decisions about a session as a whole: create, rename, archive, delete, import. Taken inside the writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from strandline.core import intake
from strandline.core.events import Event, MessageCreated, SessionChanged
from strandline.core.session import Content
from strandline.errors import Conflict
from strandline.runtime.live import Decided, LiveSession
from strandline.runtime.stopping import DELETED, stop_events


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to become of a session's title, archive flag and submit policy; None leaves it as it is. What is new and
    can be None too is a tuple of one."""

    title: tuple[str | None] | None = None
    archived: bool | None = None
    submit: tuple[str | None] | None = None


def create(session: LiveSession, owner: str, by: str, title: str | None, at: int) -> Decided:
    """Write a session that nobody has written to yet; its first event says so. Answers that it is new."""
    session.state.record = replace(session.state.record, owner=owner, created_at=at)
    return Decided((SessionChanged(at, by, title, False),), lambda: True)


def change(session: LiveSession, changes: Changes, by: str, at: int) -> Decided:
    """Rename, archive, set the policy; no event where nothing changes. Answers with the session."""
    record = session.state.record
    title = changes.title[0] if changes.title is not None else record.title
    archived = changes.archived if changes.archived is not None else record.archived
    submit = changes.submit[0] if changes.submit is not None else record.submit
    same = (title, archived, submit) == (record.title, record.archived, record.submit)
    events = () if same else (SessionChanged(at, by, title, archived, submit),)
    return Decided(events, lambda: session)


def delete(session: LiveSession, by: str, at: int) -> Decided:
    """Stop what is running, and let the same commit take everything away: nobody can come in between."""
    events: list[Event] = []
    contents: dict[str, Content] = {}
    for live in session.live.values():
        more, content = stop_events(session, live, by, DELETED, at)
        events += more
        contents |= content
    return Decided(tuple(events), lambda: None, contents, deletes=True)


def bring_in(
    session: LiveSession,
    owner: str,
    messages: Sequence[intake.Incoming],
    title: str | None,
    at: int,
    mint: Callable[[str], str],
) -> Decided:
    """Write history that exists elsewhere (R33). Raises Conflict if the session has messages or another owner."""
    record = session.state.record
    events: list[Event] = []
    if not session.stored:
        session.state.record = replace(record, owner=owner, title=title)
    elif session.state.messages:
        raise Conflict(f"The session {session.id!r} has messages already.", code="session-exists")
    elif record.owner != owner:
        raise Conflict(f"The session {session.id!r} is another user's.", code="session-exists")
    elif title is not None:
        events.append(SessionChanged(at, "server", title, record.archived, record.submit))
    parent: str | None = None
    for message in messages:
        version = mint("msg")
        events.append(
            MessageCreated(at, "server", version, message.id, parent, message.role, message.parts, message.metadata)
        )
        parent = version
    return Decided(tuple(events), lambda: session.state.record)
