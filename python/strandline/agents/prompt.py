"""UIMessages as the ``[{"role", "content"}]`` list that OpenAI-style clients take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from strandline.core.chunks import STEERING
from strandline.core.records import MessageRecord


def prompt(messages: Iterable[MessageRecord]) -> list[dict[str, Any]]:
    """Text and images of each message; reasoning, tools and data are left out, and so is a message without any. What
    the agent was told in the middle of a reply is a user message there."""
    found = []
    for message in messages:
        for role, parts in _turns(message.role, message.parts or ()):
            content = _content(parts)
            if content:
                found.append({"role": role, "content": content})
    return found


def _turns(role: str, parts: Iterable[Mapping[str, Any]]) -> list[tuple[str, Iterable[Mapping[str, Any]]]]:
    said: list[Mapping[str, Any]] = []
    turns: list[tuple[str, Iterable[Mapping[str, Any]]]] = [(role, said)]
    for part in parts:
        if part.get("type") == STEERING:
            said = []
            turns += [("user", part["parts"]), (role, said)]
        else:
            said.append(part)
    return turns


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
