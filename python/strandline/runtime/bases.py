"""What a message said when a continuation went on with it, for who has to begin there: memory has it while the run is
active, and the log as long as that reaches back."""

from __future__ import annotations

import asyncio

from strandline.codecs import native
from strandline.core.events import Appended, DecisionMade, Event, MessageReset, RunQueued
from strandline.core.message import FoldState
from strandline.core.records import RunRecord
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import started
from strandline.runtime.reading import PAGE
from strandline.stores.port import Store


class Expired(Exception):
    """The log no longer has the beginning of a run, which only happens to runs that have ended, or has nothing more of
    the session, which was deleted."""


async def base_of(session: LiveSession, store: Store, run: RunRecord) -> FoldState | None:
    """The state of the message when ``run`` was queued; None for a run that has begun it. Raises Expired and
    FoldError."""
    state = session.state
    if not state.continues(run):
        return None
    live = session.live.get(run.id)
    if live is not None:
        return live.base
    first = state.beginner(run)
    log = _Log(run.message)
    position = first.first_seq
    while position < run.first_seq:
        position = await _read(session, store, log, position, run.first_seq, first.first_seq)
    return log.fold


async def _read(session: LiveSession, store: Store, log: _Log, position: int, end: int, first: int) -> int:
    """Some of the events up to number ``end``; where the next ones begin."""
    if position >= session.feed.first_seq:
        for entry in session.feed.since(position):
            if entry.seq < end:
                log.take(entry.event)
        return end
    upto = min(session.feed.first_seq, end, position + PAGE) - 1
    lines = await store.events(session.id, position, upto)
    if session.feed.deleted or (position == first and (not lines or lines[0][0] != first)):
        raise Expired
    for _, line in lines:
        log.take(native.decode(line))
    await asyncio.sleep(0)
    return upto + 1


class _Log:
    """One message, event by event."""

    def __init__(self, message: str) -> None:
        self._message = message
        self.fold = FoldState()

    def take(self, event: Event) -> None:
        if getattr(event, "message", None) != self._message:
            return
        match event:
            case RunQueued():
                if self.fold.message_id is None:
                    self.fold = started(event.message_id)
            case MessageReset():
                self.fold = started(event.message_id)
            case Appended(chunks=chunks) | DecisionMade(chunks=chunks):
                for chunk in chunks:
                    self.fold.push(chunk)
            case _:
                pass
