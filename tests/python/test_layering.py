"""Imports point one way: core ← codecs ← stores ← runtime ← agents, http ← cli; and the core is pure (DESIGN §4)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "python" / "strandline"

ROOMS = {
    "core": set(),
    "codecs": {"core"},
    "stores": {"core", "codecs"},
    "runtime": {"core", "codecs", "stores"},
    "saying": {"core"},
    "agents": {"core", "codecs", "stores", "runtime", "saying"},
    "http": {"core", "codecs", "stores", "runtime", "saying", "agents"},
    "remote": {"core", "saying"},
    "demo": {"core", "codecs", "stores", "runtime", "agents", "http"},
    "testing": {"core", "codecs", "stores", "runtime", "agents", "http"},
    "cli": {"core", "codecs", "stores", "runtime", "agents", "http", "demo", "remote"},
    "__main__": {"cli"},
}
EVERYWHERE = {"errors", "settings"}
IMPURE = {
    "asyncio", "threading", "time", "datetime", "random", "secrets", "os", "io", "pathlib", "socket", "sqlite3",
    "aiosqlite", "fastapi", "starlette", "uvicorn", "httpx", "logging", "orjson", "pydantic",
}  # fmt: skip

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room they reach into"
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_rooms_below_it(path: Path) -> None:
    room = room_of(path)
    below = ROOMS.get(room, set()) | {room}
    allowed = below if room == "core" else below | EVERYWHERE
    reached = {name.split(".")[1] for name in imported(path) if name.startswith("strandline.")}
    assert reached <= allowed, f"{room} must not import {sorted(reached - allowed)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.name)
def test_the_core_is_pure(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & IMPURE


def test_every_room_is_named_here() -> None:
    assert {room_of(path) for path in MODULES} <= ROOMS.keys() | EVERYWHERE


def test_the_codecs_do_no_input_or_output() -> None:
    found = {name for path in (PACKAGE / "codecs").glob("*.py") for name in imported(path)}
    assert not {name.split(".")[0] for name in found} & (IMPURE - {"orjson"})
