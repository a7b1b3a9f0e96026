"""A reader's bytes as an HTTP response (PROTOCOL §4).

sse-starlette does the heartbeat, notices that the client has gone, and drops a client that does not read. Its own way
of ending streams at shutdown is kept back (the grace period): the runtime closes the feeds when the time has come.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import anyio
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from strandline.codecs.sse import HEADERS, HEARTBEAT
from strandline.core.ids import check_id
from strandline.http.auth import Identity
from strandline.http.wire import CLIENT_HEADER, CURSOR_HEADER, SHIM
from strandline.runtime.live import LiveSession
from strandline.runtime.reading import Reader
from strandline.runtime.session import Sessions
from strandline.settings import Settings

logger = logging.getLogger("strandline.http")

_BEYOND_GRACE = 30.0


class _Heartbeat(ServerSentEvent):
    """A comment and one newline: with the blank line of an ordinary event some parsers see an empty one."""

    def encode(self) -> bytes:
        return HEARTBEAT


class Stream(EventSourceResponse):
    """One streaming response of ready-made bytes. ``place`` is held as long as it lasts; it may refuse."""

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
        with self._place:
            try:
                await super().__call__(scope, receive, send)
            except SendTimeoutError:
                logger.info("a reader was too slow and was dropped", extra={"action": "reader-dropped"})


@contextmanager
def place_for(reader: Reader, session: LiveSession, sessions: Sessions, *, counted: bool = True) -> Iterator[None]:
    """A place among the session's readers, counted and taken in one step: those who come at the same moment are not
    all let in. Raises TooMany before anything was sent, so that it can still be answered."""
    if counted:
        sessions.admit_reader(session.id)
    session.readers[reader.id] = reader
    try:
        yield
    finally:
        session.readers.pop(reader.id, None)


def client_of(request: Request, default_major: int) -> tuple[bool, int]:
    """Whether the client is our shim, and the major version of ``ai`` that it speaks (PROTOCOL §5.2)."""
    name, _, rest = request.headers.get(CLIENT_HEADER, "").partition(";")
    major = rest.strip().removeprefix("ai=")
    return name.strip().split("/")[0] == SHIM, int(major) if major in ("5", "6", "7") else default_major


def cursor_of(request: Request) -> str | None:
    """The cursor that the reader presents: the header wins (PROTOCOL §3.2). An empty one is none."""
    return request.headers.get(CURSOR_HEADER) or request.query_params.get("after") or None


def reader_of(request: Request, identity: Identity, wire: str, reader_id: str, now: int) -> Reader:
    """The reader that this request attaches."""
    client = request.headers.get(CLIENT_HEADER, "").split(";")[0].strip()[:80] or None
    return Reader(reader_id, identity.user, identity.device, wire, now, client=client)


def query_id(request: Request, name: str) -> str | None:
    """An id from the query string, checked; None when absent. Raises InvalidId."""
    value = request.query_params.get(name)
    return None if value is None else check_id(value, name)
