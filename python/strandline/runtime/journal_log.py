"""What the writer logs, and how: never in its own step.

An application hangs filters, handlers and record factories into its logging. One that raises must not stop the writer,
and with it everything that is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("strandline.journal")


def aside(log: Callable[..., None], *about: Any) -> None:
    """Log in a step of its own, soon."""
    asyncio.get_running_loop().call_soon(log, *about)


def refused(session: str, run: str, exc: Exception) -> None:
    extra = {"action": "pending-refused", "session": session, "run": run}
    logger.error("run %s has something pending that is not JSON", run, exc_info=exc, extra=extra)


def failed(number: int, waited: float, exc: Exception) -> None:
    extra = {"action": "commit-failed", "batch": number}
    logger.warning("a commit failed (%s); retried for %.1f s so far", exc, waited, extra=extra)


def defect(number: int, exc: Exception) -> None:
    extra = {"action": "commit-defect", "batch": number}
    logger.error("a commit failed in a way it never should", exc_info=exc, extra=extra)


def session_defect(number: int, session: str, exc: Exception) -> None:
    extra = {"action": "session-defect", "batch": number, "session": session}
    logger.error("the store refuses what session %s says; its runs end", session, exc_info=exc, extra=extra)


def lost() -> None:
    logger.error("commits keep failing; active runs are given up", extra={"action": "store-lost"})


def back() -> None:
    logger.warning("commits succeed again", extra={"action": "store-back"})
