"""Whole messages between the AI SDK's form, which is stored, and the forms of TanStack AI and AG-UI.

Out: a stored message as the UIMessages that ``@tanstack/ai@0.58.0 src/types.ts`` defines, in the order and with the
ids that a stream of it would have given them (``ag_ui_chunks.py``), so that a reload shows what was shown. In: the
content of an AG-UI user message (``src/utilities/ag-ui-wire.ts``, ``@ag-ui/core@1.0.0``) as parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline.codecs.ag_ui_names import DENIED, bubble_id, call_id, error_text, json_text, reasoning_id, result_text
from strandline.core.records import MessageRecord

UIMessage = dict[str, Any]

_KINDS = ("image", "audio", "video", "document")
_STATES = {
    "input-streaming": "input-streaming",
    "input-available": "input-complete",
    "approval-requested": "approval-requested",
    "approval-responded": "approval-responded",
    "output-available": "complete",
    "output-error": "error",
    "output-denied": "error",
}


class ContentInvalid(ValueError):
    """The content of a user message cannot be taken. The text says what it holds."""


# ---------------------------------------------------------------------- out: history


def ui_messages(message: MessageRecord, created_at: str) -> list[UIMessage]:
    """A stored message as TanStack's UIMessages: one, or more where a reply has text after text and reasoning.
    ``created_at``: its time as ISO 8601 says it."""
    builder = _Builder(message)
    for part in message.parts or ():
        builder.add(part)
    return builder.messages(created_at)


class _Builder:
    """Collects the parts of one message. The rules are those of ``Translator``, part by part."""

    def __init__(self, message: MessageRecord) -> None:
        self._message = message
        self._bubbles: list[list[dict[str, Any]]] = [[]]
        self._others: list[dict[str, Any]] = []
        self._reasoned = 0
        self._numbers: dict[str, int] = {}
        self._said = False

    def add(self, part: Mapping[str, Any]) -> None:
        kind = part["type"]
        if kind == "text":
            self._text(str(part.get("text", "")))
        elif kind == "reasoning":
            self._reasoned += 1
            if part.get("text"):
                step = reasoning_id(self._message.message_id, self._reasoned)
                self._parts.append({"type": "thinking", "content": part["text"], "stepId": step})
        elif kind == "dynamic-tool" or kind.startswith("tool-"):
            self._tool(part)
        elif kind == "file" and self._message.role == "user":
            self._parts.append(media(part))
        elif kind != "step-start":
            self._others.append(dict(part))

    def messages(self, created_at: str) -> list[UIMessage]:
        message = self._message
        found: list[UIMessage] = []
        for number, parts in enumerate(self._bubbles, 1):
            shown = bubble_id(message.message_id, number)
            found.append({"id": shown, "role": message.role, "parts": parts, "createdAt": created_at})
        metadata = dict(message.metadata) if isinstance(message.metadata, Mapping) else {}
        if self._others:
            # What the wire has no part for: on a stream these are CUSTOM events.
            metadata["strandline"] = {"parts": self._others}
        if metadata:
            found[0]["metadata"] = metadata
        return found

    @property
    def _parts(self) -> list[dict[str, Any]]:
        return self._bubbles[-1]

    def _text(self, text: str) -> None:
        if not text:
            return
        assistant = self._message.role == "assistant"
        last = self._parts[-1] if self._parts else None
        if assistant and last is not None and last["type"] == "text":
            # On a stream the processor makes one part of text that follows text.
            last["content"] += text
            return
        if assistant and self._said:
            self._bubbles.append([])
        self._parts.append({"type": "text", "content": text})
        self._said = True

    def _tool(self, part: Mapping[str, Any]) -> None:
        used = part["toolCallId"]
        number = self._numbers[used] = self._numbers.get(used, 0) + 1
        wire = call_id(self._message.message_id, used, number)
        name = part.get("toolName") or part["type"].removeprefix("tool-")
        raw, state = part.get("rawInput"), part["state"]
        arguments = raw if isinstance(raw, str) else json_text(part["input"]) if "input" in part else ""
        call = {"type": "tool-call", "id": wire, "name": name, "arguments": arguments}
        call["state"] = _STATES.get(state, "input-complete")
        if part.get("input") is not None:
            call["input"] = part["input"]
        approval = part.get("approval")
        if isinstance(approval, Mapping):
            answered = {"approved": approval["approved"]} if "approved" in approval else {}
            call["approval"] = {"id": approval["id"], "needsApproval": True, **answered}
        self._parts.append(call)
        self._said = False
        if state == "output-available":
            call["output"] = part.get("output")
            self._parts.append(_result(wire, result_text(part.get("output")), "complete"))
        elif state in ("output-error", "output-denied"):
            text = DENIED if state == "output-denied" else str(part.get("errorText", ""))
            call["output"] = {"error": text}
            self._parts.append({**_result(wire, error_text(text), "error"), **({"error": text} if text else {})})


def _result(wire: str, content: str, state: str) -> dict[str, Any]:
    return {"type": "tool-result", "toolCallId": wire, "content": content, "state": state}


def media(part: Mapping[str, Any]) -> dict[str, Any]:
    """The file of a user message as a part of AG-UI content."""
    url, media_type = str(part.get("url", "")), str(part.get("mediaType", ""))
    family = media_type.partition("/")[0]
    kind = family if family in _KINDS else "document"
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return {"type": kind, "source": {"type": "data", "value": data, "mimeType": media_type}}
    return {"type": kind, "source": {"type": "url", "value": url, "mimeType": media_type}}


# ---------------------------------------------------------------------- in: a user message


def user_parts(content: Any) -> list[dict[str, Any]]:
    """The parts of a user message whose AG-UI content this is. Raises ContentInvalid."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ContentInvalid("`content` must be a string or a list of parts")
    return [_part(each) for each in content]


def _part(part: Any) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind in _KINDS and isinstance(part.get("source"), Mapping):
        return _file(str(kind), part["source"])
    if kind == "binary":  # AG-UI before 1.0
        source = {"type": "url", "value": part.get("url"), "mimeType": part.get("mimeType")}
        if part.get("data") is not None:
            source |= {"type": "data", "value": part["data"]}
        return _file("document", source)
    raise ContentInvalid(f"a part of type {str(kind)[:60]!r} is not text, image, audio, video or document")


def _file(kind: str, source: Mapping[str, Any]) -> dict[str, Any]:
    value, given = source.get("value"), source.get("mimeType")
    if not isinstance(value, str) or not isinstance(given, str | None):
        raise ContentInvalid(f"the source of the {kind} part needs a string `value`")
    media_type = given or ("application/octet-stream" if kind == "document" else f"{kind}/*")
    if source.get("type") == "data":
        return {"type": "file", "url": f"data:{media_type};base64,{value}", "mediaType": media_type}
    if source.get("type") == "url":
        return {"type": "file", "url": value, "mediaType": media_type}
    raise ContentInvalid(f"the source of the {kind} part must be of type url or data")
