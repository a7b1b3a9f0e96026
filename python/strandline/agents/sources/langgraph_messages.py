"""One message of a LangChain model while it is written, or all at once, as chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.utils.json import parse_partial_json
from pydantic_core import to_jsonable_python

OWN = "langgraph"
"""The key of provider metadata under which a part says which message it is of."""

Chunks = Iterator[dict[str, Any]]

_AUTOMATIC = "lc_"
"""How the ids begin that LangChain gives to messages whose provider gave none (yet)."""

_CALLS = frozenset({"tool_call", "tool_call_chunk", "invalid_tool_call"})
_MEDIA = frozenset({"image", "audio", "video", "file"})
_FINISH_REASONS = {
    "length": "length",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "content_filter": "content-filter",
    "refusal": "content-filter",
    "SAFETY": "content-filter",
}


class _Part:
    """The text or reasoning part that is being written."""

    def __init__(self, kind: str, id: str, index: Any) -> None:
        self.kind = kind
        self.id = id
        self.index = index
        self.extras: dict[str, Any] = {}
        self.block_id: str | None = None


class _Call:
    """A tool call whose arguments are coming."""

    def __init__(self, id: str, name: str, executed: bool) -> None:
        self.id = id
        self.name = name
        self.executed = executed
        self.fragments: list[str] = []


class ModelMessage:
    """What is open of a message. ``called``: the ids of its calls. ``begun``: it has said something."""

    def __init__(self, id: str | None, metadata: Mapping[str, Any], mint: Callable[[], str]) -> None:
        self.id = id
        self.task = metadata.get("langgraph_checkpoint_ns")
        self.called: set[str] = set()
        self.begun = False
        self.finish_reason = "stop"
        self._node = metadata.get("langgraph_node")
        self._provider: str | None = None
        self._mint = mint
        self._part: _Part | None = None
        self._calls: dict[Any, _Call] = {}
        self._cited: set[str] = set()

    def other_kind_of_id(self, id: str) -> bool:
        """Whether of the two ids one is the provider's, and one LangChain's."""
        return self.id is not None and self.id.startswith(_AUTOMATIC) is not id.startswith(_AUTOMATIC)

    def take(self, message: AIMessage) -> Chunks:
        """A chunk of it, or all of it."""
        self._note(message.response_metadata)
        if not isinstance(message, AIMessageChunk):
            for block in message.content_blocks:
                yield from self._call(block) if block["type"] in _CALLS else self._block(block)
            for invalid in message.invalid_tool_calls:
                yield from self._call({"type": "invalid_tool_call", **invalid})
            return
        if type(message.content) is str and not message.additional_kwargs:
            if message.content:
                yield from self._say("text", message.content, {})
        else:
            for block in message.content_blocks:
                if block["type"] not in _CALLS:
                    yield from self._block(block)
        for call in message.tool_call_chunks:
            yield from self._call_chunk(call, executed=False)

    def end(self) -> Chunks:
        """Close the open part, and say what the arguments of each call came to: as LangChain reads them."""
        yield from self._close()
        for call in self._calls.values():
            yield from self._arguments(call)
        self._calls.clear()

    def _note(self, metadata: Mapping[str, Any]) -> None:
        self._provider = metadata.get("model_provider") or self._provider
        reason = metadata.get("finish_reason") or metadata.get("stop_reason")
        if reason is not None:
            self.finish_reason = _FINISH_REASONS.get(str(reason), "stop")

    def _block(self, block: Mapping[str, Any]) -> Chunks:
        kind = block["type"]
        if kind in ("text", "reasoning"):
            yield from self._say(kind, block.get(kind) or "", block)
            for each in block.get("annotations") or ():
                yield from self._cite(each)
        elif kind in _MEDIA:
            yield from self._file(block)
        elif kind == "server_tool_call":
            yield from self._call(block, executed=True)
        elif kind == "server_tool_call_chunk":
            yield from self._call_chunk(block, executed=True)
        elif kind == "server_tool_result":
            yield from self._server_result(block)

    def _say(self, kind: str, text: str, block: Mapping[str, Any]) -> Chunks:
        extras, index = block.get("extras"), block.get("index")
        part = self._part
        if part is None or part.kind != kind or (index is not None and index != part.index):
            if not text and (kind == "text" or not extras):
                return
            yield from self._close()
            part = self._part = _Part(kind, self._mint(), index)
            yield {"type": f"{kind}-start", "id": part.id, "providerMetadata": self._metadata()}
        if text:
            yield {"type": f"{kind}-delta", "id": part.id, "delta": text}
        if extras:
            part.extras |= to_jsonable_python(extras)
        part.block_id = part.block_id or block.get("id")

    def _close(self) -> Chunks:
        part, self._part = self._part, None
        if part is None:
            return
        closing: dict[str, Any] = {"type": f"{part.kind}-end", "id": part.id}
        if part.kind == "reasoning":
            # What a provider wants back with its reasoning. Without this the part was cut off, and is not sent back.
            whole = {"whole": True, "provider": self._provider, "id": part.block_id, "extras": part.extras}
            closing["providerMetadata"] = self._metadata(**{name: value for name, value in whole.items() if value})
        yield closing

    def _metadata(self, **more: Any) -> dict[str, Any]:
        of = {"message": self.id, "node": self._node}
        return {OWN: {**{name: value for name, value in of.items() if value is not None}, **more}}

    def _call(self, call: Mapping[str, Any], *, executed: bool = False) -> Chunks:
        """A call that is complete."""
        arguments = call.get("args")
        text = arguments if isinstance(arguments, str) else None
        whole = _Call(self._named(call), call.get("name") or "tool", executed)
        yield from self._close()
        self.called.add(whole.id)
        yield from self._input(whole, arguments if isinstance(arguments, dict) else None, text)

    def _call_chunk(self, call: Mapping[str, Any], *, executed: bool) -> Chunks:
        key = (executed, call.get("index") if call.get("index") is not None else call.get("id"))
        known = self._calls.get(key)
        if known is None or call.get("id") not in (None, known.id):
            if known is not None:  # an index that is used again
                yield from self._arguments(self._calls.pop(key))
            yield from self._close()
            known = self._calls[key] = _Call(self._named(call), call.get("name") or "tool", executed)
            self.called.add(known.id)
            yield {"type": "tool-input-start", **self._shown(known)}
        if call.get("args"):
            known.fragments.append(str(call["args"]))
            yield {"type": "tool-input-delta", "toolCallId": known.id, "inputTextDelta": known.fragments[-1]}

    def _named(self, call: Mapping[str, Any]) -> str:
        return str(call.get("id") or f"{self.id}-{len(self.called) + 1}")

    def _shown(self, call: _Call) -> dict[str, Any]:
        shown = {"toolCallId": call.id, "toolName": call.name, "providerMetadata": self._metadata()}
        return {**shown, "providerExecuted": True} if call.executed else shown

    def _arguments(self, call: _Call) -> Chunks:
        text = "".join(call.fragments)
        try:
            parsed = parse_partial_json(text) if text else {}
        except ValueError:
            parsed = None
        yield from self._input(call, parsed if isinstance(parsed, dict) else None, text)

    def _input(self, call: _Call, arguments: dict[str, Any] | None, text: str | None) -> Chunks:
        if arguments is not None:
            yield {"type": "tool-input-available", **self._shown(call), "input": arguments}
        else:
            error = "The arguments of this call are not a JSON object."
            yield {"type": "tool-input-error", **self._shown(call), "input": text, "errorText": error}

    def _server_result(self, block: Mapping[str, Any]) -> Chunks:
        call = block["tool_call_id"]
        for key in [key for key, each in self._calls.items() if each.id == call]:
            yield from self._arguments(self._calls.pop(key))
        if call not in self.called:
            yield from self._call({"id": call, "args": {}}, executed=True)
        ended: dict[str, Any] = {"toolCallId": call, "providerExecuted": True}
        output = to_jsonable_python(block.get("output"))
        if block.get("status") == "error":
            yield {
                "type": "tool-output-error",
                **ended,
                "errorText": output if isinstance(output, str) else "The tool failed.",
            }
        else:
            yield {"type": "tool-output-available", **ended, "output": output}

    def _file(self, block: Mapping[str, Any]) -> Chunks:
        mime = block.get("mime_type") or f"{block['type']}/*"
        url = block.get("url") or (f"data:{mime};base64,{block['base64']}" if block.get("base64") else None)
        if url is not None:
            yield from self._close()
            yield {"type": "file", "url": url, "mediaType": mime, "providerMetadata": self._metadata()}

    def _cite(self, annotation: Mapping[str, Any]) -> Chunks:
        url = annotation.get("url")
        if annotation.get("type") == "citation" and url and url not in self._cited:
            self._cited.add(url)
            title = {"title": annotation["title"]} if annotation.get("title") else {}
            yield {"type": "source-url", "sourceId": url, "url": url, **title}
