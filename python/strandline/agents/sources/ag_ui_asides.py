"""What an AG-UI stream says besides the message: state, activities and subagents, as data parts; and the conversation
as a snapshot, as the events that would have said it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from strandline.agents.sources.json_patch import patched
from strandline.errors import ChunkRefused

Chunk = dict[str, Any]
Chunks = list[Chunk]
Event = Mapping[str, Any]

_SUBAGENT_STATUS = {"SUBAGENT_STARTED": "running", "SUBAGENT_FINISHED": "finished", "SUBAGENT_ERROR": "failed"}
_ABOUT_SUBAGENTS = ("name", "description", "parentToolCallId", "parentSubagentRunId", "result", "message", "code")


class Asides:
    """Takes the events that are not of the message, in order."""

    def __init__(self) -> None:
        self._state: Any = None
        self._activities: dict[str, dict[str, Any]] = {}
        self._subagents: dict[str, dict[str, Any]] = {}

    def take(self, event: Event) -> Chunks:
        """The chunks of one more event; none for a type that is not known here."""
        take = _TAKE.get(event["type"])
        return [] if take is None else take(self, event)

    def _state_snapshot(self, event: Event) -> Chunks:
        self._state = event.get("snapshot")
        return [{"type": "data-state", "id": "state", "data": self._state}]

    def _state_delta(self, event: Event) -> Chunks:
        self._state = _patched(self._state, event, "delta")
        return [{"type": "data-state", "id": "state", "data": self._state}]

    def _activity_snapshot(self, event: Event) -> Chunks:
        message = string(event, "messageId")
        if event.get("replace") is False and message in self._activities:
            return []
        kind = string(event, "activityType")
        self._activities[message] = {"activityType": kind, "content": event.get("content")}
        return [{"type": "data-activity", "id": message, "data": self._activities[message]}]

    def _activity_delta(self, event: Event) -> Chunks:
        message = string(event, "messageId")
        known = self._activities.get(message, {"content": {}})
        content = _patched(known["content"], event, "patch")
        self._activities[message] = {"activityType": string(event, "activityType"), "content": content}
        return [{"type": "data-activity", "id": message, "data": self._activities[message]}]

    def _subagent(self, event: Event) -> Chunks:
        name = string(event, "subagentRunId")
        said = {key: event[key] for key in _ABOUT_SUBAGENTS if event.get(key) is not None}
        status = _SUBAGENT_STATUS[event["type"]]
        if mapping(event, "outcome").get("type") == "suspended":
            status = "suspended"
        self._subagents[name] = {**self._subagents.get(name, {}), **said, "status": status}
        return [{"type": "data-subagent", "id": name, "data": self._subagents[name]}]


def told(messages: Iterable[Event]) -> Iterable[Event]:
    """The events that would have said what follows the last user message."""
    reply: list[Event] = []
    for message in messages:
        reply = [] if message.get("role") == "user" else [*reply, message]
    for message in reply:
        content, about = message.get("content"), {"messageId": message.get("id")}
        match message.get("role"):
            case "assistant" | "reasoning" as role:
                family = "TEXT_MESSAGE" if role == "assistant" else "REASONING_MESSAGE"
                if isinstance(content, str):
                    yield {"type": f"{family}_START", **about}
                    yield {"type": f"{family}_CONTENT", **about, "delta": content}
                    yield {"type": f"{family}_END", **about}
                for call in message.get("toolCalls") or ():
                    function = mapping(call, "function")
                    named = {"toolCallId": call.get("id")}
                    yield {"type": "TOOL_CALL_START", **named, "toolCallName": function.get("name")}
                    yield {"type": "TOOL_CALL_ARGS", **named, "delta": function.get("arguments") or ""}
                    yield {"type": "TOOL_CALL_END", **named}
            case "tool":
                result = {"type": "TOOL_CALL_RESULT", "toolCallId": message.get("toolCallId"), "content": content}
                if message.get("error"):
                    result |= {"content": message["error"], "metadata": {"tanstack": {"state": "output-error"}}}
                yield result


def string(event: Event, name: str) -> str:
    """A field that has to be there. Raises ChunkRefused."""
    found = event.get(name)
    if not isinstance(found, str):
        raise ChunkRefused(f"Not an AG-UI event: {event.get('type')!r:.60} needs the string {name!r}.")
    return found


def mapping(event: Event, name: str) -> Mapping[str, Any]:
    """A field that is an object, or an empty one."""
    found = event.get(name)
    return found if isinstance(found, Mapping) else {}


def _patched(document: Any, event: Event, name: str) -> Any:
    try:
        return patched(document, event.get(name) or ())
    except ValueError as exc:
        raise ChunkRefused(f"{event['type']}: {exc}.") from exc


_TAKE: dict[str, Callable[[Asides, Event], Chunks]] = {
    "STATE_SNAPSHOT": Asides._state_snapshot,
    "STATE_DELTA": Asides._state_delta,
    "ACTIVITY_SNAPSHOT": Asides._activity_snapshot,
    "ACTIVITY_DELTA": Asides._activity_delta,
    **dict.fromkeys(_SUBAGENT_STATUS, Asides._subagent),
}
