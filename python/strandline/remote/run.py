"""``RemoteRun``: what an agent in another process holds while it answers. It says things as ``strandline.Run`` does."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

from strandline.core.events import Chunk
from strandline.core.unfold import revive
from strandline.errors import ChunkRefused, RunOver
from strandline.remote.outbox import Outbox
from strandline.remote.republishing import Republisher
from strandline.remote.spawning import Spawner, spawned
from strandline.remote.steering import Steered
from strandline.saying.composing import aclose
from strandline.saying.decision import Decision, read
from strandline.saying.voice import Voice

_CHUNK_LIMIT = 1_048_576
_PIECE = 65_536


class RemoteRun(Republisher, Steered, Spawner, Voice):
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
        self.authors: dict[str, str] = claimed["authors"]
        """The active path up to the message to answer, as UIMessages."""
        self.partial: Mapping[str, Any] | None = claimed["partial"]
        """What the message said when this worker took the run: a UIMessage, or None for nothing. What is said now comes
        after it."""
        self.attempt: int = claimed["producer"]
        """1, and one more each time that a worker took this run again."""
        self._spawned = [spawned(each) for each in claimed["spawned"]]
        self._prompt: list[dict[str, Any]] = claimed["prompt"]
        self._decisions = [read(each) for each in claimed["decisions"]]
        self._taken = claimed["taken"]
        self._outbox = outbox
        partial = self.partial or {"parts": ()}
        super().__init__(revive(self.message_id, partial["parts"], partial.get("metadata")), _PIECE, _CHUNK_LIMIT)

    @property
    def message(self) -> dict[str, Any]:
        """What the reply says so far, as a UIMessage. A tool loop asks the model again with
        ``[*run.messages, run.message]``."""
        return {"id": self.message_id, "role": "assistant", "parts": self._fold.parts()}

    def prompt(self) -> list[dict[str, Any]]:
        """The messages as ``[{"role", "content"}]``, the shape that OpenAI-style clients take."""
        return self._prompt

    @property
    def decisions(self) -> list[Decision]:
        """What was decided since this agent asked for it, when a worker is given the message again to go on with it;
        else empty. ``messages`` then ends with that message."""
        return list(self._decisions)

    @property
    def cancelled(self) -> bool:
        """True once the run has ended."""
        return self._outbox.over

    async def emit(self, item: Any) -> None:
        """Add one yielded or returned thing: text, a chunk, or an async iterator of either."""
        if isinstance(item, str):
            await self.text(item)
        elif isinstance(item, Mapping):
            await self.append(item)
        elif isinstance(item, AsyncIterator) or inspect.isasyncgen(item):
            try:
                async for each in item:
                    await self.emit(each)
            finally:
                await aclose(item)
        elif item is not None:
            raise ChunkRefused(
                f"An agent yields str, UIMessageChunk dicts or async iterators, not {type(item).__name__}."
            )

    async def returned(self) -> dict[str, Any]:
        """How the run ends now that the agent has returned: what is told to the server."""
        await self._unheld()
        self._close_part()
        if self._broken_off is not None:
            kind, text = self._broken_off
            return self.failing(text if kind == "error" else "The reply was broken off.")
        how = {"status": "completed", "finishReason": self._finish_reason, "usage": self._usage}
        awaits = [
            {"toolCallId": tool.id, "roles": terms.roles, "expiresIn": terms.expires_in}
            for tool, _, terms in self._undecided()
        ]
        return {**how, "awaits": awaits} if awaits else how

    def failing(self, error: str | None) -> dict[str, Any]:
        """How it ends when the agent has raised."""
        return {"status": "failed", "error": error, "usage": self._usage}

    # ------------------------------------------------------------------ how

    async def _turn(self) -> None:
        await self._outbox.room()
        await self._unheld()

    def _put(self, chunk: Chunk, size: int = 64) -> None:
        if self._outbox.over:
            raise RunOver(f"The run {self.id} has ended.")
        fitting = self._push(chunk)
        if fitting is not None:
            self._outbox.add(fitting, size)

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_urlsafe(15)}"
