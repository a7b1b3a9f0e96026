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
from strandline.runtime.journal_log import aside
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import LiveRun
from strandline.runtime.session import Sessions
from strandline.runtime.stopping import DELETED
from strandline.settings import Settings

logger = logging.getLogger("strandline.runner")

_OUR_REASONS = frozenset({"user", "superseded", DELETED, "agent-abort"})
"""Reasons of a stop that may be logged. Any other one was made up by a client or by an agent, and may say anything."""

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
        self._elsewhere: set[str] = set()
        self._over = False
        self.sessions: Sessions

    # ------------------------------------------------------------------ the journal's listener

    def published(self, session: LiveSession, change: Change) -> None:
        """Start and cancel what the commit says."""
        self.sessions.keep(session)
        for run in change.runs.values():
            if run.status is Status.RUNNING and run.id in self._tasks:
                continue  # something else about it has changed
            if run.status is Status.RUNNING and self._over:
                if self.sessions.elsewhere(run.agent):
                    continue
                # It was decided before the shutdown began, and published after it had ended.
                if self.sessions.can_recover(run):
                    self._leave(session.live[run.id])
                    continue
                self.sessions.enqueue_end(session, session.live[run.id], Ending(Status.LOST, "shutdown"), "server")
            elif run.status is Status.RUNNING:
                self._launch(session, session.live[run.id], run)
            elif not run.active:
                self._finished(session, run)
        self.sessions.advance(session)

    def deleted(self, session: LiveSession) -> None:
        """Nothing of it is left."""
        self.sessions.forget(session)

    def gave_up(self) -> None:
        """Commits fail for good: end everything; the ends are written as ``lost`` when the store is back."""
        self.sessions.lost_track()
        for session in self.sessions.reachable():
            session.feed.fail("store-unavailable")
            for live in _running(session):
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
            self.sessions.advance(session)

    def refused(self, session: LiveSession, *, again: bool) -> None:
        """Any run may have lost words: all end, and those of the queue cannot count on their turn. If not even that is
        taken, their agents are not left to go on."""
        for live in session.live.values():
            task = self._tasks.pop(live.id, None) if again else None
            if task is not None:
                task.cancel()
            live.pending.take()
            live.pending.release()
        self.sessions.enqueue_refused(session)

    def unwritable(self, session: LiveSession, live: LiveRun) -> None:
        """The run has said something that cannot be written down: it cannot go on."""
        ending = Ending(Status.FAILED, "chunk-refused", "The reply failed. Please try again.")
        self.sessions.enqueue_end(session, live, ending, "server")

    # ------------------------------------------------------------------ time

    def check_deadlines(self, now: float) -> None:
        """End the runs that have taken longer than they may. The time of one that is written elsewhere begins when it
        is taken: until then it waits for that, which has a limit of its own."""
        for run_id, (deadline, session, live) in list(self._deadlines.items()):
            if run_id in self._elsewhere and live.claimed is None:
                self._deadlines[run_id] = (now + self._settings.run_deadline, session, live)
            elif now >= deadline:
                del self._deadlines[run_id]
                ending = Ending(Status.FAILED, "deadline", "The reply took too long and was ended.")
                self.sessions.enqueue_end(session, live, ending, "server")

    async def drain(self, grace: float) -> None:
        """Shut down: take no new runs, let the running ones finish for ``grace`` seconds, end the rest as lost. What is
        queued is left to the next process."""
        self.sessions.accepting = False
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + grace
        running = len(self._here())
        extra = {"action": "drain-begun", "runs": running, "grace": grace}
        logger.info("no new runs are taken; %d may go on for %g s", running, grace, extra=extra)
        while await self._decided(deadline - loop.time()) and (here := self._here()):
            # A task that has ended stays in the list until its end is published, which the next round waits for.
            await asyncio.wait(here, timeout=max(0.0, deadline - loop.time()))
        self._over = True
        for run_id in self._elsewhere & self._tasks.keys():
            self._tasks[run_id].cancel()  # it goes on where it is; the next start waits for its lease
        active = [
            (session, live)
            for session in self.sessions.in_memory()
            for live in _running(session)
            if live.id not in self._elsewhere
        ]
        left = [live for session, live in active if self.sessions.can_recover(session.state.runs[live.id])]
        for live in left:
            self._leave(live)
        ends = [
            self.sessions.end(session, live, Ending(Status.LOST, "shutdown"), "server")
            for session, live in active
            if live not in left
        ]
        await self._ended_in_time([asyncio.ensure_future(end) for end in ends])
        await self._settle()
        self.sessions.close()
        took = round(loop.time() - began, 3)
        logger.info(
            "%d runs were still active after the grace; %d of them are left to the next process",
            len(active),
            len(left),
            extra={"action": "drain-ended", "runs": len(active), "left": len(left), "seconds": took},
        )

    def _here(self) -> set[asyncio.Task[None]]:
        """The tasks of agents that end with this process."""
        return {task for run_id, task in self._tasks.items() if run_id not in self._elsewhere}

    def _leave(self, live: LiveRun) -> None:
        """Let go of a run without ending it: the next process carries it on. Nothing more is taken from it here."""
        live.end()
        task = self._tasks.pop(live.id, None)
        if task is not None:
            task.cancel()

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
                extra={"action": "runs-not-ended", "runs": len(failed) + len(late)},
            )

    async def _settle(self) -> None:
        """Give cancelled tasks and ``on_end`` hooks a moment to clean up."""
        remaining = {*self._tasks.values(), *self._background}
        if remaining:
            _, late = await asyncio.wait(remaining, timeout=5.0)
            for task in late:
                logger.warning(
                    "%s does not end", task.get_name(), extra={"action": "task-stuck", "task": task.get_name()}
                )
                task.cancel()

    # ------------------------------------------------------------------ one run

    def carry_on(self) -> None:
        """After a start: wait for the agents that are still at work elsewhere, each for its lease. What waits for its
        turn is told to nobody before that has come."""
        for session in self.sessions.in_memory():
            for live in _running(session):
                run = session.state.runs[live.id]
                if self.sessions.elsewhere(run.agent) and live.id not in self._tasks:
                    self._launch(session, live, run)

    def _launch(self, session: LiveSession, live: LiveRun, run: RunRecord) -> None:
        self.sessions.tally.runs_started += 1
        aside(_log_start, run)
        self._deadlines[run.id] = (self._clock.monotonic() + self._settings.run_deadline, session, live)
        name = f"run {run.id} of session {session.id}"
        task = asyncio.get_running_loop().create_task(self._run(session, live, run), name=name)
        self._tasks[run.id] = task
        if self.sessions.elsewhere(run.agent):
            self._elsewhere.add(run.id)
        self._keep(task)

    def _finished(self, session: LiveSession, run: RunRecord) -> None:
        self.sessions.tally.runs_ended[run.status.value] += 1
        aside(_log_end, run)
        self._deadlines.pop(run.id, None)
        self._elsewhere.discard(run.id)
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
            if live.over or session.feed.failure is not None or (self._over and run.id in self._elsewhere):
                # Stopped, superseded or lost: the end is recorded, this was the clean-up. Or not over at all.
                return
            # Somebody cancelled the task itself (an agent's own cancel scope, for instance).
            ending = Ending(Status.FAILED, "cancelled", "The reply was cancelled.", after_pending=True)
            self.sessions.enqueue_end(session, live, ending, "server")
            return
        except BaseException as exc:
            # The agent's own errors do not come here; whatever this is, nobody may be left waiting for the end.
            logger.exception(
                "run %s failed outside of its agent",
                run.id,
                extra={"action": "run-failed", "session": session.id, "run": run.id},
            )
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
            logger.exception(
                "on_end was not called for %s",
                run.id,
                extra={"action": "on-end-not-called", "session": session.id, "run": run.id},
            )


def _running(session: LiveSession) -> list[LiveRun]:
    """The runs whose agents were called."""
    runs = session.state.runs
    return [live for live in session.live.values() if runs[live.id].status is Status.RUNNING]


def _log_start(run: RunRecord) -> None:
    logger.debug("run %s started", run.id, extra={"action": "run-started", "session": run.session, "run": run.id})


def _log_end(run: RunRecord) -> None:
    reason = run.reason if run.status is not Status.STOPPED or run.reason in _OUR_REASONS else "other"
    seconds = max(0, (run.ended_at or run.created_at) - run.created_at) / 1000
    usage = {name: number for name, number in (run.usage or {}).items() if isinstance(number, int | float)}
    logger.info(
        "run %s ended as %s (%s) after %.1f s",
        run.id,
        run.status.value,
        reason,
        seconds,
        extra={
            "action": "run-ended",
            "session": run.session,
            "run": run.id,
            "status": run.status.value,
            "reason": reason,
            "seconds": seconds,
            "usage": usage,
        },
    )
