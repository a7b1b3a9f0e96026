"""What several adapters share: files that are kept elsewhere, counts that add up, who said what."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

Part = Mapping[str, Any]

SaveFile = Callable[[bytes, str], Awaitable[str]]
"""Keeps a file that a model made (its bytes, its media type) and returns the URL under which users find it."""


async def kept_elsewhere(chunk: Mapping[str, Any], save_file: SaveFile | None) -> Mapping[str, Any]:
    """The chunk; with a file in it that was saved, and its URL."""
    if save_file is None or chunk["type"] != "file":
        return chunk
    head, comma, data = chunk["url"].partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return chunk
    return {**chunk, "url": await save_file(b64decode(data), chunk["mediaType"])}


def total(before: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Any]:
    """What a run used so far, with these counts added to it; those in a group (``details``) one by one."""
    found = dict(before)
    for name, count in counts.items():
        known = before.get(name)
        if isinstance(count, Mapping):
            found[name] = total(known if isinstance(known, Mapping) else {}, count)
        else:
            found[name] = count + known if isinstance(known, int | float) else count
    return found


def spoken(message: Mapping[str, Any]) -> Iterator[tuple[str, list[Part]]]:
    """The role and the parts of a message. What the user said in the middle of a reply comes between its parts."""
    parts: list[Part] = []
    for part in message["parts"]:
        if part["type"] == "steering-message":
            yield message["role"], parts
            yield "user", part["parts"]
            parts = []
        else:
            parts.append(part)
    yield message["role"], parts
