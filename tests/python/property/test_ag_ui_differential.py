"""The AG-UI wire against its real readers, over generated replies: the processor of @tanstack/ai 0.58.0 and an agent of
@ag-ui/client 1.0.0, which verifies what it is sent. What they end with says the same as the message that an AI SDK
client ends with (our fold, which ``test_fold_differential.py`` compares with the real one), and the same as history.

Each batch is generated first and then given to one Node process, ``tests/js/read_ag_ui.mjs``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from chunk_lists import BOUNDED, chunk_lists
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ag_ui_logs import MESSAGE, Chunks, event_of, log_of, one_text_at_a_time, whole
from strandline.codecs.ag_ui_messages import ui_messages
from strandline.core.message import FoldState
from strandline.core.records import MessageRecord
from strandline.core.run import Status

TESTS = Path(__file__).parents[2]
Told = dict[str, Any]

METADATA_IN_TWO_PIECES: Chunks = [
    {"type": "message-metadata", "messageMetadata": {"usage": {"input": 1}}},
    {"type": "text-start", "id": "p1"},
    {"type": "text-delta", "id": "p1", "delta": "before"},
    {"type": "reasoning-start", "id": "p2"},
    {"type": "reasoning-delta", "id": "p2", "delta": "hm"},
    {"type": "text-delta", "id": "p1", "delta": " and after"},
    {"type": "message-metadata", "messageMetadata": {"usage": {"output": 2}}},
]
"""The second piece comes when the reply is shown as two messages."""


def read_with_clients(lists: Iterable[list[dict[str, Any]]]) -> list[Told]:
    lines = "".join(json.dumps(events) + "\n" for events in lists)
    done = subprocess.run(
        ["node", "js/read_ag_ui.mjs"],
        cwd=TESTS,
        input=lines,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.split("\n") if line]


@pytest.fixture(scope="module")
def replies() -> list[tuple[Chunks, FoldState, list[dict[str, Any]]]]:
    """Chunks, what they say, and the events that a reader of the finished run is sent."""
    found: list[tuple[Chunks, FoldState, list[dict[str, Any]]]] = []

    @settings(BOUNDED, max_examples=300)
    @given(chunk_lists(), st.lists(st.integers(1, 5), min_size=1, max_size=3))
    @example(METADATA_IN_TWO_PIECES, [1])
    def collect(chunks: Chunks, sizes: list[int]) -> None:
        log, state = log_of(one_text_at_a_time(chunks), sizes, Status.COMPLETED)
        found.append((chunks, state, [event_of(frame) for frame in whole(log)]))

    collect()
    return found


@pytest.fixture(scope="module")
def told(replies: list[tuple[Chunks, FoldState, list[dict[str, Any]]]]) -> list[Told]:
    return read_with_clients(events for _, _, events in replies)


def of_the_fold(state: FoldState) -> dict[str, Any]:
    """What a message says, whatever its form."""
    parts = state.parts()
    return {
        "text": "".join(part["text"] for part in parts if part["type"] == "text"),
        "reasoning": [part["text"] for part in parts if part["type"] == "reasoning" and part["text"]],
        "tools": [_tool(part) for part in parts if part["type"] == "dynamic-tool" or part["type"].startswith("tool-")],
    }


def _tool(part: dict[str, Any]) -> tuple[Any, ...]:
    name = part.get("toolName") or part["type"].removeprefix("tool-")
    if part["state"] == "output-available":
        return name, "complete", part["output"]
    error = "The tool call was denied." if part["state"] == "output-denied" else part["errorText"]
    return name, "error", {"error": error}


def of_the_processor(messages: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [part for message in messages for part in message["parts"]]
    thoughts: dict[str, str] = {}
    for part in parts:
        if part["type"] == "thinking":
            thoughts[part["stepId"]] = thoughts.get(part["stepId"], "") + part["content"]
    return {
        "text": "".join(part["content"] for part in parts if part["type"] == "text"),
        "reasoning": [thoughts[step] for step in sorted(thoughts, key=lambda step: int(step.rpartition(":r")[2]))],
        "tools": [(part["name"], part["state"], part.get("output")) for part in parts if part["type"] == "tool-call"],
    }


def test_no_client_refuses_anything(told: list[Told]) -> None:
    assert [each["refused"] for each in told if "refused" in each] == []


def test_the_processor_ends_with_what_the_message_says(replies: Any, told: list[Told]) -> None:
    for (chunks, state, events), theirs in zip(replies, told, strict=True):
        shown = of_the_processor(theirs["tanstack"])
        ours = of_the_fold(state)
        if not ours["text"].strip() and not ours["reasoning"] and not ours["tools"]:
            ours["text"] = shown["text"] = ""  # a message of nothing but spaces is not kept
        assert shown == ours, (chunks, events)


def test_inputs_are_what_was_called_with(replies: Any, told: list[Told]) -> None:
    seen = 0
    for (chunks, state, events), theirs in zip(replies, told, strict=True):
        shown = [
            part.get("input") for message in theirs["tanstack"] for part in message["parts"] if "arguments" in part
        ]
        tools = [part for part in state.parts() if "toolCallId" in part]
        for part, value in zip(tools, shown, strict=True):
            if part.get("input") is not None:
                assert value == part["input"], (chunks, events)
                seen += 1
    assert seen > 100


def test_metadata_is_merged_as_deeply_as_the_message_has_it(replies: Any, told: list[Told]) -> None:
    seen = 0
    for (chunks, state, events), theirs in zip(replies, told, strict=True):
        first, *rest = theirs["tanstack"] or [{"id": None}]
        if first["id"] != MESSAGE:
            continue  # nothing but spaces
        assert first.get("metadata", {}) == (state.metadata or {}), (chunks, events)
        assert not any(each.get("metadata") for each in rest)
        seen += bool(state.metadata)
    assert seen > 30


def test_history_shows_what_the_stream_showed(replies: Any, told: list[Told]) -> None:
    for (chunks, state, events), theirs in zip(replies, told, strict=True):
        parts = tuple(state.parts())
        record = MessageRecord("c", "v", MESSAGE, None, "assistant", "a", 0, "r1", parts, state.metadata)
        shown = ui_messages(record, "")
        if not any(part.get("content", "x").strip() for message in shown for part in message["parts"]):
            continue
        assert of_the_processor(shown) == of_the_processor(theirs["tanstack"]), (chunks, events)
        assert shown[0]["id"] == MESSAGE


def test_an_ag_ui_agent_ends_with_what_the_message_says(replies: Any, told: list[Told]) -> None:
    for (chunks, state, events), theirs in zip(replies, told, strict=True):
        ours, messages = of_the_fold(state), theirs["agui"]
        assert "".join(each.get("content") or "" for each in messages if each["role"] == "assistant") == ours["text"]
        thoughts = [each["content"] for each in messages if each["role"] == "reasoning" and each["content"]]
        assert thoughts == ours["reasoning"], (chunks, events)
        calls = [call["function"]["name"] for each in messages for call in each.get("toolCalls", ())]
        assert calls == [name for name, _, _ in ours["tools"]]
        answered = {each["toolCallId"]: each["content"] for each in messages if each["role"] == "tool"}
        assert len(answered) == len(calls)
