"""The loop of a streaming response (docs/decisions/0006), against a server that is played: what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from strandline.http.stream import Stream
from strandline.runtime.reading import PIECE
from strandline.settings import Settings


class Transport:
    """The connection, as uvicorn shows it."""

    def __init__(self, gone: asyncio.Event) -> None:
        self.aborted = 0
        self._gone = gone

    def abort(self) -> None:
        self.aborted += 1
        self._gone.set()


class Server:
    """Plays the server's side of one response. A write of ``b"stuck"`` never returns."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.stuck = asyncio.Event()
        self.bodies: list[bytes] = []
        self.writing = self.most = 0
        self.transport = Transport(self.gone)

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
    assert server.transport.aborted == 0
    assert server.writing == 0


async def test_no_heartbeat_is_put_behind_a_write_that_does_not_return() -> None:
    server, content = Server(), Content()
    response = respond(content.pieces(b"stuck"), server, heartbeat=0.05, send_timeout=0.5)
    await asyncio.wait_for(response, 5)  # dropped: it did not read
    assert content.closed
    assert server.transport.aborted == 1, "what it did not read would keep the connection open"
    assert (server.most, server.bodies) == (1, [b"", b"stuck"])


async def test_what_is_long_is_written_in_pieces_each_of_which_has_its_own_time() -> None:
    server, content = Server(), Content()
    whole = bytes(range(256)) * (PIECE // 64)
    await asyncio.wait_for(respond(content.pieces(b"one", whole), server), 5)
    assert max(map(len, server.bodies)) == PIECE
    assert b"".join(server.bodies) == b"one" + whole


@pytest.mark.parametrize("send_timeout", [0.05, 0.03, 0.07, 0.1, 0.011])
async def test_a_client_that_does_not_read_is_dropped_whatever_the_timeout(send_timeout: float) -> None:
    server, content = Server(), Content()
    response = respond(content.pieces(b"stuck"), server, send_timeout=send_timeout)
    await asyncio.wait_for(response, 5)
    assert content.closed
