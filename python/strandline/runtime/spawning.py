"""Starting an agent beside another one (PROTOCOL §17.6)."""

from __future__ import annotations

from strandline.core.events import Event, RunQueued, RunStarted
from strandline.core.records import RunRecord
from strandline.core.session import SessionState
from strandline.errors import RunOver, TooMany
from strandline.runtime.live import LiveRun, LiveSession

MOST_BESIDE = 16
"""Spawned runs that may be active in one session."""
DEEPEST = 4
"""How many times a spawned agent may be spawned by a spawned one."""


def spawn_events(
    session: LiveSession, live: LiveRun, agent: str, run_id: str, message: str, at: int
) -> tuple[Event, ...]:
    """What starts ``agent`` beside the run ``live``, with a message of its own. Raises RunOver and TooMany."""
    if live.over:
        raise RunOver(f"The run {live.id} has ended.")
    state = session.state
    parent = state.runs[live.id]
    if sum(run.active and run.spawned for run in map(state.runs.__getitem__, session.live)) >= MOST_BESIDE:
        raise TooMany(
            f"{MOST_BESIDE} spawned agents are at work in this session: wait for the result of one of them.",
            code="too-many-spawned",
        )
    if _depth(state, parent) >= DEEPEST:
        raise TooMany(
            f"Agents may be spawned {DEEPEST} deep. Let an agent further up do this.", code="spawned-too-deep"
        )
    by = f"agent:{parent.agent}"
    return (
        RunQueued(at, by, run_id, message, message, parent.message, agent, parent_run=parent.id, spawned=True),
        RunStarted(at, run_id, message, message),
    )


def _depth(state: SessionState, run: RunRecord) -> int:
    depth = 0
    while run.spawned and run.parent_run is not None:
        depth += not state.continues(run)
        run = state.runs[run.parent_run]
    return depth
