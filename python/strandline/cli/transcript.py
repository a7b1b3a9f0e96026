"""Messages and events as a person reads them in a terminal.

Stored parts come from agents and browsers, of any version of ``ai``: what is not known here is named, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from strandline.cli import terminal

THINKING = "[thinking] "
_SHORT = 200


def message_text(parts: Iterable[Mapping[str, Any]]) -> str:
    """The parts of a message, one paragraph each."""
    return "\n\n".join(text for part in parts if (text := part_text(part)))


def part_text(part: Mapping[str, Any]) -> str:
    """One part: a text as it is, anything else in one bracketed line; empty for what has nothing to show."""
    kind = str(part.get("type", "?"))
    if kind == "text":
        return terminal.safe(str(part.get("text", "")))
    if kind == "reasoning":
        text = terminal.safe(str(part.get("text", "")))
        return THINKING + text if text else ""
    if kind in ("step-start", "start", "finish", "start-step", "finish-step"):
        return ""
    if kind.startswith("tool-") or kind == "dynamic-tool":
        return _tool(part, kind)
    return bracketed(part)


def bracketed(part: Mapping[str, Any]) -> str:
    """A file, a source, data: what it is, shortened."""
    kind = str(part.get("type", "?"))
    names = ("title", "filename", "mediaType", "url", "data", "kind")
    shown = [part[name] for name in names if part.get(name) is not None]
    texts = [value if isinstance(value, str) else terminal.compact(value) for value in shown]
    return f"[{terminal.line(' '.join([kind, *texts]), _SHORT)}]"


def call(name: str, what: str, *values: Any) -> str:
    """One line about a tool call: ``[tool weather] {"city": "Lisbon"}``."""
    shown = " ".join(terminal.clipped(terminal.compact(value), _SHORT) for value in values)
    return f"[tool {terminal.line(name)}] {what}{shown}".rstrip()


def outcome(status: object, reason: object, error: object) -> str:
    """How a run ended: ``stopped (user)``, ``failed (agent-error): The reply failed.``"""
    said = f"{status}" if reason is None or reason == status else f"{status} ({reason})"
    return terminal.line(said if error is None else f"{said}: {error}")


def event_line(cursor: str, plain: Mapping[str, Any]) -> str:
    """One event of the log: cursor, time, kind, and what it says, in one line."""
    left = {name: value for name, value in plain.items() if name not in ("type", "at", "seq")}
    head = f"{cursor}  {terminal.when(plain.get('at'))}  {plain.get('type', '?')!s:<15}"
    return terminal.line(f"{head}  {terminal.compact(left)}")


def _tool(part: Mapping[str, Any], kind: str) -> str:
    name = str(part.get("toolName", "?")) if kind == "dynamic-tool" else kind.removeprefix("tool-")
    state = str(part.get("state", ""))
    said = [call(name, "", part["input"]) if "input" in part else call(name, "")]
    if "output" in part:
        said.append(call(name, "→ ", part["output"]))
    elif part.get("errorText") is not None:
        said.append(call(name, "failed: ", part["errorText"]))
    elif state not in ("output-available", ""):
        said[0] += f" ({terminal.line(state)})"
    return "\n".join(said)
