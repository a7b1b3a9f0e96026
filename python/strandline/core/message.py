"""The fold: what a reply says so far, from the chunks that were appended to it.

Follows the reducer of ``ai@7.0.173 src/ui/process-ui-message-stream.ts`` as ``readUIMessageStream`` runs it: the same
chunks give the same message. What it refuses, ``FoldState.push`` refuses. Besides, ``push`` refuses what upstream
lets pass but what would leave a part in the message that no later chunk could ever reach, and hence nobody could close:

- ``text-start`` or ``reasoning-start`` with the id of a part that is still open;
- ``tool-input-delta`` for an input that is complete or that began in an earlier step (upstream reopens or doubles it);
- a tool chunk that would add a second part for a call that is unfinished, or one that is static *and* dynamic;
- an approval id that another tool call uses, and an answer to a call that a later one with its id hides;
- ``reset-step`` while a part of an earlier step is open (upstream leaves it open and forgets its id);
- metadata merged with something that is not an object.

Values inside chunks are kept by reference and must not be changed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, KeysView, Mapping
from typing import Any

from strandline.core.chunks import DATA_PREFIX
from strandline.core.metadata import merged
from strandline.core.parts import FoldError, Part, Text, Tool, is_step

__all__ = ["FoldError", "FoldState", "fold"]


class FoldState:
    """What a reply says so far. Two states are equal when no later chunks could tell them apart."""

    __slots__ = (
        "_data",
        "_open",
        "_step_tools",
        "_tools",
        "_used",
        "entries",
        "finish_reason",
        "message_id",
        "metadata",
        "step_open",
    )
    __hash__ = None  # type: ignore[assignment]  # it changes with every chunk

    def __init__(
        self,
        message_id: str | None = None,
        metadata: Any = None,
        entries: Iterable[Part] = (),
        *,
        finish_reason: str | None = None,
        step_open: bool = False,
    ) -> None:
        self.message_id = message_id
        self.metadata = metadata
        self.finish_reason = finish_reason
        self.step_open = step_open
        """True after a ``start-step`` that no ``finish-step`` has followed."""
        self.entries: list[Part] = list(entries)
        """The pieces in order, for ``unfold``; others read ``parts()``."""
        self._index()

    def push(self, chunk: Mapping[str, Any]) -> None:
        """Take one more chunk, which ``chunks.check`` let pass. Raises FoldError, and then nothing has changed."""
        kind = chunk["type"]
        if kind == "text-delta":
            part = self._open.get(("text", chunk["id"]))
            if part is None:
                raise self._no_part("text", chunk)
            part.fragments.append(chunk["delta"])
            if len(chunk) > 3 and "providerMetadata" in chunk:
                part.provider_metadata = chunk["providerMetadata"]
            return
        take = _TAKE.get(kind)
        if take is not None:
            take(self, chunk)
        elif kind.startswith(DATA_PREFIX):
            self._take_data(chunk)

    def fork(self) -> FoldState:
        """An independent copy."""
        entries = [dict(entry) if isinstance(entry, dict) else entry.copy() for entry in self.entries]
        more: dict[str, Any] = {"finish_reason": self.finish_reason, "step_open": self.step_open}
        return FoldState(self.message_id, self.metadata, entries, **more)

    def parts(self) -> list[dict[str, Any]]:
        """The parts as a client of ai@7 has them. The list is new, the JSON values in it are shared."""
        return [dict(entry) if isinstance(entry, dict) else entry.shown() for entry in self.entries]

    def used_ids(self) -> KeysView[str]:
        """Ids of all text and reasoning parts in the message, open or closed."""
        return self._used.keys()

    @property
    def open_text(self) -> list[str]:
        """Ids of the open text parts, oldest first."""
        return [part_id for kind, part_id in self._open if kind == "text"]

    @property
    def open_reasoning(self) -> list[str]:
        """Ids of the open reasoning parts, oldest first."""
        return [part_id for kind, part_id in self._open if kind == "reasoning"]

    @property
    def unfinished_tools(self) -> list[Tool]:
        """Tool calls that have neither an output nor an error nor a denial, oldest first. Read only."""
        return [entry for entry in self.entries if isinstance(entry, Tool) and not entry.finished]

    @property
    def anything_open(self) -> bool:
        """True when ending the message here needs closers."""
        return bool(self.step_open or self._open or self.unfinished_tools)

    def tool(self, call_id: str) -> Tool | None:
        """The tool part that a chunk with this id means, or None. Read only."""
        return self._tools.get(call_id)

    def in_current_step(self, tool: Tool) -> bool:
        """True when the tool part was added since the last step boundary."""
        return self._step_tools.get(tool.id) is tool

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FoldState):
            return NotImplemented
        return self._observable() == other._observable()

    def __repr__(self) -> str:
        return f"FoldState(message_id={self.message_id!r}, parts={self.parts()!r})"

    def _observable(self) -> tuple[Any, ...]:
        entries = [entry if isinstance(entry, dict) else entry.observable() for entry in self.entries]
        return (self.message_id or "", self.metadata, self.finish_reason, self.step_open, entries)

    def _index(self) -> None:
        self._open: dict[tuple[str, str], Text] = {}
        self._used: dict[str, None] = {}
        self._tools: dict[str, Tool] = {}  # the last part of each tool call id: the only one that chunks can reach
        self._step_tools: dict[str, Tool] = {}
        self._data: dict[tuple[str, str], dict[str, Any]] = {}
        for entry in self.entries:
            self._index_one(entry)

    def _index_one(self, entry: Part) -> None:
        if isinstance(entry, Text):
            self._used[entry.id] = None
            if entry.open:
                self._open[entry.kind, entry.id] = entry
        elif isinstance(entry, Tool):
            self._tools[entry.id] = self._step_tools[entry.id] = entry
        elif entry["type"] == "step-start":
            self._step_tools = {}
        elif "data" in entry and entry.get("id") is not None:
            self._data.setdefault((entry["type"], entry["id"]), entry)

    def _add(self, entry: Part) -> None:
        self.entries.append(entry)
        self._index_one(entry)

    def _no_part(self, kind: str, chunk: Mapping[str, Any]) -> FoldError:
        part_id = chunk["id"]
        state = "closed" if part_id in self._used else "unknown"
        return FoldError(f"{chunk['type']} for the {state} {kind} part {part_id!r}: send {kind}-start first")

    def _take_start(self, chunk: Mapping[str, Any]) -> None:
        message_id = chunk.get("messageId")
        another = message_id is not None and message_id != (self.message_id or "")
        metadata = merged(None if another else self.metadata, chunk.get("messageMetadata"))
        if another:  # another id is another message
            self.message_id, self.finish_reason, self.step_open = message_id, None, False
            self.entries = []
            self._index()
        self.metadata = metadata

    def _take_metadata(self, chunk: Mapping[str, Any]) -> None:
        self.metadata = merged(self.metadata, chunk.get("messageMetadata"))
        if chunk["type"] == "finish":
            self.finish_reason = chunk.get("finishReason", self.finish_reason)

    def _take_step(self, chunk: Mapping[str, Any]) -> None:
        self.step_open = chunk["type"] == "start-step"
        if self.step_open:
            self._add({"type": "step-start"})

    def _take_reset(self, chunk: Mapping[str, Any]) -> None:
        keep = len(self.entries)
        while keep and not is_step(self.entries[keep - 1]):
            keep -= 1
        for entry in self.entries[:keep]:
            if isinstance(entry, Text) and entry.open:
                raise FoldError(f"reset-step while the {entry.kind} part {entry.id!r} of an earlier step is open")
            if isinstance(entry, Tool) and entry.state == "input-streaming":
                raise FoldError(f"reset-step while the input of tool call {entry.id!r} of an earlier step is open")
        if keep < len(self.entries):
            del self.entries[keep:]
            self._index()

    def _take_text_start(self, chunk: Mapping[str, Any]) -> None:
        kind, part_id = chunk["type"].removesuffix("-start"), chunk["id"]
        if (kind, part_id) in self._open:
            raise FoldError(f"{chunk['type']} for the {kind} part {part_id!r}, which is open: send {kind}-end first")
        part = Text(kind, part_id)
        part.provider_metadata = chunk.get("providerMetadata")
        self._add(part)

    def _take_reasoning_delta(self, chunk: Mapping[str, Any]) -> None:
        part = self._open.get(("reasoning", chunk["id"]))
        if part is None:
            raise self._no_part("reasoning", chunk)
        part.fragments.append(chunk["delta"])
        part.provider_metadata = chunk.get("providerMetadata", part.provider_metadata)

    def _take_text_end(self, chunk: Mapping[str, Any]) -> None:
        kind = chunk["type"].removesuffix("-end")
        part = self._open.pop((kind, chunk["id"]), None)
        if part is None:
            raise self._no_part(kind, chunk)
        part.provider_metadata = chunk.get("providerMetadata", part.provider_metadata)
        part.close(chunk)

    def _take_part(self, chunk: Mapping[str, Any]) -> None:
        self._add({name: chunk[name] for name in _SHOWN[chunk["type"]] if name in chunk})

    def _take_data(self, chunk: Mapping[str, Any]) -> None:
        if chunk.get("transient"):
            return
        earlier = self._data.get((chunk["type"], chunk["id"])) if "id" in chunk else None
        if earlier is None:
            self._add(dict(chunk))
        else:
            earlier["data"] = chunk["data"]

    def _take_input(self, chunk: Mapping[str, Any]) -> None:
        tool = self._place(chunk, bool(chunk.get("dynamic")))
        if chunk["type"] == "tool-input-start":
            tool.call("input-streaming", chunk)
            if "inputEncoding" in chunk:
                tool.fields["inputEncoding"] = chunk["inputEncoding"]
        else:
            tool.call("input-available", chunk)
            tool.fields["input"] = chunk["input"]

    def _take_input_delta(self, chunk: Mapping[str, Any]) -> None:
        call_id = chunk["toolCallId"]
        tool = self._step_tools.get(call_id)
        if tool is None:
            where = "an earlier step's" if call_id in self._tools else "the unknown"
            raise FoldError(f"tool-input-delta for {where} tool call {call_id!r}: send tool-input-start first")
        if tool.fields["state"] != "input-streaming":
            raise FoldError(f"tool-input-delta for tool call {call_id!r}, whose input is complete ({tool.state})")
        if tool.raw is None:
            tool.raw = []
        tool.raw.append(chunk["inputTextDelta"])

    def _take_input_error(self, chunk: Mapping[str, Any]) -> None:
        known = self._step_tools.get(chunk["toolCallId"])
        tool = self._place(chunk, bool(chunk.get("dynamic")) if known is None else known.dynamic)
        tool.refuse_input(chunk)

    def _take_tool(self, chunk: Mapping[str, Any]) -> None:
        kind, call_id = chunk["type"], chunk["toolCallId"]
        tool = self._tools.get(call_id)
        if tool is None:
            raise FoldError(f"{kind} for the unknown tool call {call_id!r}: send tool-input-available first")
        if kind == "tool-output-denied":
            tool.deny()
        elif kind == "tool-approval-request":
            if self._asked(chunk["approvalId"]) not in (None, tool):
                raise FoldError(f"tool-approval-request with the approval id {chunk['approvalId']!r} of another call")
            tool.ask(chunk)
        else:
            tool.end(kind.removeprefix("tool-"), chunk)

    def _take_answer(self, chunk: Mapping[str, Any]) -> None:
        tool = self._asked(chunk["approvalId"])
        if tool is None:
            raise FoldError(f"tool-approval-response for the unknown approval {chunk['approvalId']!r}")
        if self._tools[tool.id] is not tool:
            raise FoldError(f"tool-approval-response for tool call {tool.id!r}, which a later call with its id hides")
        tool.answer(chunk)

    def _place(self, chunk: Mapping[str, Any], dynamic: bool) -> Tool:
        """The part that an input chunk writes to: the one of this step, or a new one."""
        call_id = chunk["toolCallId"]
        tool = self._step_tools.get(call_id)
        if tool is not None:
            if tool.dynamic is not dynamic:
                began = f"which began with dynamic: {str(tool.dynamic).lower()}"
                raise FoldError(f"{chunk['type']} for tool call {call_id!r}, {began}")
            return tool
        earlier = self._tools.get(call_id)
        if earlier is not None and not earlier.finished:
            raise FoldError(f"{chunk['type']} for tool call {call_id!r}, which an earlier step left unfinished")
        tool = Tool(call_id, dynamic)
        self._add(tool)
        return tool

    def _asked(self, approval_id: str) -> Tool | None:
        for entry in self.entries:
            if isinstance(entry, Tool) and entry.fields.get("approval", {}).get("id") == approval_id:
                return entry
        return None

    def _take_nothing(self, chunk: Mapping[str, Any]) -> None:
        """``abort`` and ``error`` say how the run ended; the message stays as it is."""


_FILE = ("type", "mediaType", "url", "providerMetadata")
_SHOWN = {
    "file": _FILE,
    "reasoning-file": _FILE,
    "source-url": ("type", "sourceId", "url", "title", "providerMetadata"),
    "source-document": ("type", "sourceId", "mediaType", "title", "filename", "providerMetadata"),
    "custom": ("type", "kind", "providerMetadata"),
    "steering-message": ("type", "id", "parts"),
}

_TAKE: dict[str, Callable[[FoldState, Mapping[str, Any]], None]] = {
    "start": FoldState._take_start,
    "finish": FoldState._take_metadata,
    "message-metadata": FoldState._take_metadata,
    "abort": FoldState._take_nothing,
    "error": FoldState._take_nothing,
    "start-step": FoldState._take_step,
    "finish-step": FoldState._take_step,
    "reset-step": FoldState._take_reset,
    "text-start": FoldState._take_text_start,
    "text-end": FoldState._take_text_end,
    "reasoning-start": FoldState._take_text_start,
    "reasoning-delta": FoldState._take_reasoning_delta,
    "reasoning-end": FoldState._take_text_end,
    **dict.fromkeys(_SHOWN, FoldState._take_part),
    "tool-input-start": FoldState._take_input,
    "tool-input-available": FoldState._take_input,
    "tool-input-delta": FoldState._take_input_delta,
    "tool-input-error": FoldState._take_input_error,
    "tool-approval-request": FoldState._take_tool,
    "tool-approval-response": FoldState._take_answer,
    "tool-output-available": FoldState._take_tool,
    "tool-output-error": FoldState._take_tool,
    "tool-output-denied": FoldState._take_tool,
}


def fold(chunks: Iterable[Mapping[str, Any]]) -> FoldState:
    """The state after all these chunks. Raises FoldError at the first that does not fit."""
    state = FoldState()
    for chunk in chunks:
        state.push(chunk)
    return state
