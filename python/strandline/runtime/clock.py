"""Time and chance as an argument, so that tests can hold them in their hands."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """What the runtime knows of the world outside."""

    def now(self) -> int:
        """Wall-clock milliseconds since 1970 (UTC)."""

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def mint(self, prefix: str) -> str:
        """A new id that nobody can guess."""


class SystemClock:
    """The real one."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def mint(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_urlsafe(15)}"
