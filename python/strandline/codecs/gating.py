"""Which chunk may reach which client: one table, by chunk type and major version of ``ai`` (DESIGN §14.7).

A client dies of a chunk type that it does not know. Upstream: the schemas and reducers of ai@5.0.277, ai@6.0.326 and
ai@7.0.173 (``src/ui-message-stream/ui-message-chunks.ts``, ``src/ui/process-ui-message-stream.ts``). Unknown *fields*
are harmless to all of them. The gate sees one chunk and no state, so that a frame is encoded once for all readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from strandline.core.chunks import DATA_PREFIX

Chunk = Mapping[str, Any]


class Resync(Enum):
    """What cannot be expressed on an open stream: the reader has to begin again."""

    RESYNC = "resync"


RESYNC: Final = Resync.RESYNC

Gated = Chunk | Resync | None
"""A chunk to send, RESYNC, or None for a chunk that this client is better off without."""

Rule = Callable[[Chunk], Gated]

DENIED = "The tool call was denied."
"""Shown by clients that know no denial."""


def gate(chunk: Chunk, major: int) -> Gated:
    """What a client of this major version gets for a chunk: the same object where it may have it as it is."""
    rule = exceptions(major).get(chunk["type"])
    return chunk if rule is None else rule(chunk)


def exceptions(major: int) -> Mapping[str, Rule]:
    """The chunk types that a client of this major version does not get as they are."""
    return _EXCEPTIONS[min(max(major, 5), 7)]


def _drop(chunk: Chunk) -> Gated:
    return None


def _resync(chunk: Chunk) -> Gated:
    return RESYNC


def _finish(chunk: Chunk) -> Gated:
    return {**chunk, "finishReason": "other"} if chunk.get("finishReason") == "interrupted" else chunk


def _asked(chunk: Chunk) -> Gated:
    # The answer to an automatic request exists from 7 on: a client of 6 would ask its user in vain.
    return None if chunk.get("isAutomatic") else chunk


def _denied(chunk: Chunk) -> Gated:
    return {**chunk, "type": "tool-output-error", "errorText": DENIED}


Row = tuple[Rule | None, Rule | None, Rule | None]
"""For ai@5, 6 and 7: what happens to a chunk, None where it passes as it is."""

_EVERY: Row = (None, None, None)
_ONLY_7: Row = (_drop, _drop, None)

TABLE: dict[str, Row] = {
    "start": _EVERY,
    "finish": (_finish, _finish, None),
    "abort": _EVERY,
    "error": _EVERY,
    "message-metadata": _EVERY,
    "start-step": _EVERY,
    "finish-step": _EVERY,
    "reset-step": (_resync, _resync, None),
    "text-start": _EVERY,
    "text-delta": _EVERY,
    "text-end": _EVERY,
    "reasoning-start": _EVERY,
    "reasoning-delta": _EVERY,
    "reasoning-end": _EVERY,
    "source-url": _EVERY,
    "source-document": _EVERY,
    "file": _EVERY,
    "reasoning-file": _ONLY_7,
    "custom": _ONLY_7,
    "steering-message": _ONLY_7,
    "tool-input-start": _EVERY,
    "tool-input-delta": _EVERY,
    "tool-input-available": _EVERY,
    "tool-input-error": _EVERY,
    "tool-approval-request": (_drop, _asked, None),
    "tool-approval-response": _ONLY_7,
    "tool-output-available": _EVERY,
    "tool-output-error": _EVERY,
    "tool-output-denied": (_denied, None, None),
    DATA_PREFIX: _EVERY,
}
"""What each major version gets: as it is, translated, nothing, or a resync. ``data-`` stands for every ``data-*``."""

_EXCEPTIONS: dict[int, dict[str, Rule]] = {
    major: {kind: rule for kind, row in TABLE.items() if (rule := row[major - 5]) is not None} for major in (5, 6, 7)
}
