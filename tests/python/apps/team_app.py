"""Agents that speak at once: ``python team_app.py NAME PORT``. Each counts on until the file ``GO`` is there, says that
it has come to its end, and returns. ``lead`` spawns those that the message names. ``python team_app.py worker URL`` is
the remote agent ``far``, in a process that can be killed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from strandline import Run, Strandline
from strandline.http.auth import Auth
from strandline.remote import RemoteRun, serve_agent

FILES = Path(os.environ["GO"]).parent
SPEAKERS = ("alpha", "beta", "gamma", "delta")


async def who(request: Request) -> dict[str, Any]:
    if request.headers.get("x-agent") is not None:
        return {"user": "a worker", "roles": ["agent:far"]}
    return {"user": "ann"}


async def count(name: str) -> AsyncIterator[str]:
    number, left = 0, 5
    while left:
        yield f"{name}{number} "
        number += 1
        await asyncio.sleep(0.01)
        left -= (FILES / "go").exists()
        if (FILES / f"crash-{name}").exists():
            raise ValueError("a crash")
    yield f"{name}-end"


def app() -> FastAPI:
    chat = Strandline(os.environ["CHAT_DB"], auth=Auth(who))

    def speaker(name: str) -> Any:
        async def speak(run: Run) -> AsyncIterator[str]:
            async for word in count(name):
                yield word

        return speak

    for name in SPEAKERS:
        chat.agent(name=name)(speaker(name))

    @chat.agent
    async def lead(run: Run) -> AsyncIterator[str]:
        for name in str(run.prompt()[-1]["content"]).split():
            await run.spawn(name)
        async for word in count("lead"):
            yield word

    chat.remote_agent("far", lease=float(os.environ["LEASE"]))
    return chat.app()


async def far(run: RemoteRun) -> None:
    async for word in count("far"):
        await run.text(word)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(serve_agent(sys.argv[2], "far", far, headers=lambda: {"x-agent": "far"}))
    else:
        uvicorn.run(globals()[sys.argv[1]](), host="127.0.0.1", port=int(sys.argv[2]), log_level="info")
