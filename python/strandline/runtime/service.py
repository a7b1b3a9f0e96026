"""The runtime as one thing that starts and stops: store, journal, sessions, runner, janitor, in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from strandline.errors import NotStarted
from strandline.runtime.clock import Clock
from strandline.runtime.janitor import Janitor
from strandline.runtime.journal import Journal
from strandline.runtime.runner import Ended, Invoke, Runner
from strandline.runtime.session import Sessions
from strandline.runtime.watchdog import Watchdog
from strandline.settings import Settings
from strandline.stores.port import Store

logger = logging.getLogger("strandline")


class Service:
    """One process's runtime over one store."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self.store = store
        self.clock = clock
        self.settings = settings
        self._sessions: Sessions | None = None
        self._runner: Runner | None = None
        self._journal: Journal | None = None
        self._janitor: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._watchdog: Watchdog | None = None

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
    def ready(self) -> bool:
        """True when new messages are taken and can be stored."""
        return (
            self._sessions is not None
            and self._journal is not None
            and self._sessions.accepting
            and self._journal.healthy
        )

    async def start(self, invoke: Invoke, on_end: Ended) -> None:
        """Open the store, end what an earlier process left unfinished, begin to serve."""
        number = await self.store.open()
        try:
            self._runner = Runner(self.clock, self.settings, invoke, on_end)
            self._journal = Journal(self.store, self.clock, self.settings, self._runner)
            self._runner.sessions = sessions = Sessions(self.store, self._journal, self.clock, self.settings)
            self._journal.start(number)
            lost = await sessions.recover()
        except BaseException:
            if self._journal is not None:
                await self._journal.stop()
            await self.store.close()
            raise
        if lost:
            logger.warning("%d runs of an earlier process ended as lost", lost, extra={"action": "recovered"})
        janitor = Janitor(self.store, self._journal, self._runner, sessions, self.clock, self.settings)
        self._janitor = asyncio.get_running_loop().create_task(janitor.run(), name="strandline-janitor")
        self._watchdog = Watchdog()
        self._watchdog.start()
        self._sessions = sessions

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
            await self.store.close()
        self._sessions = self._runner = self._journal = self._janitor = self._draining = None

    async def _rest(self) -> None:
        """End what only time drives."""
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._janitor is not None:
            self._janitor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._janitor
