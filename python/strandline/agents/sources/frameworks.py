"""What the adapters for agent frameworks share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Part = Mapping[str, Any]


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
