"""One server and one nginx with a server block for every way to it, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nginx_process import Nginx

from server_process import ServerProcess

Make = Callable[[Nginx], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxies")


@pytest.fixture(scope="module")
def nginx(folder: Path) -> Iterator[Nginx]:
    """Not started yet: the module adds its server blocks first."""
    made = Nginx(folder / "nginx")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def launch(folder: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start server processes that end with the module."""
    started: list[ServerProcess] = []

    def start(**options: object) -> ServerProcess:
        started.append(ServerProcess(folder, db=f"chat-{len(started)}.db", **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for server in started:
        server.kill()
