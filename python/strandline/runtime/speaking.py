"""The decision to let an agent speak that was not asked: a remote agent starts a run itself (PROTOCOL §18.7). Taken
inside the writer."""

from __future__ import annotations

from collections.abc import Callable

from strandline.core.events import RunClaimed, RunQueued, RunStarted
from strandline.errors import Conflict, Unprocessable
from strandline.runtime.live import Decided, LiveSession


def speak(
    session: LiveSession, agent: str, holder: str, claim: str, answers: str | None, at: int, mint: Callable[[str], str]
) -> Decided:
    """Queue, start and claim a run after the newest message, or as another answer to the message ``answers``. Answers
    with the session and the run. Raises Unprocessable (``unknown-message``), Conflict (``run-active``, ``run-exists``).
    """
    state = session.state
    known = state.keyed(claim)
    if known is not None:
        if known.agent != agent:
            raise Conflict("This claim is that of another agent's run.", code="run-exists")
        run = known.id
        return Decided((), lambda: (session, run))
    if state.active():
        raise Conflict("A reply is being written in this session; speak when it has ended.", code="run-active")
    parent = state.record.leaf
    if answers is not None:
        found = state.find(answers)
        if found is None or found.role != "user":
            raise Unprocessable("`answers` must be the id of a user message of this session.", code="unknown-message")
        parent = found.version
    by, run, message = f"agent:{agent}", mint("run"), mint("msg")
    events = (
        RunQueued(at, by, run, message, message, parent, agent, key=claim),
        RunStarted(at, run, message, message),
        RunClaimed(at, by, run, 1, holder, claim),
    )
    return Decided(events, lambda: (session, run))
