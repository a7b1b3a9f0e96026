"""OpenAI: the streams of the Responses API and of Chat Completions as chunks, and the conversation as their input.

Upstream: ``openai@3.54.0`` (``types/responses/response_stream_event.py``). Needs the extra ``strandline[openai]``.
Events and items of types that this module does not know change nothing that is shown.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import openai

from strandline.agents.run import Run
from strandline.agents.sources.model_stream import ModelFailed, Tally, events, input_chunk, plain
from strandline.agents.sources.openai_chat import chat_messages, openai_chat
from strandline.agents.sources.openai_input import responses_input
from strandline.agents.sources.shared import SaveFile, kept_elsewhere

__all__ = ["chat_messages", "openai_chat", "openai_responses", "responses_input"]

Chunk = dict[str, Any]
Chunks = Iterator[Chunk]


async def openai_responses(
    run: Run, stream: Any, *, save_file: SaveFile | None = None
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the chunks of ``await client.responses.create(..., stream=True)`` or ``client.responses.stream(...)``, and
    record usage and finish reason with the run. Generated images become ``data:`` URLs, which are bounded (1 MiB by
    default): give ``save_file`` to keep them elsewhere. Raises PublicError when the model fails."""
    reply = _Reply(run)
    async with events(stream, openai.OpenAIError) as incoming:
        yield {"type": "start-step"}
        async for event in incoming:
            for chunk in reply.take(event):
                yield await kept_elsewhere(chunk, save_file)
        if not reply.over:
            raise ModelFailed("The stream ended before the response did.")
    yield {"type": "finish-step"}


