"""Events survive the journal: what is encoded is read back as it was."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.codecs import native
from strandline.core.events import (
    KINDS,
    Appended,
    Event,
    MessageCreated,
    MessageReset,
    RunEnded,
    RunQueued,
    RunStarted,
    SessionChanged,
    StopRequested,
    run_of,
)
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
