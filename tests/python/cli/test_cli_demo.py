"""``strandline demo``: a chat that anyone can try, on this machine only."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_processes import post, server, until

from strandline.cli import demonstration
from strandline.demo import agent, site
from strandline.stores import MemoryStore

BUILT = """<!doctype html><div id="root"></div><script type="module" src="./assets/index-abc.js"></script>"""


def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(site.demo_app(MemoryStore()))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    monkeypatch.setattr(site, "STATIC", tmp_path / "static")
    return client()


def build(static: Path) -> None:
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text(BUILT)
    (static / "assets" / "index-abc.js").write_text("export {};")
    (static / "assets" / "index-abc.css").write_text("body {}")
    (static / "assets" / "favicon-abc.svg").write_text("<svg/>")
    (static.parent / "secret.txt").write_text("not part of the page")


def test_it_serves_page_and_agent_and_says_where_and_what(tmp_path: Path) -> None:
    with server("demo", "--no-browser", cwd=tmp_path) as started:
        database = tmp_path / "data" / "strandline" / "demo.db"
        assert started.out.startswith(f"The Strandline demo runs on {started.url}\n")
        for command, _ in site.COMMANDS:
            assert command in started.out
        assert f"Conversations are kept in {database}" in started.out
        front = httpx.get(started.url, trust_env=False)
        assert front.status_code == 200
        assert ('id="root"' if site.page_is_built() else "npm run build -w demo") in front.text
        stream = post(started.api, "s", "m", "count to 3 every 1 ms", whole=True)
        assert "".join(re.findall(r'"delta":"([^"]*)"', stream)) == "1 2 3 "
        assert started.end(signal.SIGINT) == 0
        assert started.err == ""
        assert database.exists()


def test_the_browser_is_opened_where_there_is_a_display(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    with server("demo", cwd=tmp_path, BROWSER=f"{browser} %s", DISPLAY=":7") as started:
        assert until("the browser", lambda: opened.exists() and opened.read_text()) == started.url
    opened.unlink()
    with server("demo", "--no-browser", cwd=tmp_path, BROWSER=f"{browser} %s", DISPLAY=":7") as started:
        assert started.end(signal.SIGINT) == 0
    assert not opened.exists()


async def test_the_built_page_is_served_whole() -> None:
    assert site.page_is_built(), "make build (or make test) builds the page"
    page = client()
    front = await page.get("/")
    found = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', front.text)
    assert found
    for name in found:
        answer = await page.get(f"/{name}")
        assert (answer.status_code, answer.content) == (200, (site.STATIC / name).read_bytes())


async def test_without_the_built_page_it_says_how_to_build_it(page: httpx.AsyncClient) -> None:
    answer = await page.get("/")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "npm run build -w demo" in answer.text
    assert (await page.get("/assets/index-abc.js")).status_code == 404


async def test_a_page_that_is_built_meanwhile_appears(page: httpx.AsyncClient, tmp_path: Path) -> None:
    assert "not built" in (await page.get("/")).text
    build(tmp_path / "static")
    assert (await page.get("/")).text == BUILT
    assert (await page.get("/assets/index-abc.js")).status_code == 200


async def test_files_have_their_types_and_only_hashed_ones_are_kept(page: httpx.AsyncClient, tmp_path: Path) -> None:
    build(tmp_path / "static")
    for path, kind, kept in [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/index.html", "text/html; charset=utf-8", "no-cache"),
        ("/assets/index-abc.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/assets/index-abc.css", "text/css; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/assets/favicon-abc.svg", "image/svg+xml", "public, max-age=31536000, immutable"),
    ]:
        answer = await page.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["cache-control"] == kept
        again = await page.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304 if path != "/" else 200, kept)
        assert (await page.head(path)).status_code == 200


@pytest.mark.parametrize("path", ["/nope", "/assets/", "/assets/nope.js", "/..%2fsecret.txt", "/%2e%2e/secret.txt"])
async def test_anything_else_is_not_found(page: httpx.AsyncClient, tmp_path: Path, path: str) -> None:
    build(tmp_path / "static")
    assert (await page.get(path)).status_code == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com", ""])
def test_it_is_for_this_machine_only(say: Any, host: str) -> None:
    code, out, err = say("demo", "--host", host, "--no-browser")
    assert (code, out) == (2, "")
    assert "listens on this machine only" in err and "--host 127.0.0.1" in err


def test_a_port_that_was_asked_for_and_is_in_use_is_refused(say: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = say("demo", "--port", port, "--db", tmp_path / "d.db", "--no-browser")
    assert code == 3
    assert f"Port {port} on 127.0.0.1 is in use" in err


def test_without_a_port_the_next_free_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(demonstration, "PORT", port)
        found = demonstration._free("127.0.0.1", None)
        assert port < found[0].getsockname()[1] < port + 10
        for each in found:
            each.close()


def test_a_second_demo_on_one_file_says_what_to_do(tmp_path: Path, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRANDLINE_LOCK_WAIT", "0")
    with server("demo", "--no-browser", "--db", "d.db", cwd=tmp_path):
        code, _, err = say("demo", "--port", "0", "--no-browser", "--db", tmp_path / "d.db")
    assert code == 3
    assert "is in use by process" in err and "Is another `strandline demo` running?" in err
    assert "Traceback" not in err


def test_a_database_that_cannot_be_made_is_refused(tmp_path: Path, say: Any) -> None:
    code, _, err = say("demo", "--port", "0", "--no-browser", "--db", tmp_path / "absent" / "d.db")
    assert code == 3
    assert "The directory must exist" in err and "Traceback" not in err


def reply(session: httpx.Client) -> dict[str, Any] | None:
    """The last reply, once nothing is running."""
    found: dict[str, Any] = session.get("/messages").raise_for_status().json()
    return found["messages"][-1] if found["activeRun"] is None else None


def words(message: dict[str, Any] | None) -> str:
    return "".join(part["text"] for part in (message or {"parts": []})["parts"] if part["type"] == "text")


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[tuple[str, httpx.Client]]:
    """The API of a demo that runs, and its session ``s``."""
    with (
        server("demo", "--no-browser", cwd=tmp_path) as started,
        httpx.Client(base_url=f"{started.api}/sessions/s", trust_env=False) as session,
    ):
        yield started.api, session


@pytest.mark.parametrize(
    ("said", "tool", "given", "approved", "answer"),
    [
        ("delete a b.txt", "delete_file", {"path": "a b.txt"}, True, "`delete_file` is done."),
        ("send mail to Ada", "send_mail", {"to": "Ada", "subject": "Hello from the demo"}, False, "was not called"),
    ],
)
def test_it_asks_and_goes_on_when_somebody_has_decided(
    chat: tuple[str, httpx.Client], said: str, tool: str, given: Any, approved: bool, answer: str
) -> None:
    api, session = chat
    post(api, "s", "m", said, whole=True)
    (decision,) = session.get("/decisions").json()["decisions"]
    assert (decision["kind"], decision["tool"], decision["input"]) == ("approval", tool, given)
    assert answer not in words(reply(session))
    session.post(f"/decisions/{decision['id']}", json={"approved": approved}).raise_for_status()
    went_on = until("the rest of the reply", lambda: reply(session))
    assert answer in words(went_on)
    (call,) = [part for part in went_on["parts"] if part["type"] == f"tool-{tool}"]
    assert call["state"] == ("output-available" if approved else "output-denied")


def test_a_plan_heeds_what_it_is_told(chat: tuple[str, httpx.Client]) -> None:
    api, session = chat
    post(api, "s", "m", "plan 2 days in Rome")
    note = {"id": "n", "role": "user", "parts": [{"type": "text", "text": "more art"}]}
    session.post("/steer", json={"message": note}).raise_for_status()
    plan = until("the plan", lambda: reply(session))
    assert [part["id"] for part in plan["parts"] if part["type"] == "steering-message"] == ["n"]
    assert re.search(r"Noted, from day (1|2) on.*Day 2.*As you wished: \*more art\*\.\s*$", words(plan), re.DOTALL)


def test_research_is_done_by_two_agents_beside_it(chat: tuple[str, httpx.Client]) -> None:
    api, session = chat
    post(api, "s", "m", "research tides", whole=True)
    assert "2 of 2 came back" in words(reply(session))
    beside = session.get("/messages").json()["spawned"]
    assert [each["agent"] for each in beside] == ["web", "archive"]
    for each, pages in zip(beside, (12, 8), strict=True):
        (progress,) = [part["data"] for part in each["message"]["parts"] if part["type"] == "data-progress"]
        assert progress == {"label": "Pages read", "done": pages, "of": pages}
        assert words(each["message"]).startswith(f"{pages} pages about tides")


def test_what_it_says_the_agent_understands_is_what_the_agent_says() -> None:
    documented = re.findall(r"``([^`]+)``", (agent.__doc__ or "").split("Anything else")[0])
    assert [command for command, _ in site.COMMANDS] == [each for each in documented if each != "1 2 3 … N"]
