"""What a session has said so far, from one snapshot: the outline is taken without an await, the contents follow.

Stored messages of ended runs only change by an erasure, so reading them after the outline was taken shows the same
moment unless there was one meanwhile: then it is taken again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from strandline.core.branch import Place, branches
from strandline.core.offset import Cursor
from strandline.core.paging import beside, page_of
from strandline.core.records import MessageRecord, RunRecord
from strandline.core.session import SessionState
from strandline.errors import NotFound, Unprocessable
from strandline.runtime.live import LiveSession
from strandline.stores.port import Store

MOST_SPAWNED = 50
"""Messages of spawned runs in one answer, the newest."""


@dataclass(frozen=True, slots=True)
class History:
    """Finished messages of the active path, with the runs that wrote them by message id, and the run that is writing.

    ``cursor`` is the offset of the snapshot: what follows it, the whole of what is being written included, is not in
    ``messages``. ``spawned``: finished messages that were written beside these. ``before`` and ``after`` are the ids to
    ask for the page before and after with. ``active``: the newest run that writes on the active path. ``branches``: of
    the messages here and of those that are being written.
    """

    messages: list[MessageRecord]
    runs: dict[str, RunRecord]
    active: RunRecord | None
    cursor: Cursor
    before: str | None = None
    after: str | None = None
    branches: Mapping[str, Place] = field(default_factory=dict)
    spawned: Sequence[MessageRecord] = ()


async def history(session: LiveSession, store: Store) -> History:
    """All of the active path (PROTOCOL §6.6), without what was spawned beside it."""
    return await _page(session, store, len(session.state.messages), None, None, spawned=False)


async def page(
    session: LiveSession, store: Store, limit: int, *, before: str | None = None, after: str | None = None
) -> History:
    """One page of the active path (PROTOCOL §8.6), and what has been spawned beside it. Raises Unprocessable for a
    ``before`` or ``after`` that is not on it, NotFound for a session that was deleted meanwhile."""
    return await _page(session, store, limit, before, after, spawned=True)


async def _page(
    session: LiveSession, store: Store, limit: int, before: str | None, after: str | None, *, spawned: bool
) -> History:
    state, erasures = session.state, session.feed.erasures
    active, shown, path = state.active(), state.writing(), state.path()
    found = page_of(path, {run.message for run in active}, limit, before=before, after=after)
    if found is None:
        name = "before" if before is not None else "after"
        raise Unprocessable(f"`{name}` is not a message of this conversation (any more).", code="unknown-message")
    epoch = state.record.epoch
    writing = [run for run in state.runs.values() if run.active] if spawned else active
    cursor = Cursor(epoch, writing[0].first_seq, 0) if writing else session.feed.cursor(epoch)
    runs = _runs_of(state, found.messages)
    listed = {*(message.version for message in found.messages), *(run.message for run in shown)}
    places = branches(state.messages, [message for message in path if message.version in listed])
    versions = [message.version for message in found.messages]
    unfinished = {run.message for run in writing}
    others = (
        [each for each in beside(state, versions, MOST_SPAWNED) if each.version not in unfinished] if spawned else []
    )
    messages = await store.messages(session.id, [*versions, *[each.version for each in others]])
    if session.feed.deleted:
        raise NotFound("There is no such session.")
    if session.feed.erasures != erasures:
        return await _page(session, store, limit, before, after, spawned=spawned)
    # What the store has deleted already is published in a moment.
    on_path = [message for message in messages if not message.spawned and not message.deleted]
    off_path = [message for message in messages if message.spawned and not message.deleted]
    newest = shown[-1] if shown else None
    return History(on_path, runs, newest, cursor, found.before, found.after, places, off_path)


def _runs_of(state: SessionState, messages: Iterable[MessageRecord]) -> dict[str, RunRecord]:
    return {message.message_id: state.runs[message.run] for message in messages if message.run is not None}
