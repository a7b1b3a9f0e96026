"""docs/operations.md: what it lists exists, what exists is listed, and what it tells to do works on a real server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request

from rig import Rig, running
from server_process import ServerProcess
from strandline.cli import main
from strandline.cli.arguments import parser
from strandline.runtime.counters import GAUGES, Counters, Histogram, Tally
from strandline.settings import Settings, variable

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text("utf-8")
Serve = Callable[..., ServerProcess]


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found
    return found


# ---------------------------------------------------------------------- what it lists


def test_the_counters_that_exist_are_listed_with_their_kind() -> None:
    listed = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section("Counters"), re.MULTILINE)
    kinds = {}
    for field in dataclasses.fields(Counters):
        value = getattr(Tally().reading(), field.name)
        if field.name in GAUGES:
            kinds[field.name] = "now"
        elif isinstance(value, Histogram):
            kinds[field.name] = "distribution"
        else:
            kinds[field.name] = "by" if isinstance(value, dict) else "total"
    assert {name: kind.split(" ")[0] for name, kind in listed} == kinds
    assert [name for name, _ in listed] == list(kinds), "in the order of the reading"


@pytest.mark.parametrize("name", ["runs_ended", "resumes"])
def test_the_keys_of_a_counter_are_listed(name: str) -> None:
    [row] = re.findall(rf"^\| `{name}` \| [^|]+ \| (.*) \|$", section("Counters"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == set(getattr(Tally().reading(), name))


def test_settings_variables_and_codes_that_are_named_exist() -> None:
    names = {field.name for field in dataclasses.fields(Settings)}
    assert set(re.findall(r"STRANDLINE_[A-Z_]+", PAGE)) <= {variable(name) for name in names}
    cells = re.findall(r"^\| [^|]+ \| ([^|]+) \| ([^|]+) \|$", section("Limits"), re.MULTILINE)[2:]
    limits = {name for settings, _ in cells for name in re.findall(r"`([a-z_]+)`", settings)}
    assert len(limits) > 8 and limits <= names
    errors = (DOCS / "errors.md").read_text("utf-8")
    codes = {code for _, answer in cells for code in re.findall(r"`([a-z-]+)`", answer)}
    assert codes and all(f"`{code}`" in errors for code in codes)


def test_the_figures_that_are_named_are_the_defaults() -> None:
    after = re.findall(r"`(STRANDLINE_[A-Z_]+)`,? \(?(\d+) s\b", PAGE.replace("\n", " "))
    before = re.findall(r"(\d+) s \(`(STRANDLINE_[A-Z_]+)`\)", PAGE)
    named = [*after, *((name, seconds) for seconds, name in before)]
    assert len(named) >= 3
    for name, seconds in named:
        assert getattr(Settings(), name.removeprefix("STRANDLINE_").lower()) == float(seconds), name


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("strandline ")]
    found += [json.loads(text)[1:] for text in re.findall(r"command: (\[.*\])", blocks("yaml")[0])]
    assert len(found) > 5
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_can_be_given(words: list[str]) -> None:
    parser().parse_args(words)


@pytest.mark.parametrize("block", [*blocks("yaml"), *blocks("ini")])
async def test_every_probe_asks_for_something_that_is_there(block: str, rig: Rig) -> None:
    app = rig.chat.app()
    paths = set(re.findall(r"path: (/\w+)", block)) | set(re.findall(r"127\.0\.0\.1:8000(/\w+)", block))
    assert paths
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for path in paths:
            assert (await client.get(path)).status_code == 200, path


# ---------------------------------------------------------------------- what it tells to do


def samples(text: str) -> dict[str, float]:
    """Prometheus's text format, strictly."""
    found: dict[str, float] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        match = re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[\w.+-]+"\})?) ([\d.e+-]+)', line)
        assert match is not None, line
        assert match[1] not in found
        found[match[1]] = float(match[2])
    return found


