"""Events survive the journal: what is encoded is read back as it was."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.codecs import native
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
    run_of,
)
from strandline.core.plain import KINDS
from strandline.core.run import Status

PARTS: Any = ({"type": "text", "text": "ä"},)
EVENTS: list[Event] = [
    MessageCreated(1, "user:ann", "v", "m", None, "user", PARTS),
    MessageCreated(1, "user:ann", "v", "m", "p", "user", PARTS, {"a": None}),
    RunQueued(1, "user:ann", "r", "v", "m", None, "reply"),
    RunQueued(1, "user:ann", "r", "v", "m", "p", "reply", "r0", "key"),
    RunStarted(1, "r", "v", "m"),
    Appended(1, "r", "v", ({"type": "text-delta", "id": "1", "delta": "🦩"}, {"type": "data-x", "data": None})),
    MessageReset(1, "agent:reply", "r", "v", "m"),
    StopRequested(1, "user:ann", "r", "user"),
    RunEnded(1, "server", "r", "v", "m", Status.LOST, "shutdown"),
    SessionChanged(1, "user:ann", None, False),
    SessionChanged(1, "user:ann", "A title", True),
    SessionChanged(1, "user:ann", None, False, "queue"),
    RunQueued(1, "user:ann", "r", "v", "m", None, "reply", spawned=True, body={"a": [1]}),
    Appended(1, "r", "v", (), sent=3),
    Steered(1, "user:ann", "r", "m2", PARTS, {"a": 1}),
    DecisionRequested(1, "r", "v", "m", "d", "approval", "c", "delete", {"path": None}, 5, ("boss",)),
    DecisionMade(
        1, "user:ann", "d", "r", "v", "m", "denied", ({"type": "tool-output-denied", "toolCallId": "c"},), "No."
    ),
    BranchSelected(1, "user:ann", "v", "m"),
    MessageReplaced(1, "user:ann", "v", "m", PARTS, {"a": 1}),
    MessageDeleted(1, "user:ann", "v", "m"),
    Erased(1, "r"),
    Annotated(1, "user:ann", "a", "v", "m", "citation", {"count": 1}, {"url": "x"}, {"part": 0}),
    AnnotationRemoved(1, "user:ann", "a", "v", "m", "citation", {"count": 0}),
    Checkpointed(1, "r", "v", "step 1"),
    RunRecovered(1, "server", "r", "v", "m", 2),
    RunClaimed(1, "agent:far", "r", 2),
    RunEnded(1, "agent:a", "r", "v", "m", Status.FAILED, "agent-error", "No.", "stop", {"tokens": 1}),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_is_read_back_as_it_was_written(event: Event) -> None:
    line = native.encode(event)
    assert b"\n" not in line
    assert native.decode(line) == event


def test_every_kind_is_tried_here() -> None:
    assert {type(event) for event in EVENTS} == set(KINDS.values())


def test_all_but_messages_and_sessions_belong_to_a_run() -> None:
    assert {run_of(event) for event in EVENTS} == {None, "r"}
