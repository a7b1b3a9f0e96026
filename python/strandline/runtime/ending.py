"""How a run ends: one list of events for every way there is (PROTOCOL §9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from strandline.core.decisions import SUPERSEDED, Answer, Awaited, asked, made, requested
from strandline.core.events import Appended, Chunk, Event, RunEnded, RunQueued, StopRequested
from strandline.core.message import FoldState
from strandline.core.partial_json import ABSENT
from strandline.core.parts import is_step
from strandline.core.run import Status
from strandline.core.session import Content
from strandline.core.unfold import closers
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import LiveRun
from strandline.settings import Settings

TOO_MANY_DECISIONS = "too-many-decisions"
_FAILED = "The reply failed. Please try again."
_CLOSING = {
    Status.COMPLETED: "The reply ended before this tool call was finished.",
    Status.SUSPENDED: "The reply paused before this tool call was finished.",
    Status.STOPPED: "The reply was stopped.",
    Status.FAILED: "The reply failed.",
    Status.LOST: "The server stopped before this was finished.",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """Why and how. ``reason`` is machine-readable, ``error`` may be shown to anybody.

    ``after_pending``: what the run has produced so far still counts (a natural end); else it is discarded (a stop).
    ``awaits``: the tool calls that a suspended run leaves to be decided.
    """

    status: Status
    reason: str
    error: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    after_pending: bool = False
    awaits: tuple[Awaited, ...] = ()


def affordable(session: LiveSession, live: LiveRun, ending: Ending, settings: Settings) -> Ending:
    """The end of a run that leaves no more to be decided than its session may wait for: everybody who comes is shown
    all of that. One that leaves more has failed; what it said stays, and its calls are closed."""
    asked = [tool for each in ending.awaits if (tool := live.fold.tool(each.tool_call)) is not None]
    if not asked:
        return ending
    waiting = session.state.waiting()
    if len(waiting) + len(asked) <= settings.max_decisions:
        shown = [[each.tool_call, each.tool, each.input] for each in waiting]
        shown += [[each.id, each.name, None if (known := each.input()) is ABSENT else known] for each in asked]
        if len(shown) == 1 or len(orjson.dumps(shown)) <= settings.decisions_limit:
            return ending
    return replace(
        ending, status=Status.FAILED, reason=TOO_MANY_DECISIONS, error=_FAILED, finish_reason=None, awaits=()
    )


def ends_with(session: LiveSession, run_id: str, status: Status) -> list[LiveRun]:
    """The active runs that end with this one, which has spawned them: only one that came to its own end leaves
    something behind that goes on."""
    if status in (Status.COMPLETED, Status.SUSPENDED):
        return []
    return [session.live[run.id] for run in session.state.descendants(run_id)]


def end_events(
    session: LiveSession, live: LiveRun, ending: Ending, by: str, at: int, overtaken_by: str | None = None
) -> tuple[tuple[Event, ...], dict[str, Content]]:
    """The closers of everything open, what is left to be decided, then ``RunEnded``; and the content that the message
    has after them. ``overtaken_by``: who has said something meanwhile that takes the place of what is to be decided."""
    run = session.state.runs[live.id]
    place = live.id, live.message, run.message_id
    events: list[Event] = []
    final = live.fold
    closing = closing_chunks(live.fold, live.base, ending)
    if closing:
        final = live.fold.fork()
        for chunk in closing:
            final.push(chunk)
        events.append(Appended(at, live.id, live.message, closing))
    wanted = requested(ending.awaits, final, session.state.decisions, *place, at)
    events += wanted
    events.append(
        RunEnded(at, by, *place, ending.status, ending.reason, ending.error, ending.finish_reason, ending.usage)
    )
    if wanted and overtaken_by is not None:
        final = final.fork()
        answer = Answer(SUPERSEDED)
        events += [made(asked(session.id, each), answer, final, overtaken_by, at) for each in wanted]
    return tuple(events), {live.message: (tuple(final.parts()), final.metadata)}


def born_over(queued: RunQueued, base: FoldState, ending: Ending, by: str) -> tuple[list[Event], dict[str, Content]]:
    """The end of a continuation that was stopped before it began; and the content of its message after that."""
    place = queued.run, queued.message, queued.message_id
    final = base.fork()
    closing = closing_chunks(final, base, ending)
    for chunk in closing:
        final.push(chunk)
    stop = StopRequested(queued.at, by, queued.run, ending.reason)
    ended = RunEnded(queued.at, by, *place, ending.status, ending.reason)
    said = Appended(queued.at, queued.run, queued.message, closing)
    return [stop, said, ended], {queued.message: (tuple(final.parts()), final.metadata)}


def closing_chunks(fold: FoldState, base: FoldState | None, ending: Ending) -> tuple[Chunk, ...]:
    """The closers of everything open but what is awaited. A continuation (``base``: what it went on from) leaves a step
    of its own: to a chat of the AI SDK that sends answers by itself, a message whose last step has nothing but answered
    calls is one that it has to post, however often it has."""
    spared = {each.tool_call for each in ending.awaits}
    chunks = closers(fold, _CLOSING[ending.status], spared)
    if base is not None and _steps(fold) == _steps(base):
        chunks += [{"type": "start-step"}, {"type": "finish-step"}]
    return tuple(chunks)


def _steps(fold: FoldState) -> int:
    return sum(map(is_step, fold.entries))
