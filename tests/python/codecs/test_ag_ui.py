"""The AG-UI codec: which events a run's log becomes, and how they are numbered (PROTOCOL §11)."""

from __future__ import annotations

from typing import Any

import pytest

from ag_ui_logs import EPOCH, THREAD, Chunks, cursor_of, event_of, frames_of, log_of, whole
from strandline.codecs.ag_ui import RESYNC_FRAME, Encoder, finished
from strandline.core.events import Appended, DecisionRequested, MessageReset, RunEnded, RunQueued
from strandline.core.message import FoldState
from strandline.core.records import RunRecord
from strandline.core.run import Status


def said(chunks: Chunks, status: Status = Status.COMPLETED, **more: Any) -> list[dict[str, Any]]:
    log, _ = log_of(chunks, status=status, **more)
    return [event_of(frame) for _, frames in frames_of(log) for frame in frames]


def short(events: list[dict[str, Any]]) -> list[str]:
    """``TYPE id text`` of each, without what every run has."""
    names = ("messageId", "toolCallId", "stepName", "delta", "content", "name")
    return [" ".join([each["type"], *(str(each[name]) for name in names if name in each)]) for each in events]


PLACE = {"strandline": {"parent": None, "message": "m1"}}

TEXT: Chunks = [
    {"type": "text-start", "id": "t"},
    {"type": "text-delta", "id": "t", "delta": "Hello"},
    {"type": "text-end", "id": "t"},
]
REASONING: Chunks = [
    {"type": "reasoning-start", "id": "r"},
    {"type": "reasoning-delta", "id": "r", "delta": "Hm"},
    {"type": "reasoning-end", "id": "r"},
]
CALL: Chunks = [
    {"type": "tool-input-start", "toolCallId": "k", "toolName": "weather"},
    {"type": "tool-input-delta", "toolCallId": "k", "inputTextDelta": '{"a":1}'},
    {"type": "tool-input-available", "toolCallId": "k", "toolName": "weather", "input": {"a": 1}},
    {"type": "tool-output-available", "toolCallId": "k", "output": {"b": 2}},
]


def test_a_text_reply() -> None:
    assert said(TEXT) == [
        {"type": "RUN_STARTED", "threadId": "c", "runId": "r1", "protocolVersion": "1.0", "metadata": PLACE},
        {"type": "TEXT_MESSAGE_START", "messageId": "m1", "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m1", "delta": "Hello"},
        {"type": "TEXT_MESSAGE_END", "messageId": "m1"},
        {
            "type": "RUN_FINISHED",
            "threadId": "c",
            "runId": "r1",
            "outcome": {"type": "success"},
            "metadata": {
                "tanstack": {"finishReason": "stop"},
                "strandline": {"status": "completed", "reason": "completed"},
            },
        },
    ]


def test_reasoning_is_a_step_of_its_own_in_a_message_that_exists() -> None:
    assert short(said(REASONING))[1:-1] == [
        "TEXT_MESSAGE_START m1",
        "TEXT_MESSAGE_END m1",
        "REASONING_START m1:r1",
        "REASONING_MESSAGE_START m1:r1",
        "STEP_STARTED m1:r1",
        "REASONING_MESSAGE_CONTENT m1:r1 Hm",
        "REASONING_MESSAGE_END m1:r1",
        "REASONING_END m1:r1",
        "STEP_FINISHED m1:r1",
    ]


def test_a_tool_call() -> None:
    events = said(CALL)[3:-1]
    assert events == [
        {
            "type": "TOOL_CALL_START",
            "toolCallId": "m1:k",
            "toolCallName": "weather",
            "parentMessageId": "m1",
        },
        {"type": "TOOL_CALL_ARGS", "toolCallId": "m1:k", "delta": '{"a":1}'},
        {"type": "TOOL_CALL_END", "toolCallId": "m1:k", "metadata": {"tanstack": {"input": {"a": 1}}}},
        {
            "type": "TOOL_CALL_RESULT",
            "messageId": "m1:k:result",
            "toolCallId": "m1:k",
            "content": '{"b":2}',
            "role": "tool",
        },
    ]


def test_an_input_that_was_not_streamed_is_said_at_once() -> None:
    events = short(said([CALL[2], CALL[3]]))
    assert 'TOOL_CALL_ARGS m1:k {"a":1}' in events


def test_a_failed_call_is_told_by_its_result() -> None:
    (result,) = [
        event
        for event in said([*CALL[:3], {"type": "tool-output-error", "toolCallId": "k", "errorText": "no"}])
        if event["type"] == "TOOL_CALL_RESULT"
    ]
    assert result["content"] == '{"error":"no"}'
    assert result["metadata"] == {"tanstack": {"state": "output-error"}}