class _Reply:
    """One response. Its items are told apart by their place in the output; not every server keeps to one id. A part may
    have the id of an earlier one: the run makes them unique."""

    def __init__(self, run: Run) -> None:
        self.over = False
        self._run = run
        self._tally = Tally(run)
        self._texts: dict[str, int] = {}  # open text parts, and how many annotations each was given
        # Open reasoning parts, by item: which piece of it is being told, once one is.
        self._thoughts: dict[int, tuple[str, int] | None] = {}
        self._calls: dict[int, str] = {}  # tool calls whose input is not complete
        self._asked = False

    def take(self, event: Any) -> Chunks:
        """The chunks that one event adds."""
        take = _TAKE.get(event.type)
        return iter(()) if take is None else take(self, event)

    def _added(self, event: Any) -> Chunks:
        item, index = event.item, event.output_index
        kind = getattr(item, "type", None)
        if kind == "reasoning":
            yield self._think(index, None)
        elif kind in _ASKED or kind in _RUN_BY_OPENAI:
            call = _call(item, index)
            self._calls[index] = call["toolCallId"]
            encoding = {"inputEncoding": "text"} if kind == "custom_tool_call" else {}
            yield {"type": "tool-input-start", **call, **encoding}

    def _text(self, event: Any) -> Chunks:
        part = f"text-{event.output_index}-{event.content_index}"
        if part not in self._texts:
            self._texts[part] = 0
            yield {"type": "text-start", "id": part}
        yield {"type": "text-delta", "id": part, "delta": event.delta}

    def _annotated(self, event: Any) -> Chunks:
        part = f"text-{event.output_index}-{event.content_index}"
        if part in self._texts and event.annotation is not None:
            self._texts[part] += 1
            yield from _source(plain(event.annotation), f"{part}-{self._texts[part]}")

    def _think(self, index: int, piece: tuple[str, int] | None) -> Chunk:
        self._thoughts[index] = piece
        return {"type": "reasoning-start", "id": f"reasoning-{index}"}

    def _reasoned(self, event: Any) -> Chunks:
        if event.type == "response.reasoning_text.delta":
            piece = ("content", event.content_index)
        else:
            piece = ("summary", event.summary_index)
        yield from self._reason(event.output_index, event.item_id, piece, event.delta)

    def _reason(self, index: int, item_id: str, piece: tuple[str, int], delta: str) -> Chunks:
        part = f"reasoning-{index}"
        told = self._thoughts.get(index)
        if told is not None and told != piece:
            del self._thoughts[index]
            yield {"type": "reasoning-end", "id": part, **_kept(itemId=item_id, piece=told[0])}
        if index not in self._thoughts:
            yield self._think(index, piece)
        self._thoughts[index] = piece
        yield {"type": "reasoning-delta", "id": part, "delta": delta}

    def _input(self, event: Any) -> Chunks:
        call = self._calls.get(event.output_index)
        if call is not None:
            yield {"type": "tool-input-delta", "toolCallId": call, "inputTextDelta": event.delta}

    def _done(self, event: Any) -> Chunks:
        item, index = event.item, event.output_index
        kind = getattr(item, "type", None)
        if kind == "message":
            yield from self._message_done(item, index)
        elif kind == "reasoning":
            yield from self._reasoning_done(item, index)
        elif kind in _ASKED:
            self._asked = True
            self._calls.pop(index, None)
            yield _input_done(item, index)
        elif kind in _RUN_BY_OPENAI:
            self._calls.pop(index, None)
            yield from self._answered(getattr(item, "approval_request_id", None))
            yield from _ran(item, index)
        elif kind == "mcp_approval_request":
            self._asked = True
            call = {"toolCallId": item.id, "toolName": item.name, "dynamic": True, "providerExecuted": True}
            made = input_chunk({**call, **_kept(item=plain(item))}, item.arguments or "")
            yield made
            if made["type"] == "tool-input-available":
                yield {"type": "tool-approval-request", "approvalId": item.id, "toolCallId": item.id}
        elif kind is not None:
            # Nothing to show, but the model wants it back: a compaction, the tools of an MCP server.
            yield {"type": "custom", "kind": f"openai.{kind}", **_kept(item=plain(item))}

    def _answered(self, request: str | None) -> Chunks:
        """What a call came of that OpenAI was allowed to make: it was made."""
        for part in self._run.message["parts"] if request is not None else ():
            if part.get("toolCallId") == request and part["state"] == "approval-responded":
                told = {"type": "mcp_approval_response", "approval_request_id": request, "approve": True}
                call = {"toolCallId": request, "providerExecuted": True, "dynamic": True}
                yield {"type": "tool-output-available", **call, "output": told}

    def _message_done(self, item: Any, index: int) -> Chunks:
        for place, content in enumerate(item.content or ()):
            refused = content.type == "refusal"
            part = f"text-{index}-{place}"
            if part not in self._texts:
                yield {"type": "text-start", "id": part}
                yield {"type": "text-delta", "id": part, "delta": content.refusal if refused else content.text}
            told = self._texts.pop(part, 0)
            annotations = [plain(found) for found in getattr(content, "annotations", None) or ()]
            more = {
                "phase": getattr(item, "phase", None),
                "annotations": annotations or None,
                "refusal": refused or None,
            }
            yield {"type": "text-end", "id": part, **_kept(itemId=item.id, **more)}
            for number, annotation in enumerate(annotations[told:], told + 1):
                yield from _source(annotation, f"{part}-{number}")

    def _reasoning_done(self, item: Any, index: int) -> Chunks:
        if self._thoughts.get(index) is None:
            for name in ("summary", "content"):
                for place, piece in enumerate(getattr(item, name, None) or ()):
                    yield from self._reason(index, item.id, (name, place), piece.text)
        if index not in self._thoughts:
            yield self._think(index, None)
        name, _ = self._thoughts.pop(index) or ("summary", 0)
        encrypted = getattr(item, "encrypted_content", None)
        kept = _kept(itemId=item.id, piece=name, reasoningEncryptedContent=encrypted)
        yield {"type": "reasoning-end", "id": f"reasoning-{index}", **kept}

    def _ended(self, event: Any) -> Chunks:
        response = event.response
        if event.type == "response.completed":
            self._run.finish("tool-calls" if self._asked else "stop")
        else:
            details = response.incomplete_details
            self._run.finish(_INCOMPLETE.get(str(details.reason) if details else "", "other"))
        self._count(response)
        self.over = True
        yield from self._close()

    def _close(self) -> Chunks:
        """End what a response that was cut short left open."""
        for part in self._texts:
            yield {"type": "text-end", "id": part}
        for index in self._thoughts:
            yield {"type": "reasoning-end", "id": f"reasoning-{index}"}

    def _count(self, response: Any) -> None:
        usage = response.usage
        if usage is not None:
            self._tally.record(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                total_tokens=usage.total_tokens,
                cached_tokens=getattr(usage.input_tokens_details, "cached_tokens", None),
                reasoning_tokens=getattr(usage.output_tokens_details, "reasoning_tokens", None),
            )

    def _failed(self, event: Any) -> Chunks:
        self._count(event.response)
        error = event.response.error
        raise ModelFailed(error.code if error else None, error.message if error else "The response failed.")

    def _error(self, event: Any) -> Chunks:
        raise ModelFailed(event.code, event.message)


