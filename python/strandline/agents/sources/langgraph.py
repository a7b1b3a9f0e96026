"""LangGraph: what ``graph.astream(...)`` yields, as chunks to yield.

Written against langgraph 1.2 and langchain-core 1.7, of which only the latter is needed here: ``model.astream(...)``
will do as well. Of the stream's modes, ``messages`` is what is said, ``updates`` tells of interrupts, which suspend
the run (``resume_values`` goes on), ``custom`` becomes data parts; the others are left out. Each message of a model is
a step, unless others are being written just then. Its parts say in ``providerMetadata.langgraph`` which message of
which node they are of; ``history`` goes by that.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from pydantic_core import to_jsonable_python

from strandline.agents.run import Run
from strandline.agents.sources.langgraph_history import history
from strandline.agents.sources.langgraph_interrupts import asked, resume_values
from strandline.agents.sources.langgraph_messages import Chunks, ModelMessage
from strandline.agents.sources.shared import SaveFile, kept_elsewhere, total
from strandline.errors import ChunkRefused
from strandline.saying.composing import aclose

__all__ = ["history", "langgraph_events", "resume_values"]


async def langgraph_events(
    run: Run, stream: AsyncIterable[Any], *, save_file: SaveFile | None = None
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the chunks of one run of a graph. ``stream``: ``graph.astream(input, stream_mode=["messages", "updates",
    "custom"])``, with ``subgraphs=True`` and ``version="v2"`` or without. When this is closed, so is the graph's
    stream, which ends its tasks. Files of a model become ``data:`` URLs, which are bounded (1 MiB by default):
    ``save_file`` keeps them elsewhere."""
    translation = _Translation(run)
    iterator = aiter(stream)
    try:
        async for item in iterator:
            for chunk in translation.take(item):
                yield await kept_elsewhere(chunk, save_file)
        for chunk in translation.end():
            yield chunk
    finally:
        await aclose(iterator)


class _Translation:
    """One stream. Several messages may be open at a time: those of nodes that run side by side."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._open: dict[str | None, ModelMessage] = {}
        self._parts = 0
        parts = [part for part in run.message["parts"] if "toolCallId" in part]
        self._called: set[str] = {part["toolCallId"] for part in parts}
        self._denied = {part["toolCallId"] for part in parts if part["state"] == "output-denied"}
        self._interrupts: dict[str, Any] = {}
        self._stepped = False
        self._before = run.used or {}
        self._usage: UsageMetadata | None = None

    def take(self, item: Any) -> Chunks:
        mode, data = _unpacked(item)
        if mode == "messages":
            message, metadata = data
            if isinstance(message, ToolMessage):
                return self._result(message)
            if isinstance(message, AIMessage):
                return self._said(message, metadata)
        elif mode == "custom":
            return _data(data)
        elif mode == "updates" and isinstance(data, Mapping) and "__interrupt__" in data:
            self._interrupts |= {each.id: each for each in data["__interrupt__"]}  # told again by each graph around it
        return iter(())

    def end(self) -> Chunks:
        """Close what the stream left open, and ask for what the graph waits for."""
        for message in list(dict.fromkeys(self._open.values())):
            yield from self._finished(message)
        if self._interrupts:
            if not self._stepped:
                yield from self._step()
            yield from asked(self._run, self._interrupts.values())
        if self._stepped:
            yield {"type": "finish-step"}

    def _said(self, message: AIMessage, metadata: Mapping[str, Any]) -> Chunks:
        known = self._known(message, metadata)
        if known is None:
            known = self._open[message.id] = ModelMessage(message.id, metadata, self._mint)
        for chunk in known.take(message):
            if not known.begun:
                yield from self._step()
                known.begun = True
            yield chunk
        if message.usage_metadata:
            self._usage = add_usage(self._usage, message.usage_metadata)
            self._run.usage(**total(self._before, to_jsonable_python(self._usage)))
        if not isinstance(message, AIMessageChunk) or message.chunk_position == "last":
            yield from self._finished(known)

    def _step(self) -> Chunks:
        if any(message.begun for message in self._open.values()):
            return
        if self._stepped:
            yield {"type": "finish-step"}
        yield {"type": "start-step"}
        self._stepped = True

    def _known(self, message: AIMessage, metadata: Mapping[str, Any]) -> ModelMessage | None:
        """The open message that this is a chunk of. Only the first chunk of some providers has the provider's id, and
        the others LangChain's own."""
        known = self._open.get(message.id)
        if known is None and message.id is not None:
            task = metadata.get("langgraph_checkpoint_ns")
            beside = {each for each in self._open.values() if each.task == task and each.other_kind_of_id(message.id)}
            if len(beside) == 1:
                known = self._open[message.id] = beside.pop()
        return known

    def _finished(self, message: ModelMessage) -> Chunks:
        for key in [key for key, each in self._open.items() if each is message]:
            del self._open[key]
        yield from message.end()
        self._called.update(message.called)
        if message.begun:
            self._run.finish(message.finish_reason)

    def _result(self, message: ToolMessage) -> Chunks:
        call = message.tool_call_id
        if call in self._denied:
            return  # the message says so
        for writing in list(dict.fromkeys(self._open.values())):
            if call in writing.called:
                yield from self._finished(writing)
        if call not in self._called:  # its call was in an earlier reply, or was not to be seen
            self._called.add(call)
            yield {"type": "tool-input-available", "toolCallId": call, "toolName": message.name or "tool", "input": {}}
        if message.status == "error":
            yield {"type": "tool-output-error", "toolCallId": call, "errorText": str(message.text)}
        else:
            yield {"type": "tool-output-available", "toolCallId": call, "output": to_jsonable_python(message.content)}

    def _mint(self) -> str:
        self._parts += 1
        return f"m{self._parts}"


def _unpacked(item: Any) -> tuple[str, Any]:
    """The mode and the data of an item, in all the shapes that there are."""
    if isinstance(item, BaseMessage):
        return "messages", (item, {})
    if isinstance(item, Mapping) and {"type", "ns", "data"} <= item.keys():
        return str(item["type"]), item["data"]
    if isinstance(item, tuple) and len(item) in (2, 3):
        if isinstance(item[0], BaseMessage):
            return "messages", item
        if isinstance(item[-2], str):
            return item[-2], item[-1]
        if isinstance(item[-1], tuple) and isinstance(item[-1][0], BaseMessage):
            return "messages", item[-1]
    raise ChunkRefused(
        f"langgraph_events cannot tell what this {type(item).__name__} is: give the graph's stream a list of modes, "
        'stream_mode=["messages", "updates", "custom"].'
    )


def _data(value: Any) -> Chunks:
    """What a node wrote: a data chunk as it is, anything else as the data of ``data-custom``."""
    value = to_jsonable_python(value)
    if isinstance(value, dict) and str(value.get("type")).startswith("data-") and "data" in value:
        yield value
    else:
        yield {"type": "data-custom", "data": value}
