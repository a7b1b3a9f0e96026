"""A reader's bytes as an HTTP response (PROTOCOL §4).

The loop is our own and not that of sse-starlette (docs/decisions/0006): one task, which writes, and one timer, which
sends the heartbeat and drops a client that does not read; the request's own task waits for the client to go. How
streams end at shutdown is the runtime's affair, which closes the feeds when the time has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from strandline.codecs.sse import HEADERS, HEARTBEAT
from strandline.core.ids import check_id
from strandline.http.auth import Identity
from strandline.http.problems import HANDED_OVER
from strandline.http.wire import CLIENT_HEADER, CURSOR_HEADER, READER_HEADER, SHIM
from strandline.runtime.live import LiveSession
from strandline.runtime.readers import Reader
from strandline.runtime.reading import PIECE
from strandline.runtime.session import Sessions
from strandline.settings import Settings

READER_QUERY = "reader"

_GRAIN = 0.001
"""Seconds. A patience is over when less than this is left of it: timers are no finer, and being late is forgiven."""


class Stream(Response):
    """One streaming response of ready-made bytes. ``place`` is held as long as it lasts; it may refuse. The reader that
    it holds may be cut off in the middle of a write."""

    media_type = "text/event-stream"

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        settings: Settings,
        headers: Mapping[str, str],
        place: AbstractContextManager[Any] | None = None,
        *,
        heartbeats: bool = True,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**HEADERS, **headers})
        self._heartbeats = heartbeats
        self._content = content
        self._settings = settings
        self._place = place or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handed_over = scope.get(HANDED_OVER)
        if handed_over is None:
            await self._stream(scope, receive, send)
        else:
            handed_over.append(self._stream)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place as reader:
            connection = _Connection(send, self._settings, _abort_of(receive))
            # In a task of its own: down here an application is two dozen coroutines deep, and whenever something is
            # due all of them would be resumed, one in the other.
            writing = connection.life = asyncio.get_running_loop().create_task(self._write(connection))
            if isinstance(reader, Reader):
                reader.cut, connection.reader = connection.cut, reader
            try:
                await _gone(receive, writing)
            finally:
                writing.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({writing})
                failure = None if writing.cancelled() else writing.exception()
            if failure is not None:
                raise failure

    async def _write(self, connection: _Connection) -> None:
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await connection.write(start)
            self.raw_headers = []  # a response may be open for hours, and there are thousands of them
            connection.watch(heartbeats=self._heartbeats)
            async for data in self._content:
                # In pieces: who reads slowly takes many writes, each in its time, and no second copy of a snapshot.
                for at in range(0, len(data), PIECE):
                    piece = data[at : at + PIECE] if len(data) > PIECE else data
                    await connection.write({"type": "http.response.body", "body": piece, "more_body": True})
            await connection.write({"type": "http.response.body", "body": b""})
        finally:
            connection.over()
            # It may be suspended at a yield; where it waits for something, the cancellation has reached it.
            await self._content.aclose()


class _Connection:
    """The writing side of a response: how long its writes take, and a heartbeat in between. ``life``: the task that
    writes."""

    __slots__ = (
        "_abort",
        "_beat_at",
        "_beating",
        "_look_at",
        "_loop",
        "_send",
        "_settings",
        "_timer",
        "_writes",
        "_writing_since",
        "life",
        "reader",
    )

    def __init__(self, send: Send, settings: Settings, abort: Callable[[], Any] | None) -> None:
        self._send = send
        self.life: asyncio.Task[None] | None = None
        self._settings = settings
        self._abort = abort
        self._loop = asyncio.get_running_loop()
        self._writes = 0
        self._writing_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._beat_at = math.inf
        self._beating: asyncio.Task[None] | None = None
        self.reader: Reader | None = None

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
            self._drop()

    def _drop(self) -> None:
        """End the response, and throw away what is written and not read: a server that closes a connection as usual
        waits until all of it is read, which may be for ever."""
        if self._abort is not None:
            self._abort()
        # In the next turn: by then the server knows that the client has gone, and asks for no proper end.
        if self.life is not None:
            self._loop.call_soon(self.life.cancel)

    def watch(self, *, heartbeats: bool) -> None:
        """From now on send a heartbeat every now and then, and drop a client that does not read."""
        self._look_at = self._loop.time()
        self._beat_at = self._look_at + self._settings.heartbeat if heartbeats else math.inf
        self._look()

    def _look(self) -> None:
        now, patience = self._loop.time(), self._settings.send_timeout
        interval = patience / 2
        if self._writes:
            # While the event loop stood still nobody could see the client read. Looking this often is what bounds how
            # much of a standstill can go unnoticed before a look was due: at least half of the time is the client's.
            self._writing_since = min(now, self._writing_since + max(0.0, now - self._look_at))
            patience -= now - self._writing_since
            if patience < _GRAIN:
                if self.reader is not None:
                    self.reader.dropped = True  # told to the log by who holds its place
                self._drop()
                return
        if now >= self._beat_at:
            self._beat_at = now + self._settings.heartbeat
            if not self._writes:
                self._beating = self._loop.create_task(self._heartbeat())
        wait = min(patience, interval, self._beat_at - now)
        self._look_at = now + wait
        self._timer = self._loop.call_later(wait, self._look)

    async def _heartbeat(self) -> None:
        with contextlib.suppress(Exception):  # the client has gone, or the response is over
            await self.write({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})

    def over(self) -> None:
        """Nothing is written any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()


def _abort_of(receive: Receive) -> Callable[[], Any] | None:
    """What gives up the connection behind a request, where the server shows it: uvicorn does, unless a middleware is in
    between that reads requests itself. ASGI has no word for it."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    return getattr(transport, "abort", None)


async def _gone(receive: Receive, writing: asyncio.Task[None]) -> None:
    """Return when the client has gone, or ``writing`` is over. A client that the server knows nothing more of counts as
    gone. By hand, because a cancel scope for it is a kilobyte for every reader."""
    waiting, stopped = asyncio.current_task(), False

    def stop(_: asyncio.Task[None]) -> None:
        nonlocal stopped
        if waiting is not None:
            stopped = waiting.cancel()

    writing.add_done_callback(stop)
    try:
        with contextlib.suppress(Exception):
            while (await receive())["type"] != "http.disconnect":
                pass
    except asyncio.CancelledError:
        if not stopped or waiting is None or waiting.uncancel():
            raise
    finally:
        waiting = None


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


async def once(data: bytes) -> AsyncGenerator[bytes]:
    """The content of a stream that is all there."""
    yield data


def query_id(request: Request, name: str) -> str | None:
    """An id from the query string, checked; None when absent. Raises InvalidId."""
    value = request.query_params.get(name)
    return None if value is None else check_id(value, name)
