"""A conversation as LangChain's messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage

from strandline.agents.sources.langgraph_interrupts import interrupt_of
from strandline.agents.sources.langgraph_messages import OWN
from strandline.agents.sources.shared import spoken

Block = dict[str, Any]


def history(messages: Iterable[Mapping[str, Any]]) -> list[AnyMessage]:
    """UIMessages (``run.messages``) as LangChain's messages, the last user message included. Every tool call in them
    has a result, if only one that says that there is none. Reasoning that was cut off is left out: providers refuse
    it."""
    found, ids = list(_all(messages)), set()
    for message in found:
        if message.id in ids:
            message.id = None  # a graph's state takes two messages with one id for one
        ids.add(message.id)
    return found


def _all(messages: Iterable[Mapping[str, Any]]) -> Iterator[AnyMessage]:
    for message in messages:
        for role, parts in spoken(message):
            if role == "assistant":
                for said in _replies(parts):
                    yield from said.messages()
            elif content := [block for part in parts if (block := _sent(part)) is not None]:
                kind = SystemMessage if role == "system" else HumanMessage
                yield kind(content=_short(content), id=message["id"])


def _sent(part: Mapping[str, Any]) -> Block | None:
    """What came from outside is text or a file."""
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    return _media(part) if part["type"] == "file" else None


def _media(part: Mapping[str, Any]) -> Block | None:
    url, mime = str(part["url"]), str(part["mediaType"])
    kind = mime.partition("/")[0]
    block: Block = {"type": kind if kind in ("image", "audio", "video") else "file", "mime_type": mime}
    if url.startswith("data:"):
        head, comma, data = url.partition(",")
        return {**block, "base64": data} if comma and head.endswith(";base64") else None
    return {**block, "url": url} if url.startswith(("https:", "http:")) else None


class _Reply:
    """One message of a model, and the results of its calls."""

    def __init__(self, id: str | None) -> None:
        self.id = id
        self.blocks: list[Block] = []
        self.calls: list[Block] = []
        self.results: list[ToolMessage] = []
        self.provider: str | None = None
        self.native = False

    def messages(self) -> Iterator[AnyMessage]:
        if self.native:
            metadata = {"output_version": "v1"} | ({"model_provider": self.provider} if self.provider else {})
            content: Any = self.blocks
        else:
            metadata, content = {}, _short([block for block in self.blocks if block["type"] != "tool_call"])
        if self.blocks:
            yield AIMessage(content=content, tool_calls=self.calls, id=self.id, response_metadata=metadata)
            yield from self.results


def _replies(parts: Iterable[Mapping[str, Any]]) -> Iterable[_Reply]:
    """The messages in the parts of a reply. Parts that do not say which one they are of are one per step."""
    found: dict[Any, _Reply] = {}
    step = 0
    for part in parts:
        if part["type"] == "step-start":
            step += 1
            continue
        own = _own(part)
        id = own.get("message")
        reply = found.setdefault(id or step, _Reply(id))
        _add(reply, part, own)
    return found.values()


def _add(reply: _Reply, part: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    kind = part["type"]
    if kind == "text" and part["text"]:
        reply.blocks.append({"type": "text", "text": part["text"]})
    elif kind == "reasoning" and own.get("whole"):
        reply.native, reply.provider = True, own.get("provider")
        more = {name: own[name] for name in ("id", "extras") if name in own}
        reply.blocks.append({"type": "reasoning", "reasoning": part["text"], **more})
    elif kind == "file" and own and (block := _media(part)) is not None:
        reply.native = True
        reply.blocks.append(block)
    elif (kind == "dynamic-tool" or kind.startswith("tool-")) and interrupt_of(part) is None:
        _add_call(reply, part, own)


def _add_call(reply: _Reply, part: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    name = part["toolName"] if part["type"] == "dynamic-tool" else part["type"].removeprefix("tool-")
    given = part.get("input")
    call = {"id": part["toolCallId"], "name": name, "args": given if isinstance(given, dict) else {}}
    content, failed = _outcome(part)
    if not part.get("providerExecuted"):
        reply.blocks.append({"type": "tool_call", **call})
        reply.calls.append({"type": "tool_call", **call})
        status: Any = "error" if failed else "success"
        reply.results.append(ToolMessage(content, tool_call_id=call["id"], name=name, status=status))
    elif own:  # what another provider ran means nothing to this one
        reply.native = True
        result = {
            "tool_call_id": call["id"],
            "status": "error" if failed else "success",
            "output": part.get("output", content),
        }
        reply.blocks += [{"type": "server_tool_call", **call}, {"type": "server_tool_result", **result}]


def _outcome(part: Mapping[str, Any]) -> tuple[Any, bool]:
    """What the model is told of a call, and whether it failed."""
    if part["state"] == "output-available":
        output = part["output"]
        blocks = (
            isinstance(output, list) and output and all(isinstance(each, dict) and "type" in each for each in output)
        )
        return output if isinstance(output, str) or blocks else json.dumps(output, ensure_ascii=False), False
    if part["state"] == "output-denied":
        return part.get("approval", {}).get("reason") or "This call was not allowed.", True
    return part.get("errorText", "This call was not finished."), True


def _own(part: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = (
        part.get("providerMetadata") or part.get("callProviderMetadata") or part.get("resultProviderMetadata") or {}
    )
    own: Mapping[str, Any] = metadata.get(OWN, {})
    return own


def _short(blocks: list[Block]) -> Any:
    """Text alone as a string, which every integration takes."""
    if all(block["type"] == "text" for block in blocks):
        return "\n\n".join(block["text"] for block in blocks)
    return blocks
