"""The chunk that says that an agent has taken what it was told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from strandline.core.chunks import STEERING
from strandline.core.events import Chunk


def acknowledgement(note: str, parts: Iterable[Mapping[str, Any]]) -> Chunk:
    """For the note with this id and these parts."""
    return {"type": STEERING, "id": note, "parts": [known for part in parts if (known := _shown(part))]}


def _shown(part: Mapping[str, Any]) -> Chunk | None:
    """A part as the chunk may hold it, which knows texts and files only."""
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] != "file":
        return None
    file = {"type": "file", "mediaType": part["mediaType"], "url": part["url"]}
    return {**file, "filename": part["filename"]} if isinstance(part.get("filename"), str) else file
