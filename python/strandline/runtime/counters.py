"""What an operator counts: totals since this ``Strandline`` was made, a few distributions, and how things stand now.

Plain integers, added to on the event loop: a handful of additions per commit, nothing per token. A reading is a frozen
copy, so it may be taken from any thread. Exporting it is the application's business (``docs/operations.md``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
BYTES = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)

GAUGES = frozenset({"active_runs", "sessions_in_memory", "readers", "pending_bytes"})
"""The fields of ``Counters`` that go down as well; every other one only ever grows."""

MAX_CODES = 100
"""Codes that are counted by their own name; an application may invent more. The rest is counted as ``other``."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """A distribution. ``counts[i]``: how many were at most ``bounds[i]`` and more than the bound before; the last of
    ``counts`` has no bound. ``sum``: all of them added up."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Counters:
    """One reading. ``docs/operations.md`` says what each field means; the names are stable. Times are in seconds."""

    commits: int
    commit_failures: int
    commit_retries: int
    events: int
    chunks: int
    bytes: int
    submits: int
    stops: int
    runs_started: int
    runs_ended: Mapping[str, int]
    runs_recovered: int
    runs_called_again: int
    resumes: Mapping[str, int]
    readers_attached: int
    readers_dropped: int
    readers_replaced: int
    requests_refused: Mapping[str, int]
    sessions_deleted: int
    sessions_evicted: int
    segments_expired: int
    commit_seconds: Histogram
    batch_events: Histogram
    batch_bytes: Histogram
    added_lag_seconds: Histogram
    stop_seconds: Histogram
    active_runs: int
    sessions_in_memory: int
    readers: int
    pending_bytes: int


class Distribution:
    """A histogram that is being added to."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0

    def add(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def reading(self) -> Histogram:
        """A frozen copy."""
        return Histogram(self._bounds, tuple(self._counts), self._sum)


class Tally:
    """The totals that the runtime adds to. Only on the event loop; ``reading`` from anywhere."""

    def __init__(self) -> None:
        self.commit_failures = 0
        self.commit_retries = 0
        self.submits = 0
        self.stops = 0
        self.runs_started = 0
        self.runs_ended = {"completed": 0, "suspended": 0, "stopped": 0, "failed": 0, "lost": 0}
        self.runs_recovered = 0
        self.runs_called_again = 0
        self.resumes = {"tail": 0, "whole": 0, "none": 0, "resync": 0}
        self.readers_attached = 0
        self.readers_dropped = 0
        self.readers_replaced = 0
        self.sessions_deleted = 0
        self.sessions_evicted = 0
        self.segments_expired = 0
        self.stop_seconds = Distribution(SECONDS)
        self._commits = 0
        self._events = 0
        self._chunks = 0
        self._bytes = 0
        self._refused: dict[str, int] = {}
        self._commit_seconds = Distribution(SECONDS)
        self._batch_events = Distribution(EVENTS)
        self._batch_bytes = Distribution(BYTES)
        self._added_lag_seconds = Distribution(SECONDS)

    def committed(self, seconds: float) -> None:
        """The store has taken a batch, which took it so long."""
        self._commits += 1
        self._commit_seconds.add(seconds)

    def published(self, events: int, chunks: int, size: int, lag: float) -> None:
        """A batch was published, ``lag`` seconds after the first of it began to wait. One of segments alone is none."""
        if not events:
            return
        self._events += events
        self._chunks += chunks
        self._bytes += size
        self._batch_events.add(events)
        self._batch_bytes.add(size)
        self._added_lag_seconds.add(lag)

    def refused(self, code: str) -> None:
        """A request was answered with a problem document. A cursor that is refused is an answer to a resume, too."""
        if code == "resync":
            self.resumes["resync"] += 1
        if code not in self._refused and len(self._refused) >= MAX_CODES:
            code = "other"
        self._refused[code] = self._refused.get(code, 0) + 1

    def reading(
        self, *, active_runs: int = 0, sessions_in_memory: int = 0, readers: int = 0, pending_bytes: int = 0
    ) -> Counters:
        """A frozen copy, with how things stand now."""
        return Counters(
            commits=self._commits,
            commit_failures=self.commit_failures,
            commit_retries=self.commit_retries,
            events=self._events,
            chunks=self._chunks,
            bytes=self._bytes,
            submits=self.submits,
            stops=self.stops,
            runs_started=self.runs_started,
            runs_ended=self.runs_ended.copy(),
            runs_recovered=self.runs_recovered,
            runs_called_again=self.runs_called_again,
            resumes=self.resumes.copy(),
            readers_attached=self.readers_attached,
            readers_dropped=self.readers_dropped,
            readers_replaced=self.readers_replaced,
            requests_refused=self._refused.copy(),
            sessions_deleted=self.sessions_deleted,
            sessions_evicted=self.sessions_evicted,
            segments_expired=self.segments_expired,
            commit_seconds=self._commit_seconds.reading(),
            batch_events=self._batch_events.reading(),
            batch_bytes=self._batch_bytes.reading(),
            added_lag_seconds=self._added_lag_seconds.reading(),
            stop_seconds=self.stop_seconds.reading(),
            active_runs=active_runs,
            sessions_in_memory=sessions_in_memory,
            readers=readers,
            pending_bytes=pending_bytes,
        )
