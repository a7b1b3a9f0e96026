"""What an agent is told while it answers (PROTOCOL §14.3): notes that it takes, one by one or all that are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from strandline.agents.writing import Writer
from strandline.runtime.live_run import Note
from strandline.saying.notes import acknowledgement


class Steered(Writer):
    """The listening side of one run. Taking a note acknowledges it, in the reply and for everybody to see; notes that
    are never taken become user messages when the run ends."""

    async def steering(self) -> AsyncIterator[Note]:
        """The notes as they come, until the run is over: ``id``, ``parts``, ``text``, ``by``, ``device``. The run lasts
        as long as the agent does, so one that ends by itself leaves the loop, or has it in a task that it cancels."""
        while not self._live.over and not self._closed:
            note = await self._one()
            if note is not None:
                yield note
                continue
            await self._live.told()

    def take_steering(self) -> list[Note]:
        """The notes that are there now. Also for plain functions, which run in a thread."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        return self._all() if here else asyncio.run_coroutine_threadsafe(self._all_later(), self._loop).result()

    async def _one(self) -> Note | None:
        await self._turn()
        return next(iter(self._take(self._untaken()[:1])), None)

    def _all(self) -> list[Note]:
        return self._take(self._untaken())

    async def _all_later(self) -> list[Note]:
        return self._all()

    def _untaken(self) -> list[Note]:
        """What is acknowledged and not yet in the log is still among the run's notes: a stop may come before it."""
        over = self._live.over or self._closed or self._broken_off is not None or self._held is not None
        return [] if over else [note for note in self._live.notes.values() if note.id not in self._taken]

    def _take(self, notes: list[Note]) -> list[Note]:
        for note in notes:
            self._close_part()
            chunk = acknowledgement(note.id, note.parts)
            self._put(chunk, len(str(chunk["parts"])))
            self._taken.add(note.id)
        return notes
