"""What a remote agent is told while it answers (PROTOCOL §18.10)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from strandline.remote.outbox import Outbox
from strandline.saying.composing import Composing
from strandline.saying.notes import acknowledgement


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody told a running agent: a user message that has not become one. ``by`` is who, as events name it."""

    id: str
    parts: list[dict[str, Any]]
    by: str
    at: int
    metadata: Any = None
    device: str | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return "\n\n".join(str(part["text"]) for part in self.parts if part.get("type") == "text")


class Steered(Composing):
    """The listening side of one run. A note is taken by a request of its own, which acknowledges it in the reply; what
    comes back is kept here until the agent asks for it, so a task that is cancelled meanwhile loses nothing."""

    _outbox: Outbox
    _taken: int

    def __init__(self, *composing: Any) -> None:
        super().__init__(*composing)
        self._notes: deque[Note] = deque()

    async def steering(self) -> AsyncIterator[Note]:
        """The notes as they come, until the run is over: ``id``, ``parts``, ``text``, ``by``, ``device``. The run lasts
        as long as the agent does, so one that ends by itself leaves the loop, or has it in a task that it cancels."""
        while not self._outbox.over:
            await self._fetch(most=1)
            if self._notes:
                yield self._notes.popleft()
                continue
            await self._outbox.told()

    async def take_steering(self) -> list[Note]:
        """The notes that are there now."""
        found: list[Note] = []
        while self._notes or (self._outbox.notes and not self._outbox.over):
            await self._fetch()
            found += self._notes
            self._notes.clear()
        return found

    async def _fetch(self, **bounds: int) -> None:
        """Take notes, if there may be some, unless some are here already. Nothing else is added meanwhile: it comes
        after them."""
        await self._unheld()
        if self._notes or not self._outbox.notes or self._outbox.over:
            return
        self._outbox.notes = False
        if self._broken_off is not None:
            return
        self._close_part()

        def told(answer: asyncio.Future[Mapping[str, Any] | None]) -> None:
            if not answer.cancelled() and (said := answer.result()) is not None:
                for note in said["told"]:
                    self._hear(note)

        def ask() -> asyncio.Future[Mapping[str, Any] | None]:
            asked = self._outbox.ask("steering", {"taken": self._taken, **bounds})
            asked.add_done_callback(told)
            return asked

        await self._alone(ask)

    def _hear(self, note: Mapping[str, Any]) -> None:
        self._taken += 1
        self._push(acknowledgement(note["id"], note["parts"]))
        self._notes.append(Note(**note))
