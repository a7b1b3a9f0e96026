"""``strandline serve`` on a file that it cannot use: one line that says what to do, exit code 3, nothing written."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from committing_child import batch, check_whole
from forking import REFUSED, Forked, Nursery
from power import Files, files_of
from store_samples import copied, locked

from strandline.stores import SqliteStore, schema
from strandline.stores.inspect import renew_epochs
from strandline.testing import until

APPLICATION = """\
from strandline import Run, Strandline, open_on_loopback

chat = Strandline("chat.db", auth=open_on_loopback())

@chat.agent
async def reply(run: Run):
    yield "hello"
"""

COMMITS = 30


_MADE: dict[tuple[bool, str], Files] = {}


async def filled(path: Path, *, crashed: bool, durability: schema.Durability = "full") -> None:
    """A database with a few commits; ``crashed``: all of them in the WAL only."""
    if (crashed, durability) not in _MADE:
        store = SqliteStore(path.with_name("made.db"), durability=durability)
        await store.open()
        for number in range(1, COMMITS + 1):
            await store.commit(batch(number, number - 7 if number % 7 == 0 else 0))
        if not crashed:
            await store.close()
        _MADE[crashed, durability] = files_of(store.path)
        await store.close()
    _MADE[crashed, durability].put(path)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[SqliteStore, int]]:
    """What a start makes of a file, and the newest of its batches; all of those up to it are there."""
    store = SqliteStore(path)
    number = await store.open()
    try:
        await check_whole(store, number)
        yield store, number
    finally:
        await store.close()


def flip(path: Path, at: int, size: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + size] = bytes(byte ^ 0xFF for byte in content[at : at + size])
    path.write_bytes(content)


def spoil_pages(path: Path) -> None:
    for page in range(2, path.stat().st_size // 4096):
        flip(path, page * 4096, 200)


def with_sql(statement: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.execute(statement)
            db.commit()

    return act


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "not a database": (lambda path: path.write_bytes(b"hello " * 3000), "is not a usable SQLite database"),
    "header": (lambda path: flip(path, 3), "is not a usable SQLite database"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:50_000]), "restore a backup"),
    "half a page": (lambda path: path.write_bytes(path.read_bytes()[:3000]), "restore a backup"),
    "pages": (spoil_pages, "restore a backup"),
    "newer schema": (with_sql("PRAGMA user_version = 99"), "install a newer strandline"),
    "somebody else's": (with_sql("PRAGMA application_id = 7"), "of another application"),
}


def contents(folder: Path) -> dict[str, bytes]:
    """The database's files, without what says nothing: the lock, the shared memory, an empty WAL."""
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.startswith("chat.db")}
    return {name: data for name, data in found.items() if data and not name.endswith((".lock", "-shm"))}


@pytest.fixture
def home(memory_path: Path) -> Path:
    made = memory_path / "home"
    made.mkdir()
    (made / "main.py").write_text(APPLICATION)
    return made


class Serving:
    """``strandline serve`` in a folder that is expected to be refused."""

    def __init__(self, nursery: Nursery, home: Path) -> None:
        self._nursery = nursery
        self._home = home
        self._log = home.parent / "said.log"

    def begun(self, **how: Any) -> Forked:
        self._log.unlink(missing_ok=True)
        arguments = ("serve", "main:chat", "--port", "0", "--log-level", "error")
        return self._nursery.command(*arguments, cwd=self._home, log=self._log, **how)

    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def refused(self, said: str, *, untouched: bool = True, **how: Any) -> None:
        """One line with ``said``, exit code 3, and the files as they were."""
        before = contents(self._home)
        code = self.begun(**how).wait()
        text = self.said()
        assert (code, text.count("\n")) == (3, 1), text
        assert text.startswith("strandline: ")
        assert said in text
        assert not untouched or contents(self._home) == before, "something was written"


@pytest.fixture
def serving(nursery: Nursery, home: Path) -> Serving:
    return Serving(nursery, home)


@pytest.mark.parametrize("crashed", [False, True], ids=["closed", "crashed"])
@pytest.mark.parametrize("how", BROKEN)
async def test_a_broken_file_is_refused_in_one_line_and_left_alone(
    serving: Serving, home: Path, how: str, crashed: bool
) -> None:
    harm, said = BROKEN[how]
    await filled(home / "chat.db", crashed=False)
    if crashed:
        # What the WAL has is sound, and has nothing to do with what is broken.
        await leave_a_wal(home / "chat.db")
    harm(home / "chat.db")
    serving.refused(said)


async def leave_a_wal(path: Path) -> None:
    store = SqliteStore(path)
    number = await store.open() + 1
    await store.commit(batch(number, 0))
    copied(path, path.with_name("left.db"))
    await store.close()
    copied(path.with_name("left.db"), path)


# ------------------------------------------------------------------------------------------------ the WAL


def frames_of(wal: Path) -> list[int]:
    """Where the frames of a WAL begin."""
    return list(range(32, wal.stat().st_size, 24 + 4096))


