"""Runs agents, outside any request: a connection never starts, holds or ends one.

Owns the tasks. Knows nothing of HTTP and nothing of what an agent looks like: ``invoke`` (from ``agents/``) turns a run
into an ``Ending``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from strandline.core.records import RunRecord
from strandline.core.run import Status
from strandline.core.session import Change
from strandline.runtime.clock import Clock
from strandline.runtime.ending import Ending
from strandline.runtime.live import LiveRun, LiveSession
from strandline.runtime.session import Sessions
from strandline.settings import Settings

logger = logging.getLogger("strandline.runner")

_END_TIMEOUT = 1.0
"""Seconds for writing the ends of runs at shutdown."""

Invoke = Callable[[LiveSession, LiveRun, RunRecord], Awaitable[Ending]]
Ended = Callable[[LiveSession, RunRecord], Awaitable[None]]


class Runner:
    """Starts a task for every run that is published as started, and cancels it when the run is published as ended."""

    def __init__(self, clock: Clock, settings: Settings, invoke: Invoke, on_end: Ended) -> None:
        self._clock = clock
        self._settings = settings
        self._invoke = invoke
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._deadlines: dict[str, tuple[float, LiveSession, LiveRun]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._over = False
        self.sessions: Sessions

    # ------------------------------------------------------------------ the journal's listener

    def published(self, session: LiveSession, change: Change) -> None:
        """Start and cancel what the commit says."""
        self.sessions.keep(session)
        for run in change.runs.values():
            if run.status is Status.RUNNING and self._over:
                # It was decided before the shutdown began, and published after it had ended.
                self.sessions.enqueue_end(session, session.live[run.id], Ending(Status.LOST, "shutdown"), "server")
            elif run.status is Status.RUNNING:
                self._launch(session, session.live[run.id], run)
            elif not run.active:
                self._finished(session, run)

    def deleted(self, session: LiveSession) -> None:
        """Nothing of it is left."""
        self.sessions.forget(session)

    def gave_up(self) -> None:
        """Commits fail for good: end everything; the ends are written as ``lost`` when the store is back."""
        self.sessions.lost_track()
        for session in self.sessions.reachable():
            session.feed.fail("store-unavailable")
            for live in list(session.live.values()):
                task = self._tasks.pop(live.id, None)
                if task is not None:
                    task.cancel()
                live.pending.take()
                live.pending.release()
                self.sessions.enqueue_end(session, live, Ending(Status.LOST, "store-unavailable"), "server")

    def recovered(self) -> None:
        """Commits succeed again: readers may come back."""
        for session in self.sessions.reachable():
            session.feed.fail(None)

    def unwritable(self, session: LiveSession, live: LiveRun) -> None:
        """The run has said something that cannot be written down: it cannot go on."""
        ending = Ending(Status.FAILED, "chunk-refused", "The reply failed. Please try again.")
        self.sessions.enqueue_end(session, live, ending, "server")

    # ------------------------------------------------------------------ time

    def check_deadlines(self, now: float) -> None:
        """End the runs that have taken longer than they may."""
        for run_id, (deadline, session, live) in list(self._deadlines.items()):
            if now >= deadline:
                del self._deadlines[run_id]
                ending = Ending(Status.FAILED, "deadline", "The reply took too long and was ended.")
                self.sessions.enqueue_end(session, live, ending, "server")

    async def drain(self, grace: float) -> None:
        """Shut down: take no new runs, let the running ones finish for ``grace`` seconds, end the rest as lost."""
        self.sessions.accepting = False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        while await self._decided(deadline - loop.time()) and self._tasks:
            # A task that has ended stays in the list until its end is published, which the next round waits for.
            await asyncio.wait(set(self._tasks.values()), timeout=max(0.0, deadline - loop.time()))
        self._over = True
        ends = [
            self.sessions.end(session, live, Ending(Status.LOST, "shutdown"), "server")
            for session in self.sessions.in_memory()
            for live in list(session.live.values())
        ]
        await self._ended_in_time([asyncio.ensure_future(end) for end in ends])
        await self._settle()
        self.sessions.close()

    async def _decided(self, seconds: float) -> bool:
        """Wait for what is being decided and committed; False when the time is over."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.sessions.journal.barrier()
        except TimeoutError:
            return False
        return seconds > 0

    async def _ended_in_time(self, ends: list[asyncio.Future[RunRecord]]) -> None:
        """A store that does not answer must not keep the process: the next start ends what is left as lost."""
        if not ends:
            return
        done, late = await asyncio.wait(ends, timeout=_END_TIMEOUT if self.sessions.journal.healthy else 0)
        for end in late:
            end.cancel()
        failed = [end.exception() for end in done if end.exception() is not None]
        if failed or late:
            logger.error(
                "%d runs could not be ended at shutdown; the next start does it: %r",
                len(failed) + len(late),
                failed[:1],
                extra={"action": "shutdown"},
            )

    async def _settle(self) -> None:
        """Give cancelled tasks and ``on_end`` hooks a moment to clean up."""
        remaining = {*self._tasks.values(), *self._background}
        if remaining:
            _, late = await asyncio.wait(remaining, timeout=5.0)
            for task in late:
                logger.warning("%s does not end", task.get_name(), extra={"action": "task-stuck"})
                task.cancel()

    # ------------------------------------------------------------------ one run

    def _launch(self, session: LiveSession, live: LiveRun, run: RunRecord) -> None:
        self._deadlines[run.id] = (self._clock.monotonic() + self._settings.run_deadline, session, live)
        task = asyncio.get_running_loop().create_task(self._run(session, live, run), name=f"strandline-{run.id}")
        self._tasks[run.id] = task
        self._keep(task)

    def _finished(self, session: LiveSession, run: RunRecord) -> None:
        self._deadlines.pop(run.id, None)
        task = self._tasks.pop(run.id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self._keep(asyncio.get_running_loop().create_task(self._notify(session, run), name=f"strandline-end-{run.id}"))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _run(self, session: LiveSession, live: LiveRun, run: RunRecord) -> None:
        try:
            ending = await self._invoke(session, live, run)
        except asyncio.CancelledError:
            if live.over or not self.sessions.journal.healthy:
                # Stopped, superseded or lost: the end is recorded, this was the clean-up.
                return
            # Somebody cancelled the task itself (an agent's own cancel scope, for instance).
            ending = Ending(Status.FAILED, "cancelled", "The reply was cancelled.", after_pending=True)
            self.sessions.enqueue_end(session, live, ending, "server")
            return
        except BaseException as exc:
            # The agent's own errors do not come here; whatever this is, nobody may be left waiting for the end.
            logger.exception("run %s failed", run.id, extra={"action": "run-failed", "run": run.id})
            ending = Ending(Status.FAILED, "agent-error", "The reply failed. Please try again.", after_pending=True)
            self.sessions.enqueue_end(session, live, ending, "server")
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):
                raise
            return
        if not live.over:
            # Not awaited by this task: publishing the end cancels it.
            self.sessions.enqueue_end(session, live, ending, f"agent:{run.agent}")

    async def _notify(self, session: LiveSession, run: RunRecord) -> None:
        try:
            await self._on_end(session, run)
        except Exception:
            logger.exception("on_end failed for %s", run.id, extra={"action": "on-end-failed", "run": run.id})
