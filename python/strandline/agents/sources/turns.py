"""UIMessages as turns of a conversation: what the functions that build a provider's input share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

Part = Mapping[str, Any]

DENIED = "The tool call was denied."
_FINISHED = frozenset({"output-available", "output-error", "output-denied"})


def turns(messages: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, list[Part]]]:
    """The role and the parts of each turn: a message, or one step (one call of the model) of an assistant's. What the
    user said in the middle of a reply is a turn of its own. Tool calls without a result are left out: providers refuse
    a conversation that has one. Of a message that is there twice (``[*run.messages, run.message]`` where a reply is
    gone on with) the last counts."""
    newest = {message.get("id", index): message for index, message in enumerate(messages)}
    for message in newest.values():
        parts: list[Part] = []
        for part in message["parts"]:
            if part["type"] in ("step-start", "steering-message"):
                if parts:
                    yield message["role"], parts
                parts = []
                if part["type"] == "steering-message":
                    yield "user", part["parts"]
            elif (called := ToolCall.of(part)) is None or called.finished:
                parts.append(part)
        if parts:
            yield message["role"], parts


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool part, static or dynamic."""

    id: str
    name: str
    part: Part

    @classmethod
    def of(cls, part: Part) -> ToolCall | None:
        """The call that a part is, or None for other parts."""
        kind = part["type"]
        if kind == "dynamic-tool":
            return cls(part["toolCallId"], part["toolName"], part)
        return cls(part["toolCallId"], kind.removeprefix("tool-"), part) if kind.startswith("tool-") else None

    @property
    def finished(self) -> bool:
        """True when it has an output, an error or a denial, or when the provider may run it now."""
        return self.part["state"] in _FINISHED or (self.by_provider and self.approved)

    @property
    def approved(self) -> bool:
        """True when somebody has approved it, and it has not run."""
        return bool(self.part["state"] == "approval-responded" and self.part["approval"]["approved"])

    @property
    def by_provider(self) -> bool:
        """True when the provider itself ran the tool."""
        return bool(self.part.get("providerExecuted"))

    @property
    def failed(self) -> bool:
        """True when there is no output."""
        return str(self.part["state"]) != "output-available"

    @property
    def input(self) -> Any:
        """The input; the text that the model wrote if that was not valid."""
        return self.part.get("input", {})

    @property
    def answer(self) -> str:
        """What the model is told of the outcome."""
        if self.part["state"] == "output-denied":
            reason = self.part.get("approval", {}).get("reason")
            return f"{DENIED} {reason}" if reason else DENIED
        if self.failed:
            return str(self.part["errorText"])
        output = self.part.get("output")
        return output if isinstance(output, str) else json_text(output)

    def metadata(self, provider: str) -> Mapping[str, Any]:
        """What the adapter kept with the call."""
        kept: Mapping[str, Any] = (self.part.get("callProviderMetadata") or {}).get(provider) or {}
        return kept


def kept(part: Part, provider: str) -> Mapping[str, Any]:
    """What the adapter of this provider kept with a part."""
    found: Mapping[str, Any] = (part.get("providerMetadata") or {}).get(provider) or {}
    return found


def json_text(value: Any) -> str:
    """A value as JSON text."""
    return orjson.dumps(value).decode()


def base64_of(url: str) -> str | None:
    """The base64 text in a ``data:`` URL, or None for any other URL."""
    head, comma, data = url.partition(",")
    return data if comma and head.startswith("data:") and head.endswith(";base64") else None


def unseen(part: Part) -> str:
    """What a model is told of a file that its provider does not take."""
    where = part["url"] if str(part["url"]).startswith("http") else "attached"
    return f"[File {part.get('filename') or ''} ({part['mediaType']}): {where}]".replace("  ", " ")
