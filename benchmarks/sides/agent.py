"""The model of every Python side: tokens at a rate, each of them the time at which it was due.

What is asked for is in the message: ``rate=50 tokens=400 hold=0``: tokens a second (0: as fast as they are taken), how
many, and seconds of silence before the end. Latency counts from when a token was due, so that a side which falls behind
cannot hide it. With ``prose`` in the message only every 50th token is a time and the others are words, for what is
measured in bytes: a time is longer than a word and hardly compresses.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator
from heapq import heappop, heappush
from itertools import count
from pathlib import Path

ASKED = re.compile(r"rate=(\d+) tokens=(\d+) hold=(\d+)")
PROSE = re.findall(r"\s?\w{1,7}\W?|\w+|\W", Path(__file__).with_name("prose.txt").read_text().replace("\n", " "))
"""455 tokens of about 5 characters, much as a model says them; nothing is said twice in a reply of 400."""
STAMPED = 50

_replies = count()


class Ticker:
    """Wakes models when their next token is due, to the millisecond: one timer for all of the process, as Node has it
    too. A timer of the event loop for every token is a tenth of what a side needs in all, and it is not the models that
    are measured."""

    def __init__(self, tick: float = 0.001) -> None:
        self._tick = tick
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._next = math.inf

    async def until(self, due: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (due, next(self._numbers), waiter))
        self._look_at(due)
        await waiter

    def _look_at(self, due: float) -> None:
        if due < self._next - self._tick:
            self._next = due
            asyncio.get_running_loop().call_later(max(self._tick, due - time.monotonic()), self._look)

    def _look(self) -> None:
        self._next, now = math.inf, time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            waiter = heappop(self._waiting)[2]
            if not waiter.done():
                waiter.set_result(None)
        if self._waiting:
            self._look_at(self._waiting[0][0])


_ticker = Ticker()


async def tokens(asked: str) -> AsyncIterator[str]:
    """``@`` and 16 characters of CLOCK_MONOTONIC, in seconds; or mostly words, every reply from another place on."""
    found = ASKED.search(asked)
    assert found is not None, asked
    rate, wanted = int(found[1]), int(found[2])
    place = next(_replies) * 37 if "prose" in asked else None
    begun = time.monotonic()
    for number in range(wanted):
        due = begun + number / rate if rate else time.monotonic()
        wait = due - time.monotonic()
        if wait > 0:
            await _ticker.until(due)
        elif number % 16 == 0:
            await asyncio.sleep(0)
        if place is None or number % STAMPED == 0:
            yield f"@{due:016.5f}"
        else:
            yield PROSE[(place + number) % len(PROSE)]
    await asyncio.sleep(int(found[3]))
