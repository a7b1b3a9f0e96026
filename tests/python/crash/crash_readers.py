"""Readers of a server that is about to die: each keeps what it was shown, also of a connection that was cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from replies import Sent, asking
from server_process import ServerProcess
from strandline.testing import Frame, FrameReader, until


class Reading(Sent):
    """One connection, read in the background until it ends or is cut. ``before``: what its client had already."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        body: Any,
        headers: Mapping[str, str],
        *,
        chat: str,
        before: Sequence[Frame] = (),
    ) -> None:
        self.chat = chat
        self._before = list(before)
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.body = b""
        self.cut = False
        self._reader = FrameReader()
        self._task = asyncio.create_task(self._read(client, url, body, headers))

    async def _read(self, client: httpx.AsyncClient, url: str, body: Any, headers: Mapping[str, str]) -> None:
        method = "GET" if body is None else "POST"
        try:
            async with client.stream(method, url, json=body, headers=headers) as response:
                self.status, self.headers = response.status_code, response.headers
                async for data in response.aiter_raw():
                    if self.status == 200:
                        self._reader.feed(data)
                    self.body += data
        except httpx.TransportError:
            self.cut = True

    @property
    def frames(self) -> list[Frame]:
        return [*self._before, *self._reader.frames]

    @property
    def over(self) -> bool:
        return self._task.done()

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json", self.body
        return str(json.loads(self.body)["code"])

    async def until_text(self, upto: int) -> Reading:
        await until(lambda: self.over or len(self.text.split()) >= upto)
        return self

    async def drop(self) -> None:
        """The client goes away."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def end(self, timeout: float = 20.0) -> Reading:
        await until(lambda: self.over, timeout)
        self._task.result()
        return self


class Visitor:
    """Somebody with many connections to one server."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(base_url=server.url, timeout=30, limits=limits)

    async def __aenter__(self) -> Visitor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def ask(self, chat: str, text: str, id: str = "u1", **headers: str) -> Reading:
        return Reading(self._client, "/api/chat", asking(chat, text, id), headers, chat=chat)

    def resume(self, chat: str, cursor: str | None = None, headers: Mapping[str, str] | None = None) -> Reading:
        named = {"Last-Event-ID": cursor} if cursor is not None else {}
        return Reading(self._client, f"/api/chat/{chat}/stream", None, {**(headers or {}), **named}, chat=chat)

    def go_on(self, reading: Reading, headers: Mapping[str, str] | None = None) -> Reading:
        """The same client comes back, with its last cursor."""
        assert reading.cursor is not None
        named = {**(headers or {}), "Last-Event-ID": reading.cursor}
        return Reading(
            self._client, f"/api/chat/{reading.chat}/stream", None, named, chat=reading.chat, before=reading.shown
        )

    def watch(self, chat: str, cursor: str | None = None) -> Reading:
        named = {"Last-Event-ID": cursor} if cursor is not None else {}
        return Reading(self._client, f"/api/sessions/{chat}/events", None, named, chat=chat)

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self._client.post(path, json=body)

    async def history(self, chat: str) -> Any:
        response = await self._client.get(f"/api/chat/{chat}/messages")
        assert response.status_code == 200
        return response.json()

    async def session(self, chat: str) -> Any:
        response = await self._client.get(f"/api/sessions/{chat}")
        assert response.status_code == 200
        return response.json()

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def restart(self) -> None:
        await self.kill()
        await self.start()
