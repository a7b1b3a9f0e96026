"""A message that is started over, and an agent that is called again because its process was lost (PROTOCOL §17)."""

from __future__ import annotations

from typing import Literal

from strandline.core.events import Appended, Chunk, Event, MessageReset, RunRecovered
from strandline.core.message import FoldState
from strandline.core.records import RunRecord
from strandline.core.unfold import again
from strandline.runtime.live_run import LiveRun

Recovery = Literal["restart", "continue"]
"""Whether an agent that is called again begins its message anew, or goes on from what it says."""


def no_recovery(agent: str) -> Recovery | None:
    """No agent is called again."""
    return None


def reset_events(
    live: LiveRun, message_id: str, by: str, chunks: tuple[Chunk, ...], at: int, sent: int | None = None
) -> tuple[Event, ...]:
    """A message that says ``chunks`` from now on, and nothing else. One commit: nobody sees it empty in between, and
    the number ``sent`` of the request that says so counts with it."""
    reset = MessageReset(at, by, live.id, live.message, message_id)
    said = chunks or sent is not None
    return (reset, Appended(at, live.id, live.message, chunks, sent)) if said else (reset,)


def recover_events(
    live: LiveRun, run: RunRecord, recovery: Recovery | None, settled: FoldState | None, at: int
) -> tuple[Event, ...]:
    """The next attempt of a run. ``settled``: what it said at its newest checkpoint, None where it passed none.

    The order tells what the reset is (``core/checkpoints.py``): one before ``RunRecovered`` starts over and forgets the
    checkpoints, one right after it goes back to the newest of them.
    """
    recovered = RunRecovered(at, "server", run.id, run.message, run.message_id, run.attempt + 1)
    if recovery == "restart":
        return (*reset_events(live, run.message_id, "server", live.first, at), recovered)
    if settled is None or settled == live.fold:
        return (recovered,)
    return (recovered, *reset_events(live, run.message_id, "server", tuple(again(settled)), at))
