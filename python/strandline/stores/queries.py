"""Finds the SQL: named statements in ``sql/queries.sql``, migrations in ``sql/migrations``. Knows no database.

Strandline writes all of its SQL itself; no text of a user is ever part of a statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any, TypeVar

_T = TypeVar("_T")

_HEADER = re.compile(r"^-- ([a-z_]+) --$", re.MULTILINE)
_ROW = re.compile(r"VALUES (\([?, ]+\))")
_MIGRATION = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

BEGINNING = (2**63 - 1, "")
"""The place before the first of all sessions, for ``list_sessions``."""

_BLOCKS = (64, 8, 1)
"""How many rows one statement may take. Three sizes: few steps for many rows, and few statements to keep prepared."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. ``version`` is what ``user_version`` says after it."""

    version: int
    name: str
    script: str


def read_queries(text: str) -> dict[str, str]:
    """The statements of a queries file by name. Raises ValueError for a name that is given twice."""
    pieces = _HEADER.split(text)
    found: dict[str, str] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if name in found:
            raise ValueError(f"query {name!r} is defined twice")
        lines = [line for line in body.splitlines() if line.strip() and not line.startswith("--")]
        found[name] = "\n".join(lines)
    return found


def read_migrations() -> tuple[Migration, ...]:
    """Every migration that this version of Strandline knows, oldest first, numbered from 1 without a gap."""
    found = []
    for entry in (files("strandline.stores") / "sql" / "migrations").iterdir():
        match = _MIGRATION.fullmatch(entry.name)
        if match is not None:
            found.append(Migration(int(match[1]), entry.name, entry.read_text("utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


SQL = read_queries((files("strandline.stores") / "sql" / "queries.sql").read_text("utf-8"))
MIGRATIONS = read_migrations()


@cache
def repeated(name: str, rows: int) -> str:
    """The statement ``name`` with its row of values written ``rows`` times."""
    return _ROW.sub(lambda match: "VALUES " + ", ".join([match[1]] * rows), SQL[name], count=1)


def in_blocks(
    name: str, records: Sequence[_T], row: Callable[[_T], tuple[Any, ...]]
) -> Iterator[tuple[str, Iterator[tuple[Any, ...]]]]:
    """Arguments for a few ``executemany`` calls that together run ``name`` for all records, in order.

    Rows are made when they are taken, which is in the thread of the connection.
    """
    start = 0
    for size in _BLOCKS:
        stop = start + (len(records) - start) // size * size
        if stop > start:
            yield repeated(name, size), _flat(records[start:stop], row, size)
        start = stop


def _flat(records: Sequence[_T], row: Callable[[_T], tuple[Any, ...]], size: int) -> Iterator[tuple[Any, ...]]:
    """The values of ``size`` rows at a time."""
    for start in range(0, len(records), size):
        yield tuple(chain.from_iterable(map(row, records[start : start + size])))
