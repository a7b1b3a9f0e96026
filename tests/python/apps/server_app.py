"""The applications that the tests start as processes: ``python server_app.py NAME PORT``."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.middleware.gzip import GZipMiddleware

from strandline import Run, Strandline
from strandline.demo.agent import demo_agent
from strandline.http.auth import Auth


async def user_of(request: Request) -> str:
    return request.headers.get("x-user", "ann")


def made() -> Strandline:
    return Strandline(os.environ["CHAT_DB"], auth=Auth(user_of))


def app() -> FastAPI:
    """The demo agent, and ``flood`` for as many bytes as a slow reader cannot take."""
    chat = made()

    @chat.agent
    async def reply(run: Run) -> None:
        if run.prompt()[-1]["content"] == "flood":
            for _ in range(600):
                await run.text("x" * 16_000)
                await run.data("mark", 0, transient=True)
                await asyncio.sleep(0.001)
            return
        await demo_agent(run)

    return chat.app()


def threads() -> FastAPI:
    """A plain generator that counts for ever, and a plain function that sleeps."""
    chat = made()

    @chat.agent
    def reply(run: Run) -> Any:
        if run.prompt()[-1]["content"] == "sleep":
            time.sleep(120)
            return "done"

        def count() -> Iterator[str]:
            number = 0
            while True:
                number += 1
                yield f"{number} "
                time.sleep(0.01)

        return count()

    return chat.app()


def recovering() -> FastAPI:
    """Counts to as many as it is told and goes on, or begins again (``RECOVER``), after a crash. On its way it settles
    what it has said, and now and then says all of it anew; somebody counts beside it."""
    chat = made()

    @chat.agent(recover=os.environ["RECOVER"])
    async def reply(run: Run) -> None:
        def upto(number: int) -> str:
            return "".join(f"{each} " for each in range(1, number + 1))

        async def beside(run: Run) -> None:
            for number in range(1, 21):
                await run.text(f"{number} ")
                await run.progress("count", number)
                await asyncio.sleep(0.01)

        handle = await run.spawn(beside, name="beside")
        said = "".join(part.get("text", "") for part in run.partial["parts"])
        for number in range(len(said.split()) + 1, int(run.prompt()[-1]["content"]) + 1):
            await run.text(f"{number} ")
            if number % 7 == 0:
                await run.checkpoint(f"at {number}")
            if number % 25 == 0:
                await run.replace(upto(number))
            await asyncio.sleep(0.01)
        await handle.result()

    return chat.app()


def conversation() -> FastAPI:
    """Agents that do what the message to answer says, in JSON: count to ``count``, one word each ``pause`` ms; ask for
    ``ask`` decisions, the first of which expires in ``expires`` s, and count on by ``more`` when those are made. They
    take what they are told on their way. ``reply`` ends with its process, ``again`` and ``onward`` are called again,
    and have somebody who counts beside them, and asks in the middle where ``beside`` says so."""
    chat = made()

    def wish_of(run: Run) -> dict[str, Any]:
        wish: dict[str, Any] = {"count": 3, "pause": 1, "ask": 0, "more": 0, "expires": None, "beside": False}
        for message in run.messages:
            if message["role"] == "user":
                wish = json.loads(message["parts"][0]["text"])
        return wish

    async def converse(run: Run) -> None:
        wish = wish_of(run)
        upto = wish["count"] + (wish["more"] if run.decisions else 0)
        parts = run.message["parts"]
        for decision in run.decisions:
            call = next((each for each in parts if each.get("toolCallId") == decision.tool_call), {})
            if decision.approved and call.get("state") != "output-available":
                await run.tool_result(decision.tool_call, {"done": decision.id})
        for number in range(len("".join(part.get("text", "") for part in parts).split()) + 1, upto + 1):
            run.take_steering()
            await run.text(f"{number} ")
            if number % 4 == 0:
                await run.checkpoint()
            await asyncio.sleep(wish["pause"] / 1000)
        for number in range(0 if run.decisions else wish["ask"]):
            if number % 2:
                await run.call_client_tool("where", {"number": number})
            else:
                expires = None if number else wish["expires"]
                await run.request_approval("spend", {"number": number}, expires_in=expires)

    @chat.agent
    async def reply(run: Run) -> None:
        await converse(run)

    @chat.agent
    async def beside(run: Run) -> None:
        said = "".join(part.get("text", "") for part in run.message["parts"])
        for number in range(len(said.split()) + 1, 6):
            if number == 4 and wish_of(run)["beside"] and not run.decisions:
                await run.call_client_tool("look", {"number": number})
                return
            await run.text(f"{number} ")
            await run.progress("count", number)
            await asyncio.sleep(0.002)

    @chat.agent(recover="restart")
    async def again(run: Run) -> None:
        await run.spawn(beside)
        await converse(run)

    @chat.agent(recover="continue")
    async def onward(run: Run) -> None:
        handle = await run.spawn(beside)
        await converse(run)
        await handle.result()

    return chat.app()


def gzip() -> Any:
    """Compression for everything that lets itself be compressed."""
    return GZipMiddleware(app(), minimum_size=1)


def no_lifespan() -> FastAPI:
    """Mounted under another application that does not run the lifespan."""
    outer = FastAPI()
    chat = made()
    chat.agent(demo_agent)
    outer.mount("/inner", chat.app())

    @outer.get("/api/readyz")
    async def health() -> dict[str, bool]:
        return {"ready": True}

    return outer


if __name__ == "__main__":
    uvicorn.run(globals()[sys.argv[1]](), host="127.0.0.1", port=int(sys.argv[2]), log_level="info")
