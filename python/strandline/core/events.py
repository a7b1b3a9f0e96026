"""The closed set of events that a session's log is made of.

Every change of a session is one of these, in order, each with a sequence number that the committing store gave it.
They are plain values: no behaviour, no clock, no bytes. ``at`` is wall-clock milliseconds since 1970 (UTC), ``by``
names who caused the event (``user:<id>``, ``agent:<name>`` or ``server``), ``message`` is a message *version*
(server-minted, unique in the store) and ``message_id`` the id that the wire knows it by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strandline.core.run import Status

Chunk = Mapping[str, Any]
"""One AI SDK ``UIMessageChunk`` (ai@7.0.173 vocabulary), a JSON object."""


@dataclass(frozen=True, slots=True)
class MessageCreated:
    """A whole message entered the session: a user's, or one that was imported."""

    at: int
    by: str
    message: str
    message_id: str
    parent: str | None
    role: str
    parts: tuple[Mapping[str, Any], ...]
    metadata: Any = None


@dataclass(frozen=True, slots=True)
class RunQueued:
    """A run was accepted. From this event on the run is active and its assistant message exists.

    A continuation names the suspended run as ``parent_run`` and goes on writing that one's ``message``. A ``spawned``
    run (True or None) is another agent's beside ``parent_run``, with a message of its own that is on no path. ``body``
    is what the client sent along, kept only where the agent may be called by a later process; of a spawned run what it
    was given (``runtime/spawning.py``).
    """

    at: int
    by: str
    run: str
    message: str
    message_id: str
    parent: str | None
    agent: str
    parent_run: str | None = None
    key: str | None = None
    spawned: bool | None = None
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The agent is being called. On the AI SDK wire this is the ``start`` chunk."""

    at: int
    run: str
    message: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Appended:
    """The agent added chunks to its message. Frame *i* of this event is chunk *i*.

    ``sent``: the number of the newest request of a remote agent that is contained in this."""

    at: int
    run: str
    message: str
    chunks: tuple[Chunk, ...]
    sent: int | None = None


@dataclass(frozen=True, slots=True)
class MessageReset:
    """The run started its message over: what it had written so far no longer counts (R15)."""

    at: int
    by: str
    run: str
    message: str
    message_id: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody asked for a run to end. Ordered before the ``RunEnded`` that it causes, in the same commit."""

    at: int
    by: str
    run: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is over. ``reason`` is machine-readable, ``error`` is a text that any reader may see."""

    at: int
    by: str
    run: str
    message: str
    message_id: str
    status: Status
    reason: str
    error: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """The session was created by itself, renamed, archived, or told what to do with messages that come while a reply is
    being written (PROTOCOL §8.2, §8.3): the new values of all fields."""

    at: int
    by: str
    title: str | None
    archived: bool
    submit: str | None = None


@dataclass(frozen=True, slots=True)
class Steered:
    """Somebody told a running agent something. ``message_id`` is the id of the user message that it becomes if the
    agent does not take it; taking it is a ``steering-message`` chunk with that id. ``key``: of the request."""

    at: int
    by: str
    run: str
    message_id: str
    parts: tuple[Mapping[str, Any], ...]
    metadata: Any = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class DecisionRequested:
    """A run waits for a decision; ordered before the ``RunEnded: suspended`` of its run, in the same commit.

    ``kind``: ``approval`` (of a tool call) or ``tool`` (a tool that a client runs). ``input`` is that of the call, and
    the only one that counts. ``expires_at`` in ms. ``roles``: who may decide needs one of them; None: whoever the
    policy lets.
    """

    at: int
    run: str
    message: str
    message_id: str
    decision: str
    kind: str
    tool_call: str
    tool: str
    input: Any = None
    expires_at: int | None = None
    roles: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class DecisionMade:
    """A decision was taken, once. ``outcome``: ``approved``, ``denied``, ``output``, ``error``, ``expired`` or
    ``superseded``. ``chunks`` are what it adds to the message, after its run has ended: this event is of the session,
    not of a run (``asked_by``)."""

    at: int
    by: str
    decision: str
    asked_by: str
    message: str
    message_id: str
    outcome: str
    chunks: tuple[Chunk, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class BranchSelected:
    """Somebody went to another branch: the active path ends at the version ``leaf`` from now on."""

    at: int
    by: str
    leaf: str
    message_id: str


@dataclass(frozen=True, slots=True)
class MessageReplaced:
    """A finished message says something else from now on."""

    at: int
    by: str
    message: str
    message_id: str
    parts: tuple[Mapping[str, Any], ...]
    metadata: Any = None


@dataclass(frozen=True, slots=True)
class MessageDeleted:
    """A message is gone: its place in the tree stays, nothing of what it said does."""

    at: int
    by: str
    message: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Erased:
    """What is left in the log of an event whose message was deleted: its number."""

    at: int
    run: str | None = None


@dataclass(frozen=True, slots=True)
class Annotated:
    """Somebody said something about a message, or about a range of it. The same ``annotation`` again replaces it.

    ``summary``: what there is of this ``kind`` on this message after this event (``core.annotation.summary``)."""

    at: int
    by: str
    annotation: str
    message: str
    message_id: str
    kind: str
    summary: Mapping[str, Any]
    data: Any = None
    range: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AnnotationRemoved:
    """An annotation was taken back. ``summary``: what is left of its kind on this message."""

    at: int
    by: str
    annotation: str
    message: str
    message_id: str
    kind: str
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """What the run has said so far is settled: a later attempt goes on from here."""

    at: int
    run: str
    message: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecovered:
    """A run whose process was lost is being carried on by another one. ``attempt`` counts from 2."""

    at: int
    by: str
    run: str
    message: str
    message_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunClaimed:
    """A remote agent has taken the run. ``producer`` counts the takings: an older one may not write any more.
    ``holder`` is what the worker calls itself, ``claim`` the id of its request: the same again is the same taking."""

    at: int
    by: str
    run: str
    producer: int
    holder: str | None = None
    claim: str | None = None


Event = (
    MessageCreated
    | RunQueued
    | RunStarted
    | Appended
    | MessageReset
    | StopRequested
    | RunEnded
    | SessionChanged
    | Steered
    | DecisionRequested
    | DecisionMade
    | BranchSelected
    | MessageReplaced
    | MessageDeleted
    | Erased
    | Annotated
    | AnnotationRemoved
    | Checkpointed
    | RunRecovered
    | RunClaimed
)


def run_of(event: Event) -> str | None:
    """The run that an event belongs to, or None for one that belongs to the session as a whole."""
    run: str | None = getattr(event, "run", None)
    return run


def frames_in(event: Event) -> int:
    """How many places for a cursor an event has: one per chunk, but always one."""
    return len(event.chunks) or 1 if isinstance(event, Appended) else 1
