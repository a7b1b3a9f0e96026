"""What a session has said so far, from one snapshot: the outline is taken without an await, the contents follow.

Stored messages of ended runs change only when something is decided, another run goes on with them, or they are erased,
so reading them after the outline was taken shows the same moment, or is done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from strandline.core.branch import Place, branches
from strandline.core.offset import Cursor
from strandline.core.paging import beside, page_of
from strandline.core.records import DecisionRecord, MessageRecord, RunRecord
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
    """The active path up to the reply that is being written (PROTOCOL §6.6), without what was spawned beside it. What
    is being written is left out, with what earlier runs have written of it."""
    settled = settled_path(session.state)
    return await _page(session, store, settled, len(session.state.messages), None, None, spawned=False)


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
    """One page of the active path (PROTOCOL §8.6), and what has been spawned beside it; or of ``path``. Raises
    Unprocessable for a ``before`` or ``after`` that is not on it, NotFound for a session that was deleted meanwhile."""
    shown = session.state.path() if path is None else path
    return await _page(session, store, shown, limit, before, after, spawned=path is None)


async def _page(
    session: LiveSession,
    store: Store,
    path: list[MessageRecord],
    limit: int,
    before: str | None,
    after: str | None,
    *,
    spawned: bool,
) -> History:
    state = session.state
    active = state.active()
    # A message that a continuation is writing is in a page as it was before: the feed goes on from there.
    known = {run.message: base for run in active if spawned and (base := session.live[run.id].base) is not None}
    hidden = {run.message for run in active} - known.keys()
    found = page_of(path, hidden, limit, before=before, after=after)
    if found is None:
        name = "before" if before is not None else "after"
        raise Unprocessable(f"`{name}` is not a message of this conversation (any more).", code="unknown-message")
    epoch, current = state.record.epoch, state.current()
    writing = [run for run in state.runs.values() if run.active] if spawned else active
    cursor = Cursor(epoch, writing[0].first_seq, 0) if writing else session.feed.cursor(epoch)
    runs = _runs_of(state, found.messages)
    listed = {*(message.version for message in found.messages), *(run.message for run in state.writing())}
    places = branches(state.messages, [message for message in state.path() if message.version in listed])
    unfinished = {run.message for run in writing}
    versions = [message.version for message in found.messages]
    others = (
        [each for each in beside(state, versions, MOST_SPAWNED) if each.version not in unfinished] if spawned else []
    )
    wanted = [message for message in found.messages if message.version not in known]
    contents = await contents_of(session, store, [*wanted, *others])
    if contents is None:
        # Something was decided meanwhile: with what was read, the feed would say that twice.
        path = state.path() if spawned else settled_path(state)
        return await _page(session, store, path, limit, before, after, spawned=spawned)
    for message in found.messages:
        base = known.get(message.version)
        if base is not None:
            contents[message.version] = replace(message, parts=tuple(base.parts()), metadata=base.metadata)
    on_path, off_path = (
        [contents[each.version] for each in each_of if each.version in contents] for each_of in (found.messages, others)
    )
    return History(on_path, runs, current, cursor, found.before, found.after, places, off_path)


async def contents_of(
    session: LiveSession, store: Store, messages: Sequence[MessageRecord]
) -> dict[str, MessageRecord] | None:
    """What these messages of an outline say, by version; None when one of them was erased, another run has gone on
    with it, or something was decided about it, since. The outline was taken just before, without an await.
    Raises NotFound for a session that was deleted meanwhile."""
    erasures, seq = session.feed.erasures, session.feed.last_seq
    pending = session.state.waiting()
    stored = await store.messages(session.id, [message.version for message in messages])
    if session.feed.deleted:
        raise NotFound("There is no such session.")
    if session.feed.erasures != erasures:
        return None
    # What the store has deleted already is published in a moment.
    found = {message.version: message for message in stored if not message.deleted}
    if any(message.version in found and found[message.version].run != message.run for message in messages):
        await asyncio.sleep(0)  # it may be in the store, and not published yet
        return None
    if any(each.message in found and not _waits(found[each.message], each) for each in pending):
        # An agent may have taken the call back, then it stays like that. Otherwise it was decided, as above.
        record = await store.session(session.id)
        if record is None or record.last_seq > seq:
            await asyncio.sleep(0)
            return None
    return found


def _waits(message: MessageRecord, decision: DecisionRecord) -> bool:
    """Whether the call that a decision is about is unanswered in what a message says."""
    states = [part.get("state") for part in message.parts or () if part.get("toolCallId") == decision.tool_call]
    return any(state in ("approval-requested", "input-available") for state in states)


def _runs_of(state: SessionState, messages: Iterable[MessageRecord]) -> dict[str, RunRecord]:
    return {message.message_id: state.runs[message.run] for message in messages if message.run is not None}
