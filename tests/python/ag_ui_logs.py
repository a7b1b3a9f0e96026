"""Logs of one run for the tests of the AG-UI codec, and a reader of what it makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from strandline.codecs.ag_ui import RESYNC_FRAME, Encoder, recapped
from strandline.core.events import Appended, Event, RunEnded, RunQueued, RunStarted
from strandline.core.message import FoldError, FoldState
from strandline.core.offset import Cursor
from strandline.core.portable import portable
from strandline.core.run import Status
from strandline.core.unfold import closers

EPOCH, THREAD, RUN, MESSAGE = "abcd", "c", "r1", "m1"
Log = list[tuple[int, Event]]
Chunks = list[dict[str, Any]]


def one_text_at_a_time(chunks: Chunks) -> Chunks:
    """The reply without text parts that begin while another is open: no AG-UI client can keep two apart."""
    state, kept = FoldState(), []
    for chunk in chunks:
        if chunk["type"] == "text-start" and state.open_text:
            continue
        try:
            state.push(chunk)
        except FoldError:
            continue
        kept.append(chunk)
    return kept


def log_of(
    chunks: Chunks, sizes: Sequence[int] = (), status: Status | None = Status.COMPLETED, *, close: bool = True
) -> tuple[Log, FoldState]:
    """A run that appends these chunks, some at a time, and ends; and what its message says then. The events of other
    runs that lie between are left out, so numbers are missing."""
    state = FoldState()
    kept: Chunks = []
    state.push({"type": "start", "messageId": MESSAGE})
    for chunk in chunks:
        what = portable(state, chunk)
        if what is None:
            continue
        try:
            state.push(what)
        except FoldError:  # the list was made for a message that began otherwise
            continue
        kept.append(dict(what))
    if status is not None and close:
        for chunk in closers(state, "over"):
            state.push(chunk)
            kept.append(chunk)
    events: list[Event] = [
        RunQueued(1, "user:u", RUN, MESSAGE, MESSAGE, None, "a"),
        RunStarted(2, RUN, MESSAGE, MESSAGE),
    ]
    left, turn = list(kept), 0
    while left:
        size = sizes[turn % len(sizes)] if sizes else 1
        events.append(Appended(3, RUN, MESSAGE, tuple(left[:size])))
        left, turn = left[size:], turn + 1
    if status is not None:
        events.append(RunEnded(4, "agent:a", RUN, MESSAGE, MESSAGE, status, status.value, "It failed."))
    return [(4 + 2 * index, event) for index, event in enumerate(events)], state


def frames_of(log: Log) -> list[tuple[int, tuple[bytes, ...]]]:
    encoder = Encoder(THREAD, str)
    return [(seq, encoder.frames(EPOCH, seq, event)) for seq, event in log]


def whole(log: Log) -> list[bytes]:
    """What a reader is sent that comes at the end."""
    encoder, sent = Encoder(THREAD, str), []
    for seq, event in log:
        frames = encoder.frames(EPOCH, seq, event)
        if frames and frames[-1] is RESYNC_FRAME:
            assert encoder.recap is not None
            again = recapped(encoder.recap, Cursor(EPOCH, seq, len(frames)))
            sent = [each + b"\n\n" for each in again.split(b"\n\n")[:-1]]
        else:
            sent += frames
    return sent


def cursor_of(frame: bytes) -> str | None:
    first = frame.split(b"\n")[0]
    return first[4:].decode() if first.startswith(b"id: ") else None


def event_of(frame: bytes) -> dict[str, Any]:
    (data,) = [line[6:] for line in frame.split(b"\n") if line.startswith(b"data: ")]
    found: dict[str, Any] = json.loads(data)
    return found
