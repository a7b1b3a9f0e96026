"""A medium that refuses: full, read-only, locked, corrupted. Nothing acknowledged is lost."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from store_samples import (
    command,
    entry,
    events,
    made_and_closed,
    message,
    session,
    whole_batch,
)

from strandline.errors import StoreDamaged, StoreUnavailable
from strandline.stores import SqliteStore, schema
from strandline.stores.port import Batch, Entry, Outline

EVER = 2**62


async def test_a_value_that_sqlite_does_not_take_is_no_medium_that_refuses(store: SqliteStore) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match="not supported"):
        await store.commit(Batch(1, sessions=(session("s0"), session("s1", title=object()))))
    assert await store.session("s0") is None
    await store.commit(Batch(2, sessions=(session("s0"),)))
    assert await store.session("s0") == session("s0")


# ------------------------------------------------------------------------------------------------ a medium that refuses


async def refused_then_accepted(
    store: SqliteStore, batch: Batch, said: str, mend: Callable[[], Awaitable[object] | None]
) -> None:
    with pytest.raises(StoreUnavailable, match=said):
        await store.commit(batch)
    assert await store.session("s1") is None
    assert await store.outline("s1") == Outline()
    mended = mend()
    if mended is not None:
        await mended
    await store.commit(batch)
    assert await store.session("s1") == batch.sessions[0]
    await store.close()
    assert await store.open() == batch.number
    assert len(await store.events("s1", 0, EVER)) == 3


def large(number: int, size: int = 400_000) -> Batch:
    part = {"type": "text", "text": "x" * size}
    batch = whole_batch(number)
    return Batch(number, batch.entries, batch.sessions, (message(parts=(part,)),), batch.runs, batch.segments)


async def test_a_full_database_refuses_and_recovers(store: SqliteStore) -> None:
    await store.commit(Batch(1, entries=(entry("s0", 1, 5),)))
    assert store._writer is not None
    await store._writer.execute_fetchall("PRAGMA max_page_count = 60")

    def mend() -> Awaitable[object]:
        assert store._writer is not None
        return store._writer.execute_fetchall("PRAGMA max_page_count = 1000000")

    await refused_then_accepted(store, large(2), r"disk .* is full", mend)
    assert await store.events("s0", 0, EVER) == events([1, 2, 3, 4, 5])


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_write_that_the_system_refuses_is_rolled_back(store: SqliteStore) -> None:
    await store.commit(Batch(1, entries=(entry("s0", 1, 5),)))
    with file_size_limit(200_000):
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"I/O error|is full"):
                await store.commit(large(2))
        await store.commit(Batch(2, entries=(entry("s0", 6, 6),)))
        assert await store.session("s1") is None
    await store.commit(large(3))
    await store.close()
    assert await store.open() == 3
    assert await store.events("s0", 0, EVER) == events([1, 2, 3, 4, 5, 6])
    assert await store.events("s1", 0, EVER) == events([1, 2, 3])


async def test_a_file_system_that_is_really_full_loses_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    try:
        command("mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(mount))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a tmpfs")
    store = SqliteStore(mount / "chat.db")
    try:
        await store.open()
        acknowledged = 0
        with pytest.raises(StoreUnavailable, match="is full"):
            while True:
                await store.commit(Batch(acknowledged + 1, entries=(Entry("s1", acknowledged + 1, (b"7" * 9000,)),)))
                acknowledged += 1
        await store.close()  # no room for the mark of a clean end either
        command("mount", "-o", "remount,size=20m", str(mount))
        assert await store.open() == acknowledged > 3
        assert [seq for seq, _ in await store.events("s1", 0, EVER)] == list(range(1, acknowledged + 1))
    finally:
        await store.close()
        command("umount", str(mount))


async def test_a_foreign_writer_is_waited_for_and_then_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    store = SqliteStore(path)
    await store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another connection"):
            await store.expire(1)
        await store.checkpoint(truncate=True)
        await refused_then_accepted(store, whole_batch(), "another connection", other.rollback)
    await store.close()


async def test_a_start_beside_a_foreign_writer_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    await made_and_closed(path, whole_batch())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another connection"):
            await SqliteStore(path).open()
    await made_and_closed(path)


async def test_a_read_only_file_and_directory_are_named() -> None:
    # Not in tmp_path, which only its owner may enter: root has to become somebody else for this.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        await made_and_closed(directory / "chat.db", whole_batch())
        (directory / "chat.db").chmod(0o444)
        (directory / "chat.db.lock").chmod(0o666)
        with as_nobody(directory, 0o777), pytest.raises(StoreUnavailable, match="check the permissions"):
            await SqliteStore(directory / "chat.db").open()
        with as_nobody(directory, 0o555), pytest.raises(StoreUnavailable, match="must exist and be writable"):
            await SqliteStore(directory / "new.db").open()


@contextmanager
def as_nobody(directory: Path, mode: int) -> Iterator[None]:
    directory.chmod(mode)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o755)


async def test_an_event_with_a_line_break_is_refused_before_it_can_spoil_the_log(store: SqliteStore) -> None:
    with pytest.raises(ValueError, match="one line"):
        await store.commit(Batch(1, entries=(Entry("s1", 1, (b'{\n"a":1}',)),)))
    await store.commit(whole_batch())


# ------------------------------------------------------------------------------------------------ corrupted files


async def test_corrupted_pages_are_found_at_the_start(path: Path) -> None:
    await made_and_closed(path, *(Batch(n, messages=(message(f"v{n}"),)) for n in range(1, 400)))
    spoil(path)
    with pytest.raises(StoreDamaged):
        await SqliteStore(path).open()


async def test_corrupted_pages_of_a_large_file_are_found_when_they_are_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_CHECKED_BYTES", 0)
    names = [f"v{n}" for n in range(400)]
    await made_and_closed(path, Batch(1, messages=tuple(message(name) for name in names)))
    spoil(path)
    store = SqliteStore(path)
    try:
        with pytest.raises((StoreUnavailable, StoreDamaged), match="backup"):
            await store.open()
            await store.messages("s1", names)
    finally:
        await store.close()


def spoil(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(2 * 4096, size, 4096):
            file.seek(page)
            file.write(b"\xa5" * 200)
