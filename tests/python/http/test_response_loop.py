"""The loop of a streaming response (docs/decisions/0006), against a server that is played: what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from strandline.http.stream import Stream
from strandline.settings import Settings


class Server:
    """Plays the server's side of one response. A write of ``b"stuck"`` never returns."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.stuck = asyncio.Event()
        self.bodies: list[bytes] = []
        self.writing = self.most = 0

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.writing += 1
        self.most = max(self.most, self.writing)
        try:
            self.bodies.append(message.get("body", b""))
            if message.get("body") == b"stuck":
                self.stuck.set()
                await asyncio.Event().wait()
        finally:
            self.writing -= 1


class Content:
    def __init__(self) -> None:
        self.closed = False

    async def pieces(self, *pieces: bytes) -> AsyncGenerator[bytes]:
        try:
            for piece in pieces:
                yield piece
        finally:
            self.closed = True


def respond(content: AsyncGenerator[bytes], server: Server, **settings: float) -> asyncio.Task[None]:
    stream = Stream(content, Settings(**settings), {})  # type: ignore[arg-type]
    return asyncio.ensure_future(stream({"type": "http"}, server.receive, server.send))


async def test_a_client_that_goes_in_the_middle_of_a_write_leaves_nothing_open() -> None:
    server, content = Server(), Content()
    response = respond(content.pieces(b"one", b"stuck", b"never"), server)
    await server.stuck.wait()
    server.gone.set()
    await asyncio.wait_for(response, 5)
    assert content.closed
    assert server.bodies == [b"", b"one", b"stuck"]
    assert server.writing == 0


async def test_no_heartbeat_is_put_behind_a_write_that_does_not_return() -> None:
    server, content = Server(), Content()
    response = respond(content.pieces(b"stuck"), server, heartbeat=0.05, send_timeout=0.5)
    await asyncio.wait_for(response, 5)  # dropped: it did not read
    assert content.closed
    assert (server.most, server.bodies) == (1, [b"", b"stuck"])
