"""What a run does to a chunk so that clients below 7 understand it."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.core.message import fold
from strandline.core.portable import portable

DYNAMIC = {"type": "tool-input-start", "toolCallId": "c", "toolName": "t", "dynamic": True}
STATIC = {"type": "tool-input-start", "toolCallId": "c", "toolName": "t"}
RESULTS: list[dict[str, Any]] = [
    {"type": "tool-output-available", "toolCallId": "c", "output": 1},
    {"type": "tool-output-error", "toolCallId": "c", "errorText": "x"},
    {"type": "tool-output-denied", "toolCallId": "c"},
    {"type": "tool-input-available", "toolCallId": "c", "toolName": "t", "input": 1},
]


@pytest.mark.parametrize("chunk", RESULTS, ids=lambda chunk: chunk["type"])
def test_chunks_of_a_dynamic_call_say_so_and_others_do_not(chunk: dict[str, Any]) -> None:
    assert portable(fold([DYNAMIC]), chunk) == {**chunk, "dynamic": True}
    assert portable(fold([STATIC]), {**chunk, "dynamic": True}) == chunk
    assert portable(fold([STATIC]), chunk) is chunk


def test_a_new_call_in_a_later_step_may_be_of_the_other_kind() -> None:
    state = fold([DYNAMIC, RESULTS[0], {"type": "start-step"}])
    assert portable(state, STATIC) is STATIC


def test_a_step_is_not_finished_over_an_open_part() -> None:
    finish = {"type": "finish-step"}
    state = fold([{"type": "start-step"}, {"type": "text-start", "id": "t"}])
    assert portable(state, finish) is None
    state.push({"type": "text-end", "id": "t"})
    assert portable(state, finish) is finish


def test_everything_else_stays_the_same_object() -> None:
    chunk = {"type": "text-delta", "id": "t", "delta": "x"}
    assert portable(fold([]), chunk) is chunk
    assert portable(fold([]), RESULTS[0]) is RESULTS[0]
