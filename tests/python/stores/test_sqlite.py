"""What is particular to the SQLite store: its lock, its commits, its WAL."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from store_samples import (
    content_of,
    entry,
    events,
    message,
    noise,
    run,
    segment,
    session,
    sql,
    whole_batch,
)

from strandline.errors import StoreInUse, StoreTooNew
from strandline.stores import SqliteStore
from strandline.stores.inspect import Inspector
from strandline.stores.port import Batch, Entry, Segment
from strandline.stores.queries import MIGRATIONS

EVER = 2**62


# ------------------------------------------------------------------------------------------------ one process


async def test_a_second_process_is_told_who_has_the_file_and_what_to_do(store: SqliteStore, path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from strandline.errors import StoreInUse\n"
        "from strandline.stores import SqliteStore\n"
        "try:\n    asyncio.run(SqliteStore(sys.argv[1], lock_wait=0.1).open())\n"
        "except StoreInUse as error:\n    sys.stdout.write(str(error))\n"
    )
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert f"process {os.getpid()}" in run.stdout
    assert "--workers 2" in run.stdout
    assert "--reload" in run.stdout
    await store.commit(whole_batch())


async def test_another_name_for_the_file_is_the_same_file(store: SqliteStore, path: Path) -> None:
    alias = path.parent / "alias.db"
    alias.symlink_to(path)
    with pytest.raises(StoreInUse):
        await SqliteStore(alias, lock_wait=0).open()


async def test_the_lock_is_awaited(store: SqliteStore, path: Path) -> None:
    await store.commit(whole_batch())
    successor = SqliteStore(path, lock_wait=10)
    opening = asyncio.create_task(successor.open())
    await asyncio.sleep(0.1)
    assert not opening.done()
    await store.close()
    assert await opening == 1
    await successor.close()


async def test_an_opening_that_is_cancelled_or_fails_gives_the_lock_back(store: SqliteStore, path: Path) -> None:
    waiting = asyncio.create_task(SqliteStore(path, lock_wait=10).open())
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await store.close()
    for turns in range(12):
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(0.001 * turns)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
            await store.close()
    sql(path, "PRAGMA user_version = 9999")
    with pytest.raises(StoreTooNew):
        await store.open()
    sql(path, f"PRAGMA user_version = {MIGRATIONS[-1].version}")
    await store.open()


async def test_a_store_can_be_used_in_one_event_loop_after_another(path: Path) -> None:
    store = SqliteStore(path)

    async def use(number: int) -> None:
        assert await store.open() == number - 1
        await asyncio.gather(
            store.commit(Batch(number, entries=(entry("s1", number, number),))),
            store.checkpoint(truncate=True),
            store.expire(1),
        )
        await store.close()

    for number in (1, 2):
        await asyncio.to_thread(asyncio.run, use(number))


# ------------------------------------------------------------------------------------------------ commits


async def test_connections_are_set_up_for_durability_and_for_deletion(path: Path) -> None:
    for durability, level in (("full", 2), ("normal", 1)):
        store = SqliteStore(path, durability=durability)  # type: ignore[arg-type]
        await store.open()
        assert store._writer is not None
        for pragma, value in (("synchronous", level), ("secure_delete", 1), ("wal_autocheckpoint", 0)):
            assert list(await store._writer.execute_fetchall(f"PRAGMA {pragma}")) == [(value,)]
        await store.close()


async def test_a_commit_of_entries_is_one_call(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store._writer is not None
    real, calls = store._writer._execute, []

    async def counted(*args: object, **named: object) -> object:
        calls.append(args)
        return await real(*args, **named)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(store._writer, "_execute", counted)
    await store.commit(Batch(1, entries=tuple(entry(f"s{n}", 1, 50) for n in range(20))))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("size", "kind"),
    [(900, "text"), (990, "text"), (1100, "blob"), (65_000, "blob"), (66_000, "text"), (9_000_000, "text")],
)
async def test_parts_of_common_length_are_compressed(store: SqliteStore, path: Path, size: int, kind: str) -> None:
    record = message(parts=({"text": "✓" + "ab" * (size // 2)},))
    await store.commit(Batch(1, messages=(record, message("v2"))))
    assert sql(path, "SELECT typeof(parts) FROM messages ORDER BY version") == [(kind,), ("text",)]
    assert await store.messages("s1", ["v2", "v1"]) == [message("v2"), record]
    with Inspector(path) as inspector:
        assert inspector.messages("s1") == [record, message("v2")]


# ------------------------------------------------------------------------------------------------ cancellation


@pytest.mark.parametrize("turns", range(8))
async def test_a_commit_survives_the_cancellation_of_its_caller(path: Path, turns: int) -> None:
    store = SqliteStore(path)
    await store.open()
    batch = whole_batch()
    committing = asyncio.create_task(store.commit(batch))
    for _ in range(turns):
        await asyncio.sleep(0)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    if turns:
        await store.close()  # waits for it
        assert await store.open() == 1
        assert await store.session("s1") == batch.sessions[0]
    await store.commit(batch)
    assert await store.events("s1", 0, EVER) == events([1, 2, 3])
    await store.close()


def test_a_commit_that_is_torn_down_with_its_event_loop_is_whole_or_not_there(path: Path) -> None:
    store = SqliteStore(path)

    async def leave(turns: int) -> None:
        number = await store.open()
        again = asyncio.ensure_future(
            store.commit(Batch(number + 1, sessions=(session(),), segments=(segment("s1", [number + 1]),)))
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait({again})
        await store.commit(Batch(number + 1, segments=(segment("s1", [number + 1]),)))
        await store.close()

    for turns in range(10):
        asyncio.run(leave(turns))

    async def check() -> None:
        assert await store.open() == 10
        assert await store.events("s1", 0, EVER) == events(range(1, 11))
        await store.close()

    asyncio.run(check())


# ------------------------------------------------------------------------------------------------ the WAL


async def test_a_checkpoint_is_made_at_every_twentieth_call(store: SqliteStore, path: Path) -> None:
    event = noise(1)
    await store.commit(Batch(1, entries=(Entry("s1", 1, (event,)),)))
    before = content_of(path)
    for _ in range(2):
        for _ in range(19):
            await store.checkpoint()
        assert content_of(path) == before
        await store.checkpoint()
        assert len(content_of(path)) > len(before)
        before = content_of(path)
        await store.commit(Batch(store._last + 1, entries=(Entry("s1", 2, (event,)),)))  # type: ignore[operator]


async def test_a_checkpoint_is_made_when_the_wal_has_grown(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strandline.stores.sqlite._GROWTH", 100_000)
    sizes = []
    for number in range(1, 7):
        await store.commit(Batch(number, entries=(Entry("s1", number, (noise(number),)),)))
        await store.checkpoint()
        sizes.append(len(content_of(path)))
    # The WAL starts over after a checkpoint, inside a file that stays as long as it was.
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3] == sizes[4]


async def test_the_wal_does_not_grow_without_bound(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strandline.stores.sqlite._SWEEPS", 1)
    wal = path.with_name("chat.db-wal")
    for number in range(1, 301):
        await store.commit(Batch(number, entries=(Entry("s1", number, (noise(number),)),)))
        if number % 20 == 0:
            await store.checkpoint()
    assert 0 < wal.stat().st_size < 3_000_000
    await store.checkpoint(truncate=True)
    assert wal.stat().st_size == 0


async def test_a_long_wal_is_emptied_between_two_commits(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = path.with_name("chat.db-wal")
    for number in range(1, 51):
        await store.commit(Batch(number, entries=(Entry("s1", number, (noise(number),)),)))
    long = wal.stat().st_size
    monkeypatch.setattr("strandline.stores.sqlite._LONG_WAL", 100)
    monkeypatch.setattr("strandline.stores.sqlite._SWEEPS", 1)
    async with store._turn:  # as a running commit holds it
        sweeping = asyncio.create_task(store.checkpoint())
        done, _ = await asyncio.wait({sweeping}, timeout=0.1)
        assert not done
    await sweeping
    # Now everything is copied, and the next commit starts the WAL over instead of making it longer.
    for number in range(51, 91):
        await store.commit(Batch(number, entries=(Entry("s1", number, (noise(number),)),)))
    assert wal.stat().st_size == long


async def test_what_trimming_frees_is_written_over_in_the_same_commit(store: SqliteStore, path: Path) -> None:
    wal = path.with_name("chat.db-wal")
    pages = []
    for number in range(1, 31):
        before = wal.stat().st_size
        trim = number - 10 if number > 10 else None
        await store.commit(Batch(number, entries=(Entry("s1", number, (noise(number),)),), trim=trim))
        pages.append((wal.stat().st_size - before) // 4096)
    # A row is about 11 pages; if they were wiped after the new row had found its place, it would be twice as many.
    assert max(pages[15:]) <= max(pages[2:10]) + 6


async def test_deleted_content_is_wiped_from_the_files(store: SqliteStore, path: Path) -> None:
    secret = b"the-secret-words"
    await store.commit(Batch(1, entries=(Entry("s1", 1, (b'"%b"' % secret,)),)))
    await store.commit(Batch(2, messages=(message(parts=({"text": secret.decode()},)),)))
    await store.checkpoint(truncate=True)
    assert secret in content_of(path)
    await store.commit(Batch(3, messages=(message(parts=()),), trim=1))
    await store.checkpoint(truncate=True)
    assert secret not in content_of(path)
    assert content_of(path.with_name("chat.db-wal")) == b""


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_deleted_session_is_wiped_from_the_file_with_what_the_journal_had_of_it(
    path: Path, crashed: bool
) -> None:
    secret = "the-secret-words"
    line = orjson.dumps({"type": "appended", "at": 1, "run": "r1", "text": secret})
    kept = orjson.dumps({"type": "appended", "at": 1, "run": "r2", "text": "kept"})
    store = SqliteStore(path)
    await store.open()
    await store.commit(
        Batch(
            1,
            entries=(Entry("s1", 1, (line,)), Entry("s2", 1, (kept,))),
            sessions=(session(title=secret), session("s2")),
            messages=(message(parts=({"text": secret},), metadata={"m": secret}),),
            runs=(run(error=secret, usage={"u": secret}),),
            segments=(segment("s1", [2]),),
        )
    )
    await store.checkpoint(truncate=True)
    assert secret.encode() in content_of(path)
    await store.commit(Batch(2, deleted=("s1",)))
    if not crashed:
        await store.commit(Batch(3, segments=(Segment("s2", "r2", 1, ((1, kept),)),), trim=2))
    await store.close()  # without the trimming, as after a crash: the start settles what the journal holds
    if crashed:
        assert secret.encode() in content_of(path)
        await store.open()
        await store.close()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["chat.db", "chat.db.lock"]
    assert secret.encode() not in content_of(path)
    assert sql(path, "SELECT count(*) FROM erased", "SELECT count(*) FROM journal") == [(0,), (0,)]
    await store.open()
    assert await store.events("s2", 0, EVER) == [(1, kept)]
    await store.close()
