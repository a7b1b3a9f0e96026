"""Server-sent events as bytes (PROTOCOL §4). LF only, one single-line ``data:`` per event, the id last."""

from __future__ import annotations

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
