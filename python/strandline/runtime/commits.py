"""What becomes of a batch: it is committed and published; or what the store refuses of it is dropped, and the rest
written; or the store is not there, and commits are given up.

May not do: decide what is written (``journal.py`` does), agents' tasks (the listener does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from strandline.errors import NotStored, StoreUnavailable
from strandline.runtime import journal_log
from strandline.runtime.clock import Clock
from strandline.runtime.journal_log import aside
from strandline.runtime.listener import Listener
from strandline.runtime.live import Command, LiveSession
from strandline.runtime.metering import Metered
from strandline.runtime.refusals import Part, Suspects, drop, renumber, smaller
from strandline.runtime.segments import Plan, Segments
from strandline.runtime.work import Work, batch_of, refuse, resolve
from strandline.settings import Settings
from strandline.stores.port import Batch


class Commits:
    """One batch at a time. ``healthy`` is False while commits fail for good.

    ``_dirty``: the sessions in which something waits; ``_apart``: those of them that are written by themselves;
    ``_writing``: what was taken and is neither published nor refused.
    """

    def __init__(self, store: Metered, clock: Clock, settings: Settings, listener: Listener) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._listener = listener
        self._segments = Segments(settings)
        self._suspects = Suspects()
        self._dirty: dict[LiveSession, None] = {}
        self._apart: list[LiveSession] = []
        self._writing: list[Work] = []
        self._settling: list[asyncio.Future[None]] = []
        self._wakeup = asyncio.Event()
        self._number = 0
        self._waiting_since = self._taken_since = 0.0
        self._taken = (0, 0)
        self.healthy = True

    def mark(self, session: LiveSession) -> None:
        """Something of ``session`` waits for a commit."""
        if not self._dirty:
            self._waiting_since = self._clock.monotonic()
        self._dirty[session] = None
        self._wakeup.set()

    async def _carry_out(self, number: int, works: Sequence[Work], plan: Plan) -> None:
        """Commit this as batch ``number``, and publish it."""
        try:
            committed = await self._commit(batch_of(number, works, plan))
        except Exception as exc:
            await self._contain(tuple(works), plan, exc)
        else:
            if committed:
                self._done(works, plan)
            else:
                self._give_up()

    async def _commit(self, batch: Batch) -> bool:
        """False when the store stays away. Raises what it refuses the batch with."""
        try:
            committed = await self._store.commit(batch, self._settings.commit_patience if self.healthy else 0)
        finally:
            # A number is never used twice: a commit that failed may have counted after all.
            self._number = batch.number
        if not committed:
            await self._clock.sleep(0 if self.healthy else 1.0)
        return committed

    async def _contain(self, works: Sequence[Work], plan: Plan, refused: Exception) -> None:
        """Drop what of a batch the store refuses, and write the rest (``refusals.py``)."""
        if not await self._takes_anything():
            self._give_up()
            return
        parts = self._smaller(works, plan, refused)
        while parts:
            works, plan = parts.pop()
            number = self._number + 1
            self._taken = renumber(works, number)
            try:
                committed = await self._commit(batch_of(number, works, plan))
            except Exception as exc:
                parts += self._smaller(works, plan, exc)
            else:
                if not committed:
                    self._give_up()
                    return
                self._done(works, plan)

    async def _takes_anything(self) -> bool:
        """Whether the store is sound, and only what it was given is not."""
        try:
            taken = await self._commit(Batch(self._number + 1))
        except Exception as exc:
            aside(journal_log.defect, self._number, exc)
            await self._clock.sleep(0 if self.healthy else 1.0)
            return False
        if taken and not self.healthy:
            self._publish(())
        return taken

    def _smaller(self, works: Sequence[Work], plan: Plan, refused: Exception) -> list[Part]:
        """The parts of what was refused, the next one last. What has no parts is dropped."""
        parts = smaller(works, plan)
        if not parts:
            if works:
                del self._writing[: len(works)]
            else:
                self._segments.refused(plan, self._clock.monotonic())
                self._end_settling(NotStored("The journal cannot be emptied: the store refuses it, the log says why."))
            sessions = [work.session for work in works] or list(plan.upto)
            for session in sessions:
                self._refused(session, works, refused)
            if not sessions:
                aside(journal_log.defect, self._number, refused)
        return parts[::-1]

    def _refused(self, session: LiveSession, works: Sequence[Work], exc: Exception) -> None:
        known = self._suspects.add(session, self._clock.monotonic())
        if not known:
            aside(journal_log.session_defect, self._number, session.id, exc)
        again = known and bool(works)
        drop(session, works, again=again)
        self._listener.refused(session, again=again)
        if again:
            # What is left is the end of its runs, and has time.
            self._dirty.pop(session, None)
            if session.commands:
                session.feed.fail("store-unavailable")

    def _done(self, works: Sequence[Work], plan: Plan) -> None:
        """It was committed."""
        self._publish(works)
        for work in works if self._suspects.sessions else ():
            self._suspects.taken(work.session)
        self._segments.written(plan, self._clock.monotonic())
        if self._segments.settled:
            self._end_settling()
        else:
            self._wakeup.set()
        del self._writing[: len(works)]

    def _publish(self, works: Iterable[Work]) -> None:
        recovered = not self.healthy
        self.healthy = True
        now = self._clock.monotonic()
        for work in works:
            session = work.session
            broken = session.absorb(work.change, work.entries, work.decided)
            session.touched = now
            if work.deletes:
                session.feed.delete()
                self._segments.forget(session)
            else:
                ended = work.change.structural and any(not run.active for run in work.change.runs.values())
                erased = work.decided is not None and bool(work.decided.erased)
                self._segments.appended(session, now, ended=ended or erased)
            for live in work.runs:
                live.pending.release()
            if work.command is not None and work.decided is not None:
                resolve(work.command, work.decided.answer)
            if work.change.runs or work.change.decisions:
                self._listener.published(session, work.change)
            if work.deletes:
                self._listener.deleted(session)
            for live in broken:
                self._listener.unwritable(session, live)
        events = sum(len(work.entries) for work in works)
        self._store.tally.published(events, *self._taken, self._clock.monotonic() - self._taken_since)
        if recovered:
            aside(journal_log.back)
            self._listener.recovered()

    def _waiting(self, works: Iterable[Work]) -> list[Command]:
        """Every command that waits, taken from where it waits; those of ``works`` come first."""
        waiting = [work.command for work in works if work.command is not None]
        for session in dict.fromkeys([*(work.session for work in works), *self._dirty, *self._apart]):
            waiting += session.commands
            session.commands.clear()
        return waiting

    def _end_settling(self, error: Exception | None = None) -> None:
        for settled in self._settling:
            if not settled.done():
                if error is None:
                    settled.set_result(None)
                else:
                    settled.set_exception(error)
        self._settling.clear()

    def _give_up(self) -> None:
        works, self._writing = self._writing, []
        first = self.healthy
        self.healthy = False
        self._wakeup.set()
        if not first:
            for work in works:
                if work.command is not None:
                    work.session.commands.appendleft(work.command)
                self.mark(work.session)
            return
        aside(journal_log.lost)
        self._end_settling(StoreUnavailable("The store cannot be written just now; try again soon."))
        for command in self._waiting(works):
            refuse(command, StoreUnavailable("The store cannot be written just now; try again soon."))
        self._apart.clear()
        self._suspects.clear()
        self._listener.gave_up()