async def test_a_wal_that_was_damaged_under_acknowledged_commits_is_refused_not_cut_short(
    serving: Serving, home: Path, scale: Callable[[int, int], int], seed: int
) -> None:
    await filled(home / "chat.db", crashed=True)
    chance, wal = random.Random(seed), home / "chat.db-wal"
    frames = frames_of(wal)
    for _ in range(scale(5, 200)):
        flip(wal, chance.choice(frames[: len(frames) * 3 // 4]) + chance.randint(24, 4119))
        serving.refused("commits in it that were acknowledged can no longer be read")
        # What the message says: go on with what is left, under new cursors.
        assert renew_epochs(home / "chat.db") <= 3
        async with opened(home / "chat.db") as (store, number):
            assert number < COMMITS
            assert all(record.epoch != "abcd1234" for record in await store.sessions())
        await filled(home / "chat.db", crashed=True)


async def test_a_commit_that_was_torn_is_left_out_and_nothing_else(home: Path) -> None:
    await filled(home / "chat.db", crashed=True)
    flip(home / "chat.db-wal", frames_of(home / "chat.db-wal")[-1] + 500)
    async with opened(home / "chat.db") as (_, number):
        assert number == COMMITS - 1


async def test_without_fsync_any_number_of_commits_may_be_torn(home: Path) -> None:
    await filled(home / "chat.db", crashed=True, durability="normal")
    flip(home / "chat.db-wal", frames_of(home / "chat.db-wal")[100] + 500)
    async with opened(home / "chat.db") as (_, number):
        assert 0 < number < COMMITS


async def test_flipped_bytes_are_served_or_refused_by_name(
    nursery: Nursery, memory_path: Path, scale: Callable[[int, int], int], seed: int
) -> None:
    """Whatever is broken, a start ends with a code of ours, and a file that is refused is as it was."""
    chance, path, log = random.Random(seed), memory_path / "chat.db", memory_path / "log"
    refusals = 0
    for kind, crashed in (("closed", False), ("crashed", True)):
        await filled(memory_path / kind, crashed=crashed)
        for number in range(scale(40, 2000)):
            copied(memory_path / kind, path)
            target = memory_path / ("chat.db-wal" if crashed and chance.random() < 0.5 else "chat.db")
            size = target.stat().st_size
            at = chance.randrange(chance.choice([100, 4096, size]))
            flip(target, at, chance.choice([1, 1, 16, 5000]))
            if chance.random() < 0.1:
                target.write_bytes(target.read_bytes()[: chance.randrange(size)])
            before = contents(memory_path)
            log.unlink(missing_ok=True)
            code = nursery.prepare(path, "full", 1_000_000, log, None).wait()
            assert code in (0, REFUSED), f"{kind}, {number}, seed {seed}: {log.read_text()}"
            if code == REFUSED:
                refusals += 1
                assert contents(memory_path) == before, f"{kind}, {number}, seed {seed}: {log.read_text()}"
    assert refusals > scale(10, 500)


# ------------------------------------------------------------------------------------------------ a file that is closed


@pytest.mark.parametrize("crashed", [False, True], ids=["closed", "crashed"])
async def test_a_read_only_file_is_named(serving: Serving, home: Path, crashed: bool) -> None:
    await filled(home / "chat.db", crashed=crashed)
    (home / "chat.db").chmod(0o444)
    serving.refused("check the permissions of the file", hindered=True)


@pytest.mark.parametrize("there", [False, True])
async def test_a_read_only_directory_is_named(serving: Serving, home: Path, there: bool) -> None:
    if there:
        await filled(home / "chat.db", crashed=False)
    with closed_to_writers(home):
        serving.refused("must exist and be writable", hindered=True)


@contextmanager
def closed_to_writers(folder: Path) -> Iterator[None]:
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


async def test_a_disk_without_room_is_named_and_with_room_everything_is_there(serving: Serving, home: Path) -> None:
    await filled(home / "chat.db", crashed=True)
    serving.refused("chat.db just now: ", untouched=False, file_limit=4096)
    async with opened(home / "chat.db") as (_, number):
        assert number == COMMITS


async def test_a_lock_that_another_process_keeps_is_named(serving: Serving, home: Path) -> None:
    await filled(home / "chat.db", crashed=False)
    with locked(home / "chat.db"):
        serving.refused("end whatever else writes to this file")


async def test_a_lock_that_another_process_gives_back_is_waited_for(serving: Serving, home: Path) -> None:
    store = SqliteStore(home / "chat.db")
    await store.open()
    await store.close()
    with locked(home / "chat.db") as other:
        server = serving.begun(busy=30.0)
        await asyncio.sleep(0.3)
        assert serving.said() == ""
        assert server.poll() is None
        assert other.stdin is not None
        other.stdin.close()
        await until(lambda: "Serving main:chat on" in serving.said())
    server.kill()
    server.wait()
