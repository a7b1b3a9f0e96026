"""Problem documents and request bodies: every error has the same shape, and no body is larger or odder than allowed."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from strandline import errors
from strandline.core.ids import check_id
from strandline.http.cors import cors
from strandline.http.problems import MAX_DEPTH, ProblemRoute, problem_response, read_json

ORIGIN = "https://app.example"
LIMIT = 1000


def make(endpoint: Callable[..., Any], *, path: str = "/", methods: tuple[str, ...] = ("GET", "POST")) -> FastAPI:
    """An application that includes the route two routers deep, behind CORS, as a user's would."""
    inner = APIRouter(route_class=ProblemRoute)
    inner.add_api_route(path, endpoint, methods=list(methods))
    outer = APIRouter()
    outer.include_router(inner)
    app = FastAPI()
    cors(app, ORIGIN)
    app.include_router(outer, prefix="/api")
    return app


async def call(app: FastAPI, method: str = "GET", path: str = "/api/", **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    headers = {"Origin": ORIGIN} | options.pop("headers", {})
    async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as http:
        return await http.request(method, path, headers=headers, **options)


def raising(error: Exception) -> FastAPI:
    async def endpoint() -> None:
        raise error

    return make(endpoint)


def echoing(*, optional: bool = False) -> FastAPI:
    async def endpoint(request: Request) -> dict[str, Any]:
        return await read_json(request, LIMIT, optional=optional)

    return make(endpoint)


def every_error(tree: type[errors.StrandlineError] = errors.StrandlineError) -> Iterator[type[errors.StrandlineError]]:
    yield tree
    for child in tree.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every_error(child)


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.code)
async def test_every_error_is_a_problem_document_that_passes_through_cors(kind: type[errors.StrandlineError]) -> None:
    answer = await call(raising(kind("what to do")))
    assert answer.status_code == kind.status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    problem = answer.json()
    detail = problem.pop("detail")
    assert problem == {
        "type": f"urn:strandline:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
    }
    assert ("retry-after" in answer.headers) == (kind.status in (429, 503))
    assert ("www-authenticate" in answer.headers) == (kind.status == 401)
    assert (detail == "what to do") == (kind.status != 500)


@pytest.mark.parametrize(("seconds", "header"), [(None, "1"), (0.2, "1"), (2.1, "3"), (30, "30")])
def test_retry_after_is_whole_seconds_and_never_too_early(seconds: float | None, header: str) -> None:
    assert problem_response(errors.TooMany("full", retry_after=seconds)).headers["retry-after"] == header


def test_an_error_can_have_its_own_code_and_challenge() -> None:
    refused = errors.Unauthorized("expired", code="token-refused", challenge='Bearer error="invalid_token"')
    answer = problem_response(refused)
    assert json.loads(answer.body)["type"] == "urn:strandline:token-refused"  # type: ignore[arg-type]
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_an_unexpected_exception_is_logged_and_its_text_kept_inside(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "strandline.http"):
        answer = await call(raising(KeyError("/srv/secret.db")))
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret" not in answer.text
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    [record] = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)
    assert record.__dict__["action"] == "request-failed"


async def test_errors_for_the_caller_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    await call(raising(errors.NotFound("no such session")))
    assert not [record for record in caplog.records if record.name.startswith("strandline")]


async def test_an_http_exception_stays_the_applications_own() -> None:
    answer = await call(raising(HTTPException(418, "teapot", headers={"X-Own": "1"})))
    assert (answer.status_code, answer.json(), answer.headers["x-own"]) == (418, {"detail": "teapot"}, "1")
    assert (await call(raising(errors.NotFound("x")), "DELETE")).status_code == 405


async def test_an_error_in_a_dependency_is_a_problem_document() -> None:
    def nobody() -> None:
        raise errors.Unauthorized("sign in")

    async def endpoint(_: None = Depends(nobody)) -> None: ...

    assert (await call(make(endpoint))).json()["code"] == "unauthorized"


async def test_a_dependency_with_yield_sees_the_error_and_can_roll_back() -> None:
    seen: list[str] = []

    async def transaction() -> AsyncIterator[None]:
        try:
            yield
        except errors.Conflict:
            seen.append("rolled back")
            raise
        seen.append("committed")

    async def endpoint(_: None = Depends(transaction)) -> None:
        raise errors.Conflict("no")

    assert (await call(make(endpoint))).status_code == 409
    assert seen == ["rolled back"]


async def test_validation_names_the_fields_and_not_the_values() -> None:
    async def endpoint(limit: int = Query(), after: str = Query(max_length=3)) -> None: ...

    answer = await call(make(endpoint), path="/api/?limit=private&after=secrets")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid-request")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "query.limit" in problem["detail"]
    assert "query.after" in problem["detail"]
    assert "private" not in answer.text
    assert "secrets" not in answer.text


async def test_validation_of_a_huge_request_is_answered_shortly() -> None:
    async def endpoint(n: list[int] = Query()) -> None: ...  # noqa: B008

    answer = await call(make(endpoint), path="/api/?" + "&".join(["n=x"] * 500))
    assert "and 490 more" in answer.json()["detail"]
    assert len(answer.text) < 2000


