"""Events as JSON bytes: what the journal and the log hold, and the frames of the session feed (PROTOCOL §8)."""

from __future__ import annotations

import orjson

from strandline.codecs.sse import frame
from strandline.core.events import Appended, Event, frames_in, from_plain, to_plain
from strandline.core.offset import Cursor


def encode(event: Event) -> bytes:
    """An event as one line of JSON."""
    return orjson.dumps(to_plain(event))


def decode(line: bytes) -> Event:
    """The event that ``encode`` wrote."""
    return from_plain(orjson.loads(line))


def frames(epoch: str, seq: int, event: Event) -> tuple[bytes, ...]:
    """The feed's frames of an event: always one. Its cursor is the one that the AI SDK wire ends the event with,
    so that the two can be compared."""
    return (frame({**to_plain(event), "seq": seq}, str(Cursor(epoch, seq, frames_in(event)))),)


def rest(epoch: str, seq: int, event: Event, seen: int) -> tuple[bytes, ...]:
    """The feed's frame of what is left of an event after its first ``seen`` chunks; none when nothing is."""
    if not seen:
        return frames(epoch, seq, event)
    if not isinstance(event, Appended) or seen >= len(event.chunks):
        return ()
    data = {**to_plain(event), "chunks": event.chunks[seen:], "seq": seq}
    return (frame(data, str(Cursor(epoch, seq, len(event.chunks)))),)
