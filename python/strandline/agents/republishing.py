"""What an agent can do with its message as a whole: say something else, begin again, settle what it has said.

Each is one decision inside the writer, after everything that was added before it. What other tasks of the agent add
meanwhile comes after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from strandline.agents.writing import Writer
from strandline.core.chunks import has_lone_surrogate
from strandline.core.events import Chunk
from strandline.core.parts import notes_in
from strandline.errors import ChunkRefused
from strandline.saying.republishing import Content, Republishing

MOST_CHECKPOINTS = 1000
LONGEST_NAME = 200


class Republisher(Republishing, Writer):
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

    async def _say_anew(self, content: Content | None, sent: int | None = None) -> None:
        """``sent``: the number of the request that says so, of a remote agent."""
        first: Sequence[Chunk] = self._live.first if content is None else ()
        rest: Sequence[Chunk] = () if content is None else self._chunks_of(content)
        kept = (note for note in notes_in(self._fold.entries) if note not in first and note not in rest)
        for chunk in (*first, *kept):
            self._spend(len(orjson.dumps(chunk)))  # what is said again is in the log again

        def decide() -> asyncio.Future[None]:
            chunks, fold = self._anew(first, rest)
            by = f"agent:{self._record.agent}"
            return self._sessions.reset(self._session, self._live, by, chunks, sent, lambda: self._turn_to(fold))

        await self._alone(decide)
