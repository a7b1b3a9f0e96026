"""Stops that came before the message they stop (DESIGN §7): remembered for a while, bounded, in memory only."""

from __future__ import annotations

from collections.abc import Iterable

_Name = tuple[str, str, str, str]


class StopMemory:
    """Keyed by user, session and what was named, so that a stranger's stop never meets somebody else's run."""

    def __init__(self, keep: float, limit: int) -> None:
        self._keep = keep
        self._limit = limit
        self._stops: dict[_Name, tuple[float, str]] = {}

    def remember(
        self, user: str, session: str, names: Iterable[tuple[str, str | None]], reason: str, now: float
    ) -> None:
        """Remember a stop under every name that is not None; the oldest is forgotten when there are too many."""
        for kind, name in names:
            if name is not None:
                self._stops[(user, session, kind, name)] = (now + self._keep, reason)
        while len(self._stops) > self._limit:
            del self._stops[next(iter(self._stops))]

    def take(self, user: str, session: str, names: Iterable[tuple[str, str | None]], now: float) -> str | None:
        """The reason of a stop that was remembered under one of the names; else None. All of them are then used up."""
        found: str | None = None
        for kind, name in names:
            if name is None:
                continue
            until, reason = self._stops.pop((user, session, kind, name), (0.0, ""))
            if until > now and found is None:
                found = reason
        return found

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        self._stops = {name: stop for name, stop in self._stops.items() if stop[0] > now}
