"""A running server whose file cannot be written for a while: no room (a limit, a real full disk), or SQLite's lock in
another process. It goes on: who asks is told, readers get an error that is not in the log, readiness is red; afterwards
everything goes on, and nothing that was acknowledged or shown is lost, also not by a ``kill -9`` in the middle."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from crash_readers import Reading, Visitor
from forking import Nursery
from mortal import MortalServer
from store_samples import command, locked
from witness import Acknowledged, Log, Tally, Witness

from replies import asking, numbers
from strandline.stores.inspect import Inspector
from strandline.testing import until

ENV = {"STRANDLINE_COMMIT_PATIENCE": "0.5", "STRANDLINE_SEGMENT_AGE": "0.2", "STRANDLINE_LOCK_WAIT": "5"}


SMALL = 16_384


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN."""
    status = Path("/proc/self/status")
    if not status.exists():
        return False
    held = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(held, 16) >> 21 & 1)


class Limit:
    """No file may grow any more (as with ``ulimit -f``, or a quota)."""

    def __init__(self, server: MortalServer) -> None:
        self._server = server

    def begin(self) -> None:
        # The database is larger already, so that no checkpoint can end either, and the WAL cannot start over.
        assert Path(self._server.db).stat().st_size > SMALL
        self._set(SMALL)

    def end(self) -> None:
        with suppress(ProcessLookupError):  # killed: its limit has gone with it
            self._set(resource.RLIM_INFINITY)

    def _set(self, size: int) -> None:
        resource.prlimit(self._server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class FullDisk:
    """Something else has taken all the room there is."""

    def __init__(self, server: MortalServer) -> None:
        self._filler = Path(server.db).with_name("filler")

    def begin(self) -> None:
        try:
            with self._filler.open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        except OSError:
            return

    def end(self) -> None:
        self._filler.unlink(missing_ok=True)


class Locked:
    """Another process has begun to write, and goes on for ever."""

    def __init__(self, server: MortalServer) -> None:
        self._path = Path(server.db)
        self._held = ExitStack()

    def begin(self) -> None:
        self._held.enter_context(locked(self._path))

    def end(self) -> None:
        self._held.close()


WAYS = {"limit": Limit, "disk": FullDisk, "lock": Locked} if may_mount() else {"limit": Limit, "lock": Locked}


@contextmanager
def room(folder: Path, way: str) -> Iterator[None]:
    """A folder ``here``: a small disk of its own where one is to be filled."""
    (folder / "here").mkdir()
    if way != "disk":
        yield
        return
    command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder / "here"))
    try:
        yield
    finally:
        command("umount", "--lazy", str(folder / "here"))


@asynccontextmanager
async def serving(folder: Path, nursery: Nursery, way: str) -> AsyncIterator[tuple[MortalServer, Visitor]]:
    with room(folder, way):
        server = MortalServer(folder, nursery, busy=0.2, env=ENV, db="here/chat.db")
        try:
            async with Visitor(server) as visitor:
                yield server, visitor
        finally:
            await asyncio.to_thread(server.kill)


async def refused(visitor: Visitor, chat: str, said: Acknowledged) -> None:
    """Submit until nothing is taken any more, and look at the refusal; what is taken on the way is written down."""
    for number in range(10_000):
        text = "count to 3 every 1 ms"
        reading = await visitor.ask(chat, text, f"m{number}").end()
        if reading.status != 200:
            break
        said.submits.append((chat, f"m{number}", text, reading.headers["strandline-run"]))
    assert reading.status == 503
    assert reading.code in ("store-unavailable", "too-many-waiting")
    assert int(reading.headers["retry-after"]) >= 1


@pytest.mark.parametrize("way", WAYS)
async def test_an_outage_of_the_file_is_told_survived_and_loses_nothing(
    nursery: Nursery, tmp_path: Path, way: str, scale: Callable[[int, int], int], say: Callable[[str], None]
) -> None:
    tally = Tally()
    for turn in range(scale(1, 10)):
        (tmp_path / f"{turn}").mkdir()
        async with serving(tmp_path / f"{turn}", nursery, way) as (server, visitor):
            await outage(server, visitor, WAYS[way](server), tally, killed=turn % 2 == 1)
    say(f"nothing lost over {scale(1, 10)} outages ({tally.frames} frames that had been shown were compared)")


