"""Errors as RFC 9457 problem documents (PROTOCOL §10), and the one way in which a request body is read (§2.2).

A route that uses ``ProblemRoute`` answers its own errors, inside the application's middleware: so they pass through
CORS, and they do not depend on exception handlers of the application it is mounted in. (An application that registers
an exception handler for StrandlineError on purpose still gets it.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from strandline.core.ids import InvalidId
from strandline.errors import (
    BadRequest,
    BodyTooLarge,
    StrandlineError,
    Unauthorized,
    Unprocessable,
    UnsupportedMediaType,
)

MEDIA_TYPE = "application/problem+json"

# orjson reads 1,024 levels but writes only 254: what is accepted here must still be storable, inside an envelope.
MAX_DEPTH = 100

_SAFE_TEXT = "This is a fault of the server, not of the request. It has been logged."
_FIELDS_NAMED = 10

logger = logging.getLogger("strandline.http")


HANDED_OVER = "strandline.handed-over"
"""Where in the scope a response that lasts for hours leaves itself, to be called by ``ProblemRoute``."""


class ProblemRoute(APIRoute):
    """Answers StrandlineError, validation errors and unexpected exceptions with a problem document.

    A stream is called once the route has returned and its dependencies are let go of: else every reader would hold the
    frames of FastAPI's routing (5 kB), and whatever a dependency with ``yield`` holds, such as a database session.

    HTTPException is left to the application: an ``auth`` dependency may raise it. Exceptions are caught outside the
    dependencies' exit stack, so that a dependency with ``yield`` still sees them (and rolls back).
    """

    @staticmethod
    def counted(code: str) -> None:
        """Told the code of every problem document; see ``problem_route``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def readable(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:  # here, or FastAPI's own handler would answer it
                raise Unprocessable(_fields(error), code="invalid-request") from error
            except InvalidId as error:
                raise Unprocessable(str(error), code="invalid-id") from error

        return readable

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = streaming = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        handed_over: list[ASGIApp] = []
        scope[HANDED_OVER] = handed_over
        try:
            await super().handle(scope, receive, watched)
            if handed_over:
                streaming = True
                await handed_over.pop()(scope, receive, watched)
        except HTTPException:
            raise
        except Exception as error:
            if started:  # nothing can be said any more; the server logs it and cuts the connection
                raise
            if streaming and _claimed(scope, error):  # which FastAPI's routing has not seen
                raise
            self.counted(error.code if isinstance(error, StrandlineError) else StrandlineError.code)
            await problem_response(error)(scope, receive, send)


def _claimed(scope: Scope, error: Exception) -> bool:
    """Whether the application has a handler of its own for this error."""
    handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
    return any(kind in handlers for kind in type(error).__mro__)


def problem_route(counted: Callable[[str], None]) -> type[ProblemRoute]:
    """A ``ProblemRoute`` that tells ``counted`` the code of every problem document."""
    return type("CountedProblemRoute", (ProblemRoute,), {"counted": staticmethod(counted)})


def problem_response(error: Exception) -> Response:
    """The problem document for an error. What is a fault of the server is logged, and its text is kept inside."""
    problem = error if isinstance(error, StrandlineError) else StrandlineError(_SAFE_TEXT)
    detail = problem.detail
    if problem.status == 500:
        logger.error(
            "a request failed: %s", error, exc_info=error, extra={"action": "request-failed", "code": problem.code}
        )
        detail = _SAFE_TEXT  # the message may name files and settings; those are for the log
    headers = {"Cache-Control": "no-store"}
    if problem.status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after or 1)))
    if isinstance(problem, Unauthorized):
        headers["WWW-Authenticate"] = problem.challenge
    document = {
        "type": f"urn:strandline:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "code": problem.code,
        **problem.members,
    }
    return Response(orjson.dumps(document), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


def called_json(request: Request) -> bool:
    """Whether the request says that its body is JSON."""
    return _media_type(request) == "application/json"


async def read_json(request: Request, limit: int, *, optional: bool = False) -> dict[str, Any]:
    """Read a JSON object of at most ``limit`` bytes; with ``optional``, no body at all is ``{}``.

    Raises UnsupportedMediaType (415), BodyTooLarge (413, at once where Content-Length says so) or BadRequest (400).
    The rest of a body that is too large is not read: uvicorn discards it after the answer, so that the client can
    send it to the end and still read the answer.
    """
    if not called_json(request) and not optional:
        raise _not_json(_media_type(request))
    body = await read_body(request, limit)
    if not body and optional:
        return {}
    if not called_json(request):
        raise _not_json(_media_type(request))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("The request body must be a JSON object")
    if _too_deep(value, body):
        raise BadRequest(f"The request body is nested more than {MAX_DEPTH} levels deep")
    return value


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, limit: int) -> bytes:
    """Read at most ``limit`` bytes, whatever they are. Raises BodyTooLarge and BadRequest as ``read_json`` does."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for piece in request.stream():
            if len(body) + len(piece) > limit:
                raise _too_large(limit)
            body += piece
    except ClientDisconnect:
        raise BadRequest("The connection was closed before the whole request body had come") from None
    return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {limit} bytes, which is all that is read here")


def _not_json(media_type: str) -> UnsupportedMediaType:
    seen = f"'{media_type[:100]}'" if media_type else "nothing"
    return UnsupportedMediaType(f"Send the body as JSON, with 'Content-Type: application/json'; this one says {seen}")


def _too_deep(value: dict[str, Any], body: bytes) -> bool:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _fields(error: RequestValidationError) -> str:
    """Which fields were wrong and how, without the values that were sent."""
    found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    more = len(found) - _FIELDS_NAMED
    return "; ".join(found[:_FIELDS_NAMED]) + (f"; and {more} more" if more > 0 else "")
