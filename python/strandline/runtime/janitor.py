"""Everything that happens because time passes: deadlines, segments, retention, idle sessions, checkpoints."""

from __future__ import annotations

import logging

from strandline.errors import StrandlineError
from strandline.runtime.clock import Clock
from strandline.runtime.journal import Journal
from strandline.runtime.runner import Runner
from strandline.runtime.session import Sessions
from strandline.settings import Settings
from strandline.stores.port import Store

logger = logging.getLogger("strandline.janitor")

_TICK = 0.5
_EXPIRE_EVERY = 60.0
_TRUNCATE_EVERY = 300.0
_SET_BY = 10.0
"""Seconds by which the two clocks may part between two sweeps. By more: somebody has set the wall clock."""


class Janitor:
    """One loop. Each round is short and never raises."""

    def __init__(
        self, store: Store, journal: Journal, runner: Runner, sessions: Sessions, clock: Clock, settings: Settings
    ) -> None:
        self._store = store
        self._journal = journal
        self._runner = runner
        self._sessions = sessions
        self._clock = clock
        self._settings = settings
        self._expired_at = float("-inf")
        self._truncated_at = clock.monotonic()
        self._apart = self._clocks_apart()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self._clock.sleep(_TICK)
            try:
                await self.sweep()
            except StrandlineError as exc:
                logger.warning("a sweep was cut short: %s", exc, extra={"action": "sweep-failed"})
            except Exception:
                logger.exception("a sweep failed in a way it never should", extra={"action": "sweep-defect"})

    def _mind_the_clock(self, now: float) -> None:
        """A log is as old as it looks unless somebody has set the wall clock since. Then nothing expires until all that
        was written before is old enough by the other clock."""
        apart = self._clocks_apart()
        if abs(apart - self._apart) > _SET_BY:
            self._expired_at = now + self._settings.log_retention - _EXPIRE_EVERY
            logger.warning(
                "the wall clock was set by %+.0f s: no log expires for the next %.0f s",
                apart - self._apart,
                self._settings.log_retention,
                extra={"action": "clock-set"},
            )
        self._apart = apart

    def _clocks_apart(self) -> float:
        return self._clock.now() / 1000 - self._clock.monotonic()

    async def sweep(self) -> None:
        """One round at the clock's present time."""
        now = self._clock.monotonic()
        self._mind_the_clock(now)
        self._runner.check_deadlines(now)
        self._journal.poke(now)
        self._sessions.forget_idle(now)
        await self._expire_decisions()
        truncate = now - self._truncated_at >= _TRUNCATE_EVERY
        await self._store.checkpoint(truncate=truncate)
        if truncate:
            self._truncated_at = now
        if now - self._expired_at >= _EXPIRE_EVERY:
            self._expired_at = now
            expired = await self._store.expire(self._clock.now() - int(self._settings.log_retention * 1000))
            if expired:
                self._sessions.tally.segments_expired += expired
                extra = {"action": "log-expired", "segments": expired}
                logger.info("%d log segments were older than the retention", expired, extra=extra)

    async def _expire_decisions(self) -> None:
        """One that cannot be expired must not keep the others waiting."""
        for decision in await self._store.due(self._clock.now()):
            try:
                await self._sessions.expire(decision)
            except StrandlineError as exc:
                extra = {"action": "decision-not-expired", "session": decision.session, "run": decision.run}
                logger.warning("the decision %s could not be expired: %s", decision.id, exc, extra=extra)