async def outage(
    server: MortalServer, visitor: Visitor, trouble: Limit | FullDisk | Locked, tally: Tally, *, killed: bool
) -> None:
    """From load to load. ``killed``: the server dies while it cannot write."""
    said, chats = Acknowledged(), ("c0", "c1", "c2")
    readings = {"finished": [await visitor.ask("finished", "count to 5 every 0 ms").end()], "late": []}
    for chat in chats:
        readings[chat] = [await visitor.ask(chat, "count to 100000 every 1 ms").until_text(5), visitor.resume(chat)]
    feeds = {chat: [visitor.watch(chat)] for chat in (*chats, "finished")}
    await until(lambda: all(reading.frames for each in feeds.values() for reading in each))
    trouble.begin()
    try:
        attached = [reading for chat in chats for reading in readings[chat] + feeds[chat]] + feeds["finished"]
        await given_up(server, visitor, attached, said)
        if killed:
            await asyncio.to_thread(server.kill)
    finally:
        trouble.end()
    if killed:
        await asyncio.to_thread(server.start)
    await until(lambda: server.health() == 200, 20)
    witness = Witness(visitor, server.db, tally)
    for chat in chats:
        await until(lambda chat=chat: ended(server.db, chat))  # type: ignore[misc]
        log = await witness.confirm(chat, readings[chat], feeds[chat], said)
        [end] = log.ends.values()
        assert (end["status"], end["reason"]) == ("lost", "process-lost" if killed else "store-unavailable")
    # Life goes on, and what was recovered is there for good.
    for chat in chats:
        again = await visitor.ask(chat, "count to 3 every 0 ms", "again").end()
        assert again.text == numbers(3)
    assert "Traceback" not in server.said()
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    for chat in (*chats, "finished", "late"):
        await witness.confirm(chat, readings[chat], feeds.get(chat, []), said)


def ended(path: str, chat: str) -> bool:
    """Whether the ends of the runs that the outage cost are in the file: they are written as soon as it can be."""
    try:
        return bool(Log(path, chat).ends)
    except AssertionError:
        return False


async def given_up(server: MortalServer, visitor: Visitor, attached: list[list[Reading]], said: Acknowledged) -> None:
    """The server has noticed that it cannot write, and says so to everybody; what it has can be read."""
    await refused(visitor, "late", said)
    await until(lambda: server.health() == 503, 20)
    for reading in attached:
        await reading.end()
        assert not reading.cut
        told = [frame for frame in reading.frames if not frame.done][-1]
        assert (told.chunk["type"], told.chunk["code"], told.cursor) == ("error", "store-unavailable", None)
    stop = await visitor.post("/api/chat/c0/stop", {})
    posted = await visitor.post("/api/chat", asking("c1", "hello", "u9"))
    for answer in (stop, posted):
        assert answer.status_code == 503
        assert answer.json()["code"] == "store-unavailable"
    history = await visitor.history("finished")
    assert history["messages"][1]["parts"][-1]["text"] == numbers(5)
    assert server.process.poll() is None


async def test_a_lock_that_is_given_back_in_time_costs_nobody_anything(nursery: Nursery, tmp_path: Path) -> None:
    async with serving(tmp_path, nursery, "lock") as (server, visitor):
        reading = await visitor.ask("c", "count to 100 every 1 ms").until_text(5)
        with locked(Path(server.db)):
            await asyncio.sleep(0.3)
            with Inspector(server.db) as inspector:
                events = [orjson.loads(line) for _, line in inspector.events("c")]
            assert said_in(events).startswith(reading.text), "what cannot be committed is not shown"
        await reading.end()
        assert reading.text == numbers(100)
        assert server.health() == 200


def said_in(events: list[dict[str, Any]]) -> str:
    chunks = [chunk for event in events if event["type"] == "appended" for chunk in event["chunks"]]
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")
