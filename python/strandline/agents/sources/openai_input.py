"""A conversation as the ``input`` of OpenAI's Responses API.

Upstream: ``openai@3.54.0`` (``types/responses/response_input_item_param.py``).

What the model said is given back item by item, as it came, so that it may go on from its own reasoning. OpenAI refuses
reasoning without the item that followed it, an item without the reasoning before it, and reasoning that it can neither
read nor has stored. So a step is given back either exactly or, where anything of it is missing (it was stopped, it is
from another provider), as the words and the function calls in it and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from strandline.agents.sources.turns import Part, ToolCall, json_text, kept, turns

Item = dict[str, Any]


def responses_input(messages: Iterable[Mapping[str, Any]]) -> list[Item]:
    """``run.messages`` (and ``run.message``, in a tool loop) as ``input``: text, images, files, tool calls with their
    results, encrypted reasoning and what OpenAI's own tools found."""
    found: list[Item] = []
    for role, parts in turns(messages):
        if role == "assistant":
            found += _assistant(parts)
        elif content := [item for part in parts for item in _content(part)]:
            found.append({"role": role, "content": content})
    return found


def _content(part: Part) -> Iterator[Item]:
    if part["type"] == "text" and part["text"]:
        yield {"type": "input_text", "text": part["text"]}
    elif part["type"] == "file":
        url = part["url"]
        if part["mediaType"].startswith("image/"):
            yield {"type": "input_image", "image_url": url, "detail": "auto"}
        elif url.startswith("data:"):
            yield {"type": "input_file", "filename": part.get("filename") or "file", "file_data": url}
        else:
            yield {"type": "input_file", "file_url": url}


def _assistant(parts: list[Part]) -> list[Item]:
    results = [
        {"type": _CUSTOM_OUTPUT if _custom(call) else "function_call_output", "call_id": call.id, "output": call.answer}
        for part in parts
        if (call := ToolCall.of(part)) is not None and not call.by_provider
    ]
    items = _items(parts)
    if not _exact(items):
        return [*_words(items), *results]
    return [*items, *results, *(_response(call) for part in parts if (call := ToolCall.of(part)) and _request(call))]


def _items(parts: list[Part]) -> list[Item]:
    """The output items that the parts were made of. Those that are not from OpenAI, or not whole, have no id."""
    items: list[Item] = []
    for part in parts:
        call = ToolCall.of(part)
        if call is not None:
            item = _call(call)
        elif part["type"] == "custom":
            item = kept(part, "openai").get("item")
        else:
            item = _said(part, items)
        if item is not None and not (items and items[-1] is item):
            items.append(item)
    return items


def _said(part: Part, items: list[Item]) -> Item | None:
    """The message or the reasoning that a part is (a piece of)."""
    mine, last = kept(part, "openai"), items[-1] if items else {}
    item_id = mine.get("itemId")
    same = last if item_id is not None and last.get("id") == item_id else None
    if part["type"] == "text" and part["text"]:
        content = (
            {"type": "refusal", "refusal": part["text"]}
            if mine.get("refusal")
            else {"type": "output_text", "text": part["text"], "annotations": mine.get("annotations", [])}
        )
        message = same or {"type": "message", "role": "assistant", "status": "completed", "content": []}
        message["content"].append(content)
        return _named(message, id=item_id, phase=mine.get("phase"))
    if part["type"] == "reasoning":
        item = same or {"type": "reasoning", "summary": []}
        if part["text"]:
            name = mine.get("piece", "summary")
            piece = {"type": "summary_text" if name == "summary" else "reasoning_text", "text": part["text"]}
            item.setdefault(name, []).append(piece)
        return _named(item, id=item_id, encrypted_content=mine.get("reasoningEncryptedContent"))
    return None


def _call(call: ToolCall) -> Item | None:
    if (request := _request(call)) is not None:
        return request
    if call.by_provider:
        # The item itself is the output; where another provider ran the tool, it is not known here.
        output = call.part.get("output")
        return output if isinstance(output, dict) and str(output.get("type", "")).endswith("_call") else None
    item_id = call.metadata("openai").get("itemId")
    if _custom(call):
        return _named(
            {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.input}, id=item_id
        )
    arguments = call.input if isinstance(call.input, str) else json_text(call.input)
    return _named({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}, id=item_id)


def _request(call: ToolCall) -> Item | None:
    """The item with which OpenAI has asked whether it may call a tool of an MCP server."""
    item: Item | None = call.metadata("openai").get("item")
    return item


def _response(call: ToolCall) -> Item:
    """What it is told. A call that was stopped before it was made is not made later."""
    approval = call.part.get("approval", {})
    response = {"type": "mcp_approval_response", "approval_request_id": call.id}
    approve = call.approved or call.part["state"] == "output-available"
    return _named({**response, "approve": approve}, reason=approval.get("reason"))


def _custom(call: ToolCall) -> bool:
    return bool(call.metadata("openai").get("custom"))


_CUSTOM_OUTPUT = "custom_tool_call_output"


def _named(item: Item, **values: Any) -> Item:
    item |= {name: value for name, value in values.items() if value is not None}
    return item


def _exact(items: list[Item]) -> bool:
    """True when all items are whole, each reasoning can be read and is followed by what it led to, and each call of a
    tool that is neither ours nor run by OpenAI (a computer, a shell) has its output."""
    follows = [*(item["type"] for item in items[1:]), "reasoning"]
    answered = {item.get("call_id") for item in items if item["type"].endswith("_output")}
    for item, following in zip(items, follows, strict=True):
        kind = item["type"]
        if "id" not in item:
            return False
        if kind == "reasoning" and (following == "reasoning" or "encrypted_content" not in item):
            return False
        if kind not in _OURS and kind.endswith("_call") and "call_id" in item and item["call_id"] not in answered:
            return False
    return True


_OURS = frozenset({"function_call", "custom_tool_call"})


def _words(items: list[Item]) -> list[Item]:
    found: list[Item] = []
    for item in items:
        if item["type"] == "message":
            content = "".join(piece.get("text") or piece.get("refusal", "") for piece in item["content"])
            found.append({"role": "assistant", "content": content})
        elif item["type"] in _OURS:
            found.append({name: value for name, value in item.items() if name != "id"})
    return found
