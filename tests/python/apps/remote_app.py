"""A server whose first agent is remote: ``python remote_app.py NAME PORT``. Who sends ``x-agent`` is a worker of it."""

from __future__ import annotations

import os
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from strandline import Run, Strandline
from strandline.http.auth import Auth


async def who(request: Request) -> dict[str, Any]:
    agent = request.headers.get("x-agent")
    if agent is not None:
        return {"user": f"worker of {agent}", "roles": [f"agent:{agent}"]}
    return {"user": request.headers.get("x-user", "ann")}


async def echo(run: Run) -> str:
    """What runs in the server, beside the remote one."""
    return f"{run.prompt()[-1]['content']}!"


def app() -> FastAPI:
    chat = Strandline(os.environ["CHAT_DB"], auth=Auth(who))
    chat.remote_agent("far", lease=float(os.environ.get("LEASE", "30")), spawns=["far", "echo"])
    chat.agent(echo)
    return chat.app()


if __name__ == "__main__":
    uvicorn.run(globals()[sys.argv[1]](), host="127.0.0.1", port=int(sys.argv[2]), log_level="info")