def test_of_several_outputs_only_the_last_is_a_result() -> None:
    first = {"type": "tool-output-available", "toolCallId": "k", "output": 1, "preliminary": True}
    events = short(said([*CALL[:3], first, CALL[3]]))
    assert [each for each in events if "RESULT" in each or "CUSTOM" in each] == [
        "CUSTOM tool-output-preliminary",
        'TOOL_CALL_RESULT m1:k m1:k:result {"b":2}'.replace("m1:k m1:k:result", "m1:k:result m1:k"),
    ]
    only = short(said([*CALL[:3], first]))
    assert "TOOL_CALL_RESULT m1:k:result m1:k 1" in only


@pytest.mark.parametrize(
    ("output", "content"), [("sunny", "sunny"), ("12", '"12"'), (" true", '" true"'), ('{"', '"{\\""'), (None, "null")]
)
def test_an_output_reads_back_as_what_it_was(output: Any, content: str) -> None:
    events = said([*CALL[:3], {"type": "tool-output-available", "toolCallId": "k", "output": output}])
    assert [event["content"] for event in events if event["type"] == "TOOL_CALL_RESULT"] == [content]


def test_a_call_id_that_is_used_again_in_a_later_step_is_another_call() -> None:
    events = said([{"type": "start-step"}, *CALL, {"type": "start-step"}, *CALL])
    assert [event["toolCallId"] for event in events if event["type"] == "TOOL_CALL_START"] == ["m1:k", "m1:k~2"]


def test_text_after_text_and_reasoning_is_a_bubble_of_its_own() -> None:
    events = short(said([*TEXT, *REASONING, *TEXT]))
    assert [each for each in events if each.startswith("TEXT")] == [
        "TEXT_MESSAGE_START m1",
        "TEXT_MESSAGE_CONTENT m1 Hello",
        "TEXT_MESSAGE_END m1",
        "TEXT_MESSAGE_START m1~2",
        "TEXT_MESSAGE_CONTENT m1~2 Hello",
        "TEXT_MESSAGE_END m1~2",
    ]


def test_text_after_a_call_stays_in_the_same_bubble() -> None:
    assert not [each for each in short(said([*TEXT, *CALL, *TEXT])) if "~2" in each]


def test_steps() -> None:
    events = short(said([{"type": "start-step"}, *TEXT, {"type": "start-step"}, {"type": "finish-step"}]))
    assert [each for each in events if each.startswith("STEP")] == [
        "STEP_STARTED step-1",
        "STEP_FINISHED step-1",
        "STEP_STARTED step-2",
        "STEP_FINISHED step-2",
    ]


def test_what_ag_ui_has_no_word_for_is_custom() -> None:
    events = said(
        [
            {"type": "data-status", "id": "d", "data": {"at": 1}},
            {"type": "source-url", "sourceId": "s", "url": "https://example.org"},
            {"type": "file", "url": "https://example.org/a.png", "mediaType": "image/png"},
        ]
    )
    assert [(each["name"], each["value"]) for each in events if each["type"] == "CUSTOM"] == [
        ("data-status", {"id": "d", "data": {"at": 1}}),
        ("source-url", {"sourceId": "s", "url": "https://example.org"}),
        ("file", {"url": "https://example.org/a.png", "mediaType": "image/png"}),
    ]


def test_message_metadata_goes_with_the_message() -> None:
    events = said([*TEXT[:2], {"type": "message-metadata", "messageMetadata": {"model": "x"}}])
    assert {
        "type": "TEXT_MESSAGE_CONTENT",
        "messageId": "m1",
        "delta": "",
        "metadata": {"model": "x"},
    } in events


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.COMPLETED, {"type": "RUN_FINISHED", "outcome": {"type": "success"}}),
        (Status.STOPPED, {"type": "RUN_FINISHED", "outcome": {"type": "cancelled"}}),
        (Status.FAILED, {"type": "RUN_ERROR", "message": "It failed.", "code": "failed"}),
        (Status.LOST, {"type": "RUN_ERROR", "code": "lost"}),
    ],
)
def test_how_a_run_ends(status: Status, expected: dict[str, Any]) -> None:
    last = said(TEXT, status)[-1]
    assert {name: last[name] for name in expected} == expected
    if last["type"] == "RUN_ERROR":
        assert last["metadata"]["tanstack"] == {"runId": "r1", "threadId": "c"}


def test_a_suspended_run_says_what_it_waits_for() -> None:
    log, _ = log_of(CALL[:3], status=None)
    encoder = Encoder(THREAD, str)
    for seq, event in log:
        encoder.frames(EPOCH, seq, event)
    for seq, (decision, kind, expires) in enumerate([("ap", "approval", 60_000), ("k", "tool", None)], 90):
        asked = DecisionRequested(9, "r1", "m1", "m1", decision, kind, "k", "weather", {"a": 1}, expires)
        assert encoder.frames(EPOCH, seq, asked) == ()
    end = RunEnded(9, "a", "r1", "m1", "m1", Status.SUSPENDED, "awaiting-decisions")
    last = event_of(encoder.frames(EPOCH, 99, end)[-1])
    about = {"toolName": "weather", "input": {"a": 1}}
    assert last["outcome"]["interrupts"] == [
        {
            "id": "ap",
            "reason": "approval_required",
            "toolCallId": "m1:k",
            "metadata": {"kind": "approval", **about, "expiresAt": 60_000},
        },
        {
            "id": "k",
            "reason": "client_tool_input",
            "toolCallId": "m1:k",
            "metadata": {"kind": "client_tool", **about},
        },
    ]


