"""A proxy on loopback that does to POSTs what networks do, as a seed decides: drops the request, drops the answer,
sends it twice, holds it back, holds a copy back that is overtaken by everything."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

FATES = ("lose", "deafen", "double", "delay", "late")
END = b"\r\n\r\n"


class BadProxy:
    """``async with BadProxy(port, seed) as proxy``: ``proxy.port`` leads to ``port``. ``done`` counts what it did."""

    def __init__(self, port: int, seed: int, badness: float = 0.5) -> None:
        self._to = port
        self._chance = random.Random(seed)
        self._badness = badness
        self._tasks: set[asyncio.Task[None]] = set()
        self._copies: set[asyncio.Task[None]] = set()
        self.done: Counter[str] = Counter()
        self.posts: list[tuple[str, bytes]] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        tasks = [*self._tasks, *self._copies]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            await self._pass(reader, writer)
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request: its connection is not used again."""
        head = await reader.readuntil(END)
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        kept = [line for line in lines if line and line.partition(":")[0].lower() not in ("connection",)]
        request = "\r\n".join([first, *kept, "Connection: close", "", ""]).encode("latin-1") + body
        if not first.startswith("POST"):
            await self._forward(request, writer.write)
            return
        self.posts.append((first.split()[1], body))
        fate = self._chance.choice(FATES)
        if self._chance.random() >= self._badness:
            fate = "pass"
        self.done[fate] += 1
        if fate == "lose":
            return
        if fate == "deafen":
            await self._forward(request, lambda _: None)
            return
        if fate == "double":
            await asyncio.gather(self._forward(request, lambda _: None), self._forward(request, writer.write))
            return
        if fate == "delay":
            await asyncio.sleep(self._chance.uniform(0, 0.1))
        if fate == "late":
            self._later(request)
        await self._forward(request, writer.write)

    def _later(self, request: bytes) -> None:
        async def send() -> None:
            await asyncio.sleep(self._chance.uniform(0, 1.0))
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._forward(request, lambda _: None)

        task = asyncio.get_running_loop().create_task(send())
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def emptied(self) -> None:
        """Return when every copy that was held back has been sent."""
        await asyncio.gather(*self._copies)

    async def _forward(self, request: bytes, write: Callable[[bytes], None]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            writer.write(request)
            while data := await reader.read(65_536):
                write(data)
        finally:
            writer.close()
