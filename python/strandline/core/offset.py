"""Cursors: the opaque positions that readers hold (PROTOCOL §3).

Only this module mints or reads a cursor. A client stores the string and sends it back; it compares two of
them for equality at most.

A cursor names a place between two frames of one session's log: all frames of events before ``seq`` have been
seen, and the first ``frame`` frames of event ``seq``. The event ``seq`` exists for every cursor that the AI SDK
wire mints, so the run that a cursor belongs to can be looked up from the cursor alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_SHAPE = re.compile(r"([0-9a-z]{4,16})\.([0-9]{1,15})\.([0-9]{1,6})", re.ASCII)


class MalformedCursor(ValueError):
    """The text is not a cursor that this service could have minted."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in one session's log.

    epoch: which incarnation of the log; seq: number of an event, from 1; frame: how many frames of that event
    were seen (0 = none yet).
    """

    epoch: str
    seq: int
    frame: int

    def covers(self, other: Cursor) -> bool:
        """Whether one who is here has seen all that one has seen who is at ``other``, in the same log."""
        return self.epoch == other.epoch and (self.seq, self.frame) >= (other.seq, other.frame)

    def __str__(self) -> str:
        return written(self.epoch, self.seq, self.frame)


def written(epoch: str, seq: int, frame: int) -> str:
    """A cursor as the wire has it."""
    return f"{epoch}.{seq}.{frame}"


def parse(text: str) -> Cursor:
    """Read a cursor from the wire. Raises MalformedCursor for anything that was not minted here."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise MalformedCursor(text[:80])
    epoch, seq, frame = match.groups()
    if seq.startswith("0"):
        raise MalformedCursor(text[:80])
    return Cursor(epoch, int(seq), int(frame))


class Standing(Enum):
    """How a cursor relates to a log that it is presented to (R6: never answered with silence)."""

    GOOD = "good"
    OTHER_EPOCH = "other-epoch"
    FUTURE = "future"
    EXPIRED = "expired"


def standing(cursor: Cursor, *, epoch: str, first_seq: int, last_seq: int) -> Standing:
    """Compare a cursor with a log that retains events ``first_seq..last_seq``."""
    if cursor.epoch != epoch:
        return Standing.OTHER_EPOCH
    if cursor.seq > last_seq:
        return Standing.FUTURE
    if cursor.seq < first_seq:
        return Standing.EXPIRED
    return Standing.GOOD
