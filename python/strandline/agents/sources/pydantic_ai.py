"""pydantic-ai: the events of an agent's run as chunks to yield, and a conversation as the messages of its history.

Written against pydantic-ai-slim 2.68. Both ways go through its own translation (``pydantic_ai.ui.vercel_ai``), so what
a part looks like is said in one place, and what was stored reads back as the messages that it was made of. What is
different here: an error fails the run instead of telling its text to everybody; the usage is kept with the run; an
output that is no text is a data part; and nothing that a user sent is taken for more than text and files.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic_ai import AgentRunResultEvent, AgentStreamEvent, BinaryContent, DeferredToolRequests
from pydantic_ai.agent import AgentRunEvents
from pydantic_ai.exceptions import RunCancelled, RunTimedOut, UserError
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelMessage,
    OutputToolResultEvent,
    ToolReturnPart,
)
from pydantic_ai.tools import DeferredToolResults, ToolApproved
from pydantic_ai.ui.vercel_ai import VercelAIAdapter, VercelAIEventStream
from pydantic_ai.ui.vercel_ai.request_types import UIMessage
from pydantic_ai.ui.vercel_ai.response_types import (
    AbortChunk,
    BaseChunk,
    DataChunk,
    ToolInputErrorChunk,
    ToolOutputErrorChunk,
)
from pydantic_ai.usage import RunUsage
from pydantic_core import to_jsonable_python

from strandline.agents.run import Run
from strandline.agents.sources.shared import SaveFile, kept_elsewhere, spoken, total
from strandline.agents.ui_stream import ui_stream

Event = AgentStreamEvent | AgentRunResultEvent[Any]
Events = AbstractAsyncContextManager[AgentRunEvents[Any]] | AsyncIterable[Event]

_OWN = "pydantic_ai"
"""The key of provider metadata under which pydantic-ai keeps what it needs to read a part back."""

_UNFINISHED = "This call was not finished."
_APPROVED = "approval-responded"


async def pydantic_ai_events(
    run: Run, events: Events, *, save_file: SaveFile | None = None
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the chunks of one run of an agent. ``events``: what ``agent.run_stream_events(...)`` returns, which is
    entered and left here, or any async iterator of its events. When this is closed, the model's stream is, too. Files
    of the model become ``data:`` URLs, which are bounded (1 MiB by default): ``save_file`` keeps them elsewhere."""
    resumed = _approved(run.message)
    handle = events if isinstance(events, AbstractAsyncContextManager) else nullcontext(events)
    before = run.used or {}
    async with handle as source:
        translation = _Translation(run=run, before=before, resumed=resumed, sdk_version=7)
        chunks = ui_stream(translation.transform_stream(aiter(source)))
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield await kept_elsewhere(chunk, save_file)
        finally:
            if isinstance(source, AgentRunEvents):  # also what a run used that did not come to its end
                with suppress(UserError):  # it never began
                    run.usage(**total(before, _counts(source.usage)))


def deferred_results(run: Run) -> DeferredToolResults | None:
    """The ``deferred_tool_results`` of an agent that is called again: the calls that were approved and have not run
    yet, with who approved them; None where there are none. What was denied, and what clients have run, is in
    ``history`` with its result."""
    waiting = _approved(run.message)
    found = {each.tool_call: each for each in run.decisions if each.approved and each.tool_call in waiting}
    if not found:
        return None
    return DeferredToolResults(
        approvals={call: ToolApproved() for call in found},
        answered_by={call: each.decided_by for call, each in found.items() if each.decided_by is not None},
    )


def history(messages: Iterable[Mapping[str, Any]], deferred: DeferredToolResults | None = None) -> list[ModelMessage]:
    """UIMessages (``run.messages``) as the ``message_history`` of an agent. The last user message is part of it, so the
    agent is run without a prompt. Every tool call in it has a result, if only one that says that there is none; but
    those of ``deferred``, which the agent is given beside it."""
    waiting = frozenset(deferred.approvals) if deferred is not None else frozenset()
    turns = ((message, role, parts) for message in messages for role, parts in spoken(message))
    return VercelAIAdapter.load_messages([_ui_message(*turn, waiting) for turn in turns])


