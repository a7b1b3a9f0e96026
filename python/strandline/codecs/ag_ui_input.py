"""A conversation as an AG-UI agent is sent it (``ag-ui-protocol 1.0.0``, ``RunAgentInput.messages``).

An AG-UI message is text, or calls, or one result; so a reply becomes several, in the order in which a model was asked:
a new one begins where something is said after results. Files and data of replies have no form there and are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from strandline.codecs.ag_ui_messages import media
from strandline.codecs.ag_ui_names import DENIED, bubble_id, json_text, reasoning_id, result_text

Message = dict[str, Any]

_UNANSWERED = "The call was not finished."


def ag_ui_messages(messages: Iterable[Mapping[str, Any]], resumed: Collection[str] = ()) -> list[Message]:
    """UIMessages as AG-UI messages. Every call has a result, if only one that says that there is none: providers
    refuse a history with open calls. Those of ``resumed`` have none: what was decided about them is said elsewhere."""
    found: list[Message] = []
    for message in messages:
        if message["role"] == "assistant":
            found += _Reply(message["id"], resumed).messages(message["parts"])
        else:
            found.append({"id": message["id"], "role": message["role"], "content": _content(message["parts"])})
    return found


def interrupt_of(part: Mapping[str, Any]) -> str | None:
    """The id of the interrupt that a tool part stands for; None for a call of the agent's."""
    kept = part.get("callProviderMetadata") or {}
    found: str | None = kept.get("ag-ui", {}).get("interrupt")
    return found


def _content(parts: Iterable[Mapping[str, Any]]) -> str | list[Message]:
    items: list[Message] = []
    for part in parts:
        if part["type"] == "text":
            items.append({"type": "text", "text": part["text"]})
        elif part["type"] == "file":
            items.append(media(part))
    if all(item["type"] == "text" for item in items):
        return "\n\n".join(item["text"] for item in items)
    return items


class _Reply:
    """Collects what one assistant message becomes."""

    def __init__(self, message_id: str, resumed: Collection[str]) -> None:
        self._id = message_id
        self._resumed = resumed
        self._found: list[Message] = []
        self._results: list[Message] = []
        self._said: Message | None = None
        self._count = self._thoughts = 0

    def messages(self, parts: Iterable[Mapping[str, Any]]) -> list[Message]:
        for part in parts:
            kind = part["type"]
            if kind == "text" and part.get("text"):
                said = self._saying()
                said["content"] = f"{said['content']}\n\n{part['text']}" if "content" in said else part["text"]
            elif kind == "reasoning" and part.get("text"):
                self._end()
                self._thoughts += 1
                thought = {"id": reasoning_id(self._id, self._thoughts), "role": "reasoning", "content": part["text"]}
                self._found.append(thought)
            elif (kind == "dynamic-tool" or kind.startswith("tool-")) and interrupt_of(part) is None:
                self._call(part)
            elif kind == "step-start" and self._results:
                self._end()
        self._end()
        return self._found

    def _saying(self) -> Message:
        """The message that text goes into: a new one after results."""
        if self._results:
            self._end()
        return self._open()

    def _open(self) -> Message:
        if self._said is None:
            self._count += 1
            self._said = {"id": bubble_id(self._id, self._count), "role": "assistant"}
            self._found.append(self._said)
        return self._said

    def _call(self, part: Mapping[str, Any]) -> None:
        name = part.get("toolName") or part["type"].removeprefix("tool-")
        given = part.get("input", part.get("rawInput", {}))
        arguments = given if isinstance(given, str) else json_text(given)
        call = {"id": part["toolCallId"], "type": "function", "function": {"name": name, "arguments": arguments}}
        self._open().setdefault("toolCalls", []).append(call)
        if part["toolCallId"] in self._resumed:
            return
        result = {"id": f"{part['toolCallId']}:result", "role": "tool", "toolCallId": part["toolCallId"]}
        match part["state"]:
            case "output-available":
                self._results.append({**result, "content": result_text(part.get("output"))})
            case "output-denied":
                self._results.append({**result, "content": DENIED, "error": DENIED})
            case state:
                wrong = str(part.get("errorText", "")) if state == "output-error" else _UNANSWERED
                self._results.append({**result, "content": wrong, "error": wrong})

    def _end(self) -> None:
        self._found += self._results
        self._results, self._said = [], None
