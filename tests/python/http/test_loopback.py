"""The open development mode answers this machine, and nobody who only looks like it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import HTTPConnection

from strandline.errors import Forbidden
from strandline.http.auth import Identity, identity_dependency, open_on_loopback
from strandline.http.loopback import check_loopback, is_loopback
from strandline.http.problems import ProblemRoute


def make(user: str = "local") -> FastAPI:
    who = identity_dependency(open_on_loopback(user))
    router = APIRouter(route_class=ProblemRoute)

    @router.get("/me")
    async def me(identity: Identity = Depends(who)) -> list[str | None]:  # noqa: B008
        return [identity.user, identity.device]

    app = FastAPI()
    app.include_router(router)
    return app


Address = tuple[str, int | None] | None
HERE: Address = ("127.0.0.1", 8000)


async def call(
    url: str = "http://127.0.0.1:8000/me", *, client: tuple[str, int] = ("127.0.0.1", 5000), **headers: Any
) -> httpx.Response:
    transport = httpx.ASGITransport(app=make(), client=client)
    async with httpx.AsyncClient(transport=transport) as http:
        return await http.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})


def refused(answer: httpx.Response) -> str:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (403, "open-beyond-loopback")
    assert "jwt_bearer" in problem["detail"]
    detail = problem["detail"]
    assert isinstance(detail, str)
    return detail


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/me", "http://localhost/me", "http://[::1]:8000/me"])
async def test_this_machine_is_answered(url: str) -> None:
    assert (await call(url, strandline_device="tab-1")).json() == ["local", "tab-1"]


@pytest.mark.parametrize("client", ["::1", "::ffff:127.0.0.1", "127.9.9.9"])
async def test_every_loopback_address_is_this_machine(client: str) -> None:
    assert (await call(client=(client, 1))).status_code == 200


@pytest.mark.parametrize("client", ["192.168.1.7", "8.8.8.8", "::ffff:8.8.8.8", "fe80::1", "testclient", "0.0.0.0"])
async def test_another_client_is_refused(client: str) -> None:
    assert client in refused(await call(client=(client, 1)))


async def test_a_server_address_that_others_can_reach_is_refused() -> None:
    assert "192.168.1.7" in refused(await call("http://192.168.1.7:8000/me", host="localhost:8000"))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example@localhost",
        "0.0.0.0:8000",
        "127.1",
        "2130706433",
        "localhost.",
        "localhost:8000:1",
        "localhost, evil.example",
        "[::1",
        "[::ffff:8.8.8.8]",
        "",
        " ",
    ],
)
async def test_a_rebound_host_name_is_refused(host: str) -> None:
    assert "host" in refused(await call(host=host))


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173", "http://localhost"]
)
async def test_a_page_of_this_machine_may_ask_from_another_port(origin: str) -> None:
    assert (await call(origin=origin, referer=origin + "/chat?x=1")).status_code == 200


@pytest.mark.parametrize("header", ["origin", "referer"])
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "chrome-extension://localhost",
        "file://localhost",
        "//localhost",
        "http://[::1",
        "http://localhost:3000.evil.example",
        "http://localhost\\@evil.example",
        "",
    ],
)
async def test_a_foreign_page_is_refused(header: str, origin: Any) -> None:
    assert header.title() in refused(await call(**{header: origin}))


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": "::1", "x_forwarded_host": "localhost:3000"},  # the development proxy of Next.js
        {"x_forwarded_for": "127.0.0.1, ::ffff:127.0.0.1"},
        {"forwarded": 'for="[::1]:4711";host="localhost:3000";proto=http, for=127.0.0.1;by=127.0.0.1'},
        {"x_real_ip": "127.0.0.1"},
    ],
)
async def test_a_proxy_on_this_machine_may_speak_for_this_machine(headers: dict[str, Any]) -> None:
    assert (await call(**headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": "8.8.8.8"},
        {"x_forwarded_for": "127.0.0.1, 8.8.8.8"},
        {"x_forwarded_for": "8.8.8.8, 127.0.0.1"},
        {"x_forwarded_for": "unknown"},
        {"x_forwarded_for": ""},
        {"x_forwarded_host": "chat.example"},
        {"x_real_ip": "8.8.8.8"},
        {"forwarded": "for=8.8.8.8"},
        {"forwarded": "FOR = 8.8.8.8"},
        {"forwarded": "for=127.0.0.1, for=8.8.8.8;proto=https"},
        {"forwarded": "proto=https;for=8.8.8.8"},
        {"forwarded": 'for="[2001:db8::1]:4711"'},
        {"forwarded": "for=_hidden"},
        {"forwarded": "for=127.0.0.1;host=chat.example"},
        {"forwarded": "proto=https"},
        {"forwarded": ""},
    ],
)
async def test_a_proxy_that_speaks_for_strangers_is_refused(headers: dict[str, Any]) -> None:
    assert "proxy" in refused(await call(**headers))


def connection(server: Address, client: Address, *headers: tuple[bytes, bytes]) -> HTTPConnection:
    scope: dict[str, Any] = {"type": "http", "server": server, "client": client}
    return HTTPConnection({**scope, "headers": list(headers or ((b"host", b"localhost"),))})


@pytest.mark.parametrize(
    ("server", "client"),
    [(None, None), (("/run/chat.sock", None), None), (("/run/chat.sock", None), ("", 0)), (HERE, HERE)],
)
def test_a_unix_socket_is_this_machine(server: Address, client: Address) -> None:
    check_loopback(connection(server, client))


@pytest.mark.parametrize(
    ("server", "client"),
    [
        (None, ("8.8.8.8", 1)),
        (("/run/chat.sock", None), ("8.8.8.8", 1)),  # uvicorn takes it from X-Forwarded-For
        (HERE, None),
        (HERE, ("", 0)),
    ],
)
def test_an_unknown_or_foreign_client_is_refused(server: Address, client: Address) -> None:
    with pytest.raises(Forbidden):
        check_loopback(connection(server, client))


@pytest.mark.parametrize(
    "headers",
    [
        ((b"x-other", b"1"),),
        ((b"host", b"localhost"), (b"host", b"evil.example")),
        ((b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", b"https://evil.example")),
        ((b"host", b"localhost"), (b"x-forwarded-for", b"::1"), (b"x-forwarded-for", b"8.8.8.8")),
    ],
)
def test_a_header_that_is_missing_or_sent_twice_does_not_slip_through(headers: Any) -> None:
    with pytest.raises(Forbidden):
        check_loopback(connection(HERE, HERE, *headers))


async def test_a_test_client_is_no_exception_but_can_say_that_it_is_local() -> None:
    refused(await call("http://testserver/me", client=("testclient", 50000)))  # the defaults of Starlette's TestClient
    assert (await call("http://127.0.0.1/me", client=("127.0.0.1", 50000))).status_code == 200


async def test_the_check_cannot_be_overridden_with_the_dependency() -> None:
    auth = open_on_loopback()
    app = FastAPI()
    who = identity_dependency(auth)

    @app.get("/me", response_model=None)
    async def me(identity: Identity = Depends(who)) -> str:  # noqa: B008
        return identity.user

    app.dependency_overrides[auth.dependency] = lambda: "anyone"
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as http:
        with pytest.raises(Forbidden):
            await http.get("/me")
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert (await http.get("/me")).json() == "anyone"


def test_loopback_is_a_short_list() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.255.255.255", "::1", "[::1]", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "128.0.0.1", "a.localhost", "127.1", "0x7f000001")))