_TAKE: dict[str, Callable[[_Reply, Any], Chunks]] = {
    "response.output_item.added": _Reply._added,
    "response.output_item.done": _Reply._done,
    "response.output_text.delta": _Reply._text,
    "response.refusal.delta": _Reply._text,
    "response.output_text.annotation.added": _Reply._annotated,
    "response.reasoning_summary_text.delta": _Reply._reasoned,
    "response.reasoning_text.delta": _Reply._reasoned,
    "response.function_call_arguments.delta": _Reply._input,
    "response.custom_tool_call_input.delta": _Reply._input,
    "response.mcp_call_arguments.delta": _Reply._input,
    "response.completed": _Reply._ended,
    "response.incomplete": _Reply._ended,
    "response.failed": _Reply._failed,
    "error": _Reply._error,
}

_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content-filter"}

_ASKED = frozenset({"function_call", "custom_tool_call"})
"""Tool calls that the caller answers."""

_RUN_BY_OPENAI: dict[str, tuple[str, ...]] = {
    "web_search_call": ("action",),
    "file_search_call": ("queries",),
    "code_interpreter_call": ("code",),
    "image_generation_call": (),
    "mcp_call": (),
}
"""Tools that OpenAI runs, and which fields of the item are the input. The whole item is the output."""


def _kept(**values: Any) -> Chunk:
    """What ``responses_input`` needs to say the same thing again."""
    return {"providerMetadata": {"openai": {name: value for name, value in values.items() if value is not None}}}


def _call(item: Any, index: int) -> Chunk:
    if item.type in _ASKED:
        return {"toolCallId": item.call_id, "toolName": item.name}
    call = {"toolCallId": item.id or f"call-{index}", "toolName": item.type.removesuffix("_call")}
    if item.type == "mcp_call":
        call |= {"toolName": item.name, "dynamic": True}
    return {**call, "providerExecuted": True}


def _input_done(item: Any, index: int) -> Chunk:
    call = {**_call(item, index), **_kept(itemId=item.id)}
    if item.type == "function_call":
        return input_chunk(call, item.arguments or "", cut=item.status == "incomplete")
    return {"type": "tool-input-available", **call, **_kept(itemId=item.id, custom=True), "input": item.input}


def _ran(item: Any, index: int) -> Chunks:
    call, output = _call(item, index), plain(item)
    if item.type == "mcp_call":
        yield input_chunk(call, item.arguments or "")
    else:
        fields = {name: output[name] for name in _RUN_BY_OPENAI[item.type] if name in output}
        yield {"type": "tool-input-available", **call, "input": fields}
    image = output.pop("result", None) if item.type == "image_generation_call" else None
    dynamic = {"dynamic": True} if "dynamic" in call else {}
    told = {"toolCallId": call["toolCallId"], "providerExecuted": True, "output": output, **dynamic}
    yield {"type": "tool-output-available", **told}
    if image is not None:
        media = _MEDIA.get(output.get("output_format", "png"), "image/png")
        yield {"type": "file", "mediaType": media, "url": f"data:{media};base64,{image}"}


_MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "svg": "image/svg+xml"}


def _source(annotation: Chunk, source_id: str) -> Chunks:
    """A cited page or file. What names neither (the path of a file in a container) is only kept with the text."""
    kept = {"sourceId": source_id, **_kept(**annotation)}
    if annotation.get("type") == "url_citation":
        title = {"title": annotation["title"]} if "title" in annotation else {}
        yield {"type": "source-url", "url": annotation["url"], **title, **kept}
    elif "filename" in annotation:
        name = annotation["filename"]
        media = mimetypes.guess_type(name)[0] or "application/octet-stream"
        yield {"type": "source-document", "mediaType": media, "title": name, "filename": name, **kept}
