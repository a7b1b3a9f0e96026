"""The log is an interface: every line has an action with a stable name, and docs/operations.md lists all of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "python" / "strandline").rglob("*.py"))
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")

LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}
IDS = {"session", "run", "reader", "batch", "task"}
FIGURES = {"seconds", "grace", "runs", "again", "left", "segments", "status", "reason", "usage", "code"}


@dataclass(frozen=True)
class Logged:
    where: str
    level: str
    logger: str
    action: str
    extras: frozenset[str]


def literal(value: ast.expr | None) -> str:
    assert isinstance(value, ast.Constant) and isinstance(value.value, str)
    return value.value


def calls(path: Path) -> Iterator[Logged]:
    tree = ast.parse(path.read_text("utf-8"))
    named: dict[str, ast.expr] = {}
    loggers: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = node.value
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "logging.getLogger":
                loggers[node.targets[0].id] = literal(node.value.args[0])
    assert set(loggers) <= {"logger"}, f"{path.name}: a logger is called `logger`"
    # In the order of the source, so that a name means what was last given to it.
    for node in sorted(
        (node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Call)), key=lambda node: node.lineno
    ):
        if isinstance(node, ast.Assign):
            if isinstance(node.targets[0], ast.Name):
                named[node.targets[0].id] = node.value
            continue
        where = f"{path.name}:{node.lineno}"
        if isinstance(node.func, ast.Name) and node.func.id == "json_line":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            level = ast.unparse(node.args[0]).removeprefix("logging.").lower()
            yield Logged(where, level, "strandline.cli", literal(given["action"]), frozenset())
            continue
        if not (isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
            continue
        if ast.unparse(node.func.value) != "logger":
            assert "log" not in ast.unparse(node.func.value).lower(), f"{where}: log through `logger`"
            continue
        extra = next((keyword.value for keyword in node.keywords if keyword.arg == "extra"), None)
        if isinstance(extra, ast.Name):
            extra = named[extra.id]
        assert isinstance(extra, ast.Dict), f"{where} says nothing in `extra`"
        keys: dict[str, ast.expr] = {}
        for key, value in zip(extra.keys, extra.values, strict=True):
            if key is None:
                assert isinstance(value, ast.Name)
                more = named[value.id]
                assert isinstance(more, ast.Dict)
                keys |= {literal(name): each for name, each in zip(more.keys, more.values, strict=True)}
            else:
                keys[literal(key)] = value
        assert "action" in keys, f"{where} has no action"
        action = literal(keys.pop("action"))
        yield Logged(where, LEVELS[node.func.attr], loggers["logger"], action, frozenset(keys))


LOGGED = [each for path in SOURCES for each in calls(path)]


def table() -> dict[str, tuple[str, str, frozenset[str]]]:
    """action → level, logger, extras, as the page has them."""
    section = PAGE.split("## The log\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| `([^`]+)` \|([^|]*)\|", section, re.MULTILINE)
    assert len(rows) == len({row[0] for row in rows}), "an action is listed twice"
    return {name: (level, logger, frozenset(re.findall(r"`(\w+)`", extras))) for name, level, logger, extras in rows}


def test_the_page_lists_exactly_the_actions_that_exist() -> None:
    assert len(LOGGED) > 25
    assert set(table()) == {each.action for each in LOGGED}


@pytest.mark.parametrize("each", LOGGED, ids=lambda each: f"{each.action} {each.where}")
def test_an_action_has_one_level_one_logger_and_the_fields_that_the_page_says(each: Logged) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", each.action)
    assert table()[each.action] == (each.level, each.logger, each.extras)


@pytest.mark.parametrize("each", LOGGED, ids=lambda each: f"{each.action} {each.where}")
def test_a_line_names_ids_and_figures_and_nothing_else(each: Logged) -> None:
    """No content, no claims, no tokens: what else may be in `extra` is decided here."""
    assert each.extras <= IDS | FIGURES