def test_a_completed_run_never_says_tool_calls_for_the_processor_would_wait_for_more() -> None:
    log, _ = log_of(TEXT, status=None)
    end = RunEnded(9, "a", "r1", "m1", "m1", Status.COMPLETED, "completed", finish_reason="tool-calls")
    encoder = Encoder(THREAD, str)
    for seq, event in log:
        encoder.frames(EPOCH, seq, event)
    last = event_of(encoder.frames(EPOCH, 99, end)[-1])
    assert last["metadata"]["tanstack"]["finishReason"] == "stop"


def test_usage_is_told_where_ag_ui_has_a_name_for_it() -> None:
    run = RunQueued(1, "u", "r1", "m1", "m1", None, "a")
    usage = {"inputTokens": 3, "outputTokens": True, "cost": 0.1}
    end = RunEnded(9, "a", "r1", "m1", "m1", Status.COMPLETED, "completed", usage=usage)
    encoder = Encoder(THREAD, str)
    encoder.frames(EPOCH, 1, run)
    assert event_of(encoder.frames(EPOCH, 2, end)[-1])["usage"] == [{"inputTokens": 3}]


def test_a_reply_without_a_word_is_still_a_message() -> None:
    assert short(said([]))[1:-1] == ["TEXT_MESSAGE_START m1", "TEXT_MESSAGE_END m1"]


def test_the_id_is_before_the_data_and_every_frame_has_its_own() -> None:
    log, _ = log_of([*TEXT, *CALL, *REASONING], sizes=(4,))
    ids = []
    for seq, frames in frames_of(log):
        for number, frame in enumerate(frames, 1):
            assert frame.startswith(f"id: {EPOCH}.{seq}.{number}\ndata: ".encode())
            assert frame.count(b"\n") == 3
            ids.append(cursor_of(frame))
    assert len(ids) == len(set(ids))


def test_what_an_open_stream_cannot_be_told_ends_it_and_a_new_reader_is_sent_the_message_as_it_is() -> None:
    chunks: Chunks = [{"type": "start-step"}, *TEXT, {"type": "reset-step"}, *REASONING]
    log, _ = log_of(chunks, sizes=(2,))
    assert any(frames and frames[-1] is RESYNC_FRAME for _, frames in frames_of(log))
    events = [event_of(frame) for frame in whole(log)]
    assert events[0]["type"] == "RUN_STARTED"
    assert "Hello" not in str(events)
    assert [each["delta"] for each in events if each["type"] == "REASONING_MESSAGE_CONTENT"] == ["Hm"]
    assert events[-1]["type"] == "RUN_FINISHED"


def test_a_message_that_was_started_over_forgets_what_it_said() -> None:
    encoder = Encoder(THREAD, str)
    encoder.frames(EPOCH, 1, RunQueued(1, "u", "r1", "m1", "m1", None, "a"))
    encoder.frames(EPOCH, 2, Appended(2, "r1", "m1", tuple(TEXT)))
    assert encoder.frames(EPOCH, 3, MessageReset(3, "a", "r1", "m1", "m1")) == (RESYNC_FRAME,)
    assert [each["type"] for each in encoder.recap or []] == ["RUN_STARTED"]
    again = [event_of(frame) for frame in encoder.frames(EPOCH, 4, Appended(4, "r1", "m1", tuple(TEXT)))]
    assert short(again)[:2] == ["TEXT_MESSAGE_START m1", "TEXT_MESSAGE_CONTENT m1 Hello"]


def test_a_run_whose_log_is_gone_is_told_from_what_is_stored_with_one_id_at_the_end() -> None:
    fold = FoldState("m1")
    for chunk in [*TEXT, *CALL]:
        fold.push(chunk)
    run = RunRecord("r1", "c", "m1", "m1", None, "a", "u", Status.STOPPED, 1, 3, last_seq=9, reason="user")
    frames = [each + b"\n\n" for each in finished(THREAD, run, fold, [], EPOCH, str).split(b"\n\n")[:-1]]
    assert [cursor_of(frame) for frame in frames] == [None] * (len(frames) - 1) + [f"{EPOCH}.9.1"]
    assert event_of(frames[0])["type"] == "RUN_STARTED"
    assert event_of(frames[-1])["outcome"] == {"type": "cancelled"}
