"""A run that is being written, in memory: who caused it, what it was told, what it has published, and what of it waits
for a commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from strandline.core.checkpoints import Checkpoints
from strandline.core.chunks import STEERING
from strandline.core.coalesce import Coalescer
from strandline.core.events import Appended, Chunk, Event, MessageReset, RunClaimed, RunStarted, Steered, frames_in
from strandline.core.message import FoldError, FoldState
from strandline.core.offset import Cursor
from strandline.core.unfold import again
from strandline.runtime.waiting import Waiters

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


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody told a running agent: a user message that has not become one. ``by`` is who, as events name it;
    ``caller`` the same as the agent knows it, None after a restart; ``size``: in bytes, with what came along."""

    id: str
    parts: tuple[Mapping[str, Any], ...]
    by: str
    at: int
    metadata: Any = None
    caller: Caller | None = None
    size: int = 0

    @property
    def text(self) -> str:
        """All of its text."""
        return "\n\n".join(str(part["text"]) for part in self.parts if part.get("type") == "text")

    @property
    def device(self) -> str | None:
        """The device that it came from, if that is known."""
        return self.caller.device if self.caller is not None else None


def size_of(*said: Any) -> int:
    """How many bytes this takes as JSON."""
    return len(orjson.dumps(said))


def _without_body(note: Note) -> Note:
    """One that was taken, which no run will answer: what came along with it is nobody's any more."""
    return note if note.caller is None else replace(note, caller=replace(note.caller, body={}))


class Pending(Coalescer):
    """What a run has produced and the journal has not committed yet. Agents that wait for room go on once ``release``
    says that something was committed. ``sent``: the number of the newest request of a remote agent in it."""

    __slots__ = ("_committed", "sent")

    def __init__(self) -> None:
        super().__init__()
        self._committed = Waiters()
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
        await self._committed.wait()

    def release(self) -> None:
        """Wake those who wait for a commit."""
        self._committed.wake()


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
        "_news",
        "_place",
        "_snapshots",
        "_taken",
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
        self._news = Waiters()
        self.began: int | None = None
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

    def end(self) -> None:
        """The run is over: nothing is taken from it any more, and nobody joins it."""
        self.over = True
        self._snapshots.clear()
        self.pending.take()
        self.pending.release()
        self._news.wake()

    async def ended(self) -> None:
        """Return when the run is over."""
        while not self.over:
            await self._news.wait()

    @property
    def taken(self) -> list[Note]:
        """The notes that its agent has taken, in that order, as far as the log says."""
        return list(self._taken.values())

    @property
    def first(self) -> tuple[Chunk, ...]:
        """The chunks that say ``base``: what a message that is started over says at once."""
        return tuple(again(self.base)) if self.base is not None else ()

    async def told(self) -> None:
        """Wait until there is another note, or the run is over."""
        if not self.over:
            await self._news.wait()

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
                            self._taken[note.id] = _without_body(note)
            return
        self.checkpoints.take(seq, event)
        if isinstance(event, RunClaimed):
            claims = {} if self.claimed is None else self.claimed.claims
            if event.claim is not None:
                claims[event.claim] = event.producer
            self.claimed = Claimed(event.producer, event.holder, claims)
        elif isinstance(event, Steered):
            place, size = (event.message_id, event.parts, event.by, event.at), size_of(event.parts, event.metadata)
            self.notes[event.message_id] = Note(*place, event.metadata, size=size)
            self._news.wake()
        elif isinstance(event, RunStarted):
            self.began = seq
            self._place = (seq, 1)
        elif isinstance(event, MessageReset):
            if event.by == "server":
                # Whoever took them is gone. What the message still says of them follows.
                self.notes, self._taken = {**self._taken, **self.notes}, {}
            self.fold = started(event.message_id)
            self._place = (seq, 1)
