"""What a session has said so far, from one snapshot: the outline is taken without an await, the contents follow.

Stored messages of ended runs change only when something is decided or another run goes on with them, so reading them
after the outline was taken shows the same moment, or is done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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
    """All of the active path (PROTOCOL §6.6). What is being written is left out, with what earlier runs have written of
    it."""
    return await _page(session, store, len(session.state.messages))


async def page(
    session: LiveSession, store: Store, limit: int, *, before: str | None = None, after: str | None = None
) -> History:
    """One page of the active path (PROTOCOL §8.6). A message that a continuation is writing is in it, as it was before:
    what follows on the feed goes on from there. Raises Unprocessable for a ``before`` or ``after`` that is not on the
    path, NotFound for a session that was deleted meanwhile."""
    return await _page(session, store, limit, before=before, after=after, bases=True)


async def _page(
    session: LiveSession,
    store: Store,
    limit: int,
    *,
    before: str | None = None,
    after: str | None = None,
    bases: bool = False,
) -> History:
    state = session.state
    active = state.active()
    lives = [session.live[run.id] for run in active]
    known = {live.message: live.base for live in lives if bases and live.base is not None}
    found = page_of(state.path(), {live.message for live in lives} - known.keys(), limit, before=before, after=after)
    if found is None:
        name = "before" if before is not None else "after"
        raise Unprocessable(f"`{name}` is not a message of this conversation (any more).", code="unknown-message")
    epoch = state.record.epoch
    cursor = Cursor(epoch, active[0].first_seq, 0) if active else session.feed.cursor(epoch)
    runs = _runs_of(state, found.messages)
    wanted = [message for message in found.messages if message.version not in known]
    contents = await contents_of(session, store, wanted)
    if contents is None:
        # Something was decided meanwhile: with what was read, the feed would say that twice.
        return await _page(session, store, limit, before=before, after=after, bases=bases)
    for message in found.messages:
        base = known.get(message.version)
        if base is not None:
            contents[message.version] = replace(message, parts=tuple(base.parts()), metadata=base.metadata)
    messages = [contents[message.version] for message in found.messages if message.version in contents]
    return History(messages, runs, active[-1] if active else None, cursor, found.before, found.after)


async def contents_of(
    session: LiveSession, store: Store, messages: Sequence[MessageRecord]
) -> dict[str, MessageRecord] | None:
    """What these messages of an outline say, by version; None when another run has gone on with one of them since.
    Raises NotFound for a session that was deleted meanwhile."""
    stored = await store.messages(session.id, [message.version for message in messages])
    if session.feed.deleted:
        raise NotFound("There is no such session.")
    found = {message.version: message for message in stored}
    if any(message.version in found and found[message.version].run != message.run for message in messages):
        await asyncio.sleep(0)  # it may be in the store, and not published yet
        return None
    return found


def _runs_of(state: SessionState, messages: Iterable[MessageRecord]) -> dict[str, RunRecord]:
    return {message.message_id: state.runs[message.run] for message in messages if message.run is not None}