async def test_an_id_that_cannot_be_one_is_a_422() -> None:
    async def endpoint(name: str) -> str:
        return check_id(name, "session id")

    answer = await call(make(endpoint, path="/{name}"), path="/api/a%20b")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-id")


async def test_an_error_after_the_answer_began_cuts_the_connection() -> None:
    async def endpoint() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            raise errors.Conflict("too late")

        return StreamingResponse(body())

    with pytest.raises(errors.Conflict):
        await call(make(endpoint))


async def test_an_application_may_handle_the_errors_itself() -> None:
    app = raising(errors.NotFound("x"))

    @app.exception_handler(errors.StrandlineError)
    async def own(_request: Request, error: errors.StrandlineError) -> StreamingResponse:
        return StreamingResponse(iter([error.code.encode()]), status_code=299)

    assert (await call(app)).status_code == 299


# --- request bodies -------------------------------------------------------------------------------------------------


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; charset=utf-8"])
async def test_a_json_object_is_read(media_type: str) -> None:
    answer = await call(echoing(), "POST", content=b'{"id": "a"}', headers={"Content-Type": media_type})
    assert answer.json() == {"id": "a"}


async def test_a_body_in_pieces_without_a_length_is_read() -> None:
    answer = await call(echoing(), "POST", content=pieces(b'{"id"', b': "\xc3', b'\xa9"}'), headers=JSON)
    assert answer.json() == {"id": "é"}


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
@pytest.mark.parametrize("optional", [False, True])
async def test_a_body_that_is_not_called_json_is_refused(media_type: str, optional: bool) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    answer = await call(echoing(optional=optional), "POST", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")


@pytest.mark.parametrize("headers", [{}, JSON])
async def test_an_optional_body_may_be_left_out(headers: dict[str, str]) -> None:
    assert (await call(echoing(optional=True), "POST", headers=headers)).json() == {}
    refused = await call(echoing(), "POST", headers=headers)
    assert refused.status_code == (400 if headers else 415)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b'{"id": "a",}', "line 1 column"),
        (b'{"id": NaN}', "char 7"),
        (b'{"id": "\xff"}', "UTF-8"),
        (b'{"id": "\\ud800"}', "surrogate"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"{}"', "must be a JSON object"),
    ],
)
async def test_a_body_that_is_no_json_object_is_a_400_that_says_where(body: bytes, hint: str) -> None:
    answer = await call(echoing(), "POST", content=body, headers=JSON)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (400, "bad-request")
    assert hint in problem["detail"]


def nested(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


async def test_the_depth_is_bounded_so_that_what_is_read_can_be_written() -> None:
    assert (await call(echoing(), "POST", content=nested(MAX_DEPTH), headers=JSON)).status_code == 200
    for levels in (MAX_DEPTH + 1, MAX_DEPTH + 50):
        answer = await call(echoing(), "POST", content=nested(levels), headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
        assert "levels" in answer.json()["detail"]


async def test_many_flat_containers_are_not_deep() -> None:
    body = json.dumps({"a": [[]] * 200}).encode()
    assert (await call(echoing(), "POST", content=body, headers=JSON)).status_code == 200


async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413)):
        body = b'{"a":"' + b"x" * (size - 8) + b'"}'
        assert len(body) == size
        assert (await call(echoing(), "POST", content=body, headers=JSON)).status_code == status
        in_pieces = pieces(body[:500], body[500:])
        answer = await call(echoing(), "POST", content=in_pieces, headers=JSON)
        assert answer.status_code == status
    assert answer.json()["code"] == "body-too-large"
    assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_a_declared_length_is_refused_before_anything_is_read() -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    for optional in (False, True):
        headers = JSON | {"Content-Length": str(10**30)}
        answer = await call(echoing(optional=optional), "POST", content=unread(), headers=headers)
        assert answer.status_code == 413


async def test_an_endless_body_is_read_no_further_than_the_limit() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 100
            yield b"x" * 100

    answer = await call(echoing(), "POST", content=endless(), headers=JSON | {"Content-Length": "10"})
    assert answer.status_code == 413
    assert read <= LIMIT + 200


async def test_a_client_that_goes_away_is_not_a_fault_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(errors.BadRequest) as caught:
        await read_json(Request(scope, receive), LIMIT)
    assert not isinstance(caught.value, ClientDisconnect)
    assert not caplog.records


@pytest.mark.parametrize("implementation", ["h11", "httptools"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_client_that_sends_to_the_end_can_read_the_413_and_go_on(implementation: str, declared: bool) -> None:
    """A server that closed at once would reset the connection, and the client would see no answer at all."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(echoing(), http=implementation, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    body = b"x" * 8_000_000
    length = f"Content-Length: {len(body)}" if declared else "Transfer-Encoding: chunked"
    head = f"POST /api/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode()
    sent = body if declared else b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    after = b"POST /api/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        async with asyncio.timeout(10):
            for request, status in ((head + sent, b"413"), (after, b"200")):
                writer.write(request)
                await writer.drain()
                assert status in await reader.readline()
                rest = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(rest.lower().partition(b"content-length:")[2].split()[0]))
    finally:
        writer.close()
        await writer.wait_closed()
        server.should_exit = True
        await serving
