"""What lies between a client and this server, for ``strandline doctor`` (PROTOCOL §12): a stream to be measured, and an
echo of what arrived. Made of the same response class and headers as the streams of chats, so what is measured is what
chats get."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from strandline.codecs import ai_sdk
from strandline.codecs.sse import OPENING, frame
from strandline.errors import NotFound, NotStarted, ShuttingDown, TooMany
from strandline.http.auth import Identity
from strandline.http.cors import REQUEST_HEADERS
from strandline.http.intake import ODD
from strandline.http.problems import problem_route, read_body
from strandline.http.stream import Stream, cursor_of
from strandline.http.wire import MESSAGE_HEADER, REPLAY_FULL, REPLAY_HEADER, REPLAY_TAIL, RUN_HEADER
from strandline.runtime.service import Service

MAX_PROBES = 8
PROBED_HEADERS = tuple(name for name in REQUEST_HEADERS if name not in ("Authorization", "Content-Type"))
"""The request headers that clients send and that a proxy may have dropped. Never one with a secret in it."""

_CURSOR = re.compile(r"probe\.([0-9]{1,3})", re.ASCII)
_LOOK = 0.5
"""Seconds after which a waiting stream notices that the server is shutting down."""


def router(service: Service, identify: Callable[..., Any]) -> APIRouter:
    """The routes, without prefix. An identity is needed; nothing of any session is shown."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    who = Depends(identify)
    taken = 0

    @contextmanager
    def place() -> Iterator[None]:
        nonlocal taken
        if taken >= MAX_PROBES:
            raise TooMany("The server is being measured by others just now.", code="too-many-readers", retry_after=5.0)
        taken += 1
        try:
            yield
        finally:
            taken -= 1

    def open_for_work() -> bool:
        try:
            return bool(service.sessions.accepting)
        except NotStarted:
            return False

    async def passed(seconds: float) -> bool:
        """Wait so long; False as soon as the server shuts down."""
        while seconds > 0 and open_for_work():
            await service.clock.sleep(min(seconds, _LOOK))
            seconds -= _LOOK
        return open_for_work()

    async def probes(after: int, of: int, interval: float, quiet: float) -> AsyncGenerator[bytes]:
        yield OPENING
        for number in range(after + 1, of + 1):
            if number > after + 1 and not await passed(interval):
                break
            probe = {"type": "probe", "n": number, "at": service.clock.now(), "of": of}
            yield frame(probe, f"probe.{number}")
        if await passed(quiet):
            yield frame({"type": "end"})
        else:
            yield frame({"type": "error", "errorText": "The server is shutting down.", "code": "shutting-down"})

    @routes.get("")
    async def measured(
        request: Request,
        identity: Identity = who,
        frames: Annotated[int, Query(ge=1, le=100)] = 20,
        interval: Annotated[int, Query(ge=10, le=5000)] = 100,
        quiet: Annotated[float, Query(ge=0, le=300)] = 0,
        heartbeats: bool = False,
    ) -> Response:
        if not service.sessions.accepting:
            raise ShuttingDown("The server is shutting down.")
        match = _CURSOR.fullmatch(cursor_of(request) or "")
        headers = {
            **ai_sdk.HEADERS,
            RUN_HEADER: "probe",
            MESSAGE_HEADER: "probe",
            REPLAY_HEADER: REPLAY_TAIL if match else REPLAY_FULL,
        }
        content = probes(int(match[1]) if match else 0, frames, interval / 1000, quiet)
        return Stream(content, service.settings, headers, place(), heartbeats=heartbeats)

    @routes.post("")
    async def echo(request: Request, identity: Identity = who) -> JSONResponse:
        body = await read_body(request, service.settings.max_body)
        arrived = {name: request.headers[name] for name in PROBED_HEADERS if name in request.headers}
        return JSONResponse(
            {
                "bytes": len(body),
                "headers": arrived,
                "http": request.scope["http_version"],
                "heartbeat": service.settings.heartbeat,
                "maxBody": service.settings.max_body,
            },
            headers={"Cache-Control": "no-store"},
        )

    @routes.api_route("", methods=["PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    @routes.api_route(
        "/{path:anything}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False
    )
    async def nothing_here(path: str = "", identity: Identity = who) -> Response:
        raise NotFound("There is no such route; see PROTOCOL.md §12.")

    return routes
