"""Coalescing: adjacent deltas of the same part become one, before they get a sequence number (R26, DESIGN §5).

What the journal has not taken yet gathers here, one chunk at a time and without copying text. Joining changes nothing
that a fold could see. Knows nothing of commits, or of who waits for them.
"""

from __future__ import annotations

from strandline.core.events import Chunk

PROGRESS = "data-progress"
"""How far something is (``Run.progress``). The newest replaces the others with its id, so only that has to be kept."""

_TEXT = {"text-delta": "delta", "reasoning-delta": "delta", "tool-input-delta": "inputTextDelta"}


def _delta_key(chunk: Chunk) -> tuple[str, str] | None:
    """What identifies the part that a plain delta belongs to; None for a chunk that cannot be joined."""
    kind = chunk["type"]
    if kind not in _TEXT or len(chunk) != 3:
        return None
    return (kind, chunk["toolCallId"] if kind == "tool-input-delta" else chunk["id"])


class Coalescer:
    """Chunks in order, deltas joined. ``size``: bytes that were added and not taken, about."""

    __slots__ = ("_first", "_fragments", "_joinable", "_joined", "_progress", "chunks", "size")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.size = 0
        self._first: Chunk | None = None
        self._joinable: tuple[str, str] | None = None
        self._joined = 0
        self._fragments: list[str] = []
        self._progress: dict[str, int] = {}

    def add(self, chunk: Chunk, size: int, limit: int) -> None:
        """Take one checked chunk of about ``size`` bytes. Deltas are joined up to ``limit`` bytes."""
        self.size += size
        key = _delta_key(chunk)
        if key is not None:
            if key == self._joinable and self._joined + size <= limit:
                self._fragments.append(chunk[_TEXT[key[0]]])
                self._joined += size
                return
            self._close()
            self._first = chunk
            self._joinable = key
            self._joined = size
            self._fragments = [chunk[_TEXT[key[0]]]]
            return
        if chunk["type"] == PROGRESS and "id" in chunk and not chunk.get("transient"):
            known = self._progress.get(chunk["id"])
            if known is not None:
                self.chunks[known] = chunk
                return
            self._close()
            self._progress[chunk["id"]] = len(self.chunks)
        elif chunk["type"] == "reset-step":
            self._progress.clear()  # what was said before it goes, what comes after it stays
        self._close()
        self.chunks.append(chunk)

    def take(self) -> tuple[Chunk, ...]:
        """Everything, joined; what remains is empty."""
        self._close()
        taken = tuple(self.chunks)
        self.chunks = []
        self._progress.clear()
        self.size = 0
        return taken

    def __bool__(self) -> bool:
        return bool(self.chunks) or self._joinable is not None

    def _close(self) -> None:
        if self._first is None:
            return
        if len(self._fragments) == 1:
            self.chunks.append(self._first)
        else:
            self.chunks.append({**self._first, _TEXT[self._first["type"]]: "".join(self._fragments)})
        self._first = self._joinable = None
        self._fragments = []
