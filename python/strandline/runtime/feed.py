"""The live tail of one session: one bounded list of events that all readers share.

A reader is a position in this list, not a queue: catching up and following live are the same slice. Nothing here does
I/O; an event that is no longer in the tail is read from the store by the caller (``reading.py``).

Only the newest publication is kept as objects, because every reader that follows live reads it at once. What is older
is bytes and numbers, which the garbage collector does not have to look at: with an object per token it stops the
process for tens of milliseconds every few seconds.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from strandline.codecs import native
from strandline.core.events import Event, frames_in
from strandline.core.offset import Cursor

Row = tuple[int, str | None, bytes, int, int]
"""An event of the tail: its number, its run, its bytes, the number of its batch, and when it happened (ms)."""

Frames = tuple[bytes, ...]


class Entry:
    """One committed event, ``blob`` being its bytes."""

    __slots__ = ("_event", "at", "batch", "blob", "run", "seq")

    def __init__(self, seq: int, event: Event, run: str | None, blob: bytes, batch: int) -> None:
        self.seq = seq
        self.run = run
        self.blob = blob
        self.batch = batch
        self.at = event.at
        self._event: Event | None = event

    @classmethod
    def of(cls, row: Row) -> Entry:
        """The entry that a row of the tail was made of."""
        entry = cls.__new__(cls)
        entry.seq, entry.run, entry.blob, entry.batch, entry.at = row
        entry._event = None
        return entry

    @property
    def event(self) -> Event:
        """The event itself."""
        if self._event is None:
            self._event = native.decode(self.blob)
        return self._event

    @property
    def row(self) -> Row:
        return (self.seq, self.run, self.blob, self.batch, self.at)


class Feed:
    """The tail. ``first_seq`` is the oldest event that is still in memory, ``fresh_seq`` the first one of the newest
    publication, ``last_seq`` the newest published one; ``time`` is the monotonic time of the last tick. ``joined`` is
    for readers to share what they make of the newest publication, by codec and by the runs that they follow.
    ``erasures`` counts how often something that was published has been taken back: whoever waited meanwhile looks
    again."""

    __slots__ = (
        "_due",
        "_frames",
        "_fresh",
        "_last_frame",
        "_rows",
        "_size",
        "_waiters",
        "closed",
        "deleted",
        "erasures",
        "failure",
        "fresh_seq",
        "joined",
        "last_seq",
        "notices",
        "time",
    )

    def __init__(self, last_seq: int, time: float = 0.0) -> None:
        self.last_seq = last_seq
        self.time = time
        self._due = math.inf
        # A session at rest ends with an event of one frame: a run's end, or a message.
        self._last_frame = 1
        self.closed = False
        self.deleted = False
        self.erasures = 0
        self.failure: str | None = None
        self.notices = 0
        self.fresh_seq = last_seq + 1
        self.joined: dict[tuple[str, str | frozenset[str] | None], Any] = {}
        self._fresh: Sequence[Entry] = ()
        self._rows: list[Row] = []
        self._frames: dict[str, dict[int, Frames]] = {}
        self._size = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def first_seq(self) -> int:
        return self._rows[0][0] if self._rows else self.last_seq + 1

    @property
    def size(self) -> int:
        """Bytes of the events in the tail."""
        return self._size

    def publish(self, entries: Sequence[Entry]) -> None:
        """Make committed events visible and wake every reader."""
        self.joined.clear()
        self._fresh = entries
        self.fresh_seq = entries[0].seq
        for entry in entries:
            self._rows.append(entry.row)
            self._size += len(entry.blob)
        newest = entries[-1]
        self.last_seq = newest.seq
        self._last_frame = frames_in(newest.event)
        self.wake()

    def cursor(self, epoch: str) -> Cursor:
        """The place after everything that is published."""
        return Cursor(epoch, max(self.last_seq, 1), self._last_frame)

    def since(self, seq: int) -> Sequence[Entry]:
        """The events from number ``seq`` on; ``seq`` must not be older than ``first_seq``."""
        if seq >= self.fresh_seq:
            return self._fresh[seq - self.fresh_seq :]
        older = self._rows[max(0, seq - self.first_seq) : len(self._rows) - len(self._fresh)]
        return [*map(Entry.of, older), *self._fresh]

    def fresh(self, run: str | None) -> Sequence[Entry]:
        """The newest publication, or what of it is of one run."""
        if run is None or (len(self._fresh) == 1 and self._fresh[0].run == run):
            return self._fresh
        return [entry for entry in self._fresh if entry.run == run]

    def rows(self, seq: int) -> list[Row]:
        """The same, as rows."""
        return self._rows[max(0, seq - self.first_seq) :]

    def batch_of(self, seq: int) -> int:
        """The number of the batch that committed event ``seq``, which must be in the tail."""
        return self._rows[seq - self.first_seq][3]

    def frames(self, codec: str, seq: int) -> Frames | None:
        """What was kept of event number ``seq`` in this codec's form."""
        kept = self._frames.get(codec)
        return None if kept is None else kept.get(seq)

    def keep(self, codec: str, seq: int, frames: Frames) -> Frames:
        """Keep an event's frames for all readers, as long as the event is in the tail; return them. Codecs that differ
        in what they leave out mostly agree: what they agree on is held once."""
        if len(self._frames) > 1:
            known = (kept.get(seq) for kept in self._frames.values())
            frames = next((same for same in known if same == frames), frames)
        if seq >= self.first_seq:
            self._frames.setdefault(codec, {})[seq] = frames
        return frames

    def evict(self, up_to: int, limit: int) -> None:
        """Forget the oldest events, none newer than ``up_to``, until at most ``limit`` bytes are held."""
        drop = 0
        while drop < len(self._rows) and self._size > limit and self._rows[drop][0] <= up_to:
            self._size -= len(self._rows[drop][2])
            drop += 1
        for kept in self._frames.values():
            for row in self._rows[:drop]:
                kept.pop(row[0], None)
        del self._rows[:drop]
        if len(self._rows) < len(self._fresh):
            self._fresh = self._fresh[len(self._fresh) - len(self._rows) :]
            self.fresh_seq = self.first_seq
            self.joined.clear()

    def erase(self, left: Callable[[int, bytes], bytes], *, noticed: bool = True) -> None:
        """Take back what was said: ``left`` says what remains of an event's bytes. ``noticed``: by readers as well, who
        may be in the middle of it."""
        self.erasures += noticed
        self.joined.clear()
        for index, (seq, run, blob, batch, at) in enumerate(self._rows):
            remains = left(seq, blob)
            if remains is not blob:
                self._rows[index] = (seq, run, remains, batch, at)
                self._size += len(remains) - len(blob)
                for kept in self._frames.values():
                    kept.pop(seq, None)
        self._fresh = [Entry.of(row) for row in self._rows[len(self._rows) - len(self._fresh) :]] if self._fresh else ()

    async def wait(self, seq: int, notices: int | None = None, until: float = math.inf) -> None:
        """Return when there is something to look at: event ``seq``, an end or a failure of the feed, with ``notices``
        something ephemeral that was announced since that count, or that ``time`` has reached ``until``. May return
        without any of them: the caller looks again."""
        over = self.closed or self.deleted or self.failure is not None
        if over or self.last_seq >= seq or notices not in (None, self.notices) or self.time >= until:
            return
        self._due = min(self._due, until)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def tick(self, now: float) -> None:
        """Time has passed. Costs nothing until somebody waits for it: no reader needs a timer of its own."""
        self.time = now
        if now >= self._due:
            self._due = math.inf
            self.wake()

    def wake(self) -> None:
        """Let every waiting reader look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def notify(self) -> None:
        """Announce something that is not in the log, such as a reader that came or went."""
        self.notices += 1
        self.wake()

    def close(self) -> None:
        """Nothing more will come: the server is going away."""
        self.closed = True
        self.wake()

    def delete(self) -> None:
        """Nothing more will come: the session is gone, and so is what the store had of it."""
        self.deleted = True
        self.wake()

    def fail(self, reason: str | None) -> None:
        """Tell readers that events cannot be committed just now (``reason``), or that they can again (None)."""
        self.failure = reason
        self.wake()
