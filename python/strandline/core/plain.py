"""Events as JSON objects: what the log holds, and what readers are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline.core.events import (
    Annotated,
    AnnotationRemoved,
    Appended,
    BranchSelected,
    Checkpointed,
    DecisionMade,
    DecisionRequested,
    Erased,
    Event,
    MessageCreated,
    MessageDeleted,
    MessageReplaced,
    MessageReset,
    RunClaimed,
    RunEnded,
    RunQueued,
    RunRecovered,
    RunStarted,
    SessionChanged,
    Steered,
    StopRequested,
)
from strandline.core.run import Status

KINDS: dict[str, type[Event]] = {
    "message-created": MessageCreated,
    "run-queued": RunQueued,
    "run-started": RunStarted,
    "appended": Appended,
    "message-reset": MessageReset,
    "stop-requested": StopRequested,
    "run-ended": RunEnded,
    "session-changed": SessionChanged,
    "steered": Steered,
    "decision-requested": DecisionRequested,
    "decision-made": DecisionMade,
    "branch-selected": BranchSelected,
    "message-replaced": MessageReplaced,
    "message-deleted": MessageDeleted,
    "erased": Erased,
    "annotated": Annotated,
    "annotation-removed": AnnotationRemoved,
    "checkpointed": Checkpointed,
    "run-recovered": RunRecovered,
    "run-claimed": RunClaimed,
}
_NAMES: dict[type[Event], str] = {cls: name for name, cls in KINDS.items()}


def to_plain(event: Event) -> dict[str, Any]:
    """The JSON object of an event: ``{"type": kind, ...}``; fields that are None are left out."""
    if type(event) is Appended and event.sent is None:  # nine of ten
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


def shown(event: Event) -> dict[str, Any]:
    """The same as readers are told it: without what was kept for the agent, or for who writes, alone, and of an
    annotation the summary."""
    plain = to_plain(event)
    if type(event) is RunQueued:
        plain.pop("body", None)
    elif type(event) is Appended:
        plain.pop("sent", None)
    elif type(event) is Erased:
        # What it was cannot be told, and what it did is not known: only a fresh look can say how things stand.
        plain["type"] = "resync"
    elif type(event) is RunClaimed:
        plain.pop("holder", None)
        plain.pop("claim", None)
    elif type(event) is Annotated:
        plain.pop("data", None)
        plain.pop("range", None)
    return plain


def from_plain(plain: Mapping[str, Any]) -> Event:
    """The event that ``to_plain`` described. Raises KeyError or TypeError for anything else."""
    fields = {name: value for name, value in plain.items() if name != "type"}
    cls = KINDS[plain["type"]]
    for name in _LISTS:
        if name in fields:
            fields[name] = tuple(fields[name])
    if cls is MessageCreated or cls is RunQueued:
        fields.setdefault("parent", None)
    elif cls is SessionChanged:
        fields.setdefault("title", None)
    elif cls is RunEnded:
        fields["status"] = Status(fields["status"])
    return cls(**fields)


_LISTS = ("chunks", "parts", "roles")
