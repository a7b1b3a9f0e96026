"""CORS: browsers on other origins can use every header that the protocol needs, and nothing is opened by accident."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from strandline.errors import Misconfigured
from strandline.http.cors import cors

APP = "https://app.example"


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.example")


def make(origins: Any = APP, **options: Any) -> FastAPI:
    app = FastAPI()
    cors(app, origins, **options)

    @app.get("/")
    async def root() -> dict[str, bool]:
        return {"ok": True}

    return app


def names(value: str) -> set[str]:
    return {name.strip().lower() for name in value.split(",")}


async def preflight(app: FastAPI, *, origin: str = APP, method: str = "POST", headers: str = "") -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    async with client(app) as http:
        return await http.options("/", headers=asked)


async def test_a_preflight_allows_every_header_that_clients_send() -> None:
    answer = await preflight(
        make(),
        headers="authorization, content-type, idempotency-key, last-event-id, strandline-client, strandline-device,"
        " x-run-id",
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert names(answer.headers["access-control-allow-methods"]) == {"get", "post", "patch", "delete"}
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_preflight_refuses_other_headers_methods_and_origins() -> None:
    assert (await preflight(make(), headers="x-secret")).status_code == 400
    assert (await preflight(make(), method="PUT")).status_code == 400
    refused = await preflight(make(), origin="https://evil.example")
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


async def test_an_answer_exposes_the_headers_that_clients_read() -> None:
    async with client(make()) as http:
        answer = await http.get("/", headers={"Origin": APP})
    assert names(answer.headers["access-control-expose-headers"]) == {
        "strandline-run",
        "strandline-message",
        "strandline-replay",
        "retry-after",
        "x-vercel-ai-ui-message-stream",
    }


async def test_options_add_to_what_clients_need() -> None:
    app = make(
        [APP, "http://localhost:3000"],
        allow_methods=["PUT"],
        allow_headers=["X-Tenant"],
        expose_headers=["X-Trace"],
        allow_credentials=True,
        max_age=5,
    )
    answer = await preflight(app, origin="http://localhost:3000", method="PUT", headers="x-tenant, strandline-client")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-max-age"] == "5"
    async with client(app) as http:
        exposed = (await http.get("/", headers={"Origin": APP})).headers["access-control-expose-headers"]
    assert {"x-trace", "strandline-run"} <= names(exposed)


async def test_everyone_may_be_let_in_without_credentials() -> None:
    assert (await preflight(make("*"), origin="https://any.example")).status_code == 200


@pytest.mark.parametrize("options", [{"origins": "*"}, {"origins": (), "allow_origin_regex": ".*"}])
def test_every_origin_with_credentials_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="allow_credentials"):
        make(allow_credentials=True, **options)


def test_a_pattern_that_means_something_may_go_with_credentials() -> None:
    make((), allow_origin_regex=r"https://[a-z]+\.example", allow_credentials=True)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example/",
        "https://app.example/chat",
        "app.example",
        "https://",
        "https://APP.example",
        "https://app.example:443",
        "https://user@app.example",
        "https://app.example:port",
        "null",
        "",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(Misconfigured, match="is not an origin"):
        make([origin])


def test_no_origin_at_all_is_refused() -> None:
    with pytest.raises(Misconfigured, match="at least one origin"):
        make([])
