"""The one writer: append → commit → publish.

It takes everything that all runs have pending and every decision that waits, writes them as one batch, and publishes
only after the store said that the batch is durable (``commits.py``). Sequence numbers exist from that moment on; a
commit that failed has assigned nothing. While a commit is under way the next batch gathers, so the slower the disk, the
larger the batch.

May not do: HTTP, agents' tasks (the listener does), reading for readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from strandline.errors import ShuttingDown, StoreUnavailable, Unavailable
from strandline.runtime.clock import Clock
from strandline.runtime.commits import Commits
from strandline.runtime.listener import Listener
from strandline.runtime.live import Command, Decided, LiveSession, SessionGone
from strandline.runtime.metering import Metered
from strandline.runtime.refusals import renumber
from strandline.runtime.segments import Plan
from strandline.runtime.work import Work, refuse, take
from strandline.settings import Settings

logger = logging.getLogger("strandline.journal")

_STOP_PATIENCE = 5.0
"""Seconds beyond ``commit_patience`` that the last commits get at shutdown."""
_RATE_PER_WINDOW = 2e6
"""Chunks per second for which the window would be a second: 10,000/s gives 5 ms, 50,000/s gives 25 ms."""


class Journal(Commits):
    """See the module docstring. ``healthy`` is False while commits fail for good, ``died`` is True for good."""

    def __init__(self, store: Metered, clock: Clock, settings: Settings, listener: Listener) -> None:
        super().__init__(store, clock, settings, listener)
        self._idle = asyncio.Event()
        self._stopping = False
        self._stopped = False
        self._barriers: list[asyncio.Future[None]] = []
        self._window = settings.first_window
        self._last = 0.0
        self._task: asyncio.Task[None] | None = None
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

    def poke(self, at: float) -> None:
        """Look whether events have waited long enough for a segment (monotonic time ``at``)."""
        self._segments.age(at)
        for session in self._suspects.due(at):
            self.mark(session)
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
            if self._dirty or plan.more:
                self._wakeup.set()
            # Where nothing waits while commits fail, somebody has to find out when the store is back.
            if works or not plan.empty or not self.healthy:
                self._last = self._clock.monotonic()
                await self._carry_out(number, works, plan)
            await self._write_apart()
            self._rest()

    async def _write_apart(self) -> None:
        """What is to be written of those sessions that were refused, each by itself."""
        while self._apart:
            session = self._apart.pop()
            number = self._number + 1
            work = take(session, number, self._clock.now(), self._listener.unwritable)
            if session.commands:
                self.mark(session)
            if work is not None:
                self._writing = [work]
                self._taken = renumber(self._writing, number)
                await self._carry_out(number, self._writing, Plan())

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
        suspects = self._suspects.sessions
        for session in waiting:
            if session in suspects:
                self._apart.append(session)
                continue
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
