"""Stops that came before the message they stop (DESIGN §7): remembered for a while, bounded, in memory only."""

from __future__ import annotations

from collections.abc import Iterable

_Name = tuple[str, str, str, str]


def stop_names(key: str | None, message_id: str | None) -> list[tuple[str, str | None]]:
    """The names of a stop. With a key it means that request, and the message only for a request that has no key: a
    later attempt for the same message has a key of its own, and is meant to run."""
    return [("key", key), ("message" if key is None else "message without key", message_id)]


def meant_by(key: str | None, message_id: str | None) -> list[tuple[str, str | None]]:
    """The names under which a stop for this request may have been remembered."""
    if key is not None:
        return [("key", key), ("message", message_id)]
    return [("message", message_id), ("message without key", message_id)]


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

    def find(self, user: str, session: str, names: Iterable[tuple[str, str | None]], now: float) -> str | None:
        """The reason of a stop that was remembered under one of the names; else None."""
        for kind, name in names:
            until, reason = self._stops.get((user, session, kind, name or ""), (0.0, ""))
            if until > now:
                return reason
        return None

    def use_up(self, user: str, session: str, names: Iterable[tuple[str, str | None]]) -> None:
        """The stop has met what it was for."""
        for kind, name in names:
            self._stops.pop((user, session, kind, name or ""), None)

    def forget(self, session: str) -> None:
        """The session was deleted: what comes under its id from now on is something else."""
        self._stops = {name: stop for name, stop in self._stops.items() if name[1] != session}

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        self._stops = {name: stop for name, stop in self._stops.items() if stop[0] > now}
