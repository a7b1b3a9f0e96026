"""The live tail of one session: one bounded list of events that all readers share.

A reader is a position in this list, not a queue: catching up and following live are the same slice. Nothing here does
I/O; an event that is no longer in the tail is read from the store by the caller (``reading.py``).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from strandline.core.events import Event, frames_in
from strandline.core.offset import Cursor


class Entry:
    """One committed event. ``frames`` caches its encoded frames per codec, shared by all readers."""

    __slots__ = ("batch", "blob", "event", "frames", "run", "seq")

    def __init__(self, seq: int, event: Event, run: str | None, blob: bytes, batch: int) -> None:
        self.seq = seq
        self.event = event
        self.run = run
        self.blob = blob
        self.batch = batch
        self.frames: dict[str, tuple[bytes, ...]] = {}


class Feed:
    """The tail. ``first_seq`` is the oldest event that is still in memory, ``last_seq`` the newest published one;
    ``time`` is the monotonic time of the last tick."""

    __slots__ = (
        "_due",
        "_entries",
        "_last_frame",
        "_size",
        "_waiters",
        "closed",
        "deleted",
        "failure",
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
        self.failure: str | None = None
        self.notices = 0
        self._entries: list[Entry] = []
        self._size = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def first_seq(self) -> int:
        return self._entries[0].seq if self._entries else self.last_seq + 1

    @property
    def size(self) -> int:
        """Bytes of the events in the tail."""
        return self._size

    def publish(self, entries: Sequence[Entry]) -> None:
        """Make committed events visible and wake every reader."""
        self._entries.extend(entries)
        self._size += sum(len(entry.blob) for entry in entries)
        self.last_seq = entries[-1].seq
        self._last_frame = frames_in(entries[-1].event)
        self.wake()

    def cursor(self, epoch: str) -> Cursor:
        """The place after everything that is published."""
        return Cursor(epoch, max(self.last_seq, 1), self._last_frame)

    def since(self, seq: int) -> list[Entry]:
        """The events from number ``seq`` on; ``seq`` must not be older than ``first_seq``."""
        return self._entries[max(0, seq - self.first_seq) :]

    def at(self, seq: int) -> Entry:
        """Event number ``seq``, which must be in the tail."""
        return self._entries[seq - self.first_seq]

    def evict(self, up_to: int, limit: int) -> None:
        """Forget the oldest events, none newer than ``up_to``, until at most ``limit`` bytes are held."""
        drop = 0
        while drop < len(self._entries) and self._size > limit and self._entries[drop].seq <= up_to:
            self._size -= len(self._entries[drop].blob)
            drop += 1
        del self._entries[:drop]

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
