"""Unfold: the shortest canonical chunk list that folds to a given state, and the chunks that close what is open.

A reader that joins late gets this list and then the live tail, so it must end where the state is, down to the ids of
open parts and the raw text of partial inputs. Parts come in the order of the message. A call with an output is
written as ``tool-input-start``, one delta and the output: the same part as from ``tool-input-available``, but replaying
that one would make the client run the tool again (``ai@7.0.173 src/ui/process-ui-message-stream.ts``, ``onToolCall``).
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from itertools import count
from typing import Any

from strandline.core.message import FoldState
from strandline.core.partial_json import ABSENT, parse_partial
from strandline.core.parts import Part, Text, Tool, is_step

Chunks = list[dict[str, Any]]


def unfold(state: FoldState) -> Chunks:
    """The shortest canonical chunk list with ``fold(unfold(state)) == state``. It begins with ``start``."""
    start: dict[str, Any] = {"type": "start"}
    if state.message_id is not None:
        start["messageId"] = state.message_id
    if state.metadata is not None:
        start["messageMetadata"] = state.metadata
    chunks = [start]
    finish_at = _last_finish(state)
    in_step = part_open = False
    for index, entry in enumerate(state.entries):
        if index == finish_at:
            chunks.append({"type": "finish-step"})
        if isinstance(entry, Text):
            chunks += _text(entry)
            part_open = part_open or entry.open
        elif isinstance(entry, Tool):
            chunks += _tool(entry)
        elif is_step(entry):
            if in_step and not part_open:
                chunks.append({"type": "finish-step"})
            chunks.append({"type": "start-step"})
            in_step = True
        else:
            chunks.append(dict(entry))
    if finish_at == len(state.entries):
        chunks.append({"type": "finish-step"})
    if state.finish_reason is not None:
        chunks.append({"type": "finish", "finishReason": state.finish_reason})
    return chunks


def unfold_message(message_id: str, parts: Iterable[Mapping[str, Any]], metadata: Any = None) -> Chunks:
    """The same for a UIMessage that was stored when it was finished. Text parts get new ids.

    Parts that no chunk can express (of a type that ai@7 does not know) are left out.
    """
    return unfold(revive(message_id, parts, metadata))


def revive(message_id: str, parts: Iterable[Mapping[str, Any]], metadata: Any = None) -> FoldState:
    """The state of a stored UIMessage, as far as its parts tell: every step is over."""
    entries: list[Part] = []
    parts = list(parts)
    taken = {part["id"] for part in parts if part["type"] == "reasoning" and "id" in part}
    for part in parts:
        kind = part["type"]
        if kind in ("text", "reasoning"):
            entries.append(_revived_text(part, taken))
        elif kind == "dynamic-tool" or kind.startswith("tool-"):
            entries.append(_revived_tool(part))
        elif kind in _PLAIN or kind.startswith("data-"):
            entries.append(dict(part))
    return FoldState(message_id, metadata, entries)


def again(state: FoldState) -> Chunks:
    """The chunks after which a message that has only been started says ``state``; none where it says nothing."""
    start, *rest = unfold(state)
    metadata = start.get("messageMetadata")
    return rest if metadata is None else [{"type": "message-metadata", "messageMetadata": metadata}, *rest]


def closers(state: FoldState, reason: str, spared: Container[str] = ()) -> Chunks:
    """Chunks after which nothing in the message is open (PROTOCOL §9.1) but the tool calls ``spared``. ``reason`` is
    shown to users."""
    chunks: Chunks = [{"type": "text-end", "id": part_id} for part_id in state.open_text]
    chunks += [{"type": "reasoning-end", "id": part_id} for part_id in state.open_reasoning]
    for tool in state.unfinished_tools:
        if tool.id in spared:
            continue
        chunk: dict[str, Any] = {"type": "tool-output-error", "toolCallId": tool.id}
        # An input error for a call of an earlier step would add a second part instead of ending this one.
        if tool.state == "input-streaming" and state.in_current_step(tool):
            known = tool.input()
            chunk = {
                "type": "tool-input-error",
                "toolCallId": tool.id,
                "toolName": tool.name,
                "input": None if known is ABSENT else known,
            }
        chunk["errorText"] = reason
        chunks.append(_marked(chunk, tool))
    if state.step_open:
        chunks.append({"type": "finish-step"})
    return chunks


def _last_finish(state: FoldState) -> int | None:
    """Before which entry the last step is finished: none of the open parts may come earlier if that can be helped,
    since clients below 7 forget open parts at ``finish-step``."""
    steps = [index for index, entry in enumerate(state.entries) if is_step(entry)]
    if state.step_open or not steps:
        return None
    end = len(state.entries)
    first_open = next((i for i, entry in enumerate(state.entries) if isinstance(entry, Text) and entry.open), end)
    return first_open if first_open > steps[-1] else end


def _text(part: Text) -> Chunks:
    start: dict[str, Any] = {"type": f"{part.kind}-start", "id": part.id}
    if part.provider_metadata is not None:
        start["providerMetadata"] = part.provider_metadata
    chunks = [start]
    text = part.text()
    if text:
        chunks.append({"type": f"{part.kind}-delta", "id": part.id, "delta": text})
    if not part.open:
        end: dict[str, Any] = {"type": f"{part.kind}-end", "id": part.id}
        if part.citations is not None:
            end["citations"] = part.citations
        chunks.append(end)
    return chunks


def _tool(tool: Tool) -> Chunks:
    approvals = _approvals(tool)
    if tool.state.startswith("approval-"):
        return [*_content(tool, []), *approvals]
    if tool.state == "output-denied":
        return [*_content(tool, []), *approvals, _marked({"type": "tool-output-denied", "toolCallId": tool.id}, tool)]
    return _content(tool, approvals)


def _content(tool: Tool, before: Chunks) -> Chunks:
    """The chunks for a call's input and result. ``before`` goes ahead of the last of them that changes its state."""
    fields, known = tool.fields, tool.input()
    if tool.base.startswith("input-") and tool.base != "input-error":
        return _input(tool, before)
    metadata = {"providerMetadata": fields["resultProviderMetadata"]} if "resultProviderMetadata" in fields else {}
    result: dict[str, Any] = {"type": f"tool-{tool.base}", "toolCallId": tool.id}
    if tool.base == "input-error":
        result |= {"toolName": tool.name, "input": known, "errorText": fields["errorText"]}
        result |= {name: fields[name] for name in ("providerExecuted", "toolMetadata") if name in fields}
        needs_start = before or "title" in fields or "callProviderMetadata" in fields
        return [*([_call(tool, "start")] if needs_start else []), *before, _marked({**result, **metadata}, tool)]
    result |= {name: fields[name] for name in ("output", "preliminary", "errorText") if name in fields}
    chunks = [_call(tool, "start")]
    raw = tool.raw_text
    if raw is not None:
        # Only a static call that failed while its input was streaming keeps the raw text.
        if known != parse_partial(raw):
            chunks[0]["inputEncoding"] = "text"
        chunks.append(_delta(tool, raw))
    elif known is not ABSENT:
        chunks.append(_delta(tool, json.dumps(known, ensure_ascii=False, separators=(",", ":"))))
        if tool.base == "output-error" and not tool.dynamic:
            # An output in between makes the client drop the raw text, which this part does not show.
            chunks.append({"type": "tool-output-available", "toolCallId": tool.id, "output": None})
    return [*chunks, *before, _marked({**result, **metadata}, tool)]