async def test_the_route_for_prometheus_says_what_the_counters_say_and_only_to_the_scraper() -> None:
    async def only_the_scraper(request: Request) -> None:
        if request.headers.get("authorization") != "Bearer scraper":
            raise HTTPException(401)

    async with running() as rig:
        [code] = blocks("python")
        app = FastAPI()
        exec(
            compile(code, "operations.md", "exec"), {"app": app, "chat": rig.chat, "only_the_scraper": only_the_scraper}
        )
        answer, call = await rig.begun()
        call.say("one").finish()
        await answer.end()
        await rig.begun("d", id="u2")
        assert (await rig.resume("nowhere")).status == 204
        await rig.ask("GET", "/api/sessions/nobody")
        reading = rig.chat.counters()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get("/metrics")).status_code == 401
            said = await client.get("/metrics", headers={"authorization": "Bearer scraper"})
        assert said.headers["content-type"].startswith("text/plain")
        found = samples(said.text)
        assert found["strandline_commits"] == reading.commits > 0
        assert found["strandline_active_runs"] == found["strandline_readers"] == 1
        assert found['strandline_runs_ended{kind="completed"}'] == 1
        assert found['strandline_resumes{kind="none"}'] == 1
        assert found['strandline_requests_refused{kind="not-found"}'] == 1
        assert found["strandline_batch_events_sum"] == reading.events
        buckets = [
            found[f'strandline_batch_events_bucket{{le="{le}"}}'] for le in (*reading.batch_events.bounds, "+Inf")
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == found["strandline_batch_events_count"] == reading.batch_events.count


def text_of(message: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in message["parts"])


def numbers(to: int) -> str:
    return "".join(f"{number} " for number in range(1, to + 1))


@contextlib.contextmanager
def reading(server: ServerProcess, session: str, text: str) -> Iterator[Iterator[str]]:
    """The lines of a reply."""
    message = {"id": f"{session}-u", "role": "user", "parts": [{"type": "text", "text": text}]}
    body = {"id": session, "messages": [message]}
    with httpx.stream("POST", f"{server.url}/api/chat", json=body, timeout=20) as answer:
        assert answer.status_code == 200
        yield answer.iter_lines()


def until_number(lines: Iterator[str], number: int) -> tuple[str, str]:
    """Read until so many numbers have come: the text so far, and the newest cursor."""
    said, cursor = "", ""
    for line in lines:
        if line.startswith("data: {"):
            said += json.loads(line[6:]).get("delta", "")
        elif line.startswith("id: "):
            cursor = line[4:]
            if said.count(" ") >= number:
                return said, cursor
    raise AssertionError(said)


def test_a_copy_of_a_live_database_is_whole_and_can_be_served(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve()
    with reading(server, "done", "count to 50 every 0 ms") as lines:
        assert list(lines)[-2] == "data: [DONE]"
    with reading(server, "going", "count to 100000 every 2 ms") as lines:
        shown, cursor = until_number(lines, 20)
        files = {path.name for path in tmp_path.glob("chat.db*")}
        assert files == set(re.findall(r"^\| `(chat\.db[\w.-]*)`", section("What runs"), re.MULTILINE))
        [command] = [line for line in blocks("sh")[0].splitlines() if line.startswith("sqlite3 ")]
        program, name, statement = shlex.split(command)
        assert (program, name) == ("sqlite3", "chat.db")
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as db:
            db.execute(statement.replace("/backup/", f"{tmp_path}/copy-"))
        more, _ = until_number(lines, 20)
        assert more, "the server has gone on meanwhile"
    copy = tmp_path / "copy-chat.db"
    assert main(["new-epoch", "--db", str(copy)]) == 0
    capsys.readouterr()
    restored = serve(db="copy-chat.db")
    done, going = (httpx.get(f"{restored.url}/api/chat/{session}/messages").json() for session in ("done", "going"))
    assert text_of(done["messages"][1]) == numbers(50)
    [run] = going["runs"].values()
    assert (run["status"], run["reason"]) == ("lost", "process-lost")
    kept = text_of(going["messages"][1])
    assert kept.startswith(shown), "all that was acknowledged before the copy was made"
    assert kept == numbers(kept.count(" "))
    # A position that a browser holds from the server that went on: told to load anew, never "finished".
    headers = {"Last-Event-ID": cursor, "Strandline-Client": "shim/0.1.0; ai=7"}
    answer = httpx.get(f"{restored.url}/api/chat/going/stream", headers=headers)
    assert '"code":"resync"' in answer.text


def test_what_was_freed_is_given_back_to_the_system_as_the_page_says(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with reading(server, "large", "flood") as lines:
        assert list(lines)[-2] == "data: [DONE]"
    assert httpx.delete(f"{server.url}/api/sessions/large").status_code == 204
    server.terminate()
    assert {path.name for path in tmp_path.glob("chat.db*")} == {"chat.db", "chat.db.lock"}
    before = (tmp_path / "chat.db").stat().st_size
    assert "`sqlite3 chat.db VACUUM`" in PAGE
    with contextlib.closing(sqlite3.connect(tmp_path / "chat.db", isolation_level=None)) as db:
        db.execute("VACUUM")
    assert (tmp_path / "chat.db").stat().st_size < before / 10
    server.start()
    deadline = time.monotonic() + 10
    while httpx.get(f"{server.url}/readyz").status_code != 200:
        assert time.monotonic() < deadline
    with reading(server, "again", "count to 2 every 0 ms") as lines:
        assert list(lines)[-2] == "data: [DONE]"
