"""The application of the load trials: agents that say much, or too much, or block; and a look inside of the process.

``python load_app.py NAME PORT``, as server_app.py. What an agent does is what it is asked, exactly:

``flood N``     a word, and after ``GET /go`` N numbered lines of 8,000 characters
``tokens N``    N tokens (``1 2 3 …``), the second half of them after ``GET /go``
``hold N``      N numbers, then nothing until it is stopped
``big``         one token of 10 MB
``tool N``      a tool whose output is a string of N characters
``block S``     a number, then a plain ``time.sleep`` of S seconds on the event loop, then another number
``spin S``      the same with a busy loop, in a task that the agent has started

Anything else goes to the demo agent.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from strandline import Run, Strandline
from strandline.demo.agent import demo_agent
from strandline.errors import ChunkRefused
from strandline.http.auth import Auth
from strandline.runtime import reading

LINE = 8_000
BIG = "0123456789abcdéf" * 588_235
"""A token of 10 MB, not all of it ASCII."""


async def user_of(request: Request) -> str:
    return request.headers.get("x-user", "ann")


go = asyncio.Event()


async def reply(run: Run) -> None:
    what, _, many = run.prompt()[-1]["content"].partition(" ")
    match what:
        case "flood":
            await run.text("0\n")
            await go.wait()
            for number in range(1, int(many) + 1):
                await run.text(line(number))
        case "tokens":
            for number in range(1, int(many) + 1):
                await run.text(f"{number} ")
                if number == int(many) // 2:
                    await go.wait()
        case "hold":
            for number in range(1, int(many) + 1):
                await run.text(f"{number} ")
            await asyncio.Event().wait()
        case "big":
            await run.text(BIG)
        case "tool":
            await use_tool(run, int(many))
        case "block":
            await run.text("1 ")
            await asyncio.sleep(0.2)
            time.sleep(float(many))  # noqa: ASYNC251
            await run.text("2 ")
        case "spin":
            await run.text("1 ")
            await asyncio.sleep(0.2)
            await asyncio.create_task(spinning(float(many)))
            await run.text("2 ")
        case _:
            await demo_agent(run)


def line(number: int) -> str:
    """One line of a flood."""
    return f"{number} ".ljust(LINE - 1, "x") + "\n"


async def use_tool(run: Run, size: int) -> None:
    """Where the output is too large, say so and go on if the session is called ``careful``."""
    call = await run.tool_call("fetch", {})
    try:
        await run.tool_result(call, "x" * size)
    except ChunkRefused as refused:
        if run.session_id != "careful":
            raise
        await run.tool_result(call, error=str(refused))
    await run.text("done")


async def spinning(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


class Unfolds:
    """Counts how often a message was made into a snapshot."""

    def __init__(self) -> None:
        self.count = 0
        self._unfold = reading.unfold

    def __call__(self, *args: Any) -> Any:
        self.count += 1
        return self._unfold(*args)


def app() -> FastAPI:
    """The chat, and ``/inside``."""
    chat = Strandline(os.environ["CHAT_DB"], auth=Auth(user_of))
    chat.agent(reply)
    made = chat.app()
    unfolds = Unfolds()
    reading.unfold = unfolds

    @made.get("/inside")
    async def inside() -> dict[str, int]:
        """``objects`` and ``blocks`` are after a collection; ``tail`` is the largest of a session, in bytes."""
        sessions = chat.service.sessions.reachable()
        gc.collect()
        return {
            "tasks": len(asyncio.all_tasks()),
            "sessions": len(sessions),
            "readers": sum(len(each.readers) for each in sessions),
            "left": sum(len(each.readers.left) for each in sessions),
            "waiters": sum(len(each.feed._waiters) for each in sessions),
            "tail": max((each.feed.size for each in sessions), default=0),
            "objects": len(gc.get_objects()),
            "blocks": sys.getallocatedblocks(),
            "unfolds": unfolds.count,
        }

    @made.get("/go")
    async def begin() -> dict[str, int]:
        go.set()
        return {}

    return made


if __name__ == "__main__":
    said = logging.StreamHandler()
    said.setFormatter(logging.Formatter("%(levelname)s %(name)s %(action)s %(message)s", defaults={"action": "-"}))
    logging.basicConfig(level=logging.INFO, handlers=[said])
    uvicorn.run(globals()[sys.argv[1]](), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
