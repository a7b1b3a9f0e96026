"""Readers for the bytes that a client is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from strandline.core.message import FoldState


@dataclass(frozen=True, slots=True)
class Frame:
    """One SSE event. ``chunk`` is its JSON object (``{}`` for ``[DONE]``), ``cursor`` its id."""

    chunk: Mapping[str, Any]
    cursor: str | None = None
    done: bool = False


class FrameReader:
    """Takes bytes as they come, cut anywhere, and keeps the frames that are complete. Strict: raises ValueError for
    anything that PROTOCOL §4.3 does not allow (``id_first``: §11.5). ``comments`` holds the comment lines, ``retry``
    what a plain EventSource was told to wait, in ms."""

    def __init__(self, *, id_first: bool = False) -> None:
        self.id_first = id_first
        self.frames: list[Frame] = []
        self.comments: list[str] = []
        self.retry: int | None = None
        self._rest = b""
        self._lines: list[str] = []

    def feed(self, data: bytes) -> None:
        """More bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode())

    def _line(self, line: str) -> None:
        if "\r" in line:
            raise ValueError(f"a carriage return: {line!r}")
        if line.startswith(":"):
            self.comments.append(line)
        elif line.startswith("retry: ") and not self._lines:
            self.retry = int(line[7:])
        elif line:
            self._lines.append(line)
        else:
            self.frames.append(_frame(self._lines[::-1] if self.id_first else self._lines))
            self._lines = []


def _frame(lines: list[str]) -> Frame:
    data, *rest = lines
    cursor = rest[0].removeprefix("id: ") if rest else None
    if not data.startswith("data: ") or len(rest) > 1 or (rest and not rest[0].startswith("id: ")):
        raise ValueError(f"not a frame: {lines!r}")
    if data == "data: [DONE]":
        return Frame({}, cursor, done=True)
    return Frame(orjson.loads(data[6:]), cursor)


def read_frames(data: bytes, *, id_first: bool = False) -> list[Frame]:
    """The complete frames in ``data``."""
    reader = FrameReader(id_first=id_first)
    reader.feed(data)
    return reader.frames


def fold_frames(frames: Iterable[Frame]) -> FoldState:
    """The message that a client has after these frames. A ``start`` begins anew, as a full replay does."""
    state = FoldState()
    for frame in frames:
        if frame.done:
            continue
        if frame.chunk["type"] == "start":
            state = FoldState()
        state.push(frame.chunk)
    return state
