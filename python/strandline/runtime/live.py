"""A session that is in memory: its outline, its tail, and the runs that are writing to it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from strandline.core.checkpoints import Checkpoints
from strandline.core.chunks import STEERING
from strandline.core.coalesce import Coalescer
from strandline.core.erasing import Erasure, without
from strandline.core.events import Appended, Chunk, Event, MessageReset, RunClaimed, RunStarted, Steered, frames_in
from strandline.core.message import FoldError, FoldState
from strandline.core.offset import Cursor
from strandline.core.session import Change, Content, SessionState
from strandline.core.unfold import again
from strandline.runtime.feed import Entry, Feed, Row
from strandline.runtime.readers import Readers

logger = logging.getLogger("strandline.session")


MAX_RECEIPTS = 256
"""Messages per session that are known to have been told to an agent."""


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


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody told a running agent: a user message that has not become one. ``by`` is who, as events name it;
    ``caller`` the same as the agent knows it, None after a restart."""

    id: str
    parts: tuple[Mapping[str, Any], ...]
    by: str
    at: int
    metadata: Any = None
    caller: Caller | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return "\n\n".join(str(part["text"]) for part in self.parts if part.get("type") == "text")

    @property
    def device(self) -> str | None:
        """The device that it came from, if that is known."""
        return self.caller.device if self.caller is not None else None


@dataclass(frozen=True, slots=True)
class Receipt:
    """That an agent was told a message: the run, the number of the event, and how to know the request again."""

    run: str
    message_id: str
    parts: tuple[Mapping[str, Any], ...]
    seq: int
    key: str | None = None


