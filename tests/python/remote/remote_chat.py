"""A browser that talks to a server with the remote agent ``far``, and a worker of it in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from server_process import APP, ServerProcess
from strandline.remote import Refused, RemoteRun, serve_agent
from strandline.testing import Frame, FrameReader

Serve = Callable[..., ServerProcess]

REMOTE_APP = APP.with_name("remote_app.py")
WORKER = {"x-agent": "far"}


@asynccontextmanager
async def serving(port: int, function: Callable[[RemoteRun], Any], **more: Any) -> AsyncIterator[asyncio.Task[None]]:
    url = f"http://127.0.0.1:{port}/api/agents"
    task = asyncio.create_task(serve_agent(url, "far", function, headers=lambda: WORKER, **more))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Refused):
            await task


class Chat:
    """A browser: stock requests of the AI SDK."""

    def __init__(self, server: ServerProcess) -> None:
        self.client = httpx.AsyncClient(base_url=f"{server.url}/api", timeout=30)
        self.frames: list[Frame] = []

    async def __aenter__(self) -> Chat:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def ask(self, chat: str, text: str = "hello") -> list[Frame]:
        """Send a message and read the reply to its end."""
        reader = FrameReader()
        self.frames = reader.frames
        message = {"id": f"u-{chat}", "role": "user", "parts": [{"type": "text", "text": text}]}
        body = {"id": chat, "messages": [message], "trigger": "submit-message"}
        async with self.client.stream("POST", "/chat", json=body) as response:
            assert response.status_code == 200
            async for data in response.aiter_bytes():
                reader.feed(data)
        return reader.frames

    async def send(self, chat: str, **body: Any) -> None:
        """Send a message."""
        message = {"id": f"u-{chat}", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
        response = await self.client.post(f"/sessions/{chat}/messages", json={"message": message, "body": body})
        assert response.status_code == 202, response.text

    async def reply(self, chat: str) -> tuple[list[Any], Any] | None:
        """The parts of the finished reply and how its run ended; None while it is written."""
        history = (await self.client.get(f"/chat/{chat}/messages")).json()
        if history["activeRun"] is not None:
            return None
        message = history["messages"][-1]
        return message["parts"], history["runs"][message["id"]]

    async def shows(self, chat: str, text: str) -> None:
        """Wait until readers have been told this."""
        for _ in range(1000):
            if text in (await self.client.get(f"/sessions/{chat}")).text:
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{chat} does not show {text}")

    async def ended(self, chat: str) -> tuple[list[Any], Any]:
        for _ in range(3000):
            if (found := await self.reply(chat)) is not None:
                return found
            await asyncio.sleep(0.02)
        raise TimeoutError(f"the reply in {chat} does not end")

    async def steer(self, chat: str, id: str, text: str = "shorter") -> int:
        """Tell the agent something; the status of the answer."""
        message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
        return (await self.client.post(f"/sessions/{chat}/steer", json={"message": message})).status_code

    async def users(self, chat: str) -> list[str]:
        """The ids of the user messages."""
        return [each["id"] for each in (await self.messages(chat)) if each["role"] == "user"]

    async def messages(self, chat: str) -> list[Any]:
        return list((await self.client.get(f"/sessions/{chat}")).json()["messages"])

    async def pending(self, chat: str) -> Any:
        """The one decision that the session waits for."""
        for _ in range(1000):
            found = (await self.client.get(f"/sessions/{chat}/decisions")).json()["decisions"]
            if found:
                assert len(found) == 1
                return found[0]
            await asyncio.sleep(0.02)
        raise TimeoutError(f"nobody asks for anything in {chat}")

    async def decide(self, chat: str, decision: str, **answer: Any) -> Any:
        response = await self.client.post(f"/sessions/{chat}/decisions/{decision}", json=answer)
        assert response.status_code == 200, response.text
        return response.json()
