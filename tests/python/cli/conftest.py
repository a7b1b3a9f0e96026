"""A directory with a small application, and a demo server that the tests of one module share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_processes import Server, server

from strandline.cli import main

APPLICATION = """\
import asyncio
from fastapi import Request
from strandline import Run, Strandline, open_on_loopback

chat = Strandline("chat.db", auth=open_on_loopback())

@chat.agent
async def reply(run: Run):
    for number in range(1, int(run.prompt()[-1]["content"]) + 1):
        yield f"{number} "
        await asyncio.sleep(0.05)

app = chat.app()

async def signed_in(request: Request):
    return "ann" if request.headers.get("authorization") == "Bearer s3cret" else None

guarded = Strandline("guarded.db", auth=signed_in)
guarded.agent(reply)

async def plain(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"plain"})
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server("demo", "--no-browser", "--db", "demo.db", cwd=tmp_path_factory.mktemp("demo")) as started:
        yield started


@pytest.fixture
def at_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The application's directory as working directory of this process; what is imported there is forgotten again."""
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield here
    for name in set(sys.modules) - known:
        if str(here) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Run a command in this process: its exit code, stdout and stderr."""
    monkeypatch.delenv("STRANDLINE_TOKEN", raising=False)

    def said(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(each) for each in args])
        out, err = capsys.readouterr()
        return code, out, err

    return said
