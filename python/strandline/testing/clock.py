"""Time in the hands of a test."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    """Wait (in real time) until ``condition()`` is true; raises TimeoutError. For what other tasks and threads do."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not condition():
        if loop.time() > deadline:
            raise TimeoutError("what the test waits for did not happen")
        await asyncio.sleep(0.001)


class ManualClock:
    """A clock that stands still until ``advance``. Ids are ``run-1``, ``run-2``, …: give a second clock that works on
    the same store another ``name``, or use the same clock again."""

    def __init__(self, name: str = "", start: int = 1_800_000_000_000) -> None:
        self._name = name
        self._start = start
        self._elapsed = 0.0
        self._minted: dict[str, int] = {}
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> int:
        """Milliseconds since 1970."""
        return self._start + round(self._elapsed * 1000)

    def monotonic(self) -> float:
        """Seconds."""
        return 1000.0 + self._elapsed

    def mint(self, prefix: str) -> str:
        """The next id."""
        self._minted[prefix] = number = self._minted.get(prefix, 0) + 1
        return f"{prefix}-{self._name}{number}"

    async def sleep(self, seconds: float) -> None:
        """Return when the clock was advanced so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._count += 1
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._count, woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let time pass: sleepers wake in order, each at its own time, and get a few turns of the loop."""
        target = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, woken = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, due)
            if not woken.done():
                woken.set_result(None)
                await _turns()
        self._elapsed = target
        await _turns()

    async def jump(self, seconds: float) -> None:
        """Let time pass in one leap, as when a machine was asleep: sleepers that are due wake late, all at once."""
        self._elapsed += seconds
        await self.advance(0)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
