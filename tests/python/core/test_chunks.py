"""What may enter a log: the vocabulary of ai@7.0.173 and nothing else (DESIGN §14.8)."""

from __future__ import annotations

from enum import StrEnum
from timeit import repeat
from typing import Any

import pytest

from strandline.core.chunks import MAX_DEPTH, VOCABULARY, ChunkInvalid, check

FILE = {"type": "file", "mediaType": "a/b", "url": "u"}
GOOD: list[dict[str, Any]] = [
    {"type": "start"},
    {"type": "start", "messageId": "m1", "messageMetadata": None},
    {"type": "finish", "finishReason": "interrupted", "messageMetadata": {"tokens": 3}},
    {"type": "abort", "reason": "user"},
    {"type": "error", "errorText": "", "code": "an extra field"},
    {"type": "message-metadata", "messageMetadata": {"a": [1, 2.5, None]}},
    {"type": "reset-step"},
    {"type": "text-start", "id": "", "providerMetadata": {"openai": {"itemId": None}}},
    {"type": "text-delta", "id": "t", "delta": ""},
    {"type": "text-delta", "id": "ü", "delta": "größer 🌊"},
    {"type": "text-delta", "id": "t", "delta": "x", "providerMetadata": {}},
    {
        "type": "text-end",
        "id": "t",
        "citations": [
            {"source": {"type": "source", "sourceType": "url", "id": "s", "url": "u"}, "startIndex": 0},
            {
                "source": {
                    "type": "source",
                    "sourceType": "document",
                    "id": "s",
                    "mediaType": "text/plain",
                    "title": "",
                },
                "citedText": "x",
            },
        ],
    },
    {"type": "custom", "kind": "openai.compaction"},
    {"type": "steering-message", "id": "u", "parts": [{"type": "text", "text": "no"}]},
    {
        "type": "steering-message",
        "id": "u",
        "parts": [{"type": "file", "mediaType": "a/b", "url": "u", "providerReference": {"openai": "f"}}],
    },
    {"type": "tool-input-start", "toolCallId": "c", "toolName": "t", "inputEncoding": "text", "dynamic": True},
    {"type": "tool-input-available", "toolCallId": "c", "toolName": "t", "input": None},
    {"type": "tool-approval-request", "approvalId": "a", "toolCallId": "c", "inputSchemaInput": None},
    {"type": "tool-output-available", "toolCallId": "c", "output": ("a", 1), "preliminary": False},
    {"type": "data-", "data": None},
    {"type": "data-weather", "id": "w", "data": {"constructor": "a word like any other"}, "transient": True},
]

