"""Fixtures for everything that runs: a Strandline in this process, and real server processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from far import served
from rig import Rig, running
from server_process import ServerProcess


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Over memory, with a clock that stands still and an agent that says what the test tells it."""
    async with running() as made:
        yield made


@pytest.fixture
async def sqlite_rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """The same over a real SQLite file."""
    async with running(tmp_path / "chat.db") as made:
        yield made


@pytest.fixture
async def far() -> AsyncIterator[Rig]:
    """Over memory, with the remote agent ``far``."""
    async with served() as rig:
        yield rig


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start server processes on free ports with a SQLite file; they are killed (by pid) when the test is over."""
    started: list[ServerProcess] = []

    def start(**options: Any) -> ServerProcess:
        server = ServerProcess(tmp_path, **options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()
