"""Processes that die: really killed while they commit, or while they turn a journal into segments."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from committing_child import SESSIONS, check_whole
from store_samples import entry, events, segment, session

from strandline.errors import StoreDamaged
from strandline.stores import SqliteStore, schema
from strandline.stores.inspect import Inspector
from strandline.stores.port import Batch

CHILD = Path(__file__).with_name("committing_child.py")
EVER = 2**62


def start(path: Path, durability: str = "full") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(path), durability], stdout=subprocess.PIPE, text=True, bufsize=1
    )


def kill_after(child: subprocess.Popen[str], lines: int, pause: float) -> list[str]:
    """Read some lines, wait a moment, ``kill -9``; return every line that the child got out."""
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(lines)]
    time.sleep(pause)
    child.kill()
    said += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    return [line.strip() for line in said if line.endswith("\n")]


async def test_what_was_acknowledged_before_a_kill_is_there_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    dice = random.Random(7)
    acknowledged = 0
    for _ in range(5):
        said = kill_after(start(path), dice.randint(3, 60), dice.random() * 0.01)
        assert said[0] == f"open {acknowledged}" or int(said[0].split()[1]) == acknowledged + 1
        acknowledged = int(said[-1].split()[-1])
        with Inspector(path) as inspector:
            for name in SESSIONS:
                seqs = [seq for seq, _ in inspector.events(name)]
                assert seqs in (list(range(1, 2 * acknowledged + 1)), list(range(1, 2 * acknowledged + 3)))

    store = SqliteStore(path)
    number = await store.open()
    # The one batch after the last acknowledged may have been committed too, but then as a whole.
    assert number in (acknowledged, acknowledged + 1)
    await check_whole(store, number)
    await store.close()


async def test_a_kill_at_any_moment_of_the_start_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    store = SqliteStore(path)
    await store.open()
    for number in range(1, 41):
        await store.commit(
            Batch(number, entries=tuple(entry(f"j{n}", number * 50 - 49, number * 50) for n in range(9)))
        )
    await store.close()
    for pause in (0.12, 0.16, 0.2, 0.24):
        kill_after(start(path), 0, pause)
    store = SqliteStore(path, lock_wait=10)
    assert await store.open() >= 40
    for n in range(9):
        found = await store.events(f"j{n}", 0, EVER)
        assert found == events(range(1, 2001))
    await store.close()


async def test_recovery_that_ends_between_two_slices_is_carried_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "chat.db")
    await store.open()
    for number in range(1, 31):
        await store.commit(Batch(number, entries=(entry("s1", number * 10 - 9, number * 10),)))
    await store.commit(Batch(31, segments=(segment("s1", range(101, 151)),)))
    await store.close()

    monkeypatch.setattr(schema, "_SLICE_BYTES", 4000)
    settle, calls = schema._settle, []

    def settle_and_die(*args: object) -> None:
        settle(*args)  # type: ignore[arg-type]
        calls.append(args)
        if len(calls) == 4:
            raise SystemExit

    monkeypatch.setattr(schema, "_settle", settle_and_die)
    with pytest.raises(SystemExit):
        schema.prepare(store.path, "full")
    with Inspector(store.path) as inspector:
        assert inspector.events("s1") == events(range(1, 301))

    monkeypatch.setattr(schema, "_settle", settle)
    assert await store.open() == 31
    assert await store.events("s1", 0, EVER) == events(range(1, 301))
    assert await store.expire(EVER) < 40
    await store.close()


@pytest.mark.parametrize(("durability", "renewed"), [("full", False), ("normal", True)])
async def test_an_unclean_end_makes_cursors_stale_only_without_fsync(
    tmp_path: Path, durability: str, renewed: bool
) -> None:
    path = tmp_path / "chat.db"
    kill_after(start(path, durability), 5, 0)
    store = SqliteStore(path)
    await store.open()
    epochs = {record.id: record.epoch for record in await store.sessions()}
    assert len(epochs) == 3
    if renewed:
        assert len({*epochs.values(), "abcd1234"}) == 4
        assert all(len(epoch) == 8 and epoch.isalnum() and epoch == epoch.lower() for epoch in epochs.values())
    else:
        assert set(epochs.values()) == {"abcd1234"}
    await store.close()
    # Only once: the new epochs stay.
    await store.open()
    assert {record.id: record.epoch for record in await store.sessions()} == epochs
    await store.close()


async def test_a_clean_end_keeps_epochs_with_either_durability(tmp_path: Path) -> None:
    rounds: tuple[schema.Durability, ...] = ("normal", "full", "normal")
    for durability in rounds:
        store = SqliteStore(tmp_path / "chat.db", durability=durability)
        number = await store.open()
        await store.commit(Batch(number + 1, sessions=(session(),)))
        await store.close()
    await store.open()
    assert await store.session("s1") == session()
    await store.close()


async def test_a_journal_that_cannot_be_read_is_refused_not_skipped(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "chat.db")
    await store.open()
    assert store._writer is not None
    await store._writer.execute_fetchall("INSERT INTO journal VALUES (1, 'nonsense')")
    await store.close()
    with pytest.raises(StoreDamaged, match="journal"):
        await store.open()
