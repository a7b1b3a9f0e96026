"""The fold of the npm package against ours, which follows ai@7's (``test_fold_differential.py``).

One thing it leaves out on purpose: the input of a tool call that was never completed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from chunk_lists import BOUNDED, chunk_lists
from hypothesis import given, settings

from strandline.core.message import FoldState
from strandline.core.unfold import closers, unfold

TESTS = Path(__file__).parents[2]
GOLDEN = sorted((TESTS / "golden").glob("*.json"))
Chunks = list[dict[str, Any]]


def fold_with_shim(lists: Iterable[Chunks]) -> list[list[dict[str, Any]]]:
    """The message after every chunk of every list."""
    done = subprocess.run(
        ["node", "js/fold_with_shim.mjs"],
        cwd=TESTS,
        input="".join(json.dumps(chunks) + "\n" for chunks in lists),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def incomplete(chunks: Chunks) -> set[str]:
    """The tool calls whose input, as it was written, is no JSON."""
    raw: dict[str, str] = {}
    for chunk in chunks:
        if chunk["type"] == "tool-input-start":
            raw[chunk["toolCallId"]] = ""
        elif chunk["type"] == "tool-input-delta":
            raw[chunk["toolCallId"]] = raw.get(chunk["toolCallId"], "") + chunk["inputTextDelta"]
    return {call for call, text in raw.items() if not is_json(text)}


def is_json(text: str) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def without_unknown_inputs(parts: Iterable[Mapping[str, Any]], unknown: set[str]) -> list[dict[str, Any]]:
    return [
        {
            name: value
            for name, value in part.items()
            if name != "input" or (part["state"] != "input-streaming" and part["toolCallId"] not in unknown)
        }
        if "toolCallId" in part
        else dict(part)
        for part in parts
    ]


def agree(lists: list[Chunks]) -> int:
    """How many prefixes were compared."""
    compared = 0
    for chunks, messages in zip(lists, fold_with_shim(lists), strict=True):
        state = FoldState()
        for end, (chunk, message) in enumerate(zip(chunks, messages, strict=True), 1):
            state.push(chunk)
            unknown = incomplete(chunks[:end])
            assert without_unknown_inputs(message["parts"], unknown) == without_unknown_inputs(
                state.parts(), unknown
            ), chunks[:end]
            assert message.get("metadata") == state.metadata
            assert message["id"] == (state.message_id or "")
            compared += 1
    return compared


@pytest.fixture(scope="module")
def replies() -> list[Chunks]:
    found: list[Chunks] = []

    @settings(BOUNDED, max_examples=250)
    @given(chunk_lists())
    def collect(example: Chunks) -> None:
        found.append(example)

    collect()
    return found


def test_every_prefix_folds_alike(replies: list[Chunks]) -> None:
    assert agree(replies) > 1000
    said = json.dumps(replies)
    assert all(f'"{kind}"' in said for kind in ("reset-step", "tool-output-error", "tool-approval-response"))


def test_snapshots_and_closed_replies_fold_alike(replies: list[Chunks]) -> None:
    lists = []
    for chunks in replies:
        state = FoldState()
        for chunk in chunks:
            state.push(chunk)
        lists.append([*unfold(state), *closers(state, "stopped")])
    assert agree(lists) > 1000


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_replies_fold_alike(path: Path) -> None:
    assert agree([json.loads(path.read_text())["chunks"]]) > 0
