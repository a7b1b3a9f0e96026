"""A session that is in memory: its outline, its tail, and the runs that are writing to it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from strandline.core.coalesce import Coalescer
from strandline.core.events import Appended, Event, MessageReset, RunStarted
from strandline.core.message import FoldError, FoldState
from strandline.core.offset import Cursor
from strandline.core.session import Change, Content, SessionState
from strandline.runtime.feed import Entry, Feed, Row
from strandline.runtime.readers import Readers

logger = logging.getLogger("strandline.session")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who caused a run, and what came along: what the agent sees as ``run.user``, ``run.claims`` and ``run.body``."""

    user: str
    device: str | None = None
    roles: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by(self) -> str:
        """How events name this caller."""
        return f"user:{self.user}"


class Pending(Coalescer):
    """What a run has produced and the journal has not committed yet. Agents that wait for room go on once ``release``
    says that something was committed."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        super().__init__()
        self._waiters: list[asyncio.Future[None]] = []

    async def room(self, limit: int) -> None:
        """Wait until fewer than ``limit`` bytes wait for a commit."""
        while self.size >= limit:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def release(self) -> None:
        """Wake the agents that wait for room."""
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def started(message_id: str) -> FoldState:
    """What a message says when its run has started and nothing was appended yet."""
    fold = FoldState()
    fold.push({"type": "start", "messageId": message_id})
    return fold


class LiveRun:
    """An active run: what it has published (``fold``, up to ``position``) and what it has pending. ``base``: what the
    message said before, where this is a continuation."""

    __slots__ = (
        "_epoch",
        "_place",
        "_snapshots",
        "base",
        "broken",
        "caller",
        "fold",
        "id",
        "message",
        "over",
        "pending",
    )

    def __init__(
        self,
        run_id: str,
        message: str,
        message_id: str,
        caller: Caller,
        position: Cursor,
        base: FoldState | None = None,
    ) -> None:
        self.id = run_id
        self.message = message
        self.base = base
        self.fold = self.begun(message_id)
        self.caller = caller
        self._epoch = position.epoch
        self._place = (position.seq, position.frame)
        self.pending = Pending()
        self.over = False
        self.broken = False
        self._snapshots: dict[str, bytes] = {}

    @property
    def position(self) -> Cursor:
        """The place after everything that ``fold`` has taken in."""
        return Cursor(self._epoch, *self._place)

    def snapshot(self, form: str, make: Callable[[FoldState], bytes]) -> bytes:
        """What the message says up to ``position``, in the form of a wire, filter and version that ``form`` names.
        ``make`` is called once for all who join there: what a herd costs is one unfold."""
        made = self._snapshots.get(form)
        if made is None:
            made = self._snapshots[form] = make(self.fold)
        return made

    def begun(self, message_id: str) -> FoldState:
        """What the message says when the run has started and nothing was appended yet."""
        return started(message_id) if self.base is None else self.base.fork()

    def end(self) -> None:
        """The run is over: nothing is taken from it any more, and nobody joins it."""
        self.over = True
        self._snapshots.clear()
        self.pending.take()
        self.pending.release()

    def replay(self, seq: int, event: Event) -> None:
        """Take in one committed event of this run. One that does not fold is a defect of ours, which may cost this run
        (``broken``), but neither the others nor the next start."""
        self._snapshots.clear()
        try:
            self._replay(seq, event)
        except FoldError:
            logger.exception(
                "event %d of run %s does not fold", seq, self.id, extra={"action": "fold-defect", "run": self.id}
            )
            self.broken = True

    def _replay(self, seq: int, event: Event) -> None:
        if isinstance(event, Appended):
            for chunk in event.chunks:
                self.fold.push(chunk)
            self._place = (seq, len(event.chunks))
        elif isinstance(event, RunStarted):
            self._place = (seq, 1)
        elif isinstance(event, MessageReset):
            self.fold = self.begun(event.message_id)
            self._place = (seq, 1)


class SessionGone(Exception):
    """The session was deleted before the turn of what was to be decided in it. Never shown to anybody."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a command makes of a session: events, the content of messages whose runs end in them, and an answer.

    ``caller`` is that of the runs that the events queue. ``answer`` is called after the commit, in the same step that
    publishes the events. ``deletes``: the same commit deletes the session, with these events and all others. ``folds``:
    by run, what the message says that a continuation goes on with.
    """

    events: tuple[Event, ...]
    answer: Callable[[], Any]
    contents: Mapping[str, Content] = field(default_factory=dict)
    caller: Caller | None = None
    deletes: bool = False
    folds: Mapping[str, FoldState] = field(default_factory=dict)


class Command:
    """A change of a session's structure, decided inside the writer against the committed state.

    ``decide`` returns None when its time has not come (a run still has pending chunks); it is asked again after the
    next commit.
    """

    __slots__ = ("decide", "future")

    def __init__(self, decide: Callable[[LiveSession], Decided | None]) -> None:
        self.decide = decide
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True)
class Promise:
    """A replay that a user is owed until the monotonic time ``until``: a history answer left its message
    out, or (``key``) a resume with this key was given it and may not have got it."""

    user: str
    run: str
    key: str | None
    until: float


class LiveSession:
    """One session in memory. Only the journal changes it, and only after a commit."""

    __slots__ = (
        "__weakref__",
        "commands",
        "feed",
        "live",
        "oldest_at",
        "owed",
        "readers",
        "segmented",
        "state",
        "stored",
        "touched",
    )

    def __init__(self, state: SessionState, *, stored: bool, at: float) -> None:
        self.state = state
        self.stored = stored
        self.feed = Feed(state.last_seq, at)
        self.live: dict[str, LiveRun] = {}
        self.commands: deque[Command] = deque()
        self.segmented = state.last_seq
        self.oldest_at: float | None = None
        self.readers = Readers(self.feed)
        self.owed: list[Promise] = []
        self.touched = at

    @property
    def id(self) -> str:
        return self.state.record.id

    @property
    def idle(self) -> bool:
        """True when nothing needs this session to be in memory."""
        return (
            not self.live
            and not self.commands
            and not self.readers
            and not self.owed
            and self.segmented == self.feed.last_seq
        )

    def unsegmented(self) -> list[Row]:
        """The events that are not in a log segment yet."""
        return self.feed.rows(self.segmented + 1)

    def oldest_batch(self) -> int:
        """The number of the batch that committed the oldest event which is not in a log segment yet."""
        return self.feed.batch_of(self.segmented + 1)

    def absorb(self, change: Change, entries: list[Entry], decided: Decided | None) -> list[LiveRun]:
        """Make a committed change part of this session: outline, folds, then the tail, in one step. Returns the runs
        that cannot go on."""
        caller = decided.caller if decided is not None else None
        folds = decided.folds if decided is not None else {}
        self.state.absorb(change)
        self.stored = True
        broken: list[LiveRun] = []
        for run in change.runs.values():
            if run.active and run.id not in self.live:
                self.live[run.id] = LiveRun(
                    run.id,
                    run.message,
                    run.message_id,
                    caller or Caller(user=run.author.removeprefix("user:")),
                    Cursor(self.state.record.epoch, run.first_seq, 0),
                    folds.get(run.id),
                )
        for entry in entries:
            live = self.live.get(entry.run) if entry.run is not None else None
            if live is not None:
                live.replay(entry.seq, entry.event)
                if live.broken:
                    broken.append(live)
        for run in change.runs.values():
            if not run.active and (live := self.live.pop(run.id, None)) is not None:
                live.end()
        if entries:
            self.feed.publish(entries)
        return [live for live in broken if live.id in self.live]
