"""How a run ends: one list of events for every way there is (PROTOCOL §9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strandline.core.events import Appended, Event, RunEnded
from strandline.core.run import Status
from strandline.core.session import Content
from strandline.core.unfold import closers
from strandline.runtime.live import LiveRun, LiveSession

_CLOSING = {
    Status.COMPLETED: "The reply ended before this tool call was finished.",
    Status.STOPPED: "The reply was stopped.",
    Status.FAILED: "The reply failed.",
    Status.LOST: "The server stopped before this was finished.",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """Why and how. ``reason`` is machine-readable, ``error`` may be shown to anybody.

    ``after_pending``: what the run has produced so far still counts (a natural end); else it is discarded (a stop).
    """

    status: Status
    reason: str
    error: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    after_pending: bool = False


def end_events(
    session: LiveSession, live: LiveRun, ending: Ending, by: str, at: int
) -> tuple[tuple[Event, ...], dict[str, Content]]:
    """The closers of everything open, then ``RunEnded``; and the content that the message has after them."""
    run = session.state.runs[live.id]
    events: list[Event] = []
    final = live.fold
    if ending.status is not Status.SUSPENDED:
        closing = closers(live.fold, _CLOSING[ending.status])
        if closing:
            final = live.fold.fork()
            for chunk in closing:
                final.push(chunk)
            events.append(Appended(at, live.id, live.message, tuple(closing)))
    events.append(
        RunEnded(
            at,
            by,
            live.id,
            live.message,
            run.message_id,
            ending.status,
            ending.reason,
            ending.error,
            ending.finish_reason,
            ending.usage,
        )
    )
    return tuple(events), {live.message: (tuple(final.parts()), final.metadata)}
