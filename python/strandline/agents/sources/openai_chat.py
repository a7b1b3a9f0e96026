"""OpenAI's Chat Completions, which many servers speak: the stream as chunks, and the conversation as ``messages``.

Upstream: ``openai@3.54.0`` (``types/chat/chat_completion_chunk.py``). Reasoning is not in it; ``reasoning_content`` and
``reasoning`` are what vLLM, DeepSeek, OpenRouter and others call it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import openai

from strandline.agents.run import Run
from strandline.agents.sources.model_stream import ModelFailed, Tally, events, input_chunk, plain
from strandline.agents.sources.turns import Part, ToolCall, base64_of, json_text, turns, unseen

Chunk = dict[str, Any]
Chunks = Iterator[Chunk]


async def openai_chat(run: Run, stream: Any) -> AsyncIterator[Chunk]:
    """Yield the chunks of ``await client.chat.completions.create(..., stream=True)`` or of
    ``client.chat.completions.stream(...)``, and record finish reason and usage with the run (for usage, ask with
    ``stream_options={"include_usage": True}``). Takes the first choice. Raises PublicError when the model fails."""
    reply = _Reply(run)
    async with events(stream, openai.OpenAIError) as incoming:
        yield {"type": "start-step"}
        async for event in incoming:
            completion = getattr(event, "chunk", event)
            if hasattr(completion, "choices"):
                for chunk in reply.take(completion):
                    yield chunk
        if not reply.over:
            raise ModelFailed("The stream ended before the completion did.")
    yield {"type": "finish-step"}


class _Call:
    """A tool call that is being told."""

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.name = ""
        self.shown = False
        self.pieces: list[str] = []


class _Reply:
    """One completion. Text and reasoning are one part each, as they are one string each in the library's message."""

    def __init__(self, run: Run) -> None:
        self.over = False
        self._run = run
        self._tally = Tally(run)
        self._open: dict[str, str] = {}  # what is told ("content", "refusal", "reasoning"): its kind of part
        self._calls: dict[int, _Call] = {}
        self._sources = 0

    def take(self, completion: Any) -> Chunks:
        if completion.usage is not None:
            self._count(completion.usage)
        for choice in completion.choices or ():
            if choice.index == 0:
                yield from self._delta(choice.delta, completion.id)
                if choice.finish_reason is not None and not self.over:
                    yield from self._finish(choice.finish_reason)

    def _delta(self, delta: Any, completion_id: str) -> Chunks:
        if delta is None or self.over:
            return
        told = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        if isinstance(told, str):
            yield from self._say("reasoning", "reasoning", told)
        if delta.content:
            yield from self._say("text", "content", delta.content)
        if delta.refusal:
            yield from self._say("text", "refusal", delta.refusal)
        for piece in delta.tool_calls or ():
            yield from self._call(piece, completion_id)
        for annotation in getattr(delta, "annotations", None) or ():
            cited = plain(annotation).get("url_citation")
            if cited is not None:
                self._sources += 1
                title = {"title": cited["title"]} if cited.get("title") else {}
                yield {"type": "source-url", "sourceId": f"source-{self._sources}", "url": cited["url"], **title}

    def _say(self, kind: str, part: str, delta: str) -> Chunks:
        if part not in self._open:
            if kind == "text" and self._open.pop("reasoning", ""):
                yield {"type": "reasoning-end", "id": "reasoning"}
            self._open[part] = kind
            yield {"type": f"{kind}-start", "id": part}
        yield {"type": f"{kind}-delta", "id": part, "delta": delta}

    def _call(self, piece: Any, completion_id: str) -> Chunks:
        call = self._calls.get(piece.index)
        if call is None:
            # Some servers give no id; whatever it is, the result has to name it.
            call = self._calls[piece.index] = _Call(piece.id or f"{completion_id or 'call'}-{piece.index}")
        if piece.function is None:
            return
        call.name += piece.function.name or ""
        if call.name and not call.shown:
            call.shown = True
            yield {"type": "tool-input-start", "toolCallId": call.id, "toolName": call.name}
        if piece.function.arguments:
            call.pieces.append(piece.function.arguments)
            yield {"type": "tool-input-delta", "toolCallId": call.id, "inputTextDelta": piece.function.arguments}

    def _finish(self, reason: str) -> Chunks:
        for part, kind in self._open.items():
            yield {"type": f"{kind}-end", "id": part}
        for index in sorted(self._calls):
            call = self._calls[index]
            named = {"toolCallId": call.id, "toolName": call.name}
            # Where the reply hit its limit, the last call may be a part of one.
            cut = reason == "length" and index == max(self._calls)
            yield input_chunk(named, "".join(call.pieces), cut=cut and not _whole(call.pieces))
        self._run.finish("tool-calls" if self._calls and reason == "stop" else _FINISH.get(reason, "other"))
        self.over = True

    def _count(self, usage: Any) -> None:
        self._tally.record(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            cached_tokens=getattr(usage.prompt_tokens_details, "cached_tokens", None),
            reasoning_tokens=getattr(usage.completion_tokens_details, "reasoning_tokens", None),
        )


_FINISH = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}


def _whole(pieces: list[str]) -> bool:
    return any(piece.strip() for piece in pieces)


def chat_messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``run.messages`` (and ``run.message``, in a tool loop) as ``messages`` of Chat Completions, tool calls with their
    results included. Reasoning is left out, and so are tools that a provider ran itself."""
    found: list[dict[str, Any]] = []
    for role, parts in turns(messages):
        if role == "assistant":
            found += _assistant(parts)
        elif content := [item for part in parts for item in _content(part)]:
            found.append({"role": role, "content": _simple(content)})
    return found


def _assistant(parts: list[Part]) -> list[dict[str, Any]]:
    calls = [call for part in parts if (call := ToolCall.of(part)) is not None and not call.by_provider]
    text = [{"type": "text", "text": part["text"]} for part in parts if part["type"] == "text" and part["text"]]
    if not calls:
        return [{"role": "assistant", "content": _simple(text)}] if text else []
    asked = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
        for call in calls
    ]
    said = {"content": _simple(text)} if text else {}
    results = [{"role": "tool", "tool_call_id": call.id, "content": call.answer} for call in calls]
    return [{"role": "assistant", **said, "tool_calls": asked}, *results]


def _arguments(call: ToolCall) -> str:
    return call.input if isinstance(call.input, str) else json_text(call.input)


def _simple(content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if all(item["type"] == "text" for item in content):
        return "\n\n".join(item["text"] for item in content)
    return content


def _content(part: Part) -> Iterator[dict[str, Any]]:
    if part["type"] == "text" and part["text"]:
        yield {"type": "text", "text": part["text"]}
    elif part["type"] == "file":
        yield _file(part)


def _file(part: Part) -> dict[str, Any]:
    media, url = part["mediaType"], part["url"]
    data = base64_of(url)
    if media.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if data is None:
        return {"type": "text", "text": unseen(part)}
    if media in _AUDIO:
        return {"type": "input_audio", "input_audio": {"data": data, "format": _AUDIO[media]}}
    return {"type": "file", "file": {"filename": part.get("filename") or "file", "file_data": url}}


_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
