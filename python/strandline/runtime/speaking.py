"""The decision to let an agent speak that was not asked (PROTOCOL §18.7): a remote agent starts a run itself, or the
application has one of its agents speak. Taken inside the writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from strandline.core.events import Event, RunClaimed, RunQueued, RunStarted
from strandline.core.intake import Start
from strandline.core.policy import Admission, Policy, admit
from strandline.core.session import Content, SessionState
from strandline.errors import Conflict, Unprocessable
from strandline.runtime.contents import Contents
from strandline.runtime.live import Decided, LiveSession
from strandline.runtime.live_run import Caller
from strandline.runtime.superseding import superseded


@dataclass(frozen=True, slots=True)
class Unasked:
    """What is to be said, by whom: after the newest message of the session, or as another answer to the user message
    ``answers``. The same ``key`` again is the same run. ``holder``: the worker that has it from the beginning, where
    that is at once; ``key`` is its claim."""

    agent: str
    key: str | None = None
    holder: str | None = None
    answers: str | None = None
    submit: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by(self) -> str:
        """How events name who has caused the run."""
        return f"agent:{self.agent}"

    @property
    def caller(self) -> Caller:
        """The same as the agent is told it, also after a restart."""
        return Caller(self.by, body=self.body)


def known(state: SessionState, wanted: Unasked) -> str | None:
    """The run that was started with this key. Raises Conflict (``run-exists``) where it is another agent's."""
    run = state.keyed(wanted.key) if wanted.key is not None else None
    if run is not None and run.agent != wanted.agent:
        raise Conflict("This claim is that of another agent's run.", code="run-exists")
    return None if run is None else run.id


def room(state: SessionState, wanted: Unasked, policy: Policy) -> tuple[str | None, Admission]:
    """The version that the run comes after, and whether it waits for its turn. An agent never ends what others are
    asked for. Raises Unprocessable (``unknown-message``) and Conflict (``run-active``)."""
    parent = state.record.leaf
    if wanted.answers is not None:
        found = state.find(wanted.answers)
        if found is None or found.role != "user":
            raise Unprocessable("`answers` must be the id of a user message of this session.", code="unknown-message")
        parent = found.version
    admitted = admit(policy, Start(parent), state)
    if not isinstance(admitted, Admission) or admitted.stops:
        raise Conflict("A reply is being written in this session; speak when it has ended.", code="run-active")
    return parent, admitted


def speak(
    session: LiveSession,
    stored: Contents,
    wanted: Unasked,
    parent: str | None,
    body: Mapping[str, Any] | None,
    at: int,
    mint: Callable[[str], str],
    *,
    waits: bool,
) -> Decided:
    """Queue a run, and unless it ``waits`` start it (and claim it), in the place of what is pending. ``body``: what of
    it is to be in the log. Answers with the session and the run. Raises NeedContents."""
    by, run, message = wanted.by, mint("run"), mint("msg")
    events: list[Event] = [RunQueued(at, by, run, message, message, parent, wanted.agent, key=wanted.key, body=body)]
    decided: dict[str, Content] = {}
    if not waits:
        made, decided = superseded(session.state, stored, by, at)
        events = [*made, *events, RunStarted(at, run, message, message)]
        if wanted.holder is not None and wanted.key is not None:
            events.append(RunClaimed(at, by, run, 1, wanted.holder, wanted.key))
    return Decided(tuple(events), lambda: (session, run), decided, wanted.caller)
