"""Adjacent deltas become one; nothing else changes (DESIGN §5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from strandline.core.coalesce import Coalescer


def coalesce(chunks: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """As a run's pending chunks are joined between two commits, without a bound."""
    coalescer = Coalescer()
    for chunk in chunks:
        coalescer.add(chunk, 0, 1)
    return list(coalescer.take())


def text(delta: str, part: str = "t1", **more: Any) -> dict[str, Any]:
    return {"type": "text-delta", "id": part, "delta": delta, **more}


def test_adjacent_deltas_of_one_part_become_one() -> None:
    assert coalesce([text("a"), text("b"), text("c")]) == [text("abc")]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("reasoning-delta", "id", "delta"), ("tool-input-delta", "toolCallId", "inputTextDelta")],
)
def test_so_do_deltas_of_reasoning_and_tool_inputs(kind: str, name: str, value: str) -> None:
    deltas = [{"type": kind, name: "x", value: piece} for piece in ("a", "b")]
    assert coalesce(deltas) == [{"type": kind, name: "x", value: "ab"}]


def test_deltas_of_different_parts_and_kinds_stay_apart() -> None:
    chunks = [text("a"), text("b", "t2"), text("c"), {"type": "reasoning-delta", "id": "t1", "delta": "d"}, text("e")]
    assert coalesce(chunks) == chunks


def test_a_chunk_in_between_keeps_deltas_apart() -> None:
    chunks = [text("a"), {"type": "start-step"}, text("b")]
    assert coalesce(chunks) == chunks


def test_a_delta_that_carries_more_than_text_stays_alone() -> None:
    marked = text("b", providerMetadata={"openai": {}})
    chunks = [text("a"), marked, text("c")]
    assert coalesce(chunks) == chunks


def test_a_lone_delta_is_passed_on_as_the_same_object_and_inputs_are_left_alone() -> None:
    first, second, third = text("a"), text("b"), text("x", "t2")
    result = coalesce([first, second, third])
    assert result[1] is third
    assert first == text("a")
    assert coalesce([]) == []


def test_a_long_run_of_deltas_costs_one_join() -> None:
    assert coalesce(text("x") for _ in range(50_000)) == [text("x" * 50_000)]
