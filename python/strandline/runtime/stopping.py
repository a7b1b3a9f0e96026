"""What a stop names, and what it does (PROTOCOL §6.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from strandline.core.events import Event, StopRequested
from strandline.core.offset import Cursor
from strandline.core.records import RunRecord
from strandline.core.run import Status
from strandline.core.session import Content, SessionState
from strandline.runtime.ending import Ending, end_events, ends_with
from strandline.runtime.live import Decided, LiveSession
from strandline.runtime.live_run import LiveRun
from strandline.runtime.steering import left_over

PARENT_ENDED = "parent-ended"
"""The reason of spawned runs that were stopped because the run that had spawned them ended."""

DELETED = "deleted"
"""The reason of runs that were stopped because their session was deleted."""

IDLE = {"run": None, "status": "idle", "stopped": False}
REMEMBERED = {"run": None, "status": "remembered", "stopped": False}


def named_run(state: SessionState, run: str | None, message_id: str | None, key: str | None) -> RunRecord | None:
    """The run that a stop names, or None: by its id, by its request's key, by the message that it writes or answers."""
    if run is not None:
        return state.runs.get(run)
    keyed = state.keyed(key) if key is not None else None
    if keyed is not None or message_id is None:
        return keyed
    found = state.find(message_id) or state.beside(message_id)
    if found is None:
        return None
    if found.role == "user":
        return next(reversed(state.answers(found.version)), None)
    return state.runs[found.run] if found.run is not None else None


def stops(
    session: LiveSession, runs: Iterable[RunRecord], by: str, reason: str, at: int, mint: Callable[[str], str]
) -> tuple[list[Event], dict[str, Content], str | None]:
    """The stops of active runs and of those that they have spawned, and what their agents were told and never took; the
    content of their messages; and the version that the active path ends at afterwards."""
    whys = {run.id: (by, reason) for run in runs}
    for run_id in list(whys):
        for spawned in session.state.descendants(run_id):
            whys.setdefault(spawned.id, ("server", PARENT_ENDED))
    ended = [session.live[run_id] for run_id in whys]
    events: list[Event] = []
    contents: dict[str, Content] = {}
    for live in ended:
        more, content = stop_events(session, live, *whys[live.id], at)
        events += more
        contents |= content
    left = left_over(session, ended, at, mint)
    return [*events, *left.events], contents, left.leaf


def stop_events(
    session: LiveSession, live: LiveRun, by: str, reason: str, at: int
) -> tuple[list[Event], dict[str, Content]]:
    """The stop of an active run, its closers and its end; and the content that its message has after them."""
    ended, contents = end_events(session, live, Ending(Status.STOPPED, reason), by, at)
    return [StopRequested(at, by, live.id, reason), *ended], contents


def with_spawned(
    session: LiveSession, run_id: str, status: Status, ends: tuple[Sequence[Event], Mapping[str, Content]], at: int
) -> tuple[tuple[Event, ...], dict[str, Content]]:
    """The end of a run, and in the same commit that of the runs that it has spawned and that end with it."""
    events, contents = [*ends[0]], {**ends[1]}
    for live in ends_with(session, run_id, status):
        more, content = stop_events(session, live, "server", PARENT_ENDED, at)
        events += more
        contents |= content
    return tuple(events), contents


def stop_run(
    session: LiveSession, run: RunRecord, by: str, reason: str, at: int, mint: Callable[[str], str]
) -> Decided:
    """End a run, or answer with the end that is recorded."""
    state = session.state
    if not run.active:
        return Decided((), lambda: end_of(state, run.id, stopped=False))
    events, contents, _ = stops(session, (run,), by, reason, at, mint)
    return Decided(tuple(events), lambda: end_of(state, run.id, stopped=True), contents)


def stop_all(
    session: LiveSession, agent: str | None, by: str, reason: str, at: int, mint: Callable[[str], str]
) -> Decided:
    """End every active run, or every one of ``agent``: those that are queued and those that were spawned included."""
    state = session.state
    runs = [run for run in state.runs.values() if run.active and agent in (None, run.agent)]
    events, contents, _ = stops(session, runs, by, reason, at, mint)
    return Decided(tuple(events), lambda: {"runs": [end_of(state, run.id, stopped=True) for run in runs]}, contents)


def unnamed_run(state: SessionState) -> RunRecord | None:
    """The run that a stop without name means: the newest that is running, else the next one that would be."""
    return state.running() or state.current() or next(reversed(state.active()), None)


def end_of(state: SessionState, run_id: str, *, stopped: bool) -> dict[str, Any]:
    """The recorded end of a run, as the answer to a stop."""
    run = state.runs[run_id]
    return {
        "run": run.id,
        "status": run.status.value,
        "reason": run.reason,
        "cursor": str(Cursor(state.record.epoch, run.last_seq or run.first_seq, 1)),
        "stopped": stopped,
    }
