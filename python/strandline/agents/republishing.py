"""What an agent can do with its message as a whole: say something else, begin again, settle what it has said.

Each is one decision inside the writer, after everything that was added before it. What other tasks of the agent add
meanwhile comes after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import orjson

from strandline.agents.writing import Writer
from strandline.core.chunks import STEERING, ChunkInvalid, check, has_lone_surrogate
from strandline.core.events import Chunk
from strandline.core.message import FoldError, FoldState
from strandline.core.parts import notes_in
from strandline.core.unfold import unfold_message
from strandline.errors import ChunkRefused
from strandline.runtime.live_run import started
from strandline.saying.composing import DELTAS, split

MOST_CHECKPOINTS = 1000
LONGEST_NAME = 200

_T = TypeVar("_T")


class Republisher(Writer):
    """A writer that can take back what it has written."""

    @property
    def attempt(self) -> int:
        """1, and one more for every process that was lost while this run was being written."""
        return self._record.attempt

    @property
    def recovered(self) -> bool:
        """True when the agent is called again, because the process that ran it is gone (``recover=...``)."""
        return self._record.attempt > 1

    @property
    def partial(self) -> dict[str, Any]:
        """What the message says so far, as a UIMessage. With ``recover="continue"`` that is where to go on."""
        message = {"id": self._record.message_id, "role": "assistant", "parts": self._fold.parts()}
        return message if self._fold.metadata is None else {**message, "metadata": self._fold.metadata}

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names of the checkpoints that this run has passed and not taken back, in whichever process."""
        return tuple(self._live.checkpoints.names)

    async def checkpoint(self, name: str | None = None) -> str:
        """Settle what the message says: return when it is durable. A run that is recovered with ``"continue"`` goes on
        from its newest checkpoint. Returns the cursor of the place."""
        if name is not None:
            if not name or len(name) > LONGEST_NAME or has_lone_surrogate(name):
                raise ChunkRefused(f"The name of a checkpoint has 1 to {LONGEST_NAME} characters.")
            if len(self._live.checkpoints.names) >= MOST_CHECKPOINTS:
                raise ChunkRefused(f"A run may pass {MOST_CHECKPOINTS} named checkpoints. Leave out the name.")
        return await self._alone(lambda: self._sessions.checkpoint(self._session, self._live, name))

    async def restart(self) -> None:
        """Throw away what this run has said so far, by a logged event, and begin again (R15). What it was told and has
        taken stays, and comes first. Open AI SDK streams cannot show this; they end with ``resync`` and load the
        message anew."""
        await self._begin_again(self._live.first, ())

    async def replace(self, content: str | Iterable[Mapping[str, Any]]) -> None:
        """Let the message say this instead: a text, or the parts of a UIMessage. In one step: nobody sees neither, or
        both. What is added afterwards follows it; the message's metadata stays, and what its agent was told and has
        taken comes before it, unless it is among the parts."""
        await self._begin_again((), tuple(self._chunks_of(content)))

    async def _begin_again(self, first: tuple[Chunk, ...], rest: tuple[Chunk, ...]) -> None:
        """Say ``first``, then what the agent has taken of what it was told, then ``rest``."""
        fold = started(self._record.message_id)

        def begin_again() -> None:
            self._fold = fold
            self._asked.clear()
            self._renamed.clear()
            self._open = self._finish_reason = None
            self._tools_answered = self._own_steps = False

        def decide() -> asyncio.Future[None]:
            named = {chunk["id"] for chunk in (*first, *rest) if chunk["type"] == STEERING}
            notes = (note for note in notes_in(self._fold.entries) if note["id"] not in named)
            chunks = (*first, *notes, *rest)
            for chunk in chunks:
                fold.push(chunk)
            by = f"agent:{self._record.agent}"
            return self._sessions.reset(self._session, self._live, by, chunks, begin_again)

        await self._alone(decide)

    async def _alone(self, decide: Callable[[], asyncio.Future[_T]]) -> _T:
        """Have something decided, and hold back meanwhile what other tasks of the agent add."""
        while self._held is not None:
            await self._held.wait()
        gate = self._held = asyncio.Event()

        def reopen(_: asyncio.Future[_T]) -> None:
            self._held = None
            gate.set()

        # It is decided even if this task is cancelled while it waits, so that must not depend on this task.
        decided = decide()
        decided.add_done_callback(reopen)
        return await asyncio.shield(decided)

    def _chunks_of(self, content: str | Iterable[Mapping[str, Any]]) -> list[Chunk]:
        """The chunks that say it after a ``start``, checked like any others."""
        said: list[Chunk] = []
        if self._fold.metadata is not None:
            said.append({"type": "message-metadata", "messageMetadata": self._fold.metadata})
        count = 1
        if isinstance(content, str):
            part = self._mint("t")
            text = [{"type": "text-start", "id": part}, {"type": "text-delta", "id": part, "delta": content}]
            said += [{"type": "start-step"}, *text, {"type": "text-end", "id": part}] if content else []
        else:
            parts = _copied(content)
            count = len(parts)
            said += _unfolded(self._record.message_id, parts)
        found: list[Chunk] = []
        fold = FoldState()
        for chunk in said:
            _check(chunk)
            found += self._bounded(chunk)
            try:
                fold.push(chunk)
            except FoldError as exc:
                raise ChunkRefused(str(exc)) from exc
        if not isinstance(content, str) and len(fold.entries) != count:
            raise ChunkRefused("One of the parts is of a type that the AI SDK does not know.")
        return found

    def _bounded(self, chunk: Chunk) -> list[Chunk]:
        size = len(orjson.dumps(chunk))
        self._spend(size)
        name = DELTAS.get(chunk["type"])
        if name is None:
            self._check_size(chunk["type"], size)
            return [chunk]
        return [{**chunk, name: piece} for piece in split(chunk[name], self._settings.delta_limit)]


def _copied(content: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The agent may go on using its objects, and what was logged must stay as it was. Texts are complete."""
    try:
        parts = orjson.loads(orjson.dumps(list(content)))
    except TypeError as exc:
        raise ChunkRefused(f"The parts are not JSON: {exc}") from exc
    return [
        {**part, "state": "done"} if isinstance(part, dict) and part.get("type") in ("text", "reasoning") else part
        for part in parts
    ]


def _unfolded(message_id: str, parts: list[dict[str, Any]]) -> list[Chunk]:
    try:
        for part in parts:
            if part["type"] in ("text", "reasoning") and not isinstance(part["text"], str):
                raise TypeError("text")
        return [*unfold_message(message_id, parts)[1:]]
    except (AttributeError, KeyError, TypeError) as exc:
        raise ChunkRefused(f"The parts are not those of a UIMessage: {exc!r:.200}") from exc


def _check(chunk: Chunk) -> None:
    try:
        check(chunk)
    except ChunkInvalid as exc:
        raise ChunkRefused(str(exc)) from exc
