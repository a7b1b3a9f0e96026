"""UIMessageChunks as AG-UI events: the part of the AG-UI codec that needs memory, and nothing else.

AG-UI says what the AI SDK says with other words: text, reasoning and tool calls are brackets of events. What a chunk
becomes depends on what was said before it (is the text open, was this call's input complete), so a ``Translator`` folds
along. Given the same chunks from the start of the run it always says the same, wherever a reader came in.

Three readers are minded, and where they disagree the comment says who needs what:

- ``@tanstack/ai@0.58.0 src/activities/chat/stream/processor.ts`` ("the processor"), which builds UIMessages;
- ``@ag-ui/client@1.0.0`` ``verifyEvents``, which refuses brackets that are not balanced, and its ``apply``;
- the models of ``ag-ui-protocol 1.0.0``.

Ids: the message id is the run's; its n-th bubble is ``<message>~n`` (see ``_split``). Call and reasoning ids are unique
in a message only, and both clients look them up in the whole conversation: on this wire they begin with the message's
id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from strandline.codecs.ag_ui_names import DENIED, bubble_id, call_id, error_text, json_text, reasoning_id, result_text
from strandline.core.chunks import DATA_PREFIX
from strandline.core.message import FoldState
from strandline.core.metadata import changed
from strandline.core.partial_json import ABSENT
from strandline.core.parts import Text, Tool, is_step

Event = dict[str, Any]
Events = list[Event]


class _Call:
    """A tool call on the wire. ``open``: between TOOL_CALL_START and TOOL_CALL_END. ``preliminary``: an output that may
    turn out to be the last."""

    __slots__ = ("answers", "open", "preliminary", "said", "wire")

    def __init__(self, wire: str) -> None:
        self.wire = wire
        self.open = True
        self.said = False
        self.answers = 0
        self.preliminary: Any = ABSENT


class Translator:
    """Takes the chunks of one message in order. ``fold`` is what they say so far."""

    def __init__(self, message_id: str) -> None:
        self.fold = FoldState()
        self.fold.push({"type": "start", "messageId": message_id})
        self.message_id = message_id
        self._bubbles = 1
        self._shown = False
        self._open = False
        self._texts: set[str] = set()
        # What the processor remembers of the bubble: text since the last call, something else after it, a call since.
        self._said = self._interrupted = self._called = False
        self._thoughts: dict[str, str] = {}
        self._reasoned = 0
        self._thinking: str | None = None
        self._steps = 0
        self._step: str | None = None
        self._calls: dict[str, _Call] = {}
        self._numbers: dict[str, int] = {}

    def take(self, chunk: Mapping[str, Any]) -> Events | None:
        """The events of one more chunk; None for one that cannot be told on an open stream (``renewed`` follows)."""
        kind = chunk["type"]
        take = _TAKE.get(kind, Translator._custom if kind.startswith(DATA_PREFIX) else None)
        events = take(self, chunk) if take is not None else []
        self.fold.push(chunk)
        return events

    def renewed(self) -> tuple[Translator, Events]:
        """A translator that knows only what the message says now, and the events that say it."""
        return recap(self.message_id, self.fold)

    def finish(self) -> Events:
        """Close whatever is open: a run's last event comes after every bracket. A reply without a word is shown too."""
        events = self._show()
        if self._open:
            events += self._end_text()
        for wire in self._thoughts.values():
            events += self._end_reasoning(wire)
        self._thoughts = {}
        for call in self._calls.values():
            events += self._settle(call)
        return events + self._end_step()

    def wire_call(self, tool_call_id: str) -> str:
        """How this wire calls the tool call that this id means now."""
        return self._calls[tool_call_id].wire

    # ------------------------------------------------------------------ the message and its text

    @property
    def _bubble(self) -> str:
        return bubble_id(self.message_id, self._bubbles)

    def _show(self) -> Events:
        """The bubble has to exist before anything but text is said in it: the processor would invent an id."""
        return [] if self._shown else [*self._start_text(), *self._end_text()]

    def _start_text(self, **more: Any) -> Events:
        self._shown = self._open = True
        self._looked_at()
        return [{"type": "TEXT_MESSAGE_START", "messageId": self._bubble, "role": "assistant", **more}]

    def _end_text(self) -> Events:
        self._open = False
        return [{"type": "TEXT_MESSAGE_END", "messageId": self._bubble}]

    def _looked_at(self) -> None:
        """At the first text event after a call, the processor begins a new piece of text."""
        if self._called:
            self._said = self._called = False

    def _split(self) -> Events:
        """Go on in a new bubble. The processor would otherwise say the text before the interruption once more."""
        events = self._end_text() if self._open else []
        self._bubbles += 1
        self._shown = self._said = self._interrupted = self._called = False
        return events

    def _text_start(self, chunk: Mapping[str, Any]) -> Events:
        # Nothing is said before there is text: only then it is known which bubble it belongs to.
        self._texts.add(chunk["id"])
        return []

    def _text_delta(self, chunk: Mapping[str, Any]) -> Events:
        if not chunk["delta"]:
            return []
        events = self._split() if self._said and self._interrupted and not self._called else []
        if not self._open:
            events += self._start_text()
        self._looked_at()
        self._said, self._interrupted = True, False
        events.append({"type": "TEXT_MESSAGE_CONTENT", "messageId": self._bubble, "delta": chunk["delta"]})
        return events

    def _text_end(self, chunk: Mapping[str, Any]) -> Events:
        self._texts.discard(chunk["id"])
        return [] if self._texts or not self._open else self._end_text()

    def _metadata(self, chunk: Mapping[str, Any]) -> Events | None:
        if chunk["type"] == "start" and chunk.get("messageId", self.message_id) != self.message_id:
            return None
        return self._say_metadata(chunk.get("messageMetadata"))

    def _say_metadata(self, metadata: Any) -> Events:
        if metadata is None:
            return []
        if not isinstance(metadata, dict):
            return self._custom({"type": "message-metadata", "messageMetadata": metadata})
        said = changed(self.fold.metadata, metadata)
        if self._bubbles > 1:  # history has it in the first
            start = {"type": "TEXT_MESSAGE_START", "messageId": self.message_id, "role": "assistant"}
            return [{**start, "metadata": said}, {"type": "TEXT_MESSAGE_END", "messageId": self.message_id}]
        if self._open:
            self._looked_at()
            return [{"type": "TEXT_MESSAGE_CONTENT", "messageId": self._bubble, "delta": "", "metadata": said}]
        return [*self._start_text(metadata=said), *self._end_text()]

    # ------------------------------------------------------------------ reasoning and steps

    def _reasoning_start(self, chunk: Mapping[str, Any]) -> Events:
        self._reasoned += 1
        wire = self._thoughts[chunk["id"]] = reasoning_id(self.message_id, self._reasoned)
        return [
            *self._show(),
            {"type": "REASONING_START", "messageId": wire},
            {"type": "REASONING_MESSAGE_START", "messageId": wire, "role": "reasoning"},
        ]

    def _reasoning_delta(self, chunk: Mapping[str, Any]) -> Events:
        if not chunk["delta"]:
            return []
        wire, events = self._thoughts[chunk["id"]], []
        if self._thinking != wire:
            # The processor tells thinking parts apart by steps.
            events = [*self._end_thought(), {"type": "STEP_STARTED", "stepName": wire}]
            self._thinking = wire
        self._interrupted = True
        return [*events, {"type": "REASONING_MESSAGE_CONTENT", "messageId": wire, "delta": chunk["delta"]}]

    def _reasoning_end(self, chunk: Mapping[str, Any]) -> Events:
        return self._end_reasoning(self._thoughts.pop(chunk["id"]))

    def _end_reasoning(self, wire: str) -> Events:
        return [
            {"type": "REASONING_MESSAGE_END", "messageId": wire},
            {"type": "REASONING_END", "messageId": wire},
            *(self._end_thought() if self._thinking == wire else []),
        ]

    def _end_thought(self) -> Events:
        ended, self._thinking = self._thinking, None
        return [] if ended is None else [{"type": "STEP_FINISHED", "stepName": ended}]

    def _start_step(self, chunk: Mapping[str, Any]) -> Events:
        events = [*self._end_thought(), *self._end_step()]
        self._steps += 1
        self._step = f"step-{self._steps}"
        return [*events, {"type": "STEP_STARTED", "stepName": self._step}]

    def _end_step(self) -> Events:
        ended, self._step = self._step, None
        return [] if ended is None else [{"type": "STEP_FINISHED", "stepName": ended}]

    # ------------------------------------------------------------------ tools

    def _input(self, chunk: Mapping[str, Any]) -> Events | None:
        """``tool-input-start``, ``-available`` and ``-error``: the call begins here, unless it has begun before."""
        known = self.fold.tool(chunk["toolCallId"])
        call = self._calls.get(chunk["toolCallId"])
        events: Events = []
        if known is None or call is None or not self.fold.in_current_step(known):
            call, events = self._start_call(chunk["toolCallId"], chunk["toolName"])
        elif not call.open or chunk["type"] == "tool-input-start" or chunk["toolName"] != known.name:
            return None  # an input that begins anew, or a call of another tool after all
        if chunk["type"] == "tool-input-start":
            return events
        events += self._end_call(call, chunk["input"])
        return events + (self._fail(call, chunk["errorText"]) if chunk["type"] == "tool-input-error" else [])

    def _input_delta(self, chunk: Mapping[str, Any]) -> Events:
        return self._say_arguments(self._calls[chunk["toolCallId"]], chunk["inputTextDelta"])

    def _output(self, chunk: Mapping[str, Any]) -> Events:
        call = self._calls[chunk["toolCallId"]]
        tool = self.fold.tool(chunk["toolCallId"])
        events = self._end_call(call, tool.input() if tool is not None else ABSENT) if call.open else []
        if chunk["type"] != "tool-output-available":
            return events + self._fail(call, chunk.get("errorText", DENIED))
        if chunk.get("preliminary"):
            # AG-UI makes a tool message of every result: only the last one is said as such.
            call.preliminary = chunk["output"]
            value = {"toolCallId": call.wire, "output": chunk["output"]}
            return [*events, {"type": "CUSTOM", "name": "tool-output-preliminary", "value": value}]
        return events + self._answer(call, result_text(chunk["output"]))

    def _start_call(self, tool_call_id: str, name: str) -> tuple[_Call, Events]:
        number = self._numbers[tool_call_id] = self._numbers.get(tool_call_id, 0) + 1
        events = self._show()
        earlier = self._calls.get(tool_call_id)
        if earlier is not None:
            events += self._settle(earlier)
        call = self._calls[tool_call_id] = _Call(call_id(self.message_id, tool_call_id, number))
        self._called = self._interrupted = True
        start = {"type": "TOOL_CALL_START", "toolCallId": call.wire, "toolCallName": name}
        return call, [*events, {**start, "parentMessageId": self._bubble}]

    def _say_arguments(self, call: _Call, text: str) -> Events:
        if not text:
            return []
        call.said = True
        return [{"type": "TOOL_CALL_ARGS", "toolCallId": call.wire, "delta": text}]

    def _end_call(self, call: _Call, value: Any = ABSENT) -> Events:
        call.open = False
        end: Event = {"type": "TOOL_CALL_END", "toolCallId": call.wire}
        if value is ABSENT:
            return [end]
        said = [] if call.said else self._say_arguments(call, json_text(value))
        return [*said, {**end, "metadata": {"tanstack": {"input": value}}}]

    def _settle(self, call: _Call) -> Events:
        """Nothing more comes for this call."""
        events = self._end_call(call) if call.open else []
        return events if call.preliminary is ABSENT else events + self._answer(call, result_text(call.preliminary))

    def _answer(self, call: _Call, content: str, **more: Any) -> Events:
        call.answers += 1
        call.preliminary = ABSENT
        self._interrupted = True
        message = f"{call.wire}:result" + (f"~{call.answers}" if call.answers > 1 else "")
        result = {"type": "TOOL_CALL_RESULT", "messageId": message, "toolCallId": call.wire, "content": content}
        return [{**result, "role": "tool", **more}]

    def _fail(self, call: _Call, text: str) -> Events:
        return self._answer(call, error_text(text), metadata={"tanstack": {"state": "output-error"}})

    # ------------------------------------------------------------------ everything else

    def _custom(self, chunk: Mapping[str, Any]) -> Events:
        value = {name: item for name, item in chunk.items() if name != "type"}
        if "toolCallId" in value:
            value["toolCallId"] = self.wire_call(value["toolCallId"])
        return [{"type": "CUSTOM", "name": chunk["type"], "value": value}]

    def recall(self, tool: Tool) -> Events:
        """A call as it stands, said at once."""
        call, events = self._start_call(tool.id, tool.name)
        events += self._say_arguments(call, tool.raw_text or "")
        if tool.base == "input-streaming" and not tool.finished:
            return events
        events += self._end_call(call, tool.input())
        if tool.state == "output-denied":
            return events + self._fail(call, DENIED)
        if tool.base in ("input-error", "output-error"):
            return events + self._fail(call, str(tool.fields.get("errorText", "")))
        if tool.base == "output-available":
            events += self._answer(call, result_text(tool.fields.get("output")))
        return events