BAD: list[tuple[Any, str]] = [
    ({"type": "text-dleta", "id": "t", "delta": "x"}, "did you mean 'text-delta'"),
    ({"type": "tool-call"}, "unknown chunk type 'tool-call'"),
    ({}, "needs a 'type'"),
    ({"type": None}, "needs a 'type'"),
    ("text-delta", "must be a dict, not a str"),
    ({"type": "text-delta", "id": "t"}, "needs the field 'delta'"),
    ({"type": "text-delta", "id": 1, "delta": "x"}, "text-delta.id must be a string, not an int"),
    ({"type": "text-delta", "id": "t", "delta": None}, "text-delta.delta is null"),
    ({"type": "text-delta", "id": "t", "delta": b"x"}, "must be a string, not a bytes"),
    ({"type": "text-delta", "id": "t", "delta": "\ud83d"}, "half of a surrogate pair"),
    ({"type": "text-delta", "id": "\udc00", "delta": "x"}, "half of a surrogate pair"),
    ({"type": "start", "messageId": None}, "leave an optional field out"),
    ({"type": "text-start", "id": "t", "providerMetadata": None}, "text-start.providerMetadata is null"),
    ({"type": "text-start", "id": "t", "providerMetadata": {"openai": 1}}, "providerMetadata.openai must be an object"),
    ({"type": "finish", "finishReason": "unknown"}, "must be one of 'stop'"),
    ({"type": "message-metadata"}, "needs the field 'messageMetadata'"),
    ({"type": "tool-output-available", "toolCallId": "c"}, "needs the field 'output'"),
    ({"type": "data-x"}, "needs the field 'data'"),
    ({"type": "data-x", "data": 1, "id": None}, "data-x.id is null"),
    ({"type": "data-x", "data": 1, "transient": 1}, "must be a boolean"),
    ({"type": "data-x", "data": {"a": [0, float("nan")]}}, "data-x.data.a[1] is nan"),
    ({"type": "data-x", "data": float("inf")}, "JSON cannot say"),
    ({"type": "data-x", "data": 2**64}, "beyond 64 bits"),
    ({"type": "data-x", "data": {1: 2}}, "JSON keys are strings"),
    ({"type": "data-x", "data": {"\ud83d": 2}}, "half of a surrogate pair"),
    ({"type": "data-x", "data": {"a": {1, 2}}}, "data-x.data.a is a set, not a JSON value"),
    ({"type": "data-x", "data": {"a": [{"__proto__": {}}]}}, "'__proto__'"),
    ({"type": "data-x", "data": {"constructor": {"prototype": 1}}}, "'constructor' with a 'prototype'"),
    ({"type": "start-step", "__proto__": 1}, "'__proto__'"),
    ({"type": "start-step", "extra": {"__proto__": 1}}, "start-step.extra has the key '__proto__'"),
    ({"type": "tool-input-start", "toolCallId": "c", "toolName": "t", "inputEncoding": "xml"}, "'json', 'text'"),
    ({"type": "tool-input-start", "toolCallId": "c", "toolName": "t", "toolMetadata": []}, "must be an object"),
    ({"type": "text-end", "id": "t", "citations": [{"source": {"sourceType": "url"}}]}, "citations[0].source needs"),
    ({"type": "text-end", "id": "t", "citations": [{}]}, "citations[0] needs the field 'source'"),
    ({"type": "text-end", "id": "t", "citations": [{"source": None}]}, "must be a url or document source"),
    ({"type": "text-end", "id": "t", "citations": {}}, "must be a list of citations"),
    ({"type": "text-end", "id": "t", "citations": [{"startIndex": -1, "source": None}]}, "a whole number from 0"),
    (
        {"type": "steering-message", "id": "u", "parts": [{**FILE, "providerReference": {"openai": 1}}]},
        "parts[0].providerReference.openai must be a string",
    ),
    (
        {"type": "steering-message", "id": "u", "parts": [{**FILE, "providerReference": "x"}]},
        "providerReference must be an object of strings",
    ),
    ({"type": "finish", "finishReason": 1}, "must be one of 'stop'"),
    ({"type": "steering-message", "id": "u", "parts": [{"type": "tool-x"}]}, "parts[0]"),
    ({"type": "steering-message", "id": "u", "parts": [{"type": "text"}]}, "parts[0] needs the field 'text'"),
]


@pytest.mark.parametrize("chunk", GOOD, ids=lambda chunk: chunk["type"])
def test_what_ai_7_accepts_passes(chunk: dict[str, Any]) -> None:
    check(chunk)


@pytest.mark.parametrize(("chunk", "text"), BAD, ids=[text for _, text in BAD])
def test_a_refusal_says_which_field_and_why(chunk: Any, text: str) -> None:
    with pytest.raises(ChunkInvalid) as refusal:
        check(chunk)
    assert text in str(refusal.value)


@pytest.mark.parametrize("kind", VOCABULARY)
def test_every_required_field_is_required(kind: str) -> None:
    shape = VOCABULARY[kind]
    for name in shape.required:
        with pytest.raises(ChunkInvalid, match="needs the field"):
            check({"type": kind, **{other: "x" for other in shape.required if other != name}})


def test_values_nested_too_deep_to_be_encoded_are_refused() -> None:
    deep: Any = "bottom"
    for _ in range(MAX_DEPTH):
        deep = [deep]
    check({"type": "data-x", "data": deep})
    with pytest.raises(ChunkInvalid, match="nested deeper"):
        check({"type": "data-x", "data": [deep]})
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ChunkInvalid, match="nested deeper"):
        check({"type": "data-x", "data": deep})


def test_string_enums_count_as_strings() -> None:
    class Reason(StrEnum):
        STOP = "stop"

    check({"type": "finish", "finishReason": Reason.STOP})


def test_checking_a_text_delta_is_cheap_enough_for_every_token() -> None:
    chunk = {"type": "text-delta", "id": "part-1", "delta": " hello"}
    best = min(repeat(lambda: check(chunk), number=10_000, repeat=5)) / 10_000
    assert best < 5e-6  # about 0.3 µs on the machine that this was written on
