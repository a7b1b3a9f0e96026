"""UIMessages as the ``[{"role", "content"}]`` list that OpenAI-style clients take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from strandline.core.records import MessageRecord


def prompt(messages: Iterable[MessageRecord]) -> list[dict[str, Any]]:
    """Text and images of each message; reasoning, tools and data are left out, and so is a message without any."""
    found = []
    for message in messages:
        content = _content(message.parts or ())
        if content:
            found.append({"role": message.role, "content": content})
    return found


def _content(parts: Iterable[Mapping[str, Any]]) -> str | list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for part in parts:
        if part.get("type") == "text" and part.get("text"):
            items.append({"type": "text", "text": part["text"]})
        elif part.get("type") == "file" and str(part.get("mediaType", "")).startswith("image/"):
            items.append({"type": "image_url", "image_url": {"url": part.get("url", "")}})
    if all(item["type"] == "text" for item in items):
        return "\n\n".join(item["text"] for item in items)
    return items
