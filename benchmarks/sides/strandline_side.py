"""Strandline, as an application uses it. Environment: ``BENCH_STORE`` (``memory:`` or a path) and Strandline's own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from agent import tokens

from strandline import Run, Strandline, open_on_loopback

chat = Strandline(os.environ["BENCH_STORE"], auth=open_on_loopback())


@chat.agent
async def reply(run: Run) -> AsyncIterator[str | dict[str, str]]:
    asked = "".join(part.get("text", "") for part in run.messages[-1]["parts"])
    apart = asked.endswith("apart")
    async for token in tokens(asked):
        yield {"type": "data-token", "data": token} if apart else token


app = chat.app()
