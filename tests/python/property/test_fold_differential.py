"""Our fold against the real reducers: ``readUIMessageStream`` of ai@7 (equal), ai@6 and ai@5 (accepted, same text).

Each batch is generated first and then given to one Node process, ``tests/js/fold_with_ai.mjs``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from chunk_lists import BOUNDED, any_chunks, chunk_lists
from hypothesis import given, settings
from hypothesis import strategies as st

from strandline.codecs.gating import RESYNC, gate
from strandline.core.chunks import check
from strandline.core.message import FoldError, FoldState, fold
from strandline.core.partial_json import ABSENT, parse_partial
from strandline.core.portable import portable
from strandline.core.unfold import closers, unfold

TESTS = Path(__file__).parents[2]
GOLDEN = sorted((TESTS / "golden").glob("*.json"))
Chunks = list[dict[str, Any]]


def fold_with_ai(major: int, lists: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(list(chunks)) + "\n" for chunks in lists)
    done = subprocess.run(
        ["node", "js/fold_with_ai.mjs", str(major)],
        cwd=TESTS,
        input=lines,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def batch(strategy: st.SearchStrategy[Any], size: int) -> list[Any]:
    """The same ``size`` examples in every run."""
    found: list[Any] = []

    @settings(BOUNDED, max_examples=size)
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


def gated(chunks: Iterable[Mapping[str, Any]], major: int) -> Chunks:
    """What a client of that version is sent, up to the first resync."""
    sent: Chunks = []
    for chunk in chunks:
        what = gate(chunk, major)
        if what is RESYNC:
            break
        if what is not None:
            sent.append(dict(what))
    return sent


def appended(chunks: Chunks) -> Chunks:
    """What a run would append for these."""
    state = FoldState()
    log: Chunks = []
    for chunk in chunks:
        what = portable(state, chunk)
        if what is not None:
            state.push(what)
            log.append(dict(what))
    return log


def texts(message: dict[str, Any]) -> list[tuple[str, str]]:
    return [(part["type"], part["text"]) for part in message["parts"] if part["type"] in ("text", "reasoning")]


def same(ours: FoldState, theirs: dict[str, Any]) -> None:
    assert "message" in theirs, theirs
    message = theirs["message"]
    assert ours.parts() == message["parts"]
    assert ours.metadata == message.get("metadata")
    assert (ours.message_id or "") == message["id"]


@pytest.fixture(scope="module")
def replies() -> list[Chunks]:
    return batch(chunk_lists(), 300)


def test_the_fold_is_what_ai_7_shows(replies: list[Chunks]) -> None:
    for chunks, theirs in zip(replies, fold_with_ai(7, replies), strict=True):
        same(fold(chunks), theirs)


def test_an_unfolded_reply_shows_the_same_in_ai_7(replies: list[Chunks]) -> None:
    states = [fold(chunks) for chunks in replies]
    for state, theirs in zip(states, fold_with_ai(7, map(unfold, states)), strict=True):
        same(state, theirs)


def test_what_ai_7_refuses_is_refused() -> None:
    lists = batch(any_chunks, 400)
    answers = fold_with_ai(7, lists)
    for chunks, theirs in zip(lists, answers, strict=True):
        try:
            ours = fold(chunks)
        except FoldError:
            continue
        assert "message" in theirs, (chunks, theirs)
        same(ours, theirs)
    assert sum("refused" in theirs for theirs in answers) > 80  # the lists do test refusals


@pytest.mark.parametrize("major", [5, 6, 7])
@pytest.mark.parametrize("form", [list, lambda chunks: unfold(fold(chunks))], ids=["as it came", "unfolded"])
def test_a_gated_reply_is_accepted_and_has_the_same_text(
    replies: list[Chunks], major: int, form: Callable[[Chunks], Chunks]
) -> None:
    said = [form(appended(chunks)) for chunks in replies]
    sent = [gated(chunks, major) for chunks in said]
    for chunks, whole, theirs in zip(sent, said, fold_with_ai(major, sent), strict=True):
        assert "message" in theirs, (chunks, theirs)
        # Of what was said, not of what is left of it: what this version does not see may be what makes the rest fit.
        shown = takewhile(lambda chunk: gate(chunk, major) is not RESYNC, whole)
        assert texts(theirs["message"]) == texts({"parts": fold(shown).parts()})


@pytest.mark.parametrize("major", [5, 6, 7])
def test_closers_are_accepted_and_leave_nothing_open(replies: list[Chunks], major: int) -> None:
    sent = []
    for chunks in replies:
        state = fold(appended(chunks))
        sent.append(gated([*unfold(state), *closers(state, "stopped")], major))
    open_states = {"streaming", "input-streaming", "input-available", "approval-requested", "approval-responded"}
    for chunks, theirs in zip(sent, fold_with_ai(major, sent), strict=True):
        assert "message" in theirs, (chunks, theirs)
        assert not [part for part in theirs["message"]["parts"] if part.get("state") in open_states]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("major", [5, 6, 7])
def test_golden_replies_fold_alike_everywhere(path: Path, major: int) -> None:
    golden = json.loads(path.read_text())
    state = fold(golden["chunks"])
    (theirs,) = fold_with_ai(major, [gated(golden["chunks"], major)])
    assert theirs["message"]["parts"] == golden["shown"][str(major)]
    if major == 7:
        same(state, theirs)
    (unfolded,) = fold_with_ai(major, [gated(unfold(state), major)])
    assert unfolded == theirs or "reset-step" in [chunk["type"] for chunk in golden["chunks"]]


def test_partial_inputs_read_like_ai_7_reads_them() -> None:
    pieces = [
        '{"a":',
        '"b\\n',
        "[1,",
        "-2.",
        "1e",
        "tru",
        "null",
        "fal",
        "{",
        "}",
        "]",
        '"',
        ",",
        ":",
        " ",
        "x",
        "\\u00e",
        "é",
    ]
    cases = batch(st.lists(st.sampled_from(pieces), max_size=9).map("".join), 1000)
    lists = [
        [
            {"type": "tool-input-start", "toolCallId": "c", "toolName": "t"},
            {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": text},
        ]
        for text in cases
    ]
    for text, theirs in zip(cases, fold_with_ai(7, lists), strict=True):
        part = theirs["message"]["parts"][0]
        ours = parse_partial(text)
        assert ("input" in part) == (ours is not ABSENT), text
        assert part.get("input", ABSENT) == ours, text


def test_what_ai_7_cannot_parse_does_not_pass_the_check() -> None:
    lists = batch(any_chunks, 100)
    spoiled = [{**chunk, key: None} for chunks in lists for chunk in chunks for key in chunk]
    spoiled += [
        {name: chunk[name] for name in chunk if name != key} for chunks in lists for chunk in chunks for key in chunk
    ]
    for chunk, theirs in zip(spoiled, fold_with_ai(7, [[chunk] for chunk in spoiled]), strict=True):
        try:
            check(chunk)
        except ValueError:
            assert theirs.get("refused") == "schema", chunk
        else:
            assert theirs.get("refused") != "schema", (chunk, theirs)