def _input(tool: Tool, before: Chunks) -> Chunks:
    chunks = list(before)
    if "resultProviderMetadata" in tool.fields:
        metadata = tool.fields["resultProviderMetadata"]
        error = {"type": "tool-output-error", "toolCallId": tool.id, "errorText": "", "providerMetadata": metadata}
        chunks.append(_marked(error, tool))
    if chunks:
        chunks.insert(0, _call(tool, "start"))
    if tool.base == "input-available":
        return [*chunks, {**_call(tool, "available"), "input": tool.fields["input"]}]
    start = _call(tool, "start")
    if "inputEncoding" in tool.fields:
        start["inputEncoding"] = tool.fields["inputEncoding"]
    chunks.append(start)
    raw = tool.raw_text
    return chunks if raw is None else [*chunks, _delta(tool, raw)]


def _call(tool: Tool, what: str) -> dict[str, Any]:
    fields = tool.fields
    chunk: dict[str, Any] = {"type": f"tool-input-{what}", "toolCallId": tool.id, "toolName": tool.name}
    chunk |= {name: fields[name] for name in ("title", "toolMetadata", "providerExecuted") if name in fields}
    if "callProviderMetadata" in fields:
        chunk["providerMetadata"] = fields["callProviderMetadata"]
    return _marked(chunk, tool)


def _delta(tool: Tool, text: str) -> dict[str, Any]:
    return {"type": "tool-input-delta", "toolCallId": tool.id, "inputTextDelta": text}


def _marked(chunk: dict[str, Any], tool: Tool) -> dict[str, Any]:
    """Say ``dynamic`` on every chunk of a dynamic call: ai@5 does not find the part otherwise."""
    return {**chunk, "dynamic": True} if tool.dynamic else chunk


def _approvals(tool: Tool) -> Chunks:
    approval = tool.fields.get("approval")
    if approval is None:
        return []
    request: dict[str, Any] = {"type": "tool-approval-request", "approvalId": approval["id"], "toolCallId": tool.id}
    request |= {name: approval[shown] for name, shown in _ASKED.items() if shown in approval}
    if "approved" not in approval:
        return [request]
    answer = {"type": "tool-approval-response", "approvalId": approval["id"], "approved": approval["approved"]}
    if "reason" in approval:
        answer["reason"] = approval["reason"]
    return [request, answer]


_ASKED = {
    "approvalDescriptor": "descriptor",
    "inputSchemaInput": "inputSchemaInput",
    "reason": "requestReason",
    "isAutomatic": "isAutomatic",
    "signature": "signature",
}
_PLAIN = frozenset(
    {"step-start", "file", "reasoning-file", "source-url", "source-document", "custom", "steering-message"}
)


def _revived_text(part: Mapping[str, Any], taken: set[str]) -> Text:
    if part["type"] == "reasoning" and "id" in part:
        part_id = str(part["id"])
    else:
        part_id = next(free for free in map("part-{}".format, count(1)) if free not in taken)
        taken.add(part_id)
    text = Text(part["type"], part_id)
    text.fragments = [part["text"]]
    text.open = part.get("state") == "streaming"
    text.provider_metadata = part.get("providerMetadata")
    text.citations = part.get("citations")
    return text


def _revived_tool(part: Mapping[str, Any]) -> Tool:
    tool = Tool(part["toolCallId"], part["type"] == "dynamic-tool")
    tool.fields |= {name: value for name, value in part.items() if name != "rawInput"}
    raw = part.get("rawInput")
    if isinstance(raw, str):
        tool.raw = [raw]
    elif raw is not None and "input" not in part:
        # Clients before 7 show the input of a refused static call as its raw input.
        tool.fields["input"] = raw
    if "output" in part:
        tool.base = "output-available"
    elif "errorText" in part:
        tool.base = "output-error" if isinstance(raw, str) or raw is None else "input-error"
    elif "input" in part and tool.raw is None:
        tool.base = "input-available"
    else:
        tool.base = "input-streaming"
        tool.fields.pop("input", None)
    return tool
