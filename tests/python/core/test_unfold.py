"""The shortest way to say a state again, and to close what is open in it (DESIGN §5, §14.9)."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.core.message import FoldState, fold
from strandline.core.unfold import closers, revive, unfold, unfold_message

Chunk = dict[str, Any]


def c(kind: str, **fields: Any) -> Chunk:
    return {"type": kind, **fields}


CALL = c("tool-input-available", toolCallId="c", toolName="search", input={"q": "sea"})
START = c("tool-input-start", toolCallId="c", toolName="search")
DELTA = c("tool-input-delta", toolCallId="c", inputTextDelta='{"q":"s')
OUTPUT = c("tool-output-available", toolCallId="c", output=[1])
ERROR = c("tool-output-error", toolCallId="c", errorText="no")
REFUSED = c("tool-input-error", toolCallId="c", toolName="search", input="x", errorText="bad")
DENIED = c("tool-output-denied", toolCallId="c")
STEP, FINISHED = c("start-step"), c("finish-step")


def types(chunks: list[Chunk]) -> list[str]:
    return [chunk["type"] for chunk in chunks]


def test_a_snapshot_begins_with_start_and_holds_one_delta_per_part() -> None:
    state = fold(
        [
            c("start", messageId="m1"),
            STEP,
            c("text-start", id="t"),
            c("text-delta", id="t", delta="a"),
            c("message-metadata", messageMetadata={"k": 1}),
            c("text-delta", id="t", delta="b"),
        ]
    )
    assert unfold(state) == [
        c("start", messageId="m1", messageMetadata={"k": 1}),
        STEP,
        c("text-start", id="t"),
        c("text-delta", id="t", delta="ab"),
    ]
    assert unfold(FoldState()) == [c("start")]


def test_a_finished_call_is_told_without_the_chunk_that_makes_the_client_run_it() -> None:
    assert unfold(fold([CALL, OUTPUT])) == [
        c("start"),
        START,
        c("tool-input-delta", toolCallId="c", inputTextDelta='{"q":"sea"}'),
        OUTPUT,
    ]
    assert "tool-input-available" not in types(unfold(fold([CALL, ERROR])))


def test_a_call_that_waits_for_its_output_is_told_as_it_came() -> None:
    assert unfold(fold([START, DELTA, CALL])) == [c("start"), CALL]


def test_a_streaming_input_keeps_its_raw_text() -> None:
    assert unfold(fold([START, DELTA])) == [c("start"), START, DELTA]


@pytest.mark.parametrize(
    "chunks",
    [
        [START, OUTPUT],
        [START, DELTA, ERROR],
        [START, c("tool-input-delta", toolCallId="c", inputTextDelta=""), ERROR],
        [{**START, "inputEncoding": "text"}, DELTA, ERROR],
        [{**START, "inputEncoding": "text"}, DELTA],
        [{**START, "dynamic": True}, DELTA, ERROR],
        [{**START, "title": "T", "providerMetadata": {"p": {}}}, REFUSED],
        [CALL, {**ERROR, "providerMetadata": {"p": {"a": 1}}}, START, DELTA],
        [CALL, c("tool-approval-request", toolCallId="c", approvalId="a"), OUTPUT, START, DELTA],
        [CALL, OUTPUT, c("tool-output-denied", toolCallId="c")],
        [CALL, c("tool-approval-request", toolCallId="c", approvalId="a"), CALL],
    ],
)
def test_odd_calls_are_restored_too(chunks: list[Chunk]) -> None:
    state = fold(chunks)
    assert fold(unfold(state)) == state


def test_steps_are_finished_before_the_next_begins_but_never_over_an_open_part() -> None:
    state = fold([STEP, FINISHED, STEP, c("text-start", id="t"), STEP])
    assert types(unfold(state)) == ["start", "start-step", "finish-step", "start-step", "text-start", "start-step"]
    after = fold([STEP, FINISHED, c("text-start", id="t")])
    assert types(unfold(after)) == ["start", "start-step", "finish-step", "text-start"]
    assert fold(unfold(after)) == after


def test_the_finish_reason_comes_last() -> None:
    state = fold([STEP, FINISHED, c("finish", finishReason="length")])
    assert unfold(state)[-1] == c("finish", finishReason="length")


def test_closers_end_every_kind_of_open_thing() -> None:
    state = fold(
        [
            {**CALL, "toolCallId": "early", "dynamic": True},
            {**START, "toolCallId": "streaming-early"},
            STEP,
            c("text-start", id="t"),
            c("reasoning-start", id="r"),
            START,
            DELTA,
            {**START, "toolCallId": "empty"},
            {**CALL, "toolCallId": "asked"},
            c("tool-approval-request", toolCallId="asked", approvalId="a"),
            {**CALL, "toolCallId": "done"},
            {**OUTPUT, "toolCallId": "done"},
        ]
    )
    closing = closers(state, "stopped")
    error = {"type": "tool-output-error", "errorText": "stopped"}
    refused = {"type": "tool-input-error", "toolName": "search", "errorText": "stopped"}
    assert closing == [
        c("text-end", id="t"),
        c("reasoning-end", id="r"),
        {**error, "toolCallId": "early", "dynamic": True},
        {**error, "toolCallId": "streaming-early"},
        {**refused, "toolCallId": "c", "input": {"q": "s"}},
        {**refused, "toolCallId": "empty", "input": None},
        {**error, "toolCallId": "asked"},
        FINISHED,
    ]
    for chunk in closing:
        state.push(chunk)
    assert not state.anything_open
    assert closers(state, "stopped") == []


def test_a_stored_message_is_told_with_new_text_ids() -> None:
    parts: list[Chunk] = [
        {"type": "step-start"},
        {"type": "reasoning", "id": "part-1", "text": "hm", "state": "done"},
        {"type": "text", "text": "hello"},
        {"type": "a-part-from-the-future", "x": 1},
        {"type": "data-x", "data": 1},
    ]
    chunks = unfold_message("m1", parts, {"k": 1})
    assert chunks[0] == c("start", messageId="m1", messageMetadata={"k": 1})
    assert types(chunks[1:3]) == ["start-step", "reasoning-start"]
    assert c("text-delta", id="part-2", delta="hello") in chunks
    assert types(chunks)[-2:] == ["data-x", "finish-step"]
    assert unfold_message("m1", iter(parts), {"k": 1}) == chunks


def test_a_refused_input_that_an_older_client_stored_is_still_known() -> None:
    part = {
        "type": "tool-search",
        "toolCallId": "c",
        "state": "output-error",
        "rawInput": {"q": 1},
        "errorText": "bad input",
    }
    assert unfold_message("m1", [part])[1:] == [
        c("tool-input-error", toolCallId="c", toolName="search", input={"q": 1}, errorText="bad input")
    ]


@pytest.mark.parametrize(
    "chunks",
    [[CALL], [CALL, OUTPUT], [START, DELTA], [START], [CALL, ERROR], [START, DELTA, ERROR], [CALL, OUTPUT, DENIED]],
    ids=["called", "answered", "streaming", "begun", "failed", "failed while streaming", "denied"],
)
def test_a_stored_call_is_told_as_it_stands(chunks: list[Chunk]) -> None:
    parts = fold(chunks).parts()
    assert fold(unfold_message("m1", parts)).parts() == parts


def test_a_stored_part_that_was_left_open_stays_open() -> None:
    state = revive("m1", [{"type": "text", "text": "Onc", "state": "streaming"}])
    assert state.open_text == ["part-1"]
