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
    """A run was accepted. From this event on the run is active and its assistant message exists."""

    at: int
    by: str
    run: str
    message: str
    message_id: str
    parent: str | None
    agent: str
    parent_run: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The agent is being called. On the AI SDK wire this is the ``start`` chunk."""

    at: int
    run: str
    message: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Appended:
    """The agent added chunks to its message. Frame *i* of this event is chunk *i*."""

    at: int
    run: str
    message: str
    chunks: tuple[Chunk, ...]


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
    """The session was created by itself, renamed or archived (PROTOCOL §8.2, §8.3): the new values of both fields."""

    at: int
    by: str
    title: str | None
    archived: bool


Event = MessageCreated | RunQueued | RunStarted | Appended | MessageReset | StopRequested | RunEnded | SessionChanged

KINDS: dict[str, type[Event]] = {
    "message-created": MessageCreated,
    "run-queued": RunQueued,
    "run-started": RunStarted,
    "appended": Appended,
    "message-reset": MessageReset,
    "stop-requested": StopRequested,
    "run-ended": RunEnded,
    "session-changed": SessionChanged,
}
_NAMES: dict[type[Event], str] = {cls: name for name, cls in KINDS.items()}


def run_of(event: Event) -> str | None:
    """The run that an event belongs to, or None for one that belongs to the session as a whole."""
    return None if isinstance(event, MessageCreated | SessionChanged) else event.run


def frames_in(event: Event) -> int:
    """How many places for a cursor an event has: one per chunk, or one."""
    return len(event.chunks) if isinstance(event, Appended) else 1


def to_plain(event: Event) -> dict[str, Any]:
    """The JSON object of an event: ``{"type": kind, ...}``; fields that are None are left out."""
    if type(event) is Appended:  # nine of ten
        return {
            "type": "appended",
            "at": event.at,
            "run": event.run,
            "message": event.message,
            "chunks": event.chunks,
        }
    plain: dict[str, Any] = {"type": _NAMES[type(event)]}
    for name in event.__slots__:
        value = getattr(event, name)
        if value is not None:
            plain[name] = value
    return plain


def from_plain(plain: Mapping[str, Any]) -> Event:
    """The event that ``to_plain`` described. Raises KeyError or TypeError for anything else."""
    fields = {name: value for name, value in plain.items() if name != "type"}
    cls = KINDS[plain["type"]]
    if cls is Appended:
        fields["chunks"] = tuple(fields["chunks"])
    elif cls is MessageCreated:
        fields["parts"] = tuple(fields["parts"])
        fields.setdefault("parent", None)
    elif cls is RunQueued:
        fields.setdefault("parent", None)
    elif cls is SessionChanged:
        fields.setdefault("title", None)
    elif cls is RunEnded:
        fields["status"] = Status(fields["status"])
    return cls(**fields)
