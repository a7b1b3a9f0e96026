"""Starting an agent beside another one, and what it is asked, then and whenever it goes on (PROTOCOL §17.6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strandline.core.events import Appended, Event, RunQueued, RunStarted
from strandline.core.records import MessageRecord, RunRecord
from strandline.core.session import SessionState
from strandline.errors import RunOver, TooMany
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import Caller, LiveRun
from strandline.stores.port import Store

Shown = Callable[[LiveSession, RunRecord], Awaitable[list[MessageRecord]]]

MOST_BESIDE = 16
"""Spawned runs that may be active in one session."""
DEEPEST = 4
"""How many times a spawned agent may be spawned by a spawned one."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """The numbered request by which a remote agent spawns another one (PROTOCOL §18.13)."""

    run: str
    producer: int
    sequence: int

    @property
    def key(self) -> str:
        """What the spawned run is known by when the request comes again. No key of a client has a slash."""
        return f"{self.run}/{self.producer}/{self.sequence}"


def given(body: Mapping[str, Any], prompt: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """What a spawned agent is given, as ``RunQueued.body`` keeps it: until its run ends otherwise than suspended, or is
    deleted with its message or its parent's. ``prompt``: UIMessages, None for what its parent was asked."""
    return {"body": dict(body), **({} if prompt is None else {"prompt": list(prompt)})}


def body_of(run: RunRecord) -> Mapping[str, Any]:
    """The ``body`` that the run which has begun a spawned message was given."""
    return dict((run.body or {}).get("body", {}))


def caller_of(state: SessionState, run: RunRecord) -> Caller:
    """Who has caused a run, and what came along, by the log."""
    body = body_of(state.beginner(run)) if run.spawned else run.body or {}
    return Caller(state.asker(run).removeprefix("user:"), body=body)


def prompt_of(run: RunRecord) -> list[MessageRecord] | None:
    """Its prompt as the messages that it is asked; None for those of its parent."""
    prompt = (run.body or {}).get("prompt")
    return None if prompt is None else asked(run.session, prompt)


def asked(session: str, prompt: Sequence[Mapping[str, Any]]) -> list[MessageRecord]:
    """UIMessages as the messages that an agent is asked."""
    return [
        MessageRecord(session, each["id"], each["id"], None, each["role"], each["role"], 0, parts=tuple(each["parts"]))
        for each in prompt
    ]


async def context(session: LiveSession, store: Store, run: RunRecord, shown: Shown) -> list[MessageRecord]:
    """What a spawned run is shown: its prompt, else what its parent is ``shown``, as those messages are now; and, to a
    continuation, the message that it goes on with."""
    state = session.state
    first = state.beginner(run)
    found = prompt_of(first)
    if found is None:
        found = await shown(session, state.runs[str(first.parent_run)])
    if run is not first:
        found += [each for each in await store.messages(session.id, [run.message]) if not each.deleted]
    return found


def spawn_events(
    session: LiveSession,
    live: LiveRun,
    agent: str,
    run_id: str,
    message: str,
    at: int,
    kept: Mapping[str, Any] | None,
    key: str | None,
) -> tuple[Event, ...]:
    """What starts ``agent`` beside the run ``live``, with a message of its own; ``kept``: what it is given, where it
    may be called again. Raises RunOver and TooMany."""
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
    by, place = f"agent:{parent.agent}", (run_id, message, message)
    return (
        RunQueued(at, by, *place, parent.message, agent, parent_run=parent.id, key=key, spawned=True, body=kept),
        RunStarted(at, *place),
    )


def counted(live: LiveRun, numbered: Numbered, at: int) -> Event:
    """That the request was carried out, or refused: in the same commit."""
    return Appended(at, live.id, live.message, (), numbered.sequence)


def _depth(state: SessionState, run: RunRecord) -> int:
    depth = 0
    while run.spawned and run.parent_run is not None:
        depth += not state.continues(run)
        run = state.runs[run.parent_run]
    return depth
