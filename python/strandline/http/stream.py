"""A reader's bytes as an HTTP response (PROTOCOL §4).

sse-starlette does the heartbeat, notices that the client has gone, and drops a client that does not read. Its own way
of ending streams at shutdown is kept back (the grace period): the runtime closes the feeds when the time has come.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import anyio
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
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
_BEYOND_GRACE = 30.0


class _Heartbeat(ServerSentEvent):
    """A comment and one newline: with the blank line of an ordinary event some parsers see an empty one."""

    def encode(self) -> bytes:
        return HEARTBEAT


class Stream(EventSourceResponse):
    """One streaming response of ready-made bytes. ``place`` is held as long as it lasts; it may refuse. The reader that
    it holds may be cut off in the middle of a write."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        settings: Settings,
        headers: Mapping[str, str],
        place: AbstractContextManager[Any] | None = None,
    ) -> None:
        super().__init__(
            content,
            headers={**HEADERS, **headers},
            ping=settings.heartbeat,
            ping_message_factory=_Heartbeat,
            send_timeout=settings.send_timeout,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=settings.shutdown_grace + _BEYOND_GRACE,
        )
        self._place = place or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place as reader:
            try:
                if not isinstance(reader, Reader):
                    await super().__call__(scope, receive, send)
                    return
                with anyio.CancelScope() as scope_of_it:
                    reader.cut = scope_of_it.cancel
                    await super().__call__(scope, receive, _watched(send, reader))
            except SendTimeoutError:
                logger.info("a reader was too slow and was dropped", extra={"action": "reader-dropped"})


def _watched(send: Send, reader: Reader) -> Send:
    async def watched(message: Message) -> None:
        reader.writing += 1
        try:
            await send(message)
        finally:
            reader.writing -= 1

    return watched


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
