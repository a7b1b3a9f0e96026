"""The store's commits, tried again, counted and timed, for the journal."""

from __future__ import annotations

import logging

from strandline.errors import StoreUnavailable
from strandline.runtime import journal_log
from strandline.runtime.clock import Clock
from strandline.runtime.counters import Tally
from strandline.runtime.journal_log import aside
from strandline.stores.port import Batch, Store

logger = logging.getLogger("strandline.journal")

SLOW = 1.0
"""Seconds after which a commit is worth a line in the log."""


class Metered:
    """``commit`` of a store."""

    def __init__(self, store: Store, clock: Clock, tally: Tally) -> None:
        self.tally = tally
        self._store = store
        self._clock = clock
        self._began: float | None = None
        self._failed: int | None = None

    @property
    def under_way(self) -> float:
        """For how many seconds the present commit has been under way; 0 when there is none."""
        began = self._began
        return 0.0 if began is None else self._clock.monotonic() - began

    async def commit(self, batch: Batch, patience: float) -> bool:
        """Commit, and while the store is unavailable try again for ``patience`` seconds; False when it still is then.
        Whatever else the store raises is raised: it refuses what is in the batch."""
        started = self._clock.monotonic()
        delay = 0.05
        while True:
            try:
                await self._attempt(batch)
            except StoreUnavailable as exc:
                waited = self._clock.monotonic() - started
                aside(journal_log.failed, batch.number, waited, exc)
                if waited >= patience:
                    return False
                await self._clock.sleep(delay)
                delay = min(1.0, delay * 2)
            else:
                return True

    async def _attempt(self, batch: Batch) -> None:
        if batch.number == self._failed:
            self.tally.commit_retries += 1
        self._began = self._clock.monotonic()
        try:
            await self._store.commit(batch)
        except Exception:
            self.tally.commit_failures += 1
            self._failed = batch.number
            raise
        else:
            took = self.under_way
            self.tally.committed(took)
            if took > SLOW:
                aside(_log_slow, batch.number, took)
        finally:
            self._began = None


def _log_slow(number: int, took: float) -> None:
    extra = {"action": "commit-slow", "batch": number, "seconds": round(took, 3)}
    logger.warning("a commit took %.1f s", took, extra=extra)
