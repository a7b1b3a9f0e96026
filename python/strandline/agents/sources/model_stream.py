"""What the adapters for model providers share: reading a provider's stream to its end, its failures, its token counts.

Knows no provider. A stream is closed whenever reading it ends, so that stopping a run ends the model's work at once.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson

from strandline.agents.invoke import PUBLIC_ERROR
from strandline.agents.run import Run
from strandline.core.chunks import complaint
from strandline.errors import PublicError
from strandline.saying.composing import aclose

BUSY = "The model is busy at the moment. Please try again."
INVALID_INPUT = "The tool input was incomplete or not valid JSON."

_BUSY_STATUS = frozenset({429, 503, 529})
_BUSY_TYPES = frozenset({"rate_limit_exceeded", "rate_limit_error", "overloaded_error"})


class ModelFailed(Exception):
    """The provider said in its stream that it failed, or its stream broke off. For the log, not for users."""


@asynccontextmanager
async def events(stream: Any, failures: type[Exception]) -> AsyncIterator[AsyncIterator[Any]]:
    """The events of a stream, of an awaitable of one, or of a manager of one (``client.….stream(...)``). Leaving closes
    it. What the library raises (``failures``) and ModelFailed become a PublicError that says nothing of it."""
    try:
        if inspect.isawaitable(stream):
            stream = await stream
        async with AsyncExitStack() as closing:
            if hasattr(stream, "__aenter__"):
                stream = await closing.enter_async_context(stream)
            elif not hasattr(stream, "__aiter__"):
                raise TypeError(f"A {type(stream).__name__} is not an async stream: use the library's async client.")
            iterator = aiter(stream)
            closing.push_async_callback(aclose, iterator)
            yield iterator
    except (failures, ModelFailed) as exc:
        raise PublicError(BUSY if _busy(exc) else PUBLIC_ERROR) from exc


def _busy(exc: Exception) -> bool:
    if getattr(exc, "status_code", None) in _BUSY_STATUS:
        return True
    body = getattr(exc, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else {}
    named = {exc.args[0]} if isinstance(exc, ModelFailed) else set()
    if isinstance(inner, dict):
        named |= {inner.get("type"), inner.get("code")}
    return bool(named & _BUSY_TYPES)


class Tally:
    """Adds the tokens of one model call to what the run's earlier calls used."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._before = dict(run.used or {})

    def record(self, **counts: int | None) -> None:
        """The counts of this call so far; None where the provider did not say. They may be given again as they grow."""
        known = {name: count for name, count in counts.items() if count is not None}
        self._run.usage(**{name: self._before.get(name, 0) + count for name, count in known.items()})


def input_chunk(call: dict[str, Any], text: str, *, cut: bool = False) -> dict[str, Any]:
    """The chunk that completes a tool's input from all of its JSON text; no text at all means no arguments. What was
    ``cut`` off is never a call, whatever it looks like, and neither is what no client could read (``__proto__``)."""
    try:
        value = orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError:
        cut = True
    if cut or complaint(value) is not None:
        return {"type": "tool-input-error", **call, "input": text, "errorText": INVALID_INPUT}
    return {"type": "tool-input-available", **call, "input": value}


def plain(value: Any) -> dict[str, Any]:
    """A library's object as the JSON that it was made of."""
    if isinstance(value, dict):
        return value
    dumped: dict[str, Any] = value.to_dict(mode="json", exclude_none=True, warnings=False)
    return dumped
