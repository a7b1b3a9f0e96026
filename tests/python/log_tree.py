"""The branches of a session as its log tells them to somebody who knows nothing of how anybody keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class LogTree:
    """The log, read naively: messages in the order in which they came, those that were deleted, and the leaf.

    ``erased``: parent and role, by version, of messages of which the log does not say any more that they were created.
    They are known as soon as something answers them.
    """

    def __init__(self, erased: Mapping[str, tuple[str | None, str]] | None = None) -> None:
        self.leaf: str | None = None
        self._erased = erased or {}
        self._places: dict[str, tuple[str | None, str]] = {}
        self._spawned: set[str] = set()
        self._gone: set[str] = set()

    def take(self, event: Mapping[str, Any]) -> None:
        """The next event, in its plain form."""
        match event["type"]:
            case "message-created":
                self._places[event["message"]] = (event.get("parent"), event["role"])
                self.leaf = event["message"]
            case "run-queued":
                version, parent = event["message"], event.get("parent")
                if parent is not None and parent not in self._places:
                    self._places[parent] = self._erased[parent]
                if version in self._places:
                    return  # it goes on with what another one has begun
                self._places[version] = (parent, "assistant")
                if event.get("spawned"):
                    self._spawned.add(version)
                else:
                    self.leaf = version
            case "branch-selected":
                self.leaf = event["leaf"]
            case "message-deleted":
                self._gone.add(event["message"])
                if self.leaf == event["message"]:
                    self.leaf = self._after_deleting(event["message"])

    def path(self) -> list[str]:
        """The versions of the active path, oldest first."""
        if self.leaf is None:
            return []
        return [each for each in (*reversed(list(self._above(self.leaf))), self.leaf) if each not in self._gone]

    def beside(self, version: str) -> list[str]:
        """A version and its siblings, oldest first."""
        return [each for each in self._shown() if self._places[each] == self._places[version]]

    def newest_under(self, version: str) -> str | None:
        """What was said last of a message and all that came after it; None when nothing is left."""
        return next((each for each in reversed(self._shown()) if version in (each, *self._above(each))), None)

    def _above(self, version: str) -> Iterator[str]:
        """Its parent, and so on."""
        parent = self._places[version][0]
        while parent is not None:
            yield parent
            parent = self._places[parent][0]

    def _shown(self) -> list[str]:
        return [each for each in self._places if each not in self._gone and each not in self._spawned]

    def _after_deleting(self, version: str) -> str | None:
        for above in self._above(version):
            if (found := self.newest_under(above)) is not None:
                return found
        return next(reversed(self._shown()), None)
