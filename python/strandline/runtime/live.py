"""A session that is in memory: outline, tail, the runs that are writing to it, and what is to be decided in it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from strandline.core.erasing import Erasure, TakenBack, without
from strandline.core.events import Event
from strandline.core.message import FoldState
from strandline.core.offset import Cursor
from strandline.core.session import Change, Content, SessionState
from strandline.runtime.feed import Entry, Feed, Row
from strandline.runtime.live_run import Caller, LiveRun
from strandline.runtime.readers import Readers


class SessionGone(Exception):
    """The session was deleted before the turn of what was to be decided in it. Never shown to anybody."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a command makes of a session: events, the content of messages whose runs end in them, and an answer.

    ``caller`` is that of the runs that the events queue. ``taken`` is called when the events are on their way to the
    store; ``answer`` after the commit, in the same step that publishes them; ``dropped`` if the store refuses them.
    ``deletes``: the same commit deletes the session, with these events and all others. ``folds``: by run, what the
    message says that a continuation goes on with. ``erases``: what messages, and what annotations have said until then.
    """

    events: tuple[Event, ...]
    answer: Callable[[], Any]
    contents: Mapping[str, Content] = field(default_factory=dict)
    caller: Caller | None = None
    deletes: bool = False
    folds: Mapping[str, FoldState] = field(default_factory=dict)
    erases: tuple[Erasure | TakenBack, ...] = ()
    taken: Callable[[], None] = lambda: None
    dropped: Callable[[], None] = lambda: None

    @property
    def erased(self) -> list[Erasure]:
        """Those of ``erases`` that are of messages."""
        return [what for what in self.erases if isinstance(what, Erasure)]


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
        if decided is not None and decided.erases:
            # Who is just being sent what an annotation has said is told a moment later that it was taken back.
            self.feed.erase(partial(_left, decided.erases), noticed=bool(decided.erased))
            for what in decided.erased:
                self.state.erase(what)
        if entries:
            self.feed.publish(entries)
        return [live for live in broken if live.id in self.live]


def _left(erases: Sequence[Erasure | TakenBack], seq: int, blob: bytes) -> bytes:
    plain = known = orjson.loads(blob)
    for what in erases:
        left = without(plain, seq, what)
        plain = plain if left is None else left
    return blob if plain is known else orjson.dumps(plain)
