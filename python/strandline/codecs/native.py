"""Events as JSON bytes: what the journal and the log hold, and the frames of the session feed (PROTOCOL §8)."""

from __future__ import annotations

from dataclasses import replace

import orjson

from strandline.codecs.filters import Filter
from strandline.codecs.sse import frame
from strandline.core.events import Appended, Event, frames_in
from strandline.core.offset import Cursor
from strandline.core.plain import from_plain, shown, to_plain


def encode(event: Event) -> bytes:
    """An event as one line of JSON."""
    # A copy: what orjson (3.13.0) returns keeps the 4 kB that it was written in, and these are kept for a while.
    return b"%b" % orjson.dumps(to_plain(event))


def decode(line: bytes) -> Event:
    """The event that ``encode`` wrote."""
    return from_plain(orjson.loads(line))


def frames(epoch: str, seq: int, event: Event) -> tuple[bytes, ...]:
    """The feed's frames of an event: always one. Its cursor is the one that the AI SDK wire ends the event with,
    so that the two can be compared."""
    return (frame({**shown(event), "seq": seq}, str(end(epoch, seq, event))),)


def filtered(epoch: str, seq: int, event: Event, wanted: Filter, seen: int = 0) -> tuple[bytes, ...]:
    """The same for a reader that wants less, or has seen the first ``seen`` chunks; none when nothing is left."""
    left = event
    if seen:
        if not isinstance(event, Appended) or seen >= len(event.chunks):
            return ()
        left = replace(event, chunks=event.chunks[seen:])
    plain = wanted.plain(left)
    return () if plain is None else (frame({**plain, "seq": seq}, str(end(epoch, seq, event))),)


def end(epoch: str, seq: int, event: Event) -> Cursor:
    """The place after all of an event."""
    return Cursor(epoch, seq, frames_in(event))
