"""``/healthz`` and ``/readyz`` (PROTOCOL §13): what they say at the start, in an outage and at the end, and to whom."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from rig import Client, Rig, running
from server_process import ServerProcess
from strandline import Strandline, open_on_loopback
from strandline.errors import Unauthorized
from strandline.settings import Settings
from strandline.stores import SqliteStore
from strandline.testing import ScriptedAgent, until

Serve = Callable[..., ServerProcess]
Said = tuple[int, dict[str, Any]]

ALIVE: Said = (200, {"alive": True})
READY: Said = (200, {"ready": True})


def unready(reason: str) -> Said:
    return 503, {"ready": False, "reason": reason}


async def look(client: Client, path: str = "/api") -> tuple[Said, Said]:
    """Alive, ready; and what every such answer has in common."""
    said = []
    for name in ("healthz", "readyz"):
        answer = await client.ask("GET", f"{path}/{name}")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        assert (answer.status == 503) is ("retry-after" in answer.headers)
        said.append((answer.status, answer.json))
    return said[0], said[1]


def made(tmp_path: Path, auth: Any = None, **settings: Any) -> Strandline:
    store = SqliteStore(tmp_path / "chat.db", lock_wait=20)
    chat = Strandline(store, auth=auth or open_on_loopback(), settings=Settings(shutdown_grace=0, **settings))
    chat.agent(ScriptedAgent("x"))
    return chat


async def test_they_are_under_the_prefix_and_at_the_root_of_the_application(tmp_path: Path) -> None:
    chat = made(tmp_path)
    async with chat.lifespan():
        app = Client(chat.app(prefix="/v1"))
        assert await look(app, "") == await look(app, "/v1") == (ALIVE, READY)
        assert (await app.ask("GET", "/api/readyz")).status == 404
        assert await look(Client(chat.app(prefix="")), "") == (ALIVE, READY)
        outer = FastAPI()
        outer.include_router(chat.router, prefix="/api")
        assert (await Client(outer).ask("GET", "/readyz")).status == 404, "the application's own root is its own"
        assert await look(Client(outer)) == (ALIVE, READY)


async def test_probes_need_no_identity_and_may_ask_for_the_head_only(tmp_path: Path) -> None:
    async def nobody(request: Request) -> str:
        raise Unauthorized("Sign in.")

    chat = made(tmp_path, nobody)
    async with chat.lifespan():
        app = Client(chat.app())
        assert (await app.ask("GET", "/api/sessions")).status == 401
        assert await look(app, "") == (ALIVE, READY)
        assert (await app.ask("HEAD", "/readyz")).status == 200
        assert (await app.ask("POST", "/readyz")).status == 405


async def test_the_open_mode_answers_probes_from_elsewhere(tmp_path: Path) -> None:
    chat = made(tmp_path)
    async with chat.lifespan():
        app = Client(chat.app(), {"x-forwarded-for": "203.0.113.9"})
        assert (await app.ask("GET", "/api/sessions")).status == 403
        assert await look(app) == (ALIVE, READY)


async def test_the_health_that_there_was_before_is_gone(rig: Rig) -> None:
    assert (await rig.ask("GET", "/api/health")).status == 404


async def test_until_the_store_is_open_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    """An earlier process still holds the file: the start waits for it."""
    earlier = SqliteStore(tmp_path / "chat.db")
    await earlier.open()
    chat = made(tmp_path)
    app, over = Client(chat.app()), asyncio.Event()

    async def live() -> None:
        async with chat.lifespan():
            await over.wait()

    before = await look(app)
    living = asyncio.create_task(live())
    await until(lambda: chat._running)
    meanwhile = await look(app)
    await earlier.close()
    try:
        assert before == meanwhile == (ALIVE, unready("starting"))
        await until(lambda: chat.service.ready)
        assert await look(app) == (ALIVE, READY)
    finally:
        over.set()
        await living


async def test_an_outage_of_the_store_is_not_ready_once_commits_were_given_up(rig: Rig) -> None:
    _, call = await rig.begun()
    rig.store.fail()
    call.say("x")
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    await rig.clock.advance(5)
    assert await look(rig) == (ALIVE, READY), "nothing is lost yet: it is tried again"
    for _ in range(10):
        await rig.clock.advance(1)
    assert await look(rig) == (ALIVE, unready("store-unavailable"))
    rig.store.mend()
    await rig.clock.advance(3)
    await until(lambda: rig.chat.service.ready)
    assert await look(rig) == (ALIVE, READY)


async def test_a_commit_that_hangs_is_not_ready_after_the_patience(rig: Rig) -> None:
    answer, call = await rig.begun()
    rig.store.hang()
    call.say("x")
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    await rig.clock.advance(9.9)
    assert await look(rig) == (ALIVE, READY)
    await rig.clock.advance(0.2)
    assert await look(rig) == (ALIVE, unready("store-unavailable"))
    rig.store.mend()
    await answer.until_text("x")
    await rig.clock.jump(60)
    assert await look(rig) == (ALIVE, READY)


async def test_only_a_journal_that_has_died_is_dead(rig: Rig) -> None:
    answer, call = await rig.begun()
    rig.sessions.journal._publish = None  # a defect
    call.say("x")
    await answer.end()
    assert await look(rig) == ((503, {"alive": False}), unready("store-unavailable"))


async def test_from_the_exit_signal_on_it_is_not_ready_whatever_the_store_does() -> None:
    async with running(shutdown_grace=5.0) as rig:
        answer, call = await rig.begun()
        draining = rig.chat.service.drain()
        assert rig.chat.service.unready == "shutting-down", "at once, not when the drain gets its turn"
        assert await look(rig) == (ALIVE, unready("shutting-down"))
        rig.chat.service._journal.healthy = False
        assert await look(rig) == (ALIVE, unready("shutting-down"))
        rig.chat.service._journal.healthy = True
        call.finish()
        await answer.end()
        await draining


# ---------------------------------------------------------------------- real processes


def asked(server: ServerProcess, name: str) -> Said:
    answer = httpx.get(f"{server.url}/{name}", timeout=20)
    return answer.status_code, answer.json()


def test_a_file_that_somebody_else_holds_locked_turns_a_server_unready_until_it_is_free(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(env={"STRANDLINE_COMMIT_PATIENCE": "0"})
    assert (asked(server, "healthz"), asked(server, "readyz")) == (ALIVE, READY)
    other = sqlite3.connect(tmp_path / "chat.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "count to 2 every 0 ms"}]}
    refused = httpx.post(f"{server.url}/api/chat", json={"id": "c", "messages": [message]}, timeout=20)
    assert (refused.status_code, refused.json()["code"]) == (503, "store-unavailable")
    assert (asked(server, "healthz"), asked(server, "readyz")) == (ALIVE, unready("store-unavailable"))
    other.execute("ROLLBACK")
    other.close()
    deadline = time.monotonic() + 20
    while asked(server, "readyz") != READY:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert httpx.post(f"{server.url}/api/chat", json={"id": "c", "messages": [message]}, timeout=20).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_probe_learns_of_the_exit_signal_on_the_connection_that_it_has(
    serve: Serve, number: signal.Signals
) -> None:
    server = serve(env={"STRANDLINE_SHUTDOWN_GRACE": "1"})
    assert server.process is not None
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "count to 100000 every 5 ms"}]}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=20) as kept,
        httpx.AsyncClient(base_url=server.url, timeout=20) as reading,
        reading.stream("POST", "/api/chat", json={"id": "c", "messages": [message]}),
    ):
        assert (await kept.get("/readyz")).json() == {"ready": True}
        server.process.send_signal(number)
        said: list[Said] = []
        while True:
            try:
                answer = await kept.get("/readyz")
            except httpx.TransportError:
                break  # uvicorn has closed what was idle
            said.append((answer.status_code, answer.json()))
    assert unready("shutting-down") in said, "no probe came in time"
    first = said.index(unready("shutting-down"))
    assert set(map(str, said[first:])) == {str(unready("shutting-down"))}
    assert said[:first] == [READY] * first
