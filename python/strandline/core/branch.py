"""The branches of a session (DESIGN §5): what stands beside a message, and where one arrives by going there. Pure.

Messages come in the order in which they were created, which is the order of ``SessionState.messages`` and of the rows
of the store: a message always comes after its parent, and of two branches the one that was written to last comes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from strandline.core.records import MessageRecord

MOST_VERSIONS = 100
"""As many siblings are named, the newest ones. All of them are counted."""

Messages = Mapping[str, MessageRecord]
"""Every message of a session by version, in order of creation."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands among its siblings: ``index`` counts from 0, ``versions`` are the newest of them."""

    index: int
    count: int
    versions: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """As clients are shown it (PROTOCOL §16.1)."""
        return {"index": self.index, "count": self.count, "versions": list(self.versions)}


def siblings(messages: Messages, message: MessageRecord) -> list[str]:
    """The versions that are alternatives to ``message``, itself included, oldest first: of an edited message its
    edits, of a reply its regenerations. Deleted and spawned ones are none."""
    return [each.version for each in messages.values() if _is_shown(each) and _beside(each) == _beside(message)]


def branches(messages: Messages, path: Iterable[MessageRecord]) -> dict[str, Place]:
    """The places of those messages of ``path`` that have siblings, by message id."""
    shown = list(path)
    found: dict[tuple[str | None, str], list[str]] = {_beside(each): [] for each in shown}
    for each in messages.values():
        group = found.get(_beside(each))
        if group is not None and _is_shown(each):
            group.append(each.version)
    places: dict[str, Place] = {}
    for message in shown:
        group = found[_beside(message)]
        if len(group) > 1:
            place = Place(group.index(message.version), len(group), tuple(group[-MOST_VERSIONS:]))
            places[message.message_id] = place
    return places


def newest_leaf(messages: Messages, version: str) -> str | None:
    """Where the path ends for somebody who goes to ``version``: the newest of what was said after it, or the message
    itself. None when all of that was deleted."""
    inside, newest = {version}, None
    for each in messages.values():
        if each.version == version or (each.parent in inside and not each.spawned):
            inside.add(each.version)
            if not each.deleted:
                newest = each.version
    return newest


def leaf_without(messages: Messages, version: str) -> str | None:
    """Where the path ends once its last message ``version`` is deleted: on a branch beside it, else at what came
    before. None when nothing is left."""
    left = {**messages, version: replace(messages[version], deleted=True)}
    above: str | None = messages[version].parent
    while above is not None:
        found = newest_leaf(left, above)
        if found is not None:
            return found
        above = left[above].parent
    return next((each.version for each in reversed(list(left.values())) if _is_shown(each)), None)


def _beside(message: MessageRecord) -> tuple[str | None, str]:
    return message.parent, message.role


def _is_shown(message: MessageRecord) -> bool:
    return not message.deleted and not message.spawned
