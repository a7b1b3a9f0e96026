"""Waiting for what happens again and again: each time, everybody who waits goes on."""

from __future__ import annotations

import asyncio


class Waiters:
    """Who waits for the next time. Nothing is remembered: who comes later waits for the time after that, so whoever
    waits for a state looks at it before and after."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return at the next ``wake``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        """It has happened."""
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
