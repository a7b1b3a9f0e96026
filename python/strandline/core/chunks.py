"""The vocabulary of a reply: every ``UIMessageChunk`` of ai@7.0.173, as one table, and the check that guards the log.

Upstream: ``ai@7.0.173 src/ui-message-stream/ui-message-chunks.ts`` (what is allowed) and
``@ai-sdk/provider-utils@5.0.81 src/secure-json-parse.ts`` (what no client can read). Nothing enters a log unchecked:
one chunk that a client refuses would kill every client that ever replays it (DESIGN §14.8).

Three things are refused although upstream lets them pass, because the bytes could not be written or read back:
integers beyond 64 bits, text with half of a surrogate pair, and values nested deeper than ``MAX_DEPTH``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite
from typing import Any

MAX_DEPTH = 100
DATA_PREFIX = "data-"
STEERING = "steering-message"
"""The chunk by which an agent acknowledges what it was told (PROTOCOL §14.3)."""

Kind = Callable[[Any], str | None]
"""Judges a field's value: None when it is good, else what is wrong with it (which starts with the path in it)."""


class ChunkInvalid(ValueError):
    """The value is not a chunk that an AI SDK client would accept. The text says which field, and why."""


def check(chunk: Mapping[str, Any]) -> None:
    """Raise ChunkInvalid unless the chunk may enter a log. Extra fields are allowed, as upstream allows them."""
    # Nine of ten chunks are text deltas; the general walk below costs five times as much.
    if type(chunk) is dict and len(chunk) == 3 and chunk.get("type") == "text-delta":
        part_id = chunk.get("id")
        delta = chunk.get("delta")
        if (
            type(part_id) is str
            and type(delta) is str
            and part_id.isascii()
            and (delta.isascii() or not has_lone_surrogate(delta))
        ):
            return
    _check_fields(chunk)


def complaint(value: Any, depth: int = 1) -> str | None:
    """What keeps a value from being JSON that every client can read, or None."""
    if value is None or value is True or value is False:
        return None
    if isinstance(value, str):
        return " has half of a surrogate pair: join split characters first" if has_lone_surrogate(value) else None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else " is an integer beyond 64 bits"
    if type(value) is float:
        return None if isfinite(value) else f" is {value}, which JSON cannot say"
    if isinstance(value, (dict, list)) or type(value) is tuple:
        return _inside(value, depth)
    return f" is {_article(type(value).__name__)}, not a JSON value"


def has_lone_surrogate(text: str) -> bool:
    """True for text that UTF-8 cannot say, as it arises where UTF-16 was cut in the middle of a character."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _inside(value: Any, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f" is nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, dict):
        wrong = _bad_key(value)
        if wrong is not None:
            return wrong
        for key, item in value.items():
            wrong = complaint(item, depth + 1)
            if wrong is not None:
                return f".{key}{wrong}"
        return None
    for index, item in enumerate(value):
        wrong = complaint(item, depth + 1)
        if wrong is not None:
            return f"[{index}]{wrong}"
    return None


def _bad_key(value: dict[Any, Any]) -> str | None:
    for key in value:
        if not isinstance(key, str):
            return f" has the key {key!r}, and JSON keys are strings"
        if has_lone_surrogate(key):
            return f" has the key {key!r} with half of a surrogate pair"
    if "__proto__" in value:
        return " has the key '__proto__', which clients refuse"
    inner = value.get("constructor")
    if isinstance(inner, dict) and "prototype" in inner:
        return " has the key 'constructor' with a 'prototype' in it, which clients refuse"
    return None


def _article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def _not(expected: str, value: Any) -> str:
    if value is None:
        return f" is null, but must be {expected} (leave an optional field out)"
    return f" must be {expected}, not {_article(type(value).__name__)}"


def _string(value: Any) -> str | None:
    return complaint(value) if isinstance(value, str) else _not("a string", value)


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else _not("a boolean", value)


def _index(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        return None
    return _not("a whole number from 0", value)


def _object(value: Any) -> str | None:
    return complaint(value) if isinstance(value, dict) else _not("an object", value)


def _provider_metadata(value: Any) -> str | None:
    if not isinstance(value, dict):
        return _not("an object of objects, by provider", value)
    for name, inner in value.items():
        if not isinstance(inner, dict):
            return f".{name}" + _not("an object", inner)
    return complaint(value)


def _strings(value: Any) -> str | None:
    if not isinstance(value, dict):
        return _not("an object of strings", value)
    for name, inner in value.items():
        if not isinstance(inner, str):
            return f".{name}" + _not("a string", inner)
    return complaint(value)


def _one_of(*values: str) -> Kind:
    expected = "one of " + ", ".join(repr(value) for value in values)

    def judge(value: Any) -> str | None:
        if isinstance(value, str):
            return None if value in values else f" must be {expected}, not {value[:40]!r}"
        return _not(expected, value)

    return judge


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of one chunk type and how each is judged. Any other field may hold any JSON value."""

    required: Mapping[str, Kind] = field(default_factory=dict)
    optional: Mapping[str, Kind] = field(default_factory=dict)

    def judge(self, value: Mapping[str, Any]) -> str | None:
        """What is wrong with an object that should have this shape, or None."""
        wrong = _bad_key(value)  # type: ignore[arg-type]
        if wrong is not None:
            return wrong
        for name in self.required:
            if name not in value:
                return f" needs the field {name!r}"
        for name, item in value.items():
            kind = self.required.get(name) or self.optional.get(name) or complaint
            wrong = kind(item)
            if wrong is not None:
                return f".{name}{wrong}"
        return None


