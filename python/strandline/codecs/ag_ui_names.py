"""What the AG-UI wire calls things, and how it writes outputs: the stream and history must agree on it."""

from __future__ import annotations

from typing import Any

import orjson

DENIED = "The tool call was denied."


def bubble_id(message_id: str, number: int) -> str:
    """The id of the ``number``-th (from 1) message that a reply is shown as."""
    return message_id if number == 1 else f"{message_id}~{number}"


def call_id(message_id: str, tool_call_id: str, number: int) -> str:
    """The id of the ``number``-th (from 1) call with this id in a message."""
    return f"{message_id}:{tool_call_id}" + (f"~{number}" if number > 1 else "")


def reasoning_id(message_id: str, number: int) -> str:
    """The id of the ``number``-th (from 1) reasoning part of a message."""
    return f"{message_id}:r{number}"


def result_text(output: Any) -> str:
    """An output as the string that TOOL_CALL_RESULT carries. The processor tries ``JSON.parse`` on it, so a text that
    could be taken for JSON is quoted."""
    if isinstance(output, str):
        bare = output.strip()
        if not (bare[:1] in set('"{[-0123456789') or bare in ("true", "false", "null")):
            return output
    return json_text(output)


def error_text(text: str) -> str:
    """A failed call's result (the processor reads ``error`` from it)."""
    return json_text({"error": text})


def json_text(value: Any) -> str:
    return orjson.dumps(value).decode()
