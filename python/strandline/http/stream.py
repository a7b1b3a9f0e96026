"""A reader's bytes as an HTTP response (PROTOCOL §4).

An ``EventSourceResponse`` of sse-starlette whose loop is our own (docs/decisions/0006): its own takes four tasks per
response and a timeout scope per write; this one takes one task, which notices that the client has gone, and one timer,
which sends the heartbeat and drops a client that does not read. Left out: its encoding of events (ours are bytes), its
way of ending streams at shutdown (the runtime closes the feeds when the time has come), background tasks, WebSockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import anyio
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from strandline.codecs.sse import HEADERS, HEARTBEAT
from strandline.core.ids import check_id
from strandline.http.auth import Identity
from strandline.http.wire import CLIENT_HEADER, CURSOR_HEADER, READER_HEADER, SHIM
from strandline.runtime.live import LiveSession
from strandline.runtime.readers import Reader
from strandline.runtime.session import Sessions
from strandline.settings import Settings

logger = logging.getLogger("strandline.http")

READER_QUERY = "reader"


class Stream(EventSourceResponse):
    """One streaming response of ready-made bytes. ``place`` is held as long as it lasts; it may refuse. The reader that
    it holds may be cut off in the middle of a write."""

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        settings: Settings,
        headers: Mapping[str, str],
        place: AbstractContextManager[Any] | None = None,
        *,
        heartbeats: bool = True,
    ) -> None:
        super().__init__(content, headers={**HEADERS, **headers})
        self._heartbeats = heartbeats
        self._content = content
        self._settings = settings
        self._place = place or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place as reader, anyio.CancelScope() as life:
            connection = _Connection(send, life, self._settings)
            if isinstance(reader, Reader):
                reader.cut = connection.cut
            listening = asyncio.get_running_loop().create_task(_until_gone(receive, life))
            try:
                start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                await connection.write(start)
                connection.watch(heartbeats=self._heartbeats)
                async for data in self._content:
                    await connection.write({"type": "http.response.body", "body": data, "more_body": True})
                await connection.write({"type": "http.response.body", "body": b""})
            finally:
                connection.over()
                listening.cancel()
                # It may be suspended at a yield; where it waits for something, the cancellation has reached it.
                with anyio.CancelScope(shield=True):
                    await self._content.aclose()


class _Connection:
    """The writing side of a response: how long its writes take, and a heartbeat in between."""

    __slots__ = ("_beat_at", "_beating", "_life", "_loop", "_send", "_settings", "_timer", "_writes", "_writing_since")

    def __init__(self, send: Send, life: anyio.CancelScope, settings: Settings) -> None:
        self._send = send
        self._life = life
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._writes = 0
        self._writing_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._beat_at = math.inf
        self._beating: asyncio.Task[None] | None = None

    async def write(self, message: Message) -> None:
        if self._writes == 0:
            self._writing_since = self._loop.time()
        self._writes += 1
        try:
            await self._send(message)
        finally:
            self._writes -= 1

    def cut(self) -> None:
        """End the response if it is in the middle of a write: nobody may be there to read it."""
        if self._writes:
            self._life.cancel()

    def watch(self, *, heartbeats: bool) -> None:
        """From now on send a heartbeat every now and then, and drop a client that does not read."""
        self._beat_at = self._loop.time() + self._settings.heartbeat if heartbeats else math.inf
        self._look()

    def _look(self) -> None:
        now, patience = self._loop.time(), self._settings.send_timeout
        if self._writes:
            patience -= now - self._writing_since
            if patience <= 0:
                logger.info("a reader was too slow and was dropped", extra={"action": "reader-dropped"})
                self._life.cancel()
                return
        if now >= self._beat_at:
            self._beat_at = now + self._settings.heartbeat
            if not self._writes:
                self._beating = self._loop.create_task(self._heartbeat())
        self._timer = self._loop.call_later(min(patience, self._beat_at - now), self._look)

    async def _heartbeat(self) -> None:
        with contextlib.suppress(Exception):  # the client has gone, or the response is over
            await self.write({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})

    def over(self) -> None:
        """Nothing is written any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()


async def _until_gone(receive: Receive, life: anyio.CancelScope) -> None:
    """End a response when its client has gone; one that the server knows nothing more of counts as gone."""
    with contextlib.suppress(Exception):
        while (await receive())["type"] != "http.disconnect":
            pass
    life.cancel()


def place_for(
    reader: Reader, session: LiveSession, sessions: Sessions, *, counted: bool = True
) -> AbstractContextManager[Reader]:
    """A place among the session's readers, for a ``Stream``: see ``Registry.place``."""
    return sessions.place(session, reader, counted=counted)


def client_of(request: Request, default_major: int) -> tuple[bool, int]:
    """Whether the client is our shim, and the major version of ``ai`` that it speaks (PROTOCOL §5.2)."""
    name, _, rest = request.headers.get(CLIENT_HEADER, "").partition(";")
    major = rest.strip().removeprefix("ai=")
    return name.strip().split("/")[0] == SHIM, int(major) if major in ("5", "6", "7") else default_major


def cursor_of(request: Request) -> str | None:
    """The cursor that the reader presents: the header wins (PROTOCOL §3.2). An empty one is none."""
    return request.headers.get(CURSOR_HEADER) or request.query_params.get("after") or None


def reader_name(request: Request) -> str | None:
    """The name that the client gives its reader (PROTOCOL §8.11), or None. Raises InvalidId, which is to be found out
    before anything is started."""
    name = request.headers.get(READER_HEADER) or request.query_params.get(READER_QUERY)
    return check_id(name, READER_HEADER) if name else None


def reader_of(
    request: Request, identity: Identity, wire: str, reader_id: str, now: int, run: str | None = None
) -> Reader:
    """The reader that this request attaches, to ``run`` where it reads only one. Raises InvalidId."""
    client = request.headers.get(CLIENT_HEADER, "").split(";")[0].strip()[:80] or None
    name = reader_name(request)
    return Reader(
        name or reader_id, identity.user, identity.device, wire, now, run, client=client, named=name is not None
    )


def query_id(request: Request, name: str) -> str | None:
    """An id from the query string, checked; None when absent. Raises InvalidId."""
    value = request.query_params.get(name)
    return None if value is None else check_id(value, name)
