"""The runtime as one thing that starts and stops: store, journal, sessions, runner, janitor, in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Literal

from strandline.errors import NotStarted
from strandline.runtime import collector
from strandline.runtime.annotating import Kinds
from strandline.runtime.clock import Clock
from strandline.runtime.counters import Counters, Tally
from strandline.runtime.janitor import Janitor
from strandline.runtime.journal import Journal
from strandline.runtime.metering import Metered
from strandline.runtime.recovering import Recovery, no_recovery
from strandline.runtime.runner import Ended, Invoke, Runner
from strandline.runtime.session import Sessions
from strandline.runtime.watchdog import Watchdog
from strandline.settings import Settings
from strandline.stores.port import Store

logger = logging.getLogger("strandline")

Unready = Literal["starting", "shutting-down", "store-unavailable"]


class Service:
    """One process's runtime over one store."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self.store = store
        self.clock = clock
        self.settings = settings
        self.tally = Tally()
        self.kinds = Kinds()
        self._sessions: Sessions | None = None
        self._runner: Runner | None = None
        self._journal: Journal | None = None
        self._janitor: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._watchdog: Watchdog | None = None
        self._collector = contextlib.ExitStack()

    @property
    def sessions(self) -> Sessions:
        """The use cases. Raises NotStarted when the lifespan is not running."""
        if self._sessions is None:
            raise NotStarted(
                "Strandline's lifespan is not running, so nothing can be stored or streamed. Include `chat.router` in "
                "your FastAPI application (its lifespan comes along), or, when you mount `chat.app()` under another "
                "application, run `chat.lifespan` in that application's lifespan.",
            )
        return self._sessions

    @property
    def unready(self) -> Unready | None:
        """Why no new messages are taken just now; None when they are, and can be stored."""
        if self._sessions is None or self._journal is None:
            return "starting"
        if self._draining is not None or not self._sessions.accepting:
            return "shutting-down"
        return None if self._journal.takes_commits else "store-unavailable"

    @property
    def ready(self) -> bool:
        """True when new messages are taken and can be stored."""
        return self.unready is None

    @property
    def alive(self) -> bool:
        """False when only a new process can help: the journal has died of a defect."""
        return self._journal is None or not self._journal.died

    def counters(self) -> Counters:
        """What has happened since this object was made, and how things stand. From any thread, at any time."""
        sessions = self._sessions.in_memory() if self._sessions is not None else []
        runs = [live for session in sessions for live in list(session.live.values())]
        return self.tally.reading(
            active_runs=len(runs),
            sessions_in_memory=len(sessions),
            readers=sum(len(session.readers) for session in sessions),
            pending_bytes=sum(live.pending.size for live in runs),
        )

    async def start(
        self,
        invoke: Invoke,
        on_end: Ended,
        elsewhere: Callable[[str], bool] = lambda agent: False,
        recovery: Callable[[str], Recovery | None] = no_recovery,
    ) -> None:
        """Open the store, carry on or end what an earlier process left unfinished (see ``Registry.elsewhere`` and
        ``Submissions.recovery``), begin to serve."""
        number = await self.store.open()
        if self.settings.collector == "calm":
            self._collector.enter_context(collector.calm())
        try:
            self._runner = Runner(self.clock, self.settings, invoke, on_end)
            metered = Metered(self.store, self.clock, self.tally)
            self._journal = Journal(metered, self.clock, self.settings, self._runner)
            self._runner.sessions = sessions = Sessions(
                self.store, self._journal, self.clock, self.settings, self.tally
            )
            sessions.elsewhere = elsewhere
            sessions.recovery = recovery
            sessions.kinds = self.kinds
            self._journal.start(number)
            self._sessions = sessions  # for the agents that are called again
            recovered = await sessions.recover()
            self._runner.carry_on()
        except BaseException:
            self._sessions = None
            if self._journal is not None:
                await self._journal.stop()
            await self._close()
            raise
        if recovered.lost or recovered.again:
            self.tally.runs_recovered += recovered.lost
            self.tally.runs_called_again += recovered.again
            logger.warning(
                "of the runs of an earlier process %d ended as lost and %d are carried on",
                recovered.lost,
                recovered.again,
                extra={"action": "recovered", "runs": recovered.lost, "again": recovered.again},
            )
        janitor = Janitor(self.store, self._journal, self._runner, sessions, self.clock, self.settings)
        self._janitor = asyncio.get_running_loop().create_task(janitor.run(), name="strandline-janitor")
        self._watchdog = Watchdog()
        self._watchdog.start()
        sessions.begin()
        logger.info("sessions are served", extra={"action": "started", "batch": number})

    async def purge(self) -> bool:
        """Have what was deleted gone from the medium: out of the journal, and out of what the store keeps beside it."""
        await self.sessions.journal.settle()
        return await self.store.checkpoint(truncate=True)

    def drain(self) -> asyncio.Task[None]:
        """Begin to shut down, once: new runs get 503, running ones the grace period (DESIGN §7)."""
        if self._draining is None:
            assert self._runner is not None
            drain = self._runner.drain(self.settings.shutdown_grace)
            self._draining = asyncio.get_running_loop().create_task(drain, name="strandline-drain")
        return self._draining

    async def stop(self) -> None:
        """Shut down to the end and give the store back."""
        if self._runner is None or self._journal is None:
            return
        try:
            await self.drain()
            await self._rest()
            await self._journal.stop()
        finally:
            # Also when this is cancelled (a second signal): the store's threads would keep the process for ever.
            await self._rest()
            await self._close()
        self._sessions = self._runner = self._journal = self._janitor = self._draining = None
        logger.info("the store is closed", extra={"action": "stopped"})

    async def _close(self) -> None:
        self._collector.close()
        await self.store.close()

    async def _rest(self) -> None:
        """End what only time drives."""
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._janitor is not None:
            self._janitor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._janitor
