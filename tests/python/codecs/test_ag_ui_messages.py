"""Whole messages between the stored form and those of TanStack AI and AG-UI."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.codecs.ag_ui_messages import ContentInvalid, ui_messages, user_parts
from strandline.core.records import MessageRecord

TEXT = {"type": "text", "text": "A", "state": "done"}
REASONING = {"type": "reasoning", "id": "r", "text": "B", "state": "done"}


def shown(*parts: dict[str, Any], role: str = "assistant", metadata: Any = None) -> list[dict[str, Any]]:
    record = MessageRecord("c", "v", "m", None, role, "a", 1_800_000_000_000, parts=parts, metadata=metadata)
    return ui_messages(record, "2027-01-15T08:00:00.000Z")


def test_a_message_has_its_id_its_role_and_its_time() -> None:
    assert shown(TEXT, metadata={"model": "x"}) == [
        {
            "id": "m",
            "role": "assistant",
            "parts": [{"type": "text", "content": "A"}],
            "createdAt": "2027-01-15T08:00:00.000Z",
            "metadata": {"model": "x"},
        }
    ]


def test_a_message_without_a_word_is_one_message_without_parts() -> None:
    assert [each["parts"] for each in shown()] == [[]]


def test_text_after_text_is_one_part_of_a_reply_but_not_of_a_question() -> None:
    assert shown(TEXT, TEXT)[0]["parts"] == [{"type": "text", "content": "AA"}]
    assert shown(TEXT, TEXT, role="user")[0]["parts"] == [{"type": "text", "content": "A"}] * 2


def test_text_after_text_and_reasoning_is_another_message() -> None:
    messages = shown(REASONING, TEXT, REASONING, TEXT)
    assert [each["id"] for each in messages] == ["m", "m~2"]
    assert messages[0]["parts"] == [
        {"type": "thinking", "content": "B", "stepId": "m:r1"},
        {"type": "text", "content": "A"},
        {"type": "thinking", "content": "B", "stepId": "m:r2"},
    ]


@pytest.mark.parametrize(
    ("part", "state", "more"),
    [
        ({"state": "output-available", "output": {"x": 1}}, "complete", {"output": {"x": 1}}),
        ({"state": "output-error", "errorText": "no"}, "error", {"output": {"error": "no"}}),
        ({"state": "input-available"}, "input-complete", {}),
        (
            {"state": "approval-requested", "approval": {"id": "ap"}},
            "approval-requested",
            {"approval": {"id": "ap", "needsApproval": True}},
        ),
    ],
)
def test_a_tool_call(part: dict[str, Any], state: str, more: dict[str, Any]) -> None:
    (message,) = shown({"type": "tool-weather", "toolCallId": "k", "input": {"a": 1}, **part})
    call, *result = message["parts"]
    assert call == {
        "type": "tool-call",
        "id": "m:k",
        "name": "weather",
        "arguments": '{"a":1}',
        "state": state,
        "input": {"a": 1},
        **more,
    }
    assert bool(result) == ("output" in more)


def test_what_has_no_form_here_is_kept_in_the_metadata() -> None:
    data = {"type": "data-status", "data": 1}
    (message,) = shown(TEXT, data, metadata={"model": "x"})
    assert message["metadata"] == {"model": "x", "strandline": {"parts": [data]}}


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ({"url": "data:image/png;base64,AAAA", "mediaType": "image/png"}, ("image", "data", "AAAA")),
        (
            {"url": "https://example.org/a.mp3", "mediaType": "audio/mpeg"},
            ("audio", "url", "https://example.org/a.mp3"),
        ),
        ({"url": "https://example.org/a", "mediaType": "text/plain"}, ("document", "url", "https://example.org/a")),
        ({"url": "data:text/plain,hi", "mediaType": "text/plain"}, ("document", "url", "data:text/plain,hi")),
    ],
)
def test_a_file_comes_back_as_it_went_out(part: dict[str, str], source: tuple[str, str, str]) -> None:
    (message,) = shown({"type": "file", **part}, role="user")
    (told,) = message["parts"]
    assert (told["type"], told["source"]["type"], told["source"]["value"]) == source
    assert user_parts([told]) == [{"type": "file", **part}]


def test_binary_parts_of_ag_ui_before_1_are_files() -> None:
    assert user_parts([{"type": "binary", "mimeType": "image/png", "data": "AAAA"}]) == [
        {"type": "file", "url": "data:image/png;base64,AAAA", "mediaType": "image/png"}
    ]


@pytest.mark.parametrize("content", [None, 1, {}, ["x"], [{"type": "text"}], [{"type": "image", "source": {}}]])
def test_content_that_is_none_is_refused(content: Any) -> None:
    with pytest.raises(ContentInvalid):
        user_parts(content)
