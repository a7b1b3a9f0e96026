"""The model of every Python side: tokens at a rate, each of them the time at which it was due.

What is asked for is in the message: ``rate=50 tokens=400 hold=0``: tokens a second (0: as fast as they are taken), how
many, and seconds of silence before the end. Latency counts from when a token was due, so that a side which falls behind
cannot hide it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

ASKED = re.compile(r"rate=(\d+) tokens=(\d+) hold=(\d+)")


async def tokens(asked: str) -> AsyncIterator[str]:
    """``@`` and 16 characters of CLOCK_MONOTONIC, in seconds."""
    found = ASKED.search(asked)
    assert found is not None, asked
    rate, count = int(found[1]), int(found[2])
    begun = time.monotonic()
    for number in range(count):
        due = begun + number / rate if rate else time.monotonic()
        wait = due - time.monotonic()
        if wait > 0 or number % 16 == 0:
            await asyncio.sleep(max(wait, 0))
        yield f"@{due:016.5f}"
    await asyncio.sleep(int(found[3]))
