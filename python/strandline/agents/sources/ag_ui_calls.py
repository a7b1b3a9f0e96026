"""The tool calls of an AG-UI stream: what was called, with which input, what came of it, and what
somebody has to decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from strandline.agents.sources.ag_ui_asides import Chunk, Chunks, Event, mapping, string
from strandline.core.chunks import complaint
from strandline.errors import ChunkRefused

INTERRUPT = "interrupt"
"""What the call is named that stands for an interrupt which is about no call."""

OWN = "ag-ui"
"""The key of provider metadata under which that call has the interrupt's id."""


class _Call:
    """A tool call. ``open``: between TOOL_CALL_START and TOOL_CALL_END. ``earlier``: the message has it from a run that
    waited for a decision about it; only its result is news. ``asked``: what was said of its approval while it is open,
    for its end: nobody can approve an input before all of it is there."""

    __slots__ = ("answered", "approval", "arguments", "asked", "earlier", "name", "open")

    def __init__(self, name: str, *, earlier: bool = False) -> None:
        self.name = name
        self.earlier = earlier
        self.open = not earlier
        self.answered = False
        self.approval: str | None = None
        self.arguments: list[str] = []
        self.asked: Chunks = []


class Calls:
    """Takes the events about tool calls, in order. ``parts``: the message so far. ``for_clients``: the calls, with the
    names of their tools, whose output the producer waits for."""

    def __init__(self, parts: Iterable[Mapping[str, Any]] = ()) -> None:
        self.for_clients: dict[str, str] = {}
        self._calls = {
            part["toolCallId"]: _Call(part["type"].removeprefix("tool-"), earlier=True)
            for part in parts
            if part.get("state") == "approval-responded"
        }

    @property
    def open(self) -> bool:
        """True while the input of a call is being said."""
        return any(call.open for call in self._calls.values())

    @property
    def unanswered(self) -> bool:
        """True while a call has no result."""
        return any(not call.answered for call in self._calls.values())

    def is_new(self, event: Event) -> bool:
        """True for a TOOL_CALL_START that begins a call, and does not repeat the start of an open one."""
        call = self._calls.get(string(event, "toolCallId"))
        return call is None or not (call.open or (call.earlier and not call.answered))

    def start(self, event: Event) -> Chunks:
        call_id, name = string(event, "toolCallId"), string(event, "toolCallName")
        self._calls[call_id] = _Call(name)
        return [{"type": "tool-input-start", "toolCallId": call_id, "toolName": name}]

    def say(self, event: Event) -> Chunks:
        call_id, delta = string(event, "toolCallId"), string(event, "delta")
        call = self._calls.get(call_id)
        if call is not None and call.earlier:
            return []
        if call is None or not call.open:
            raise ChunkRefused(f"TOOL_CALL_ARGS for the tool call {call_id!r:.60}, which is not open.")
        call.arguments.append(delta)
        return [{"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": delta}] if delta else []

    def end(self, event: Event) -> Chunks:
        return self._end(string(event, "toolCallId"), _tanstack(event))

    def result(self, event: Event) -> Chunks:
        """A result; none for the call of an earlier run, which this message does not show."""
        call_id = string(event, "toolCallId")
        call = self._calls.get(call_id)
        if call is None:
            return []
        call.answered = True
        content = event.get("content")
        output = result_of(content) if isinstance(content, str) else content
        end: Chunk = {"type": "tool-output-available", "toolCallId": call_id, "output": output}
        if _tanstack(event).get("state") == "output-error":
            text = output.get("error") if isinstance(output, dict) else output
            wrong = text if isinstance(text, str) else str(content)
            end = {"type": "tool-output-error", "toolCallId": call_id, "errorText": wrong}
        return [*self._end(call_id, {}), end]

    def custom(self, name: str, value: Mapping[str, Any]) -> Chunk | None:
        """The chunk about a call that a CUSTOM event of Strandline's own wire says; None for another event."""
        call = self._calls.get(str(value.get("toolCallId")))
        if name == "tool-output-preliminary" and call is not None and not call.open:
            return {**value, "type": "tool-output-available", "preliminary": True}
        if name == "tool-approval-request" and call is not None:
            return {**value, "type": name}
        asked = {each.approval for each in self._calls.values() if each.approval is not None}
        return (
            {**value, "type": name} if name == "tool-approval-response" and value.get("approvalId") in asked else None
        )

    def holds(self, chunk: Chunk) -> bool:
        """Take note of a chunk of ``custom``. True where it is about the approval of a call that is open: it comes when
        that ends."""
        if chunk["type"] == "tool-approval-request":
            call = self._calls[chunk["toolCallId"]]
            call.approval = chunk["approvalId"]
        elif chunk["type"] == "tool-approval-response":
            call = next(each for each in self._calls.values() if each.approval == chunk["approvalId"])
        else:
            return False
        if call.open:
            call.asked.append(chunk)
        return call.open

    def interrupt(self, interrupt: Event) -> Chunks:
        """What a run that ended with this interrupt waits for: an approval of a call, the output of one, or, if it is
        about none, that of a call ``interrupt``."""
        asked, call_id = string(interrupt, "id"), interrupt.get("toolCallId")
        call = self._calls.get(str(call_id))
        if call is None or call.answered:
            self.for_clients[asked] = INTERRUPT
            about = {"toolCallId": asked, "toolName": INTERRUPT, "providerMetadata": {OWN: {INTERRUPT: asked}}}
            return [{"type": "tool-input-available", **about, "input": interrupt}]
        if mapping(interrupt, "metadata").get("kind") == "client_tool":
            self.for_clients[str(call_id)] = call.name
            return [{"type": f"data-{INTERRUPT}", "id": asked, "data": interrupt}]
        if call.approval is not None:
            return []
        call.approval = asked
        return [{"type": "tool-approval-request", "approvalId": asked, "toolCallId": call_id}]

    def close(self) -> Chunks:
        """End every input that is open."""
        return [chunk for call_id in self._calls for chunk in self._end(call_id, {})]

    def _end(self, call_id: str, said: Event) -> Chunks:
        call = self._calls.get(call_id)
        if call is None or not call.open:
            return []
        call.open = False
        about = {"toolCallId": call_id, "toolName": call.name}
        text = "".join(call.arguments)
        try:
            value = said["input"] if "input" in said else _json(text or "{}")
        except ValueError:
            wrong = "The tool input was not valid JSON."
            return [{"type": "tool-input-error", **about, "input": text, "errorText": wrong}]
        return [{"type": "tool-input-available", **about, "input": value}, *call.asked]


def result_of(content: str) -> Any:
    """What the text of a result says: JSON where it is JSON. A number that would come back otherwise stays text."""
    try:
        value = _json(content)
    except ValueError:
        return content
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return content if number and orjson.dumps(value).decode() != content.strip() else value


def _json(text: str) -> Any:
    """Raises ValueError, also for JSON that a chunk may not hold."""
    value = orjson.loads(text)
    wrong = complaint(value)
    if wrong is not None:
        raise ValueError(wrong)
    return value


def _tanstack(event: Event) -> Mapping[str, Any]:
    return mapping(mapping(event, "metadata"), "tanstack")
