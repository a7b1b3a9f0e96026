"""The one writer: append → commit → publish.

It takes everything that all runs have pending and every decision that waits, writes them as one batch, and publishes
only after the store said that the batch is durable. Sequence numbers exist from that moment on; a commit that failed
has assigned nothing. While a commit is under way the next batch gathers, so the slower the disk, the larger the batch.

May not do: HTTP, agents' tasks (the listener does), reading for readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from strandline.core.session import Change
from strandline.errors import ShuttingDown, StoreUnavailable, Unavailable
from strandline.runtime import journal_log
from strandline.runtime.clock import Clock
from strandline.runtime.journal_log import aside
from strandline.runtime.live import Command, Decided, LiveSession, SessionGone
from strandline.runtime.live_run import LiveRun
from strandline.runtime.metering import Metered
from strandline.runtime.segments import Segments
from strandline.runtime.work import Work, batch_of, refuse, resolve, take
from strandline.settings import Settings
from strandline.stores.port import Batch

logger = logging.getLogger("strandline.journal")

_STOP_PATIENCE = 5.0
"""Seconds beyond ``commit_patience`` that the last commits get at shutdown."""
_RATE_PER_WINDOW = 2e6
"""Chunks per second for which the window would be a second: 10,000/s gives 5 ms, 50,000/s gives 25 ms."""


class Listener(Protocol):
    """Who is told, in the same step, that a commit was published or has finally failed."""

    def published(self, session: LiveSession, change: Change) -> None:
        """Runs of ``change`` have started or ended, or decisions were made."""

    def deleted(self, session: LiveSession) -> None:
        """The session is gone."""

    def gave_up(self) -> None:
        """Commits fail and were given up: every active run has to end as lost once the store is back."""

    def recovered(self) -> None:
        """Commits succeed again."""

    def unwritable(self, session: LiveSession, live: LiveRun) -> None:
        """What ``live`` had pending cannot be written down (a defect) and was dropped: the run has to end."""


class Journal:
    """See the module docstring. ``healthy`` is False while commits fail for good, ``died`` is True for good."""

    def __init__(self, store: Metered, clock: Clock, settings: Settings, listener: Listener) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._listener = listener
        self._segments = Segments(settings)
        self._dirty: dict[LiveSession, None] = {}
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()
        self._stopping = False
        self._stopped = False
        self._barriers: list[asyncio.Future[None]] = []
        self._settling: list[asyncio.Future[None]] = []
        self._writing: list[Work] = []
        self._number = 0
        self._window = settings.first_window
        self._last = 0.0
        self._task: asyncio.Task[None] | None = None
        self._waiting_since = self._taken_since = 0.0
        self._taken = (0, 0)
        self.healthy = True
        self.died = False

    def start(self, number: int) -> None:
        """Begin to write; ``number`` is the highest batch number in the store."""
        self._number = number
        self._task = asyncio.get_running_loop().create_task(self._write(), name="strandline-journal")
        self._task.add_done_callback(self._died)

    @property
    def takes_commits(self) -> bool:
        """False while commits fail for good, and while one has been under way for longer than the patience."""
        return self.healthy and self._store.under_way <= self._settings.commit_patience

    async def stop(self) -> None:
        """Write what is left, including every event that is not in a segment yet, and stop."""
        if self._task is None:
            return
        self._idle.clear()
        self._stopping = True
        self._segments.flush_all()
        self._wakeup.set()
        idle = asyncio.ensure_future(self._idle.wait())
        patience = self._settings.commit_patience + _STOP_PATIENCE if self.healthy else 0
        await asyncio.wait({idle, self._task}, timeout=patience, return_when="FIRST_COMPLETED")
        idle.cancel()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):  # how it died was logged when it did
            await self._task
        self._task = None
        self._stopped = True
        self._end_settling(ShuttingDown("The server is shutting down."))
        for command in self._waiting(self._writing):
            refuse(command, ShuttingDown("The server is shutting down."))

    async def barrier(self) -> None:
        """Return when every decision that waits now has been taken and its commit published (or has failed)."""
        if self._task is None or self._task.done() or not self.healthy:
            return
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barriers.append(passed)
        self._wakeup.set()
        await passed

    async def settle(self) -> None:
        """Return when all that is published is in segments, and nothing of it in the store's journal. Raises
        Unavailable."""
        if self._stopping or self._task is None:
            raise ShuttingDown("The server is shutting down.")
        if not self.healthy:
            raise StoreUnavailable("The store cannot be written just now; try again soon.")
        self._segments.settle(self._number + 1)  # a commit may be under way
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append(settled)
        self._wakeup.set()
        await settled

    def _end_settling(self, error: Exception | None = None) -> None:
        for settled in self._settling:
            if not settled.done():
                if error is None:
                    settled.set_result(None)
                else:
                    settled.set_exception(error)
        self._settling.clear()

    def mark(self, session: LiveSession) -> None:
        """Something of ``session`` waits for a commit."""
        if not self._dirty:
            self._waiting_since = self._clock.monotonic()
        self._dirty[session] = None
        self._wakeup.set()

    def poke(self, at: float) -> None:
        """Look whether events have waited long enough for a segment (monotonic time ``at``)."""
        self._segments.age(at)
        if self._segments.due():
            self._wakeup.set()

    async def decide(self, session: LiveSession, decide: Callable[[LiveSession], Decided | None]) -> Any:
        """Have a decision taken inside the writer; return its answer after the commit.

        Goes on even if the caller is cancelled. Raises what ``decide`` raised, Unavailable, or SessionGone when the
        session was deleted before its turn came.
        """
        if self._stopped:
            raise ShuttingDown("The server is shutting down.")
        if not self.healthy:
            raise StoreUnavailable("The store cannot be written just now; try again soon.")
        if len(session.commands) >= self._settings.max_waiting:
            raise Unavailable("Too much waits to be stored in this session; try again soon.", code="too-many-waiting")

        def in_time(session: LiveSession) -> Decided | None:
            if session.feed.deleted:
                raise SessionGone(session.id)
            return decide(session)

        return await asyncio.shield(self.enqueue(session, in_time))

    def enqueue(self, session: LiveSession, decide: Callable[[LiveSession], Decided | None]) -> asyncio.Future[Any]:
        """Like ``decide``, but without waiting, and also while the store is failing."""
        command = Command(decide)
        session.commands.append(command)
        self.mark(session)
        return command.future

    async def _write(self) -> None:
        while True:
            await self._wakeup.wait()
            await self._pace()
            self._wakeup.clear()
            number = self._number + 1
            works = self._writing = self._build(number)
            plan = self._segments.plan(number)
            batch = batch_of(number, works, plan)
            if self._dirty or plan.more:
                self._wakeup.set()
            if batch is None and not self.healthy:
                # Nothing waits, but somebody has to find out when the store is back.
                batch = Batch(number)
            if batch is None:
                self._rest()
                continue
            self._last = self._clock.monotonic()
            committed = await self._commit(batch)
            # A number is never used twice: a commit that failed may have counted after all.
            self._number = number
            if committed:
                self._publish(works)
                self._segments.written(plan, self._clock.monotonic())
                if self._segments.settled:
                    self._end_settling()
                else:
                    self._wakeup.set()
            else:
                self._give_up(works)
            self._writing = []
            self._rest()

    def _rest(self) -> None:
        """Tell ``stop`` when there is nothing left to write, or no way to write it."""
        if not self.healthy or not any(session.commands for session in self._dirty):
            self._pass_barriers()
        if not self.healthy or not (self._dirty or self._segments.due()):
            self._idle.set()
        elif self._stopping:
            self._wakeup.set()

    def _pass_barriers(self) -> None:
        for passed in self._barriers:
            if not passed.done():
                passed.set_result(None)
        self._barriers.clear()

    def _died(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.critical("the journal has died", exc_info=task.exception(), extra={"action": "journal-died"})
            self.healthy, self.died = False, True
            for command in self._waiting(self._writing):
                refuse(command, StoreUnavailable("The store cannot be written just now; try again soon."))
            self._listener.gave_up()
            self._pass_barriers()
            self._end_settling(StoreUnavailable("The store cannot be written just now; try again soon."))

    def _waiting(self, works: Iterable[Work]) -> list[Command]:
        """Every command that waits, taken from where it waits; those of ``works`` come first."""
        waiting = [work.command for work in works if work.command is not None]
        for session in {**dict.fromkeys(work.session for work in works), **self._dirty}:
            waiting += session.commands
            session.commands.clear()
        return waiting

    async def _pace(self) -> None:
        wait = self._last + self._window - self._clock.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        else:
            # Let everything that became ready in this turn of the loop join the batch.
            await asyncio.sleep(0)

    def _build(self, number: int) -> list[Work]:
        works: list[Work] = []
        size = chunks = 0
        self._taken_since = self._waiting_since
        waiting, self._dirty = self._dirty, {}
        at = self._clock.now()
        for session in waiting:
            if size >= self._settings.commit_limit:
                self._dirty[session] = None
                continue
            work = take(session, number, at, self._listener.unwritable)
            if session.commands:
                self._dirty[session] = None
            if work is not None:
                works.append(work)
                for entry in work.entries:
                    size += len(entry.blob)
                chunks += work.chunks
        self._taken = chunks, size
        elapsed = max(self._clock.monotonic() - self._last, self._settings.first_window, 1e-6)
        rate_window = chunks / elapsed / _RATE_PER_WINDOW
        self._window = min(self._settings.max_window, max(self._settings.first_window, rate_window))
        return works

    async def _commit(self, batch: Batch) -> bool:
        started = self._clock.monotonic()
        delay = 0.05
        while True:
            try:
                await self._store.commit(batch)
            except StoreUnavailable as exc:
                waited = self._clock.monotonic() - started
                aside(journal_log.failed, batch.number, waited, exc)
                if not self.healthy or waited >= self._settings.commit_patience:
                    await self._clock.sleep(1.0 if not self.healthy else 0)
                    return False
                await self._clock.sleep(delay)
                delay = min(1.0, delay * 2)
            except Exception as exc:
                aside(journal_log.defect, batch.number, exc)
                return False
            else:
                return True

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

    def _give_up(self, works: Iterable[Work]) -> None:
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
        self._listener.gave_up()