def _list_of(noun: str, pick: Callable[[dict[str, Any]], Shape | None]) -> Kind:
    def judge(value: Any) -> str | None:
        if not isinstance(value, (list, tuple)):
            return _not(f"a list of {noun}", value)
        for index, item in enumerate(value):
            shape = pick(item) if isinstance(item, dict) else None
            wrong = _not(f"one of the {noun} of ai@7", item) if shape is None else shape.judge(item)
            if wrong is not None:
                return f"[{index}]{wrong}"
        return None

    return judge


_PM: dict[str, Kind] = {"providerMetadata": _provider_metadata}

CITED_SOURCES: dict[str, Shape] = {
    "url": Shape(
        {"type": _one_of("source"), "sourceType": _one_of("url"), "id": _string, "url": _string},
        {"title": _string, **_PM},
    ),
    "document": Shape(
        {
            "type": _one_of("source"),
            "sourceType": _one_of("document"),
            "id": _string,
            "mediaType": _string,
            "title": _string,
        },
        {"filename": _string, **_PM},
    ),
}


def _cited_source(value: Any) -> str | None:
    shape = CITED_SOURCES.get(str(value.get("sourceType"))) if isinstance(value, dict) else None
    return _not("a url or document source", value) if shape is None else shape.judge(value)


CITATION = Shape({"source": _cited_source}, {"startIndex": _index, "endIndex": _index, "citedText": _string})
_STEERED: dict[Any, Shape] = {
    "text": Shape({"type": _string, "text": _string}, _PM),
    "file": Shape(
        {"type": _string, "mediaType": _string, "url": _string},
        {"filename": _string, "providerReference": _strings, **_PM},
    ),
}
FINISH_REASONS = ("stop", "length", "content-filter", "tool-calls", "error", "interrupted", "other")

_TOOL: dict[str, Kind] = {
    "providerExecuted": _boolean,
    "toolMetadata": _object,
    "dynamic": _boolean,
    **_PM,
}
_CALL: dict[str, Kind] = {"toolCallId": _string, "toolName": _string}
_FILE = Shape({"url": _string, "mediaType": _string}, _PM)

DATA = Shape({"data": complaint}, {"id": _string, "transient": _boolean})
"""The shape of every ``data-*`` chunk."""

VOCABULARY: dict[str, Shape] = {
    "start": Shape({}, {"messageId": _string, "messageMetadata": complaint}),
    "finish": Shape({}, {"finishReason": _one_of(*FINISH_REASONS), "messageMetadata": complaint}),
    "abort": Shape({}, {"reason": _string}),
    "error": Shape({"errorText": _string}),
    "message-metadata": Shape({"messageMetadata": complaint}),
    "start-step": Shape(),
    "finish-step": Shape(),
    "reset-step": Shape(),
    "text-start": Shape({"id": _string}, _PM),
    "text-delta": Shape({"id": _string, "delta": _string}, _PM),
    "text-end": Shape({"id": _string}, {"citations": _list_of("citations", lambda item: CITATION), **_PM}),
    "reasoning-start": Shape({"id": _string}, _PM),
    "reasoning-delta": Shape({"id": _string, "delta": _string}, _PM),
    "reasoning-end": Shape({"id": _string}, _PM),
    "source-url": Shape({"sourceId": _string, "url": _string}, {"title": _string, **_PM}),
    "source-document": Shape(
        {"sourceId": _string, "mediaType": _string, "title": _string}, {"filename": _string, **_PM}
    ),
    "file": _FILE,
    "reasoning-file": _FILE,
    "custom": Shape({"kind": _string}, _PM),
    STEERING: Shape({"id": _string, "parts": _list_of("parts", lambda item: _STEERED.get(str(item.get("type"))))}),
    "tool-input-start": Shape(_CALL, {"inputEncoding": _one_of("json", "text"), "title": _string, **_TOOL}),
    "tool-input-delta": Shape({"toolCallId": _string, "inputTextDelta": _string}),
    "tool-input-available": Shape({**_CALL, "input": complaint}, {"title": _string, **_TOOL}),
    "tool-input-error": Shape({**_CALL, "input": complaint, "errorText": _string}, {"title": _string, **_TOOL}),
    "tool-approval-request": Shape(
        {"approvalId": _string, "toolCallId": _string},
        {
            "approvalDescriptor": complaint,
            "inputSchemaInput": complaint,
            "reason": _string,
            "isAutomatic": _boolean,
            "signature": _string,
        },
    ),
    "tool-approval-response": Shape(
        {"approvalId": _string, "approved": _boolean},
        {"reason": _string, "providerExecuted": _boolean, **_PM},
    ),
    "tool-output-available": Shape({"toolCallId": _string, "output": complaint}, {"preliminary": _boolean, **_TOOL}),
    "tool-output-error": Shape({"toolCallId": _string, "errorText": _string}, _TOOL),
    "tool-output-denied": Shape({"toolCallId": _string}),
}
"""Every chunk type but ``data-*``, with its required and its optional fields."""


def _check_fields(chunk: Any) -> None:
    if not isinstance(chunk, dict):
        raise ChunkInvalid(f"a chunk must be a dict, not {_article(type(chunk).__name__)}")
    kind = chunk.get("type")
    if not isinstance(kind, str):
        raise ChunkInvalid(f"a chunk needs a 'type' that is a string, not {kind!r:.60}")
    shape = DATA if kind.startswith(DATA_PREFIX) else VOCABULARY.get(kind)
    if shape is None:
        near = get_close_matches(kind[:60], VOCABULARY, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ChunkInvalid(f"unknown chunk type {kind[:60]!r}{hint}")
    wrong = shape.judge(chunk)
    if wrong is not None:
        raise ChunkInvalid(kind[:60] + wrong)
