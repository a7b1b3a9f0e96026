"""A server with a remote agent, and a worker of it that sends its requests one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Request

from rig import Answer, Client, Rig, running
from strandline.http.auth import Auth

FAR = {"Strandline-Agent": "far"}
LEASE = 30.0


async def who(request: Request) -> dict[str, Any]:
    return {"user": request.headers.get("x-user", "ann"), "roles": request.headers.get("x-roles", "").split()}


class Worker(Client):
    """A remote agent, request by request."""

    def __init__(self, app: Any, holder: str = "w", role: str = "agent:far") -> None:
        super().__init__(app, {"x-user": f"worker-{holder}", "x-roles": role})
        self.holder = holder
        self.run = ""
        self.producer = 0
        self.sent = 0

    async def work(self) -> Answer:
        return await self.open("GET", f"/api/agents/far/runs?holder={self.holder}")

    async def claim(self, run: str, claim: str = "") -> Answer:
        named = {"holder": self.holder, "claim": claim or f"claim-{self.holder}"}
        answer = await self.ask("POST", f"/api/agents/runs/{run}/claim", named)
        if answer.status == 200 and answer.json["state"] == "running":
            self.run, self.producer, self.sent = run, answer.json["producer"], answer.json["sequence"]
        return answer

    async def about(self, question: str, **body: Any) -> Answer:
        return await self.ask("POST", f"/api/agents/runs/{self.run}/{question}", {"producer": self.producer, **body})

    async def append(self, *chunks: Any, sequence: int | None = None) -> Answer:
        number = sequence or self.sent + 1
        said: dict[str, Any] = {"text": chunks[0]} if chunks and isinstance(chunks[0], str) else {"chunks": [*chunks]}
        answer = await self.about("append", sequence=number, **said)
        if answer.status == 200:
            self.sent = max(self.sent, number)
        return answer

    async def beat(self, **body: Any) -> Answer:
        return await self.about("heartbeat", **body)

    async def end(self, **body: Any) -> Answer:
        return await self.about("end", **{"sequence": self.sent, "status": "completed", **body})


@asynccontextmanager
async def served(path: Path | None = None, **more: Any) -> AsyncIterator[Rig]:
    more = {"claim_timeout": 100.0, **more}
    async with running(path, auth=Auth(who), prepare=lambda chat: chat.remote_agent("far", lease=LEASE), **more) as rig:
        yield rig


async def asked(rig: Rig, worker: Worker | None = None, chat: str = "c", text: str = "hello") -> tuple[Answer, Worker]:
    """A user's message to the remote agent, and a worker that has taken its run."""
    worker = worker or Worker(rig.app)
    answer = await rig.post(chat, text, headers=FAR, mood="good")
    assert answer.status == 200, answer.body
    assert (await worker.claim(answer.headers["strandline-run"])).status == 200
    return answer, worker


async def reply(rig: Rig, chat: str = "c") -> tuple[list[Any], dict[str, Any]]:
    """The parts of the newest reply, and how its run has ended."""
    history = await rig.history(chat)
    message = history["messages"][-1]
    return message["parts"], history["runs"][message["id"]]


def text(delta: str, part: str = "t") -> list[dict[str, Any]]:
    return [
        {"type": "text-start", "id": part},
        {"type": "text-delta", "id": part, "delta": delta},
        {"type": "text-end", "id": part},
    ]