def recap(message_id: str, fold: FoldState) -> tuple[Translator, Events]:
    """What a message says, in the order of its parts; and a translator that can go on from there."""
    made = Translator(message_id)
    events = made._say_metadata(fold.metadata)
    for entry in fold.entries:
        if isinstance(entry, Text):
            for kind in ("start", "delta", "end"):
                if kind != "end" or not entry.open:
                    chunk = {"type": f"{entry.kind}-{kind}", "id": entry.id, "delta": entry.text()}
                    events += _TAKE[chunk["type"]](made, chunk) or []
        elif isinstance(entry, Tool):
            events += made.recall(entry)
        elif is_step(entry):
            events += made._start_step(entry)
        else:
            events += made._custom(entry)
    if not fold.step_open:
        events += made._end_step()
    made.fold = fold.fork()
    return made, events


_TAKE: dict[str, Callable[[Translator, Mapping[str, Any]], Events | None]] = {
    **dict.fromkeys(("start", "finish", "message-metadata"), Translator._metadata),
    "reset-step": lambda made, chunk: None,
    "start-step": Translator._start_step,
    "finish-step": lambda made, chunk: made._end_step(),
    "text-start": Translator._text_start,
    "text-delta": Translator._text_delta,
    "text-end": Translator._text_end,
    "reasoning-start": Translator._reasoning_start,
    "reasoning-delta": Translator._reasoning_delta,
    "reasoning-end": Translator._reasoning_end,
    **dict.fromkeys(("tool-input-start", "tool-input-available", "tool-input-error"), Translator._input),
    "tool-input-delta": Translator._input_delta,
    **dict.fromkeys(("tool-output-available", "tool-output-error", "tool-output-denied"), Translator._output),
    **dict.fromkeys(("tool-approval-request", "tool-approval-response"), Translator._custom),
    **dict.fromkeys(("source-url", "source-document", "file", "reasoning-file"), Translator._custom),
    **dict.fromkeys(("custom", "steering-message"), Translator._custom),
}