class Pending(Coalescer):
    """What a run has produced and the journal has not committed yet. Agents that wait for room go on once ``release``
    says that something was committed. ``sent``: the number of the newest request of a remote agent in it."""

    __slots__ = ("_waiters", "sent")

    def __init__(self) -> None:
        super().__init__()
        self._waiters: list[asyncio.Future[None]] = []
        self.sent: int | None = None

    def __bool__(self) -> bool:
        return self.sent is not None or super().__bool__()

    def take(self) -> tuple[Chunk, ...]:
        """Everything, joined; what remains is empty."""
        self.sent = None
        return super().take()

    async def room(self, limit: int) -> None:
        """Wait until fewer than ``limit`` bytes wait for a commit."""
        while self.size >= limit:
            await self.released()

    async def released(self) -> None:
        """Wait for the next ``release``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def release(self) -> None:
        """Wake those who wait for a commit."""
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


@dataclass(slots=True)
class Claimed:
    """Who writes a run from elsewhere, by its log: the newest producer and what its worker calls itself, every claim so
    far with its producer, and the number of the newest request of this producer that is in the log."""

    producer: int
    holder: str | None
    claims: dict[str, int] = field(default_factory=dict)
    sent: int = 0


class LiveRun:
    """An active run: what it has published (``fold``, up to ``position``), what it has pending, and the ``notes`` that
    its agent was told and has not taken, by id, as far as the log says. ``base`` is what its message said before it,
    None where that was nothing; ``began``: the number of its start; ``checkpoints`` those that it has passed;
    ``claimed``: None as long as no remote agent has taken it."""

    __slots__ = (
        "_epoch",
        "_listening",
        "_place",
        "_snapshots",
        "_taken",
        "_waiters",
        "base",
        "began",
        "broken",
        "caller",
        "checkpoints",
        "claimed",
        "fold",
        "id",
        "message",
        "notes",
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
        self.fold = started(message_id) if base is None else base.fork()
        self.checkpoints = Checkpoints()
        self.caller = caller
        self._epoch = position.epoch
        self._place = (position.seq, position.frame)
        self.pending = Pending()
        self.claimed: Claimed | None = None
        self.notes: dict[str, Note] = {}
        self._taken: dict[str, Note] = {}
        self._listening: list[asyncio.Future[None]] = []
        self.began: int | None = None
        self.over = False
        self.broken = False
        self._snapshots: dict[str, bytes] = {}
        self._waiters: list[asyncio.Future[None]] = []

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

    def end(self) -> None:
        """The run is over: nothing is taken from it any more, and nobody joins it."""
        self.over = True
        self._snapshots.clear()
        self.pending.take()
        self.pending.release()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._wake()

    async def ended(self) -> None:
        """Return when the run is over."""
        if not self.over:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    @property
    def first(self) -> tuple[Chunk, ...]:
        """The chunks that say ``base``: what a message that is started over says at once."""
        return tuple(again(self.base)) if self.base is not None else ()

    async def told(self) -> None:
        """Wait until there is another note, or the run is over."""
        if not self.over:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._listening.append(waiter)
            await waiter

    def _wake(self) -> None:
        listening, self._listening = self._listening, []
        for waiter in listening:
            if not waiter.done():
                waiter.set_result(None)

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
            self._place = (seq, frames_in(event))
            if event.sent is not None and self.claimed is not None:
                self.claimed.sent = event.sent
            if self.notes:
                for chunk in event.chunks:
                    if chunk["type"] == STEERING:
                        note = self.notes.pop(chunk["id"], None)
                        if note is not None:
                            self._taken[note.id] = note
            return
        self.checkpoints.take(seq, event)
        if isinstance(event, RunClaimed):
            claims = {} if self.claimed is None else self.claimed.claims
            if event.claim is not None:
                claims[event.claim] = event.producer
            self.claimed = Claimed(event.producer, event.holder, claims)
        elif isinstance(event, Steered):
            self.notes[event.message_id] = Note(event.message_id, event.parts, event.by, event.at, event.metadata)
            self._wake()
        elif isinstance(event, RunStarted):
            self.began = seq
            self._place = (seq, 1)
        elif isinstance(event, MessageReset):
            if event.by == "server":
                # Whoever took them is gone. What the message still says of them follows.
                self.notes, self._taken = {**self._taken, **self.notes}, {}
            self.fold = started(event.message_id)
            self._place = (seq, 1)


class SessionGone(Exception):
    """The session was deleted before the turn of what was to be decided in it. Never shown to anybody."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a command makes of a session: events, the content of messages whose runs end in them, and an answer.

    ``caller`` is that of the runs that the events queue. ``answer`` is called after the commit, in the same step that
    publishes the events. ``deletes``: the same commit deletes the session, with these events and all others. ``folds``:
    by run, what the message says that a continuation goes on with. ``erases``: what messages have said until then.
    """

    events: tuple[Event, ...]
    answer: Callable[[], Any]
    contents: Mapping[str, Content] = field(default_factory=dict)
    caller: Caller | None = None
    deletes: bool = False
    folds: Mapping[str, FoldState] = field(default_factory=dict)
    erases: tuple[Erasure, ...] = ()


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
        "receipts",
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
        self.receipts: dict[str, Receipt] = {}
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

    def keep_receipt(self, receipt: Receipt) -> None:
        """Know this message again. The oldest receipt is forgotten when there are too many."""
        self.receipts[receipt.message_id] = receipt
        if len(self.receipts) > MAX_RECEIPTS:
            del self.receipts[next(iter(self.receipts))]

    def _forget_told(self, what: Erasure) -> None:
        """What agents were told is known again as long as it is said anywhere."""
        for receipt in list(self.receipts.values()):
            gone = receipt.run in what.runs and self.state.find(receipt.message_id) is None
            if gone or receipt.message_id == what.message_id:
                del self.receipts[receipt.message_id]

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
        for what in decided.erases if decided is not None else ():
            self.feed.erase(partial(_left, what))
            self._forget_told(what)
            self.state.forget_decisions(what.message)
        if entries:
            self.feed.publish(entries)
        return [live for live in broken if live.id in self.live]


def _left(what: Erasure, seq: int, blob: bytes) -> bytes:
    left = without(orjson.loads(blob), seq, what)
    return blob if left is None else orjson.dumps(left)
