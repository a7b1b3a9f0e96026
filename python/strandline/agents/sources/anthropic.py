"""Anthropic: the stream of the Messages API as chunks, and the conversation as its ``messages``.

Upstream: ``anthropic@2.12.0`` (``types/raw_message_stream_event.py``, and ``types/beta`` where it says more). Needs the
extra ``strandline[anthropic]``. Events and blocks of types that this module does not know change nothing that is shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic

from strandline.agents.run import Run
from strandline.agents.sources.anthropic_input import anthropic_messages
from strandline.agents.sources.model_stream import ModelFailed, Tally, events, input_chunk, plain

__all__ = ["anthropic_messages", "anthropic_stream"]

Chunk = dict[str, Any]
Chunks = Iterator[Chunk]


async def anthropic_stream(run: Run, stream: Any) -> AsyncIterator[Chunk]:
    """Yield the chunks of ``await client.messages.create(..., stream=True)`` or ``client.messages.stream(...)``, also
    of ``client.beta``, and record usage and finish reason with the run. Raises PublicError when the model fails."""
    reply = _Reply(run)
    async with events(stream, anthropic.AnthropicError) as incoming:
        yield {"type": "start-step"}
        async for event in incoming:
            for chunk in reply.take(event):
                yield chunk
        if not reply.over:
            raise ModelFailed("The stream ended before the message did.")
    yield {"type": "finish-step"}


class _Block:
    """A content block that is being told: what it began as, and what its deltas have added to that."""

    def __init__(self, index: int, start: Any) -> None:
        self.start = plain(start)
        self.kind = str(self.start["type"])
        self.part = f"{self.kind}-{index}"
        self.input: list[str] = []
        self.citations: list[Chunk] = list(self.start.get("citations") or ())
        self.signature = self.start.get("signature") or ""


class _Reply:
    """One message."""

    def __init__(self, run: Run) -> None:
        self.over = False
        self._run = run
        self._tally = Tally(run)
        self._blocks: dict[int, _Block] = {}
        self._bare: _Block | None = None  # a call without any input, which may have been cut off

    def take(self, event: Any) -> Chunks:
        """The chunks that one event adds."""
        match event.type:
            case "message_start":
                self._count(event.message.usage)
            case "content_block_start":
                yield from self._end_bare(cut=False)
                block = self._blocks[event.index] = _Block(event.index, event.content_block)
                yield from self._begin(block)
            case "content_block_delta" if event.index in self._blocks:
                yield from self._delta(self._blocks[event.index], event.delta)
            case "content_block_stop" if event.index in self._blocks:
                block = self._blocks.pop(event.index)
                if block.kind in _CALLS and not block.input and not block.start.get("input"):
                    self._bare = block
                else:
                    yield from self._end(block)
            case "message_delta":
                self._count(event.usage)
                if event.delta.stop_reason is not None:
                    reason = _FINISH.get(event.delta.stop_reason, "other")
                    self._run.finish(reason)
                    yield from self._end_bare(cut=reason == "length")
            case "message_stop":
                self.over = True

    def _begin(self, block: _Block) -> Chunks:
        start = block.start
        if block.kind == "text":
            yield {"type": "text-start", "id": block.part}
            if start.get("text"):
                yield {"type": "text-delta", "id": block.part, "delta": start["text"]}
            for number, citation in enumerate(block.citations, 1):
                yield from _source(citation, f"{block.part}-{number}")
        elif block.kind in _THINKING:
            yield {"type": "reasoning-start", "id": block.part}
            if start.get("thinking"):
                yield {"type": "reasoning-delta", "id": block.part, "delta": start["thinking"]}
        elif block.kind in _CALLS:
            yield {"type": "tool-input-start", **_call(block)}

    def _delta(self, block: _Block, delta: Any) -> Chunks:
        match delta.type:
            case "text_delta" if block.kind == "text":
                yield {"type": "text-delta", "id": block.part, "delta": delta.text}
            case "citations_delta":
                block.citations.append(plain(delta.citation))
                yield from _source(block.citations[-1], f"{block.part}-{len(block.citations)}")
            case "thinking_delta" if block.kind == "thinking":
                yield {"type": "reasoning-delta", "id": block.part, "delta": delta.thinking}
            case "signature_delta":
                block.signature = delta.signature
            case "input_json_delta" if block.kind in _CALLS:
                if delta.partial_json:
                    block.input.append(delta.partial_json)
                    call_id = block.start["id"]
                    yield {"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": delta.partial_json}
            case "compaction_delta":
                block.start |= {name: value for name, value in plain(delta).items() if name != "type"}

    def _end_bare(self, *, cut: bool) -> Chunks:
        block, self._bare = self._bare, None
        if block is not None:
            yield from self._end(block, cut)

    def _end(self, block: _Block, cut: bool = False) -> Chunks:
        start = block.start
        if block.kind == "text":
            yield {
                "type": "text-end",
                "id": block.part,
                **(_kept(citations=block.citations) if block.citations else {}),
            }
        elif block.kind == "thinking":
            yield {"type": "reasoning-end", "id": block.part, **_kept(signature=block.signature)}
        elif block.kind == "redacted_thinking":
            yield {"type": "reasoning-end", "id": block.part, **_kept(redactedData=start["data"])}
        elif block.kind in _CALLS:
            more = {name: value for name, value in start.items() if name not in ("id", "name", "input")}
            yield self._input(block, {**_call(block), **_kept(**more)}, cut)
        elif "tool_use_id" in start:
            dynamic = {"dynamic": True} if block.kind == "mcp_tool_result" else {}
            told = {"toolCallId": start["tool_use_id"], "providerExecuted": True, "output": start, **dynamic}
            yield {"type": "tool-output-available", **told}
        else:
            # Nothing to show, but the model wants it back: a compaction, a file in its container.
            yield {"type": "custom", "kind": f"anthropic.{block.kind}", **_kept(block=start)}

    def _input(self, block: _Block, call: Chunk, cut: bool) -> Chunk:
        if not block.input and block.start.get("input"):
            return {"type": "tool-input-available", **call, "input": block.start["input"]}
        return input_chunk(call, "".join(block.input), cut=cut)

    def _count(self, usage: Any) -> None:
        self._tally.record(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_creation_input_tokens=usage.cache_creation_input_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
        )


_THINKING = frozenset({"thinking", "redacted_thinking"})
_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool-calls",
    "refusal": "content-filter",
}


def _kept(**values: Any) -> Chunk:
    """What ``anthropic_messages`` needs to say the same thing again."""
    return {"providerMetadata": {"anthropic": values}}


def _call(block: _Block) -> Chunk:
    call = {"toolCallId": block.start["id"], "toolName": block.start["name"]}
    if block.kind != "tool_use":
        call["providerExecuted"] = True
    if block.kind == "mcp_tool_use":
        call["dynamic"] = True
    return call


def _source(citation: Chunk, source_id: str) -> Chunks:
    """What was cited: a page, or a document that was in the conversation."""
    kept = {"sourceId": source_id, **_kept(**citation)}
    url = citation.get("url") or citation.get("source")
    if url:
        title = {"title": citation["title"]} if citation.get("title") else {}
        yield {"type": "source-url", "url": url, **title, **kept}
    elif "document_index" in citation:
        media = "application/pdf" if citation["type"] == "page_location" else "text/plain"
        name = citation.get("document_title") or f"Document {citation['document_index'] + 1}"
        yield {"type": "source-document", "mediaType": media, "title": name, **kept}