@dataclass(kw_only=True)
class _Translation(VercelAIEventStream[Any, Any]):
    """pydantic-ai's own translation, except for what would say too much or too little here."""

    run: Run
    before: Mapping[str, Any]
    resumed: set[str]
    _minted: int = 0

    def new_message_id(self) -> str:
        """Short ids: they are in every delta, and are made unique by the run where they repeat."""
        self._minted += 1
        self.message_id = f"p{self._minted}"
        return self.message_id

    async def on_error(self, error: Exception) -> AsyncIterator[BaseChunk]:
        raise error
        yield

    async def on_cancelled(self, cancelled: RunCancelled) -> AsyncIterator[BaseChunk]:
        if isinstance(cancelled, RunTimedOut):
            raise cancelled
        yield AbortChunk()

    async def handle_run_result(self, event: AgentRunResultEvent) -> AsyncIterator[BaseChunk]:
        async for chunk in super().handle_run_result(event):
            yield chunk
        self.run.usage(**total(self.before, _counts(event.result.usage)))
        output = event.result.output
        if isinstance(output, DeferredToolRequests):
            for call in output.calls:
                self.run.leave_to_client(call.tool_call_id, call.tool_name)
        shown = isinstance(output, BinaryContent) and output in event.result.response.files
        if output is not None and not shown and not isinstance(output, str | DeferredToolRequests):
            yield DataChunk(type="data-output", data=to_jsonable_python(output))

    async def handle_function_tool_call(self, event: FunctionToolCallEvent) -> AsyncIterator[BaseChunk]:
        if event.part.tool_call_id in self.resumed:
            self.resumed.discard(event.part.tool_call_id)  # the message has its input
            return
        async for chunk in super().handle_function_tool_call(event):
            yield chunk

    async def handle_function_tool_result(self, event: FunctionToolResultEvent) -> AsyncIterator[BaseChunk]:
        async for chunk in super().handle_function_tool_result(event):
            yield _with_outcome(chunk, event.part)

    async def handle_output_tool_result(self, event: OutputToolResultEvent) -> AsyncIterator[BaseChunk]:
        async for chunk in super().handle_output_tool_result(event):
            yield _with_outcome(chunk, event.part)


class _ToolError(ToolOutputErrorChunk):
    """The error of a call with what ``history`` has to know about it."""

    provider_metadata: dict[str, dict[str, Any]] | None = None


def _with_outcome(chunk: BaseChunk, part: ToolReturnPart) -> BaseChunk:
    """Say that the call has to be made again: the model is told something else then than of a failure."""
    if part.outcome != "retried" or not isinstance(chunk, ToolOutputErrorChunk | ToolInputErrorChunk):
        return chunk
    known = (chunk.provider_metadata or {}).get(_OWN, {}) if isinstance(chunk, ToolInputErrorChunk) else {}
    retried: dict[str, Any] = {**known, "outcome": part.outcome}
    if isinstance(part.content, list):
        retried["content"] = to_jsonable_python(part.content)
    if isinstance(chunk, ToolInputErrorChunk):
        return chunk.model_copy(update={"provider_metadata": {_OWN: retried}})
    return _ToolError(**dict(chunk), provider_metadata={_OWN: retried})


def _approved(message: Mapping[str, Any]) -> set[str]:
    """The calls that were approved and have not run."""
    return {part["toolCallId"] for part in message["parts"] if part.get("state") == _APPROVED}


def _counts(usage: RunUsage) -> dict[str, Any]:
    found: dict[str, Any] = to_jsonable_python(usage)
    return {name: count for name, count in found.items() if count}


# ---------------------------------------------------------------------- history


def _ui_message(
    message: Mapping[str, Any], role: str, parts: Iterable[Mapping[str, Any]], waiting: frozenset[str]
) -> UIMessage:
    shown = partial(_said, waiting) if role == "assistant" else _sent
    found = {"id": message["id"], "role": role, "parts": [known for part in parts if (known := shown(part))]}
    if role == "assistant" and message.get("metadata") is not None:
        found["metadata"] = message["metadata"]
    return UIMessage.model_validate(found)


def _sent(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """What came from outside is text or a file. Its provider metadata could claim anything."""
    if part["type"] == "text":
        return _some(part, "type", "text")
    if part["type"] == "file" and str(part["url"]).startswith(("data:", "https:", "http:")):
        return _some(part, "type", "url", "mediaType", "filename")
    return None


def _said(waiting: frozenset[str], part: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = part["type"]
    if kind in ("text", "reasoning"):
        return _some(part, "type", "text", "state", "providerMetadata")
    if kind == "file" and str(part["url"]).startswith("data:"):
        return _some(part, "type", "url", "mediaType", "providerMetadata")
    if kind == "dynamic-tool" or kind.startswith("tool-"):
        return _called(part, waiting)
    if kind == "step-start":
        return {"type": kind}
    return _some(part, "type", "id", "data") if kind.startswith("data-") else None


def _called(part: Mapping[str, Any], waiting: frozenset[str]) -> dict[str, Any]:
    """A call with its result. One that has none gets it here, unless it is about to be run: providers refuse a history
    with open calls."""
    name = part["toolName"] if part["type"] == "dynamic-tool" else part["type"].removeprefix("tool-")
    found = {"type": f"tool-{name}", **_some(part, "toolCallId", "providerExecuted", "state", "output", "errorText")}
    if part["state"] == _APPROVED and part["toolCallId"] in waiting:
        found["state"] = "input-available"
    elif found["state"] not in ("output-available", "output-error", "output-denied"):
        found |= {"state": "output-error", "errorText": _UNFINISHED}
    given = part.get("input", part.get("rawInput"))
    found["input"] = given if given is None or isinstance(given, str | dict) else json.dumps(given)
    kept = [part[name].get(_OWN, {}) for name in ("callProviderMetadata", "resultProviderMetadata") if name in part]
    if kept:
        found["callProviderMetadata"] = {_OWN: {key: value for each in kept for key, value in each.items()}}
    if "approved" in part.get("approval", {}):
        found["approval"] = _some(part["approval"], "id", "approved", "reason")
    return found


def _some(part: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: part[name] for name in names if name in part}
