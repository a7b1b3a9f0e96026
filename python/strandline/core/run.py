"""The run state machine: everything that decides which status may follow which lives here, as one table.

This module does not know about tasks, clocks or stores. A natural end, a stop, a deadline and a lost process
all ask the same question, ``may(before, after)``; whoever is first gets the yes, the others get the recorded end.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What a run is doing, or how it ended."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"


_ENDS = frozenset({Status.COMPLETED, Status.SUSPENDED, Status.STOPPED, Status.FAILED, Status.LOST})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.STOPPED, Status.LOST}),
    Status.RUNNING: _ENDS,
    Status.COMPLETED: frozenset(),
    Status.SUSPENDED: frozenset(),
    Status.STOPPED: frozenset(),
    Status.FAILED: frozenset(),
    Status.LOST: frozenset(),
}

ACTIVE = frozenset({Status.QUEUED, Status.RUNNING})


def may(before: Status, after: Status) -> bool:
    """True when a run in status ``before`` may move to ``after``."""
    return after in TRANSITIONS[before]
