"""``RemoteRun``: what an agent in another process holds while it answers. It says things as ``strandline.Run`` does."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any

import orjson

from strandline.core.chunks import FINISH_REASONS, ChunkInvalid, check, complaint
from strandline.core.message import FoldError, FoldState
from strandline.core.unfold import revive
from strandline.errors import ChunkRefused, RunOver
from strandline.remote.outbox import Outbox

_TERMINAL = frozenset({"start", "finish", "abort", "error"})
_CHUNK_LIMIT = 1_048_576
_PIECE = 16_384


class RemoteRun:
    """One run. Methods that add content are coroutines; they wait when the server is behind.

    They raise ChunkRefused for something that clients could not read, and RunOver once the run has ended.
    """

    def __init__(self, claimed: Mapping[str, Any], outbox: Outbox) -> None:
        self.id: str = claimed["run"]
        """The run's id."""
        self.session_id: str = claimed["session"]
        self.message_id: str = claimed["messageId"]
        self.user: str = claimed["user"]
        """Who asked."""
        self.body: Mapping[str, Any] = claimed["body"]
        """What the client sent along with the message."""
        self.messages: list[dict[str, Any]] = claimed["messages"]
        """The active path up to the message to answer, as UIMessages."""
        self.partial: Mapping[str, Any] | None = claimed["partial"]
        """What an earlier worker has said before it was lost: a UIMessage. What is said now comes after it."""
        self._prompt: list[dict[str, Any]] = claimed["prompt"]
        self._outbox = outbox
        partial = self.partial or {"parts": ()}
        self._fold: FoldState = revive(self.message_id, partial["parts"], partial.get("metadata"))
        self._open: tuple[str, str] | None = None
        self._own_steps = self._tools_answered = False
        self._minted = 0
        self._finish_reason: str | None = None
        self._failure: str | None = None
        self._usage: dict[str, Any] | None = None

    def prompt(self) -> list[dict[str, Any]]:
        """The messages as ``[{"role", "content"}]``, the shape that OpenAI-style clients take."""
        return self._prompt

    @property
    def cancelled(self) -> bool:
        """True once the run has ended."""
        return self._outbox.over

    # ------------------------------------------------------------------ what the agent says

    async def text(self, delta: str) -> None:
        """Add text. The first call opens a text part, anything else that is added closes it."""
        await self._delta("text", delta)

    async def reasoning(self, delta: str) -> None:
        """Add reasoning ("thinking"), shown apart from the text."""
        await self._delta("reasoning", delta)

    async def tool_call(
        self, name: str, input: Any | AsyncIterable[str] = None, *, id: str | None = None, dynamic: bool = False
    ) -> str:
        """Show a tool call; returns its id. ``input``: a JSON value, or an async iterator of pieces of JSON text."""
        self._step()
        call = id or self._mint("call")
        named: dict[str, Any] = {"toolCallId": call, "toolName": name, **({"dynamic": True} if dynamic else {})}
        await self.append({"type": "tool-input-start", **named})
        if isinstance(input, AsyncIterable):
            text = ""
            async for piece in input:
                text += piece
                await self.append({"type": "tool-input-delta", "toolCallId": call, "inputTextDelta": piece})
            try:
                input = orjson.loads(text)
            except orjson.JSONDecodeError as exc:
                wrong = {"input": text, "errorText": "The tool input was not valid JSON."}
                await self.append({"type": "tool-input-error", **named, **wrong})
                raise ChunkRefused(f"The input of the tool call {name!r} is not JSON: {exc}") from exc
        await self.append({"type": "tool-input-available", **named, "input": input})
        return call

    async def tool_result(self, call: str, output: Any = None, *, error: str | None = None) -> None:
        """Give the output (a JSON value) of a tool call, or the ``error`` text that it failed with."""
        if error is not None:
            await self.append({"type": "tool-output-error", "toolCallId": call, "errorText": error})
        else:
            await self.append({"type": "tool-output-available", "toolCallId": call, "output": output})
        self._tools_answered = True

    async def data(self, name: str, value: Any, *, id: str | None = None, transient: bool = False) -> None:
        """Add a data part ``data-<name>``; with ``id`` a later one replaces it, ``transient`` ones are not kept."""
        named = {} if id is None else {"id": id}
        await self.append(
            {"type": f"data-{name}", "data": value, **named, **({"transient": True} if transient else {})}
        )

    async def source(self, url: str, title: str | None = None, *, id: str | None = None) -> None:
        """Cite a web page."""
        titled = {} if title is None else {"title": title}
        await self.append({"type": "source-url", "sourceId": id or self._mint("source"), "url": url, **titled})

    async def file(self, url: str, media_type: str) -> None:
        """Add a file by its URL (``https:`` or ``data:``)."""
        await self.append({"type": "file", "url": url, "mediaType": media_type})

    async def metadata(self, value: Mapping[str, Any]) -> None:
        """Merge into the message's metadata."""
        await self.append({"type": "message-metadata", "messageMetadata": dict(value)})

    def usage(self, **counts: Any) -> None:
        """Record what the run used; kept with the run."""
        wrong = complaint(counts)
        if wrong is not None:
            raise ChunkRefused(f"usage{wrong}")
        self._usage = {**(self._usage or {}), **counts}

    def finish(self, reason: str) -> None:
        """Set the finish reason: ``stop`` (default), ``length``, ``content-filter``, ``tool-calls`` or ``other``."""
        if reason not in FINISH_REASONS:
            raise ChunkRefused(f"The finish reason must be one of {', '.join(FINISH_REASONS)}, not {reason!r:.60}.")
        self._finish_reason = reason

    async def append(self, chunk: Mapping[str, Any]) -> None:
        """Add one AI SDK ``UIMessageChunk``. ``start``, ``finish``, ``abort`` and ``error`` belong to the run: what
        they say is kept, the chunk itself is not passed on."""
        try:
            check(chunk)
        except ChunkInvalid as exc:
            raise ChunkRefused(str(exc)) from exc
        blob = orjson.dumps(chunk)
        kind, own = chunk["type"], orjson.loads(blob)  # a copy: the agent may go on using its objects
        delta = _DELTAS.get(kind)
        if delta is None and len(blob) > _CHUNK_LIMIT:
            raise ChunkRefused(f"A {kind} chunk of {len(blob)} bytes is over the limit of {_CHUNK_LIMIT}.")
        if kind in _TERMINAL:
            self._absorb(kind, own)
        elif delta is not None:
            self._close_unless(f"{self._open[0]}-delta" == kind if self._open else True)
            for start in range(0, len(own[delta]) or 1, _PIECE):
                self._put({**own, delta: own[delta][start : start + _PIECE]})
        else:
            self._own_steps = self._own_steps or kind == "start-step"
            self._close_unless(kind == "message-metadata" or bool(own.get("transient")))
            self._put(own, len(blob))
        await self._outbox.room()

    async def emit(self, item: Any) -> None:
        """Add one yielded or returned thing: text, a chunk, or an async iterator of either."""
        if isinstance(item, str):
            await self.text(item)
        elif isinstance(item, Mapping):
            await self.append(item)
        elif isinstance(item, AsyncIterator):
            try:
                async for each in item:
                    await self.emit(each)
            finally:
                close = getattr(item, "aclose", None)
                if close is not None:
                    await close()
        elif item is not None:
            raise ChunkRefused(
                f"An agent yields str, UIMessageChunk dicts or async iterators, not {type(item).__name__}."
            )

    def ending(self) -> dict[str, Any]:
        """How the run ends now that the agent has returned: what is told to the server."""
        self._close_unless(False)
        told = {"finishReason": self._finish_reason, "usage": self._usage}
        if self._failure is not None:
            return {"status": "failed", "error": self._failure, "usage": self._usage}
        return {"status": "completed", **told}

    def failing(self, error: str | None) -> dict[str, Any]:
        """How it ends when the agent has raised."""
        return {"status": "failed", "error": error, "usage": self._usage}

    # ------------------------------------------------------------------ how

    async def _delta(self, family: str, delta: str) -> None:
        if not isinstance(delta, str):
            raise ChunkRefused(f"Text must be a str, not {type(delta).__name__}.")
        if (wrong := complaint(delta)) is not None:
            raise ChunkRefused(f"The text{wrong}.")
        if not delta:
            return
        if self._open is None or self._open[0] != family:
            self._close_unless(False)
            self._step()
            part = self._mint("t" if family == "text" else "r")
            self._put({"type": f"{family}-start", "id": part})
            self._open = (family, part)
        for start in range(0, len(delta), _PIECE):
            self._put({"type": f"{family}-delta", "id": self._open[1], "delta": delta[start : start + _PIECE]})
        await self._outbox.room()

    def _absorb(self, kind: str, chunk: Mapping[str, Any]) -> None:
        if chunk.get("messageMetadata") is not None:
            self._put({"type": "message-metadata", "messageMetadata": chunk["messageMetadata"]})
        if kind == "finish":
            self._finish_reason = chunk.get("finishReason", self._finish_reason)
        elif kind == "error":
            self._failure = chunk["errorText"]
        elif kind == "abort":
            self._failure = "The reply was broken off."

    def _close_unless(self, continues: bool) -> None:
        if self._open is not None and not continues:
            family, part = self._open
            self._open = None
            self._put({"type": f"{family}-end", "id": part})

    def _step(self) -> None:
        """Steps as ai's own servers mark them: one to begin with, a new one after tool results."""
        if self._own_steps:
            return
        if self._fold.step_open and (not self._tools_answered or self._fold.unfinished_tools):
            return
        self._close_unless(False)
        if self._fold.step_open:
            self._put({"type": "finish-step"})
        self._tools_answered = False
        self._put({"type": "start-step"})

    def _put(self, chunk: Mapping[str, Any], size: int = 64) -> None:
        if self._outbox.over:
            raise RunOver(f"The run {self.id} has ended.")
        try:
            self._fold.push(chunk)
        except FoldError as exc:
            raise ChunkRefused(str(exc)) from exc
        self._outbox.add(chunk, size + len(chunk.get(_DELTAS.get(chunk["type"], ""), "")))

    def _mint(self, prefix: str) -> str:
        while True:
            self._minted += 1
            minted = f"{prefix}-{self._minted}"
            if minted not in self._fold.used_ids() and self._fold.tool(minted) is None:
                return minted


_DELTAS = {"text-delta": "delta", "reasoning-delta": "delta", "tool-input-delta": "inputTextDelta"}
