"""``ag_ui_stream``: the events of an AG-UI agent, in another process or this one, as chunks to yield.

Reads AG-UI 1.0 (``ag-ui-protocol 1.0.0``), the THINKING_* events from before it, and the dialect that Strandline itself
and ``@tanstack/ai@0.58.0`` speak (``codecs/ag_ui.py``, of which this is the inverse). What becomes of each event:

- TEXT_MESSAGE_*, REASONING_*, THINKING_* and their forms without start and end: text and reasoning parts, without
  those that stay empty. Messages of another role than the assistant's are left out.
- TOOL_CALL_*: tool parts. A result is a string on this wire; what is JSON in it is taken as JSON, as TanStack AI does.
- STEP_*: steps. A producer that has none gets those that ai's own servers make: a new one after tool results.
- CUSTOM: the chunk of that name (``file``, ``source-url``, ``data-*``, …) if the value is one, else ``data-<name>``.
- STATE_* and ACTIVITY_*: the data parts ``data-state`` and ``data-activity``, each replaced by the next. SUBAGENT_*:
  ``data-subagent``. The ``result`` of a run: ``data-result``.
- MESSAGES_SNAPSHOT: only if nothing else was said; then what follows its last user message is the reply.
- RUN_FINISHED: the end; what is still open is closed. Outcome ``cancelled``: ``abort``. Outcome ``interrupt``: the tool
  calls ask for approval or for an output, and other interrupts are calls ``interrupt``, so that the run is suspended;
  ``ag_ui_body`` tells the producer what was decided. RUN_ERROR: ``error``, with its message.
- RUN_STARTED, RAW, REASONING_ENCRYPTED_VALUE and types of a later version: left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from typing import Any

from strandline.agents.run import Run
from strandline.agents.sources.ag_ui_asides import Asides, Chunk, Chunks, Event, mapping, string, told
from strandline.agents.sources.ag_ui_calls import Calls
from strandline.agents.ui_stream import objects
from strandline.core.chunks import DATA_PREFIX, ChunkInvalid, check
from strandline.errors import ProducerFailed
from strandline.saying.composing import aclose

_COUNTS = (
    "inputTokens",
    "outputTokens",
    "totalTokens",
    "reasoningTokens",
    "cachedInputTokens",
    "cacheWriteInputTokens",
)

_FINISH_REASONS = {"length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls"}
_AS_CHUNKS = frozenset(
    {"file", "reasoning-file", "source-url", "source-document", "custom", "steering-message", "message-metadata"}
)
_RESERVED = frozenset({"ag-ui", "tanstack"})
_PASSING = frozenset({"RAW", "ACTIVITY_SNAPSHOT", "ACTIVITY_DELTA", "REASONING_ENCRYPTED_VALUE", "SUBAGENT_STARTED"})
"""What may come between two chunks of a message (``@ag-ui/client@1.0.0 transformChunks``)."""


async def ag_ui_stream(
    source: AsyncIterable[Any] | Iterable[Any], *, run: Run | None = None
) -> AsyncGenerator[Chunk, None]:
    """Yield what the events of ``source`` say: dicts, objects of ``ag-ui-protocol``, or SSE text or bytes cut anywhere.
    With ``run`` the usage that the producer reports is recorded, what it waits for suspends the run, and a stream that
    goes on with a message may give results of calls that are in it already.

    Raises ChunkRefused for what is no AG-UI event, and ProducerFailed when the stream ends before the run has."""
    receiver = Receiver(run.message["parts"] if run is not None else ())
    events = objects(source)
    try:
        async for event in events:
            chunks = receiver.take(event)
            if run is not None and receiver.over:
                if receiver.usage:
                    run.usage(**receiver.usage)
                for call, name in receiver.for_clients.items():
                    run.leave_to_client(call, name)
            for chunk in chunks:
                yield chunk
    finally:
        await aclose(events)
    if not receiver.over:
        raise ProducerFailed("The AG-UI stream ended without RUN_FINISHED or RUN_ERROR: it was cut.")


class Receiver:
    """Takes the events of one AG-UI stream in order. ``parts``: the message that it goes on with. ``over``: the run has
    ended. ``usage``: what it has used."""

    def __init__(self, parts: Iterable[Mapping[str, Any]] = ()) -> None:
        self.over = False
        self.usage: dict[str, int] = {}
        self._open: dict[tuple[str, str], None] = {}  # text and reasoning, once there was something to say
        self._foreign: set[str] = set()
        self._calls = Calls(parts)
        self._chunked: tuple[str, str] | None = None
        self._thoughts = 0
        self._own_steps = self._step_open = self._answered = self._said = False
        self._steps: set[str] = set()
        self._thinking: set[str] = set()
        self._asides = Asides()
        self._snapshot: list[Event] = []

    @property
    def for_clients(self) -> Mapping[str, str]:
        """The calls, with the names of their tools, whose output the producer waits for."""
        return self._calls.for_clients

    def take(self, event: Event) -> Chunks:
        """The chunks of one more event."""
        kind = string(event, "type")
        if kind.endswith("_CHUNK"):
            return self._take_chunk(kind.removesuffix("_CHUNK"), event)
        take = _TAKE.get(kind)
        ended = [] if kind in _PASSING else self._end_chunked()
        return ended + (self._asides.take(event) if take is None else take(self, event))

    # ------------------------------------------------------------------ text and reasoning

    def _text_start(self, event: Event) -> Chunks:
        message = string(event, "messageId")
        if event.get("role") not in (None, "assistant"):
            self._foreign.add(message)
            return []
        return self._metadata(event)

    def _text_content(self, event: Event) -> Chunks:
        if event.get("messageId") in self._foreign:
            return []
        return self._say("text", string(event, "messageId"), string(event, "delta")) + self._metadata(event)

    def _text_end(self, event: Event) -> Chunks:
        self._foreign.discard(string(event, "messageId"))
        return self._end("text", string(event, "messageId"))

    def _reasoning_start(self, event: Event) -> Chunks:
        self._thinking.add(string(event, "messageId"))
        return []

    def _reasoning_content(self, event: Event) -> Chunks:
        return self._say("reasoning", string(event, "messageId"), string(event, "delta"))

    def _reasoning_end(self, event: Event) -> Chunks:
        return self._end("reasoning", string(event, "messageId"))

    def _thinking_start(self, event: Event) -> Chunks:
        self._thoughts += 1
        return []

    def _thinking_content(self, event: Event) -> Chunks:
        return self._say("reasoning", f"thinking-{self._thoughts}", string(event, "delta"))

    def _thinking_end(self, event: Event) -> Chunks:
        return self._end("reasoning", f"thinking-{self._thoughts}")

    def _say(self, family: str, part: str, delta: str) -> Chunks:
        if not delta:
            return []
        said = {"type": f"{family}-delta", "id": part, "delta": delta}
        if (family, part) in self._open:
            return [said]
        step = self._step()
        self._open[family, part] = None
        return [*step, {"type": f"{family}-start", "id": part}, said]

    def _end(self, family: str, part: str) -> Chunks:
        if (family, part) not in self._open:
            return []
        del self._open[family, part]
        return [{"type": f"{family}-end", "id": part}]

    def _metadata(self, event: Event) -> Chunks:
        said = {name: value for name, value in mapping(event, "metadata").items() if name not in _RESERVED}
        return [{"type": "message-metadata", "messageMetadata": said}] if said else []

    # ------------------------------------------------------------------ tool calls

    def _call_start(self, event: Event) -> Chunks:
        return [*self._step(), *self._calls.start(event)] if self._calls.is_new(event) else []

    def _call_arguments(self, event: Event) -> Chunks:
        return self._calls.say(event)

    def _call_end(self, event: Event) -> Chunks:
        return self._calls.end(event)

    def _call_result(self, event: Event) -> Chunks:
        chunks = self._calls.result(event)
        self._answered = self._answered or bool(chunks)
        return chunks

    # ------------------------------------------------------------------ the forms without start and end

    def _take_chunk(self, stem: str, event: Event) -> Chunks:
        if stem not in _CHUNKED:
            return []
        name, start, say, _ = _CHUNKED[stem]
        found: Chunks = []
        if self._chunked is None or self._chunked[0] != stem or event.get(name) not in (None, self._chunked[1]):
            found = self._end_chunked() + start(self, {**event, "metadata": None})
            self._chunked = (stem, string(event, name))
        return found + say(self, {**event, name: self._chunked[1], "delta": event.get("delta") or ""})

    def _end_chunked(self) -> Chunks:
        if self._chunked is None:
            return []
        stem, part = self._chunked
        self._chunked = None
        name, _, _, end = _CHUNKED[stem]
        return end(self, {name: part})

    # ------------------------------------------------------------------ steps

    def _step(self) -> Chunks:
        """What has to come before the next part of a producer that marks no steps."""
        self._said = True
        if self._own_steps:
            return []
        if self._step_open:
            busy = bool(self._open) or self._calls.unanswered
            if not self._answered or busy:
                return []
        self._answered = False
        return self._next_step()

    def _next_step(self) -> Chunks:
        ended = [{"type": "finish-step"}] if self._step_open else []
        self._step_open = True
        return [*ended, {"type": "start-step"}]

    def _step_started(self, event: Event) -> Chunks:
        name = string(event, "stepName")
        thinking = name in self._thinking or event.get("stepType") == "thinking"
        if thinking or self._calls.open:
            return []  # the input of a call cannot go on in another step
        self._own_steps = True
        self._steps.add(name)
        return self._next_step()

    def _step_finished(self, event: Event) -> Chunks:
        name = string(event, "stepName")
        if name not in self._steps:
            return []
        self._steps.discard(name)
        return [] if self._steps else self._end_step()

    def _end_step(self) -> Chunks:
        if not self._step_open:
            return []
        self._step_open = False
        return [{"type": "finish-step"}]

    # ------------------------------------------------------------------ everything else

    def _custom(self, event: Event) -> Chunks:
        name, value = string(event, "name"), event.get("value")
        if isinstance(value, dict):
            chunk = self._calls.custom(name, value)
            if chunk is None and (name in _AS_CHUNKS or name.startswith(DATA_PREFIX)):
                chunk = {**value, "type": name}
            if chunk is not None and _fits(chunk):
                return [] if self._calls.holds(chunk) else [chunk]
        return [{"type": name if name.startswith(DATA_PREFIX) else DATA_PREFIX + name, "data": value}]

    def _messages(self, event: Event) -> Chunks:
        self._snapshot = _objects(event, "messages")
        return []

    # ------------------------------------------------------------------ the run

    def _run_started(self, event: Event) -> Chunks:
        self.over = False
        return []

    def _run_finished(self, event: Event) -> Chunks:
        outcome = mapping(event, "outcome")
        chunks = [] if self._said else [chunk for each in told(self._snapshot) for chunk in self.take(each)]
        chunks += self._close()
        if outcome.get("type") == "interrupt":
            chunks += [chunk for each in _objects(outcome, "interrupts") for chunk in self._calls.interrupt(each)]
        chunks += self._end_step()
        if event.get("result") is not None:
            chunks.append({"type": "data-result", "data": event["result"]})
        self._count(event)
        self.over = True
        if outcome.get("type") == "cancelled":
            return [*chunks, {"type": "abort"}]
        given = mapping(mapping(event, "metadata"), "tanstack").get("finishReason")
        reason = "tool-calls" if outcome.get("type") == "interrupt" else _FINISH_REASONS.get(str(given), "stop")
        return [*chunks, {"type": "finish", "finishReason": reason}]

    def _run_error(self, event: Event) -> Chunks:
        self._count(event)
        self.over = True
        return [{"type": "error", "errorText": string(event, "message")}]

    def _close(self) -> Chunks:
        chunks: Chunks = []
        for family, part in list(self._open):
            chunks += self._end(family, part)
        return chunks + self._calls.close()

    def _count(self, event: Event) -> None:
        """Counts of several models add up (``ag-ui-protocol 1.0.0``, ``TokenUsage``)."""
        for entry in _objects(event, "usage"):
            for name in _COUNTS:
                if isinstance(entry.get(name), int):
                    self.usage[name] = self.usage.get(name, 0) + entry[name]


def _fits(chunk: Chunk) -> bool:
    try:
        check(chunk)
    except ChunkInvalid:
        return False
    return True


def _objects(event: Event, name: str) -> list[Event]:
    found = event.get(name)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


_Take = Callable[[Receiver, Event], Chunks]

_CHUNKED: dict[str, tuple[str, _Take, _Take, _Take]] = {
    "TEXT_MESSAGE": ("messageId", Receiver._text_start, Receiver._text_content, Receiver._text_end),
    "REASONING_MESSAGE": (
        "messageId", Receiver._reasoning_start, Receiver._reasoning_content, Receiver._reasoning_end,
    ),
    "TOOL_CALL": ("toolCallId", Receiver._call_start, Receiver._call_arguments, Receiver._call_end),
}  # fmt: skip

_TAKE: dict[str, _Take] = {
    "TEXT_MESSAGE_START": Receiver._text_start,
    "TEXT_MESSAGE_CONTENT": Receiver._text_content,
    "TEXT_MESSAGE_END": Receiver._text_end,
    "REASONING_MESSAGE_START": Receiver._reasoning_start,
    "REASONING_MESSAGE_CONTENT": Receiver._reasoning_content,
    "REASONING_MESSAGE_END": Receiver._reasoning_end,
    "THINKING_TEXT_MESSAGE_START": Receiver._thinking_start,
    "THINKING_TEXT_MESSAGE_CONTENT": Receiver._thinking_content,
    "THINKING_TEXT_MESSAGE_END": Receiver._thinking_end,
    "TOOL_CALL_START": Receiver._call_start,
    "TOOL_CALL_ARGS": Receiver._call_arguments,
    "TOOL_CALL_END": Receiver._call_end,
    "TOOL_CALL_RESULT": Receiver._call_result,
    "STEP_STARTED": Receiver._step_started,
    "STEP_FINISHED": Receiver._step_finished,
    "MESSAGES_SNAPSHOT": Receiver._messages,
    "CUSTOM": Receiver._custom,
    "RUN_STARTED": Receiver._run_started,
    "RUN_FINISHED": Receiver._run_finished,
    "RUN_ERROR": Receiver._run_error,
}
