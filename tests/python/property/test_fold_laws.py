"""The laws of fold and unfold, over generated replies (DESIGN §5)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from chunk_lists import BOUNDED, BY_TYPE, any_chunk, any_chunks, chunk_lists
from hypothesis import example, given
from hypothesis import strategies as st

from strandline.core.chunks import VOCABULARY, check
from strandline.core.coalesce import Coalescer
from strandline.core.message import FoldError, FoldState, fold
from strandline.core.unfold import closers, unfold, unfold_message


def coalesce(chunks: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """As a run's pending chunks are joined between two commits, without a bound."""
    coalescer = Coalescer()
    for chunk in chunks:
        coalescer.add(chunk, 0, 1)
    return list(coalescer.take())


def test_the_generated_lists_cover_the_whole_vocabulary() -> None:
    assert set(BY_TYPE) == {*VOCABULARY, "data-"}


@BOUNDED
@given(chunk_lists())
def test_unfold_restores_the_state(chunks: list[dict]) -> None:
    state = fold(chunks)
    restored = fold(unfold(state))
    assert restored == state
    assert restored.parts() == state.parts()


@BOUNDED
@given(chunk_lists(), st.integers(0, 40))
def test_a_reader_that_joins_at_any_cut_ends_with_the_same_message(chunks: list[dict], cut: int) -> None:
    joined = fold(unfold(fold(chunks[:cut])))
    for chunk in chunks[cut:]:
        joined.push(chunk)
    assert joined == fold(chunks)


@BOUNDED
@given(chunk_lists(), any_chunk)
def test_a_restored_state_takes_and_refuses_the_same_chunks(chunks: list[dict], chunk: dict) -> None:
    states = fold(chunks), fold(unfold(fold(chunks)))
    answers = []
    for state in states:
        try:
            state.push(chunk)
            answers.append("taken")
        except FoldError as refusal:
            answers.append(str(refusal))
    assert answers[0] == answers[1]
    assert states[0] == states[1]


@BOUNDED
@given(chunk_lists())
def test_what_unfold_says_passes_the_check_and_is_canonical(chunks: list[dict]) -> None:
    canonical = unfold(fold(chunks))
    for chunk in canonical:
        check(json.loads(json.dumps(chunk)))
    assert canonical[0]["type"] == "start"
    # Below 7 it would mean a resync, and the next snapshot would hold it again, for ever.
    assert "reset-step" not in [chunk["type"] for chunk in canonical]
    assert unfold(fold(canonical)) == canonical
    assert coalesce(canonical) == canonical


@BOUNDED
@given(chunk_lists())
def test_unfold_of_a_finished_call_never_lets_the_client_run_the_tool_again(chunks: list[dict]) -> None:
    state = fold(chunks)
    finished = {
        part["toolCallId"] for part in state.parts() if part.get("state") in ("output-available", "output-error")
    }
    pending = {tool.id for tool in state.unfinished_tools}
    denied = {part["toolCallId"] for part in state.parts() if part.get("state") == "output-denied"}
    for chunk in unfold(state):
        if chunk["type"] == "tool-input-available":
            assert chunk["toolCallId"] in pending | denied or chunk["toolCallId"] not in finished


@BOUNDED
@given(any_chunks)
def test_a_refused_chunk_changes_nothing(chunks: list[dict]) -> None:
    state = FoldState()
    for chunk in chunks:
        before = state.fork()
        try:
            state.push(chunk)
        except FoldError:
            assert state == before


@BOUNDED
@given(chunk_lists(), any_chunk)
def test_a_fork_is_equal_and_independent(chunks: list[dict], chunk: dict) -> None:
    state = fold(chunks)
    fork = state.fork()
    assert fork == state
    try:
        fork.push(chunk)
    except FoldError:
        return
    assert state == fold(chunks)
    assert fork == fold([*chunks, chunk])


@BOUNDED
@given(chunk_lists())
def test_closers_close_everything(chunks: list[dict]) -> None:
    state = fold(chunks)
    closing = closers(state, "the reply was stopped")
    assert bool(closing) == state.anything_open
    for chunk in closing:
        check(chunk)
        state.push(chunk)
    assert not state.anything_open
    assert not [part for part in state.parts() if str(part.get("state")) in ("streaming", "input-streaming")]
    assert closers(state, "again") == []


@BOUNDED
@given(chunk_lists())
@example([{"type": "text-start", "id": "a"}, *[{"type": "text-delta", "id": "a", "delta": c} for c in "abc"]])
def test_coalescing_changes_nothing_but_the_number_of_deltas(chunks: list[dict]) -> None:
    fewer = coalesce(chunks)
    assert fold(fewer) == fold(chunks)
    assert len(fewer) <= len(chunks)
    assert coalesce(fewer) == fewer


@BOUNDED
@given(chunk_lists())
def test_a_stored_message_unfolds_to_itself(chunks: list[dict]) -> None:
    state = fold(chunks)
    for chunk in closers(state, "stopped"):
        state.push(chunk)
    stored = json.loads(json.dumps(state.parts()))
    again = fold(unfold_message("m1", stored, state.metadata))
    assert again.parts() == stored
    assert again.metadata == state.metadata
    assert not again.anything_open
    assert again.message_id == "m1"
