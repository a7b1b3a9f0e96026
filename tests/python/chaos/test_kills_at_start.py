"""``kill -9`` at every statement of a start: while a file of the first schema is brought forward, while a journal
becomes segments, while epochs are renewed; and again while the next start carries on. What is there in the end is
what a start without deaths makes of the same file."""

from __future__ import annotations

import random
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from committing_child import batch
from forking import Aim, Nursery
from store_samples import OLD_SESSION, copied, entry, message, put_old, run, segment, session

from strandline.stores import SqliteStore, lines, schema
from strandline.stores.port import Batch
from strandline.stores.queries import MIGRATIONS, SQL
from strandline.stores.rows import inflate, journal_row, merged

SLICE = 20_000
EVER = 2**62


async def left_by_a_crash(folder: Path, durability: schema.Durability) -> Path:
    """A long journal, part of which is in segments already, and the mark of a deleted session; all of it in the WAL."""
    store = SqliteStore(folder / "open.db", durability=durability)
    await store.open()
    for number in range(1, 21):
        await store.commit(batch(number, number - number % 7 - 7 if number % 7 == 0 else 0))
    await store.commit(Batch(21, entries=(entry("gone", 1, 3),), sessions=(session("gone", last_seq=3),)))
    await store.commit(Batch(22, entries=(entry("kept", 1, 3),), segments=(segment("gone", [1, 2]),)))
    await store.commit(Batch(23, deleted=("gone",)))
    copied(folder / "open.db", folder / "left.db")
    await store.close()
    return folder / "left.db"


async def left_by_an_old_version(folder: Path, durability: schema.Durability) -> Path:
    """A file of the first schema, whose server has crashed."""
    with closing(schema.connect(folder / "open.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        schema.migrate(db, 0, MIGRATIONS[:1])
        for number in range(30):
            name = f"s{number}"
            db.execute(OLD_SESSION, (name,))
            put_old(db, message(f"v{number}", session=name), run(f"r{number}", session=name))
            entries = (entry(name, 1, 30, f"r{number}"), entry("s0", 31 + number, 31 + number))
            db.execute(SQL["put_journal"], journal_row(number + 1, entries))
        db.execute(SQL["put_meta"], ("process", durability))
        copied(folder / "open.db", folder / "left.db")
    return folder / "left.db"


def picture(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Everything that a file holds, however it came to be laid out; epochs apart."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found: dict[str, Any] = {"schema": db.execute("PRAGMA user_version").fetchall()}
        for table in ("meta", "messages", "runs", "journal", "erased"):
            found[table] = sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
        columns = [name for _, name, *_ in db.execute("PRAGMA table_info(sessions)").fetchall() if name != "epoch"]
        found["sessions"] = db.execute(f"SELECT {', '.join(columns)} FROM sessions ORDER BY id").fetchall()
        for (name,) in db.execute("SELECT DISTINCT session FROM log").fetchall():
            blobs = db.execute("SELECT blob FROM log WHERE session = ?", (name,)).fetchall()
            found[f"log of {name}"] = merged((lines.unpack(inflate(blob)) for (blob,) in blobs), 0, EVER)
        return found, [epoch for (epoch,) in db.execute("SELECT epoch FROM sessions").fetchall()]


@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("left", [left_by_a_crash, left_by_an_old_version])
async def test_a_start_that_dies_at_any_statement_is_carried_on_by_the_next(
    nursery: Nursery,
    memory_path: Path,
    scale: Callable[[int, int], int],
    seed: int,
    say: Callable[[str], None],
    left: Any,
    durability: schema.Durability,
) -> None:
    file, log, path = await left(memory_path, durability), memory_path / "log", memory_path / "chat.db"

    def start(aim: Aim | None) -> int:
        return nursery.prepare(path, durability, SLICE, log, aim).wait()

    copied(file, path)
    assert start(None) == 0
    expected, _ = picture(path)
    assert len(expected["log of s0"]) >= 40
    assert expected["journal"] == []
    statements = next(n for n in count(1) if not dies(start, copied(file, path), Aim("", 10 * n))) * 10
    assert statements > 30
    chance = random.Random(seed)
    kills = 0
    for first in range(1, statements, scale(8, 1)):
        for after in [0.0] * scale(1, 1) + [chance.uniform(0, 0.0005) for _ in range(scale(0, 2))]:
            copied(file, path)
            aim: Aim | None = Aim("", first, after)
            while (code := start(aim)) != 0:
                assert code == -signal.SIGKILL, log.read_text()
                kills += 1
                # The next one dies too, or not.
                aim = Aim("", chance.randint(1, statements)) if chance.random() < 0.6 else None
            found, epochs = picture(path)
            assert found == expected, f"killed at statement {first}, {after} s after it began (seed {seed})"
            assert ("abcd1234" in epochs) == (durability == "full")
            assert len(set(epochs)) == (1 if durability == "full" else len(epochs))
    assert kills > statements / scale(8, 1) / 2
    say(f"{kills} kills within a start of {statements} statements, each carried on")


def dies(start: Callable[[Aim], int], path: Path, aim: Aim) -> bool:
    assert path.exists()
    return start(aim) != 0
