"""A conversation as ``messages`` of Anthropic's Messages API (``anthropic@2.12.0 types/message_param.py``).

Thinking goes back with its signature, server-side tools with what they found. A call is followed at once by a user
message with the results, and turns of the same role are one message.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from strandline.agents.sources.turns import Part, ToolCall, base64_of, kept, turns, unseen

Block = dict[str, Any]


def anthropic_messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``run.messages`` (and ``run.message``, in a tool loop) as ``messages``: text, images, documents, tool calls with
    their results, signed thinking. System messages are left out: they go into ``system=``."""
    found: list[dict[str, Any]] = []
    for role, parts in turns(messages):
        if role == "assistant":
            _add(found, "assistant", [block for part in parts for block in _said(part)])
            _add(found, "user", [block for part in parts for block in _result(part)])
        elif role == "user":
            _add(found, "user", [block for part in parts for block in _content(part)])
    return found


def _add(found: list[dict[str, Any]], role: str, content: list[Block]) -> None:
    if content and found and found[-1]["role"] == role:
        found[-1]["content"] += content
    elif content:
        found.append({"role": role, "content": content})


def _content(part: Part) -> Iterator[Block]:
    if part["type"] == "text" and part["text"]:
        yield {"type": "text", "text": part["text"]}
    elif part["type"] == "file":
        yield _file(part)


def _file(part: Part) -> Block:
    media, url = part["mediaType"], part["url"]
    data = base64_of(url)
    source = {"type": "url", "url": url} if data is None else {"type": "base64", "media_type": media, "data": data}
    if media.startswith("image/"):
        return {"type": "image", "source": source}
    title = {"title": part["filename"]} if part.get("filename") else {}
    if media == "application/pdf":
        return {"type": "document", "source": source, **title}
    if media.startswith("text/") and data is not None:
        text = b64decode(data).decode(errors="replace")
        return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, **title}
    return {"type": "text", "text": unseen(part)}


def _said(part: Part) -> Iterator[Block]:
    """The blocks that a part of a reply was made of."""
    mine = kept(part, "anthropic")
    call = ToolCall.of(part)
    if call is not None:
        yield from _call(call)
    elif part["type"] == "text" and part["text"]:
        yield {"type": "text", "text": part["text"], **mine}
    elif part["type"] == "reasoning" and "redactedData" in mine:
        yield {"type": "redacted_thinking", "data": mine["redactedData"]}
    elif part["type"] == "reasoning" and mine.get("signature"):
        yield {"type": "thinking", "thinking": part["text"], "signature": mine["signature"]}
    elif part["type"] == "custom" and "block" in mine:
        yield mine["block"]


def _call(call: ToolCall) -> Iterator[Block]:
    # Text that was not JSON is no input that Anthropic takes.
    given = call.input if isinstance(call.input, dict) else {"input": call.input}
    asked = {"id": call.id, "name": call.name, "input": given}
    if not call.by_provider:
        yield {"type": "tool_use", **asked, **call.metadata("anthropic")}
        return
    output = call.part.get("output")
    if isinstance(output, dict) and output.get("tool_use_id") == call.id:
        yield {**asked, **call.metadata("anthropic")}
        yield output


def _result(part: Part) -> Iterator[Block]:
    call = ToolCall.of(part)
    if call is not None and not call.by_provider:
        failed = {"is_error": True} if call.failed else {}
        yield {"type": "tool_result", "tool_use_id": call.id, "content": call.answer, **failed}
