"""Who reads a session: the connections that are open, and for a while those that were (PROTOCOL §8.11).

A reader is in the list exactly as long as its response is (``Registry.place``). Nothing of this is in the log: after a
restart the list holds those who are connected, and what they present when they come back is what they have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from strandline.codecs.sse import frame
from strandline.core.offset import Cursor
from strandline.errors import Conflict, NotFound
from strandline.runtime.feed import Feed

MAX_LEFT = 64
"""Readers of one session that are remembered after they have left; the one that left first is forgotten first."""
MAX_RESTING = 10_000
"""Readers that are remembered of sessions which are not in memory; those of the session that left it first go first."""
MAX_AT_ONCE = 8
"""Comings and goings that are announced at once between two sweeps; more are announced together by the next one."""

SESSION = "session"
"""The wire of the session feed."""


@dataclass(slots=True, eq=False)
class Reader:
    """One connection, as ``readers`` frames show it, and how far it is.

    ``named``: the id was made up by the client. ``ends_at``: the monotonic time at which its response may be ended.
    ``replaced``: its client has a newer connection, so this one ends. ``dropped``: its client did not read.
    """

    id: str
    user: str
    device: str | None
    wire: str
    since: int
    run: str | None = None
    client: str | None = None
    named: bool = False
    ends_at: float = math.inf
    replaced: bool = False
    dropped: bool = False
    left_at: int | None = None
    forget_at: float = math.inf
    sent: Cursor | None = None
    acknowledged: Cursor | None = None
    cut: Callable[[], Any] | None = field(default=None, repr=False)
    _handing: Cursor | None = None
    _reached: Cursor | None = None

    def present(self, cursor: Cursor) -> None:
        """The client comes with this cursor: it says that it has applied everything up to there."""
        self.sent = self.acknowledged = self._handing = self._reached = cursor

    def hand(self, cursor: Cursor | None) -> None:
        """What is written next ends at ``cursor``; None: it has no id."""
        self._handing = cursor or self._handing

    def handed(self) -> None:
        """The write has returned."""
        self.sent = self._handing

    def was_sent(self, cursor: Cursor) -> bool:
        """True for a place that this reader has been handed, or is being handed: a client may be quicker to answer than
        the write is to return."""
        return any(place is not None and place.covers(cursor) for place in (self._handing, self._reached))

    def acknowledge(self, cursor: Cursor) -> bool:
        """The client has applied everything up to ``cursor``. False when that was known."""
        if self.acknowledged is not None and self.acknowledged.covers(cursor):
            return False
        self.acknowledged = cursor
        if self.sent is None or not self.sent.covers(cursor):
            self.sent = cursor
        return True

    def is_again(self, other: Reader) -> bool:
        """Whether ``other`` is an earlier connection of the same page, for the same purpose."""
        mine = (self.named, self.user, self.id, self.wire, self.run)
        return self.named and mine == (other.named, other.user, other.id, other.wire, other.run)

    def take_over(self, other: Reader) -> None:
        """Go on where the earlier connection has left off."""
        for place in (other._reached, other._handing):
            if place is not None and (self._reached is None or place.covers(self._reached)):
                self._reached = place
        known = other.acknowledged
        if known is not None and (self.acknowledged is None or known.covers(self.acknowledged)):
            self.acknowledged = known

    def replace(self) -> None:
        """End this connection. ``cut`` ends one that is in the middle of a write: nobody may be there to read it."""
        self.replaced = True
        if self.cut is not None:
            self.cut()

    def plain(self) -> dict[str, Any]:
        """As clients are shown it."""
        return {
            "id": self.id,
            "user": self.user,
            "device": self.device,
            "client": self.client,
            "wire": self.wire,
            "run": self.run,
            "connected": self.left_at is None,
            "since": self.since,
            "leftAt": self.left_at,
            "sent": None if self.sent is None else str(self.sent),
            "acknowledged": None if self.acknowledged is None else str(self.acknowledged),
        }


class Readers:
    """The list of one session. Its length is the number of open connections."""

    __slots__ = ("_announced", "_changed", "_feed", "_frame", "_left", "_open", "_shown_at")

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._open: dict[Reader, None] = {}
        self._left: list[Reader] = []
        self._announced = 0
        self._changed = False
        self._frame: bytes | None = None
        self._shown_at = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def left(self) -> tuple[Reader, ...]:
        """Those who have left, the first one first."""
        return tuple(self._left)

    def remember(self, left: Iterable[Reader]) -> None:
        """Those who had left when the session was last in memory."""
        self._left[:0] = left

    def replaces(self, reader: Reader) -> bool:
        """Whether ``reader`` takes the place of an open connection."""
        return any(reader.is_again(other) for other in self._open)

    def enter(self, reader: Reader) -> None:
        """A connection is there. An earlier one of the same name ends, or is no longer remembered."""
        for other in [*self._open, *self._left]:
            if reader.is_again(other):
                reader.take_over(other)
                other.replace()
                if self._open.pop(other, other) is None:
                    # At once, however many are announced together: it is not counted any more.
                    self._feed.wake()
        self._left = [other for other in self._left if not other.replaced]
        self._open[reader] = None
        self._announce()

    def leave(self, reader: Reader, at: int, forget_at: float) -> None:
        """A connection is over, at ``at`` (ms since 1970); remembered until the monotonic time ``forget_at``."""
        if reader not in self._open:
            return
        del self._open[reader]
        reader.cut = None  # it would keep the task of the request
        reader.left_at, reader.forget_at = at, forget_at
        self._left.append(reader)
        del self._left[:-MAX_LEFT]
        self._announce()

    def acknowledge(self, user: str, reader_id: str, cursor: Cursor) -> None:
        """Raises NotFound when the user has no such reader, Conflict (``not-sent``) when it was not sent so much."""
        theirs = [reader for reader in [*self._open, *self._left] if (reader.user, reader.id) == (user, reader_id)]
        if not theirs:
            raise NotFound("There is no such reader.")
        found = [reader for reader in theirs if reader.was_sent(cursor)]
        if not found:
            raise Conflict("This reader was not sent that cursor.", code="not-sent")
        # A page may read a run next to the feed; what it acknowledges is what it has applied from the feed.
        found.sort(key=lambda reader: reader.wire != SESSION)
        if found[0].acknowledge(cursor):
            self._changed = True

    def sweep(self, now: float) -> None:
        """Forget those who left long ago, and announce what was not: at most as often as this is called."""
        left = [reader for reader in self._left if reader.forget_at > now]
        if len(left) != len(self._left):
            self._left, self._changed = left, True
        self._announced = 0
        if self._changed:
            self._announce()

    def plain(self) -> list[dict[str, Any]]:
        """Everyone, those who are connected first."""
        return [reader.plain() for reader in [*self._open, *self._left]]

    def frame(self) -> bytes:
        """The ``readers`` frame, made once for everybody who is sent it."""
        if self._frame is None or self._shown_at != self._feed.notices:
            self._shown_at = self._feed.notices
            self._frame = frame({"type": "readers", "readers": self.plain()})
        return self._frame

    def _announce(self) -> None:
        self._frame = None
        if self._announced >= MAX_AT_ONCE:
            self._changed = True
            return
        self._announced += 1
        self._changed = False
        self._feed.notify()


class Resting:
    """Who has left sessions that are not in memory themselves."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[str, tuple[Reader, ...]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def keep(self, session_id: str, epoch: str, left: tuple[Reader, ...]) -> None:
        """The session leaves memory."""
        self.take(session_id)
        if left:
            self._left[session_id] = (epoch, left)
            self._count += len(left)

    def take(self, session_id: str, epoch: str | None = None) -> tuple[Reader, ...]:
        """The session is back, in this epoch: who had left it. None: it is gone."""
        then, left = self._left.pop(session_id, (None, ()))
        self._count -= len(left)
        return left if then == epoch else ()

    def expire(self, now: float) -> None:
        """Forget what is too old, or too much."""
        while self._left:
            session_id, (_, left) = next(iter(self._left.items()))
            if self._count <= MAX_RESTING and any(reader.forget_at > now for reader in left):
                return
            self.take(session_id)
