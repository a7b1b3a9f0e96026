"""Small session states for the tests of the pure core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline.core.events import Event, MessageCreated, RunEnded, RunQueued, RunStarted
from strandline.core.project import project as change_by
from strandline.core.records import SessionRecord
from strandline.core.run import Status
from strandline.core.session import Change, SessionState

HELLO = ({"type": "text", "text": "hello"},)
OTHER = ({"type": "text", "text": "something else"},)


def empty() -> SessionState:
    return SessionState(SessionRecord("c", "abcd1234", "ann", 1, 1, 0))


def created(id: str, parent: str | None = None, version: str | None = None, parts: Any = HELLO) -> MessageCreated:
    return MessageCreated(10, "user:ann", version or f"v-{id}", id, parent, "user", parts)


def queued(run: str, parent: str | None, key: str | None = None) -> RunQueued:
    return RunQueued(11, "user:ann", run, f"v-{run}", f"a-{run}", parent, "reply", key=key)


def begun(run: str) -> RunStarted:
    return RunStarted(12, run, f"v-{run}", f"a-{run}")


def ended(run: str, status: Status = Status.COMPLETED, reason: str = "completed") -> RunEnded:
    return RunEnded(13, "agent:reply", run, f"v-{run}", f"a-{run}", status, reason)


def play(state: SessionState, *events: Event) -> SessionState:
    """The state after the events; every run that ends says 'so'."""
    project(state, *events, absorb=True)
    return state


def project(state: SessionState, *events: Event, absorb: bool = False) -> Change:
    contents: Mapping[str, Any] = {
        event.message: (({"type": "text", "text": "so"},), None) for event in events if isinstance(event, RunEnded)
    }
    change = change_by(state, events, contents)
    if absorb:
        state.absorb(change)
    return change


def answered(state: SessionState | None = None, *, active: bool = False, key: str | None = None) -> SessionState:
    """``u1`` and a run ``r1`` that answers it."""
    state = play(state or empty(), created("u1"), queued("r1", "v-u1", key), begun("r1"))
    return state if active else play(state, ended("r1"))
