"""Events as JSON bytes: what the journal and the log hold, and the frames of the session feed (PROTOCOL §8)."""

from __future__ import annotations

import orjson

from strandline.codecs.sse import frame
from strandline.core.events import Appended, Event, from_plain, to_plain
from strandline.core.offset import Cursor


def encode(event: Event) -> bytes:
    """An event as one line of JSON."""
    return orjson.dumps(to_plain(event))


def decode(line: bytes) -> Event:
    """The event that ``encode`` wrote."""
    return from_plain(orjson.loads(line))


def frames(epoch: str, seq: int, event: Event) -> tuple[bytes, ...]:
    """The feed's frames of an event: always exactly one. Its cursor is the one that the AI SDK wire ends the event with,
    so that the two can be compared."""
    last = len(event.chunks) if isinstance(event, Appended) else 1
    return (frame({**to_plain(event), "seq": seq}, str(Cursor(epoch, seq, last))),)
