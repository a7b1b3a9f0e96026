"""Server-sent events as bytes (PROTOCOL §4). LF only, one single-line ``data:`` per event, the id last. And the
reader for those of others, who may write them as they like."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from typing import Any

import orjson

OPENING = b": strandline\n"
RETRY = b"retry: 1000\n"
"""How long a plain EventSource waits before it connects again, in ms: browsers wait 3 s of their own accord. No blank
line follows, so that no parser takes it for an event."""
HEARTBEAT = b": hb\n"
DONE = b"data: [DONE]\n\n"

HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}


def frame(data: Any, cursor: str | None = None) -> bytes:
    """One event. orjson never emits a newline, so ``data`` is always one line."""
    if cursor is None:
        return b"data: %b\n\n" % orjson.dumps(data)
    return b"data: %b\nid: %b\n\n" % (orjson.dumps(data), cursor.encode("ascii"))


MAX_EVENT = 16 * 1024 * 1024
"""Characters that one event of a foreign stream may have; a reader never holds more."""

_LINE_END = re.compile(r"\r\n|\r|\n")


class EventReader:
    """The data of other people's server-sent events, from bytes or text cut anywhere.

    Follows https://html.spec.whatwg.org/multipage/server-sent-events.html: any of the three line ends, ``data`` over
    several lines, comments. Other fields are passed over, and so are events without data.
    """

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._decoder = getincrementaldecoder("utf-8-sig")()
        self._after_return = False
        self._line: list[str] = []
        self._data: list[str] = []
        self._held = 0

    @property
    def inside(self) -> bool:
        """True in the middle of an event: a stream that ends here was cut."""
        return self._held > 0 or bool(self._decoder.getstate()[0])

    def feed(self, piece: str | bytes | bytearray) -> list[str]:
        """The data of the events that this completes. Raises ValueError for an event over the limit and for what is not
        UTF-8; nothing more can be read then."""
        text = piece if isinstance(piece, str) else self._decoder.decode(bytes(piece))
        if self._after_return and text:
            text = text.removeprefix("\n")
            self._after_return = False
        self._after_return = self._after_return or text.endswith("\r")
        *lines, rest = _LINE_END.split(text)
        found = []
        for line in lines:
            data = self._end_line(line)
            if data is not None:
                found.append(data)
        self._hold(rest)
        return found

    def _hold(self, rest: str) -> None:
        if rest:
            self._line.append(rest)
            self._held += len(rest)
            if self._held > self._limit:
                raise ValueError(f"an event is longer than {self._limit} characters")

    def _end_line(self, rest: str) -> str | None:
        """The data of the event that ends with this line, if one does."""
        self._hold(rest)
        line, self._line = "".join(self._line), []
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            else:
                self._held -= len(line)
            return None
        data, self._data, self._held = self._data, [], 0
        return "\n".join(data) if data else None
