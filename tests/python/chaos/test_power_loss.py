"""The power goes at any moment of a store's life: with ``durability="full"`` everything that was acknowledged is there,
with "normal" a prefix of it, never half of a commit; and what comes afterwards is written on sound ground."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from committing_child import batch, check_whole
from power import Files, Window, files_of

from strandline.stores import SqliteStore, schema
from strandline.stores.sqlite import _SWEEPS

COMMITS = 60
NORMAL, FULL = 1, 2


async def lived(path: Path, durability: schema.Durability, chance: random.Random) -> list[Window]:
    """A store's life, as windows. Checkpoints come now and then; a reader may keep the WAL from starting over."""
    windows: list[Window] = []
    store = SqliteStore(path, durability=durability)
    await store.open()
    assert store._writer is not None and store._sweeper is not None
    # What the disk is told is what the connections are set to; what was promised is what the durability says.
    ((syncs,),) = await store._writer.execute_fetchall("PRAGMA synchronous")
    ((checkpoint_syncs,),) = await store._sweeper.execute_fetchall("PRAGMA synchronous")
    assert checkpoint_syncs >= NORMAL
    # What a start writes is synced, whatever the durability.
    synced, promised, packed = files_of(path), 0, 0
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            for number in range(1, COMMITS + 1):
                await store.commit(batch(number, packed))
                packed = number if number % 7 == 0 else packed
                written = files_of(path)
                if written.wal[:32] != synced.wal[:32]:
                    windows.append(Window("WAL starts over", synced, written, promised, number))
                    synced = Files(synced.db, written.wal[:32] + synced.wal[32:])
                windows.append(Window("commit", synced, written, promised, number))
                if durability == "full":
                    promised = number
                if syncs == FULL:
                    synced = written
                if chance.random() < 0.15:
                    windows += await _checkpointed(store, path, synced, promised, number, reader)
                    synced, promised = files_of(path), number
    finally:
        await store.close()
    return windows


async def _checkpointed(
    store: SqliteStore, path: Path, synced: Files, promised: int, number: int, reader: sqlite3.Connection
) -> list[Window]:
    before = files_of(path)
    held = number % 2 == 0
    if held:
        reader.execute("BEGIN").execute("SELECT count(*) FROM meta").fetchone()
    for _ in range(_SWEEPS):  # of which one does something
        await store.checkpoint()
    after = files_of(path)
    assert after.wal == before.wal
    assert after.db != before.db
    if held:
        reader.execute("COMMIT")
    return [
        Window("WAL synced for a checkpoint", synced, before, promised, number),
        Window("checkpoint", before, after, number, number),
    ]


@pytest.mark.parametrize("durability", ["full", "normal"])
async def test_what_the_disk_had_promised_is_there_when_the_power_comes_back(
    memory_path: Path,
    scale: Callable[[int, int], int],
    seed: int,
    say: Callable[[str], None],
    durability: schema.Durability,
) -> None:
    chance = random.Random(seed)
    crashes, kinds, fewer = 0, set(), 0
    for life in range(scale(2, 20)):
        (memory_path / f"{life}").mkdir()
        windows = await lived(memory_path / f"{life}" / "chat.db", durability, chance)
        for number in range(scale(40, 500)):
            window = chance.choice(windows)
            path = memory_path / "after.db"
            window.crash(chance).put(path)
            context = f"{window.what}, crash {number} of life {life}, seed {seed}"
            store = SqliteStore(path, durability=durability)
            try:
                found = await store.open()
                assert window.least <= found <= window.most, context
                await check_there(store, found, renewed=durability == "normal")
                # Life goes on: nothing of what was lost comes back.
                await store.commit(batch(found + 1, 0))
                await store.close()
                assert await store.open() == found + 1
                await check_there(store, found + 1, renewed=False)
            except BaseException as error:
                error.add_note(context)
                raise
            finally:
                await store.close()
            crashes += 1
            fewer += found < window.most
            kinds.add(window.what)
    assert {"commit", "checkpoint", "WAL starts over"} <= kinds
    assert fewer > crashes / 20
    kept = "every acknowledged commit is there" if durability == "full" else "a prefix of the commits is there"
    say(f"{crashes} losses of power: {kept}, none by half")


async def check_there(store: SqliteStore, number: int, *, renewed: bool) -> None:
    """All of the batches up to ``number``. ``renewed``: the cursors of before may name events that are gone."""
    await check_whole(store, number)
    assert all((record.epoch != "abcd1234") == renewed for record in await store.sessions())
