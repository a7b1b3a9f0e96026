"""Streams of Anthropic's Messages API as its servers write them, made from the finished content blocks.

After ``anthropic@2.12.0 types/raw_message_stream_event.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from model_server import Cutting, Event, whole

Block = dict[str, Any]

BEGAN = {"input_tokens": 11, "output_tokens": 1, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}


def text(said: str, *citations: Block) -> Block:
    return {"type": "text", "text": said, "citations": [*citations] or None}


def thinking(thought: str, signature: str = "signed") -> Block:
    return {"type": "thinking", "thinking": thought, "signature": signature}


def tool_use(name: str, input: Any, id: str = "toolu_1", **more: Any) -> Block:
    """``input``: a value, or JSON text (which may be cut off)."""
    return {"type": "tool_use", "id": id, "name": name, "input": input, **more}


def message(*blocks: Block, stop: str = "end_turn", cutting: Cutting = whole) -> list[Event]:
    """All events of a message."""
    began = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": BEGAN,
    }
    events: list[Event] = [{"type": "message_start", "message": began}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        events += [{**event, "index": index} for event in _block(block, cutting)]
    ended = {"stop_reason": stop, "stop_sequence": None}
    return [
        *events,
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]


def _block(block: Block, cutting: Cutting) -> Iterator[Event]:
    kind, begun, deltas = block["type"], dict(block), []
    if kind == "text":
        begun |= {"text": ""}
        begun.pop("citations")
        deltas = [{"type": "citations_delta", "citation": each} for each in block["citations"] or ()]
        deltas += [{"type": "text_delta", "text": piece} for piece in cutting(block["text"])]
    elif kind == "thinking":
        begun |= {"thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cutting(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
        begun["input"] = {}
        given = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *cutting(given))]
    elif kind == "compaction":
        begun = {"type": kind, "content": None}
        deltas = [{**block, "type": "compaction_delta"}]
    yield {"type": "content_block_start", "content_block": begun}
    yield from ({"type": "content_block_delta", "delta": delta} for delta in deltas)
    yield {"type": "content_block_stop"}
