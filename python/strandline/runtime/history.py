"""What a session has said so far, from one snapshot: the outline is taken without an await, the contents follow.

Stored messages of ended runs do not change, so reading them after the outline was taken shows the same moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from strandline.core.offset import Cursor
from strandline.core.paging import page_of
from strandline.core.records import MessageRecord, RunRecord
from strandline.core.session import SessionState
from strandline.errors import NotFound, Unprocessable
from strandline.runtime.live import LiveSession
from strandline.stores.port import Store


@dataclass(frozen=True, slots=True)
class History:
    """Finished messages of the active path, with the runs that wrote them by message id, and the run that is writing.

    ``cursor`` is the offset of the snapshot: what follows it, the whole of what is being written included, is not in
    ``messages``. ``before`` and ``after`` are the ids to ask for the page before and after with.
    """

    messages: list[MessageRecord]
    runs: dict[str, RunRecord]
    active: RunRecord | None
    cursor: Cursor
    before: str | None = None
    after: str | None = None


async def history(session: LiveSession, store: Store) -> History:
    """The active path up to the reply that is being written (PROTOCOL §6.6)."""
    return await page(session, store, len(session.state.messages), path=settled_path(session.state))


def settled_path(state: SessionState) -> list[MessageRecord]:
    """The active path before the first reply that is being written. What comes after that is for who can show more
    than one thing that is still to come: a client that appends the reply to its history would show it in the wrong
    place."""
    writing = {run.message for run in state.active()}
    return list(takewhile(lambda message: message.version not in writing, state.path()))


async def page(
    session: LiveSession,
    store: Store,
    limit: int,
    *,
    before: str | None = None,
    after: str | None = None,
    path: list[MessageRecord] | None = None,
) -> History:
    """One page of the active path (PROTOCOL §8.6), or of ``path``. Raises Unprocessable for a ``before`` or ``after``
    that is not on it, NotFound for a session that was deleted meanwhile."""
    state = session.state
    active = state.active()
    shown = state.path() if path is None else path
    found = page_of(shown, {run.message for run in active}, limit, before=before, after=after)
    if found is None:
        name = "before" if before is not None else "after"
        raise Unprocessable(f"`{name}` is not a message of this conversation (any more).", code="unknown-message")
    epoch, current = state.record.epoch, state.current()
    cursor = Cursor(epoch, active[0].first_seq, 0) if active else session.feed.cursor(epoch)
    runs = _runs_of(state, found.messages)
    messages = await store.messages(session.id, [message.version for message in found.messages])
    if session.feed.deleted:
        raise NotFound("There is no such session.")
    return History(messages, runs, current, cursor, found.before, found.after)


def _runs_of(state: SessionState, messages: Iterable[MessageRecord]) -> dict[str, RunRecord]:
    return {message.message_id: state.runs[message.run] for message in messages if message.run is not None}
