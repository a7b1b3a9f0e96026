"""How content is put together, chunk by chunk: which part is open, where a step begins, which ids are used.

Everything passes ``append`` or ``_delta`` and is folded into what the message says so far, so that a bad chunk raises
in the agent and never reaches a client (DESIGN §14.8). Where the chunks go from there is for ``_put`` to say.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from strandline.core.chunks import ChunkInvalid, check, has_lone_surrogate
from strandline.core.coalesce import PROGRESS
from strandline.core.decisions import APPROVAL, CLIENT_TOOL
from strandline.core.events import Chunk
from strandline.core.message import FoldError, FoldState
from strandline.core.parts import Text, Tool, notes_in
from strandline.core.portable import portable
from strandline.errors import ChunkRefused
from strandline.saying.decision import Terms

_TERMINAL = frozenset({"finish", "abort", "error"})
_PARTS = {"text-start": "text", "reasoning-start": "reasoning"}

_T = TypeVar("_T")


class Composing(ABC):
    """The message that one run writes. ``fold``: what it says already, where another run or process has begun it."""

    def __init__(self, fold: FoldState, delta_limit: int, chunk_limit: int) -> None:
        self._fold = fold
        self._delta_limit = delta_limit
        self._chunk_limit = chunk_limit
        self._asked: dict[str, Terms] = {}
        self._client_tools: dict[str, Terms] = {}
        self._approvals: dict[str | None, Terms] = {None: Terms()}
        self._renamed: dict[tuple[str, str], str] = {}
        self._minted = 0
        self._own_steps = False
        self._open = self._left_open()
        self._tools_answered = self._has_answers()
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._broken_off: tuple[str, str | None] | None = None
        self._held: asyncio.Event | None = None

    # ------------------------------------------------------------------ where the chunks go

    @abstractmethod
    async def _turn(self) -> None:
        """Wait until something may be added. From here to the next await whatever is added stays together."""

    @abstractmethod
    def _put(self, chunk: Chunk, size: int = 64) -> None:
        """One checked chunk of about ``size`` bytes: into the message so far, and on its way."""

    @abstractmethod
    def _new_id(self, prefix: str) -> str:
        """An id that nobody can guess, and that no other message has."""

    def _spend(self, size: int) -> None:  # noqa: B027  not everybody counts
        """So many bytes are about to be said. Raises ChunkRefused where that is too much."""

    def _may_ask(self) -> None:  # noqa: B027  most may
        """Raise where nobody could call this agent again when what it asks for is decided."""

    def _may_ask_more(self) -> None:  # noqa: B027  who cannot know is told at the end
        """Raise where the session waits for as many decisions as it may."""

    async def _unheld(self) -> None:
        """Wait for the end of what is done ``_alone``."""
        while self._held is not None:
            await self._held.wait()

    async def _alone(self, ask: Callable[[], asyncio.Future[_T]]) -> _T:
        """Have something decided, and hold back meanwhile what other tasks of the agent add."""
        await self._unheld()
        gate = self._held = asyncio.Event()

        def reopen(_: asyncio.Future[_T]) -> None:
            self._held = None
            gate.set()

        # It is decided even if this task is cancelled while it waits, so that must not depend on this task.
        decided = ask()
        decided.add_done_callback(reopen)
        return await asyncio.shield(decided)

    # ------------------------------------------------------------------ chunk by chunk

    async def append(self, chunk: Chunk) -> None:
        """Add one AI SDK ``UIMessageChunk`` (ai@7.0.173). ``start``, ``finish``, ``abort`` and ``error`` belong to the
        run: what they say is kept (metadata, finish reason, failure), the chunk itself is not passed on."""
        try:
            check(chunk)
        except ChunkInvalid as exc:
            raise ChunkRefused(str(exc)) from exc
        kind = chunk["type"]
        if self._broken_off is not None:
            if kind in _TERMINAL or kind.endswith(("-end", "finish-step")):
                return  # what producers send after an error to tidy up
            raise ChunkRefused("Nothing can follow a chunk that ended the reply.")
        name = DELTAS.get(kind)
        if name is None:
            # A copy: the agent may go on using its objects, and what was logged must stay as it was.
            blob = _dump(chunk)
            self._check_size(kind, len(blob))
            await self._turn()
            self._append(kind, orjson.loads(blob), len(blob))
            return
        # Also a copy, though only a delta with more than its text can hold something that changes.
        extra: Chunk = chunk if len(chunk) == 3 else orjson.loads(_dump(chunk))
        for piece in split(chunk[name], self._delta_limit):
            await self._turn()
            self._append(kind, {**extra, name: piece}, size_of(piece))

    async def _delta(self, family: str, delta: str) -> None:
        if not isinstance(delta, str):
            raise ChunkRefused(f"Text must be a str, not {type(delta).__name__}.")
        if self._broken_off is not None:
            raise ChunkRefused("Nothing can follow a chunk that ended the reply.")
        if has_lone_surrogate(delta):
            raise ChunkRefused("The text has half of a surrogate pair: join split characters first.")
        for piece in split(delta, self._delta_limit) if delta else ():
            await self._turn()
            if self._open is None or self._open[0] != family:
                self._close_part()
                self._step()
                part = self._mint("t" if family == "text" else "r")
                self._put({"type": f"{family}-start", "id": part})
                self._open = (family, part)
            self._put({"type": f"{family}-delta", "id": self._open[1], "delta": piece}, size_of(piece))

    def _append(self, kind: str, chunk: Chunk, size: int) -> None:
        if kind == "start" or kind in _TERMINAL:
            self._absorb(kind, chunk, size)
            return
        if kind == "start-step":
            self._own_steps = True
        if self._open is not None and not self._continues(kind, chunk):
            self._close_part()
        told = notes_in(self._fold.entries) if kind == "reset-step" else []
        self._put(self._unique(kind, chunk), size)
        if told:  # what the agent has taken in this step stays: nobody else would know of it
            for note in told[len(notes_in(self._fold.entries)) :]:
                self._put(note, len(str(note["parts"])))

    def _absorb(self, kind: str, chunk: Chunk, size: int) -> None:
        if chunk.get("messageMetadata") is not None:
            self._put({"type": "message-metadata", "messageMetadata": chunk["messageMetadata"]}, size)
        if kind == "finish" and "finishReason" in chunk:
            self._finish_reason = chunk["finishReason"]
        elif kind == "error":
            self._broken_off = kind, chunk["errorText"]
        elif kind == "abort":
            self._broken_off = kind, chunk.get("reason")

    def _continues(self, kind: str, chunk: Chunk) -> bool:
        assert self._open is not None
        return kind in (f"{self._open[0]}-delta", "message-metadata", PROGRESS) or bool(chunk.get("transient"))

    def _unique(self, kind: str, chunk: Chunk) -> Chunk:
        """Part ids are unique per message: a repeated one is renamed, for its deltas and its end as well."""
        family = kind.partition("-")[0]
        if kind in _PARTS:
            part = chunk["id"]
            if part in self._fold.used_ids():
                renamed = self._mint(part)
                self._renamed[(family, part)] = renamed
                return {**chunk, "id": renamed}
            self._renamed.pop((family, part), None)
        elif self._renamed and family in ("text", "reasoning") and (family, chunk["id"]) in self._renamed:
            return {**chunk, "id": self._renamed[(family, chunk["id"])]}
        return chunk

    def _push(self, chunk: Chunk) -> Chunk | None:
        """Take a chunk into what the message says so far, in the form that clients of every version can read; None
        where there is nothing to say."""
        fitting = portable(self._fold, chunk)
        if fitting is None:
            return None
        try:
            self._fold.push(fitting)
        except FoldError as exc:
            raise ChunkRefused(str(exc)) from exc
        return fitting

    def _check_size(self, kind: str, size: int) -> None:
        if size > self._chunk_limit:
            raise ChunkRefused(
                f"A {kind} chunk of {size} bytes is over the limit of {self._chunk_limit}. "
                "Store large content elsewhere and send its URL."
            )

    def _left_open(self) -> tuple[str, str] | None:
        """The part that the message ends in the middle of: what is said now goes on there."""
        for entry in reversed(self._fold.entries):
            if isinstance(entry, Text) and entry.open:
                return entry.kind, entry.id
            if not isinstance(entry, dict) or entry["type"] != PROGRESS:
                break
        return None

    def _has_answers(self) -> bool:
        fold = self._fold
        tools = [entry for entry in fold.entries if isinstance(entry, Tool) and fold.in_current_step(entry)]
        return fold.step_open and any(tool.finished for tool in tools)

    def _close_part(self) -> None:
        if self._open is not None:
            family, part = self._open
            self._open = None
            self._put({"type": f"{family}-end", "id": part})

    def _step(self) -> None:
        """Steps as ai's own servers mark them: one to begin with, a new one after tool results."""
        if self._own_steps:
            return
        if self._fold.step_open and (not self._tools_answered or self._fold.unfinished_tools):
            return
        self._close_part()
        if self._fold.step_open:
            self._put({"type": "finish-step"})
        self._tools_answered = False
        self._put({"type": "start-step"})

    def _undecided(self) -> list[tuple[Tool, str, Terms]]:
        """The calls that somebody has to decide about: those with an open approval, and those of tools that a client
        runs, which have no output."""
        found = []
        for tool in self._fold.unfinished_tools:
            asked = self._asked.get(tool.id)
            if tool.state == "approval-requested" and not tool.fields.get("approval", {}).get("isAutomatic"):
                found.append((tool, APPROVAL, asked or self._approvals.get(tool.name) or self._approvals[None]))
            elif tool.state == "input-available" and not tool.fields.get("providerExecuted"):
                terms = asked or self._client_tools.get(tool.name)
                if terms is not None:
                    found.append((tool, CLIENT_TOOL, terms))
        return found

    def _mint(self, prefix: str) -> str:
        while True:
            self._minted += 1
            minted = f"{prefix}-{self._minted}"
            if minted not in self._fold.used_ids() and self._fold.tool(minted) is None:
                return minted


DELTAS = {"text-delta": "delta", "reasoning-delta": "delta", "tool-input-delta": "inputTextDelta"}


def split(text: str, limit: int) -> list[str]:
    """Pieces of at most ``limit`` bytes."""
    if len(text) <= limit // 4 or len(text.encode()) <= limit:
        return [text]
    return [text[start : start + limit // 4] for start in range(0, len(text), limit // 4)]


def size_of(delta: str) -> int:
    """About how many bytes a delta chunk with this text takes."""
    return 48 + (len(delta) if delta.isascii() else len(delta.encode()))


async def aclose(iterator: Any) -> None:
    """Close an iterator at once, not whenever it is collected, if it can be closed."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


def _dump(chunk: Chunk) -> bytes:
    try:
        return orjson.dumps(chunk)
    except TypeError as exc:
        raise ChunkRefused(f"A {chunk['type']} chunk is not JSON: {exc}") from exc
