"""Streams of OpenAI's Responses API and Chat Completions as their servers write them, made from the finished items.

After ``openai@3.54.0 types/responses`` and ``types/chat``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from model_server import Cutting, Event, whole

Item = dict[str, Any]

USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 18,
}


def message(*content: Item, id: str = "msg_1", **more: Any) -> Item:
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": [*content], **more}


def text(said: str, *annotations: Item) -> Item:
    return {"type": "output_text", "text": said, "annotations": [*annotations], "logprobs": []}


def refusal(said: str) -> Item:
    return {"type": "refusal", "refusal": said}


def reasoning(*summary: str, id: str = "rs_1", encrypted: str | None = "sealed", **more: Any) -> Item:
    pieces = [{"type": "summary_text", "text": piece} for piece in summary]
    return {"type": "reasoning", "id": id, "summary": pieces, "encrypted_content": encrypted, **more}


def function_call(name: str, arguments: str, call: str = "call_1", id: str = "fc_1", status: str = "completed") -> Item:
    told = {"call_id": call, "name": name, "arguments": arguments, "status": status}
    return {"type": "function_call", "id": id, **told}


def response(output: Sequence[Item], **more: Any) -> Item:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "output": [*output],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "status": "completed",
        "usage": None,
        "error": None,
        "incomplete_details": None,
        **more,
    }


def responses(*items: Item, cutting: Cutting = whole, end: str = "completed", **more: Any) -> list[Event]:
    """All events of a response, from ``response.created`` to its end."""
    begun = response([], status="in_progress")
    events: list[Event] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(items):
        events += [{**event, "output_index": index} for event in _item(item, cutting)]
    final = response(items, **{"status": end, "usage": USAGE, **more})
    events.append({"type": f"response.{end}", "response": final})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _item(item: Item, cutting: Cutting) -> Iterator[Event]:
    kind, named = item["type"], {"item_id": item["id"]}
    begun = {**item, "status": "in_progress"}
    if kind == "message":
        begun["content"] = []
    elif kind == "reasoning":
        begun |= {"summary": [], "encrypted_content": "not yet", **({"content": []} if "content" in item else {})}
        del begun["status"]
    elif kind in ("function_call", "mcp_call"):
        begun["arguments"] = ""
    elif kind == "custom_tool_call":
        begun["input"] = ""
    yield {"type": "response.output_item.added", "item": begun}
    for place, content in enumerate(item.get("content") or () if kind == "message" else ()):
        yield from ({**event, **named, "content_index": place} for event in _content(content, cutting))
    if kind == "reasoning":
        for place, piece in enumerate(item["summary"]):
            for event in _piece("response.reasoning_summary", piece, cutting):
                yield {**event, **named, "summary_index": place}
        for place, piece in enumerate(item.get("content") or ()):
            for delta in cutting(piece["text"]):
                yield {"type": "response.reasoning_text.delta", **named, "content_index": place, "delta": delta}
            yield {"type": "response.reasoning_text.done", **named, "content_index": place, "text": piece["text"]}
    for name, field in _STREAMED.get(kind, {}).items():
        for delta in cutting(item[field]):
            yield {"type": f"response.{name}.delta", **named, "delta": delta}
        yield {"type": f"response.{name}.done", **named, field: item[field]}
    for name in _STAGES.get(kind, ()):
        yield {"type": f"response.{kind}.{name}", **named}
    yield {"type": "response.output_item.done", "item": item}


_STREAMED = {
    "function_call": {"function_call_arguments": "arguments"},
    "mcp_call": {"mcp_call_arguments": "arguments"},
    "custom_tool_call": {"custom_tool_call_input": "input"},
}
_STAGES = {
    "web_search_call": ("in_progress", "searching", "completed"),
    "code_interpreter_call": ("in_progress", "interpreting", "completed"),
    "image_generation_call": ("in_progress", "generating", "completed"),
    "mcp_call": ("completed",),
}


def _content(content: Item, cutting: Cutting) -> Iterator[Event]:
    kind = "refusal" if content["type"] == "refusal" else "output_text"
    field = "refusal" if kind == "refusal" else "text"
    yield {"type": "response.content_part.added", "part": {**content, field: "", "annotations": []}}
    for delta in cutting(content[field]):
        yield {"type": f"response.{kind}.delta", "delta": delta, "logprobs": []}
    for place, annotation in enumerate(content.get("annotations", ())):
        added = "response.output_text.annotation.added"
        yield {"type": added, "annotation": annotation, "annotation_index": place}
    yield {"type": f"response.{kind}.done", field: content[field], "logprobs": []}
    yield {"type": "response.content_part.done", "part": content}


def _piece(name: str, piece: Item, cutting: Cutting) -> Iterator[Event]:
    yield {"type": f"{name}_part.added", "part": {**piece, "text": ""}}
    for delta in cutting(piece["text"]):
        yield {"type": f"{name}_text.delta", "delta": delta}
    yield {"type": f"{name}_text.done", "text": piece["text"]}
    yield {"type": f"{name}_part.done", "part": piece}


# ---------------------------------------------------------------------- Chat Completions


def chunk(delta: Item | None = None, finish: str | None = None, **more: Any) -> Event:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    named = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**named, "choices": choices, "usage": None, **more}


def completion(
    content: str = "",
    *calls: tuple[str, str, str],
    finish: str = "stop",
    cutting: Cutting = whole,
    **strings: str,
) -> list[Event]:
    """All chunks of a completion. ``calls``: id, name, arguments; ``strings``: other fields that are told in deltas."""
    chunks = [chunk({"role": "assistant", "content": ""})]
    for name, value in {**strings, "content": content}.items():
        chunks += [chunk({name: piece}) for piece in cutting(value)]
    for index, (call, name, arguments) in enumerate(calls):
        first = {"index": index, "id": call, "type": "function", "function": {"name": name, "arguments": ""}}
        chunks.append(chunk({"tool_calls": [first]}))
        pieces = [{"index": index, "function": {"arguments": piece}} for piece in cutting(arguments)]
        chunks += [chunk({"tool_calls": [piece]}) for piece in pieces]
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    return [*chunks, chunk({}, finish), chunk(usage=usage)]
