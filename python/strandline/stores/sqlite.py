"""The default store: one SQLite file, one process (DESIGN §6).

Three connections, each with its own thread: a writer that commits one batch at a time, a reader, and one for WAL
checkpoints, which run beside the writer and never inside a commit. A commit of journal entries is one call (one row,
a transaction of its own): every call is a thread hop of about 100 µs, every SQLite step in a thread may have to wait
for the GIL, so the number of both is kept small and independent of how much was appended.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import orjson

from strandline.core.records import AnnotationRecord, DecisionRecord, MessageRecord, RunRecord, SessionRecord
from strandline.errors import Conflict, StoreInUse, StoreUnavailable
from strandline.stores import lines, schema
from strandline.stores.batches import put_entries, write
from strandline.stores.faults import OF_THE_BATCH, unavailable
from strandline.stores.lock import FileLock
from strandline.stores.port import DUE_AT_ONCE, Batch, Outline, Place
from strandline.stores.queries import BEGINNING, SQL
from strandline.stores.rows import (
    annotation_from,
    decision_from,
    erase,
    inflate,
    merged,
    message_from,
    receipt_from,
    run_from,
    session_from,
)

logger = logging.getLogger("strandline.stores")
_T = TypeVar("_T")

_LONG_WAL = 16_384
"""Pages (64 MiB). A WAL that stays longer than this is checkpointed with the writer held back, so that it ends."""

_SWEEPS = 20
_GROWTH = 32 * 1024 * 1024
"""A checkpoint is only made at every so many calls (10 s), or when the WAL file has grown by so many bytes: most of it
are journal rows, which are trimmed soon, and a page that is in it several times is copied once."""

_EXPIRED_AT_ONCE = 200


class SqliteStore:
    """A store in one file. See ``stores.port`` for what it promises.

    path: the database file; its directory must exist. ``<path>.lock``, ``<path>-wal`` and ``<path>-shm`` lie beside it.
    durability: "full" syncs every commit to disk; "normal" leaves that to the system: a loss of power may lose the
    newest commits, so an unclean end makes every older cursor stale.
    lock_wait: seconds to wait for another process to let go of the file.

    A commit survives the cancellation of whoever awaits it: it runs to its end, and the same batch given again
    then changes nothing (or writes it, if it had failed).
    """

    def __init__(
        self, path: str | PathLike[str], *, durability: schema.Durability = "full", lock_wait: float = 5.0
    ) -> None:
        self.path = Path(path)
        self._wal = Path(f"{path}-wal")
        self._durability: schema.Durability = durability
        self._lock_wait = lock_wait
        self._lock = FileLock(self.path)
        self._turn = asyncio.Lock()
        self._last: int | None = None
        self._sweeps = self._swept = 0
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._sweeper: aiosqlite.Connection | None = None

    async def open(self) -> int:
        """See the port. Waits up to ``lock_wait`` seconds for another process to let go of the file."""
        if self._writer is not None:
            raise StoreInUse(f"This store of {self.path} is open already: close it first.")
        await self._lock.acquire(self._lock_wait)
        self._turn = asyncio.Lock()  # of this event loop: a store may be opened again in another one
        try:
            last = await _to_its_end(asyncio.to_thread(schema.prepare, self.path, self._durability))
            self._writer = await self._connect(
                f"PRAGMA synchronous = {self._durability}; PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 0;"
            )
            await self._writer.create_function("erase", 2, erase, deterministic=True)
            self._reader = await self._connect("PRAGMA query_only = ON;")
            await self._reader.create_function("inflate", 1, inflate, deterministic=True)
            self._sweeper = await self._connect("PRAGMA wal_autocheckpoint = 0;")
        except BaseException as error:
            await _to_its_end(self._let_go())
            if isinstance(error, sqlite3.Error):
                raise unavailable(error, self.path) from error
            raise
        self._last = last
        return last

    async def close(self) -> None:
        """See the port. Waits for a running commit, marks a clean end and empties the WAL."""
        await _to_its_end(self._close())

    async def commit(self, batch: Batch) -> None:
        """See the port. Raises Conflict, and writes nothing, when another run of the session has a run's key."""
        await asyncio.shield(asyncio.ensure_future(self._commit(batch)))

    async def session(self, session_id: str) -> SessionRecord | None:
        rows = await self._read("get_session", session_id)
        return session_from(rows[0]) if rows else None

    async def sessions(
        self,
        owner: str | None = None,
        limit: int = 100,
        before: Place | None = None,
        *,
        archived: bool | None = None,
        waiting: bool = False,
    ) -> list[SessionRecord]:
        page = (*(before or BEGINNING), archived, limit)
        if waiting:
            rows = await self._read("list_sessions_that_wait", *page, owner)
        elif owner is None:
            rows = await self._read("list_sessions", *page)
        else:
            rows = await self._read("list_sessions_of_owner", *page, owner)
        return [session_from(row) for row in rows]

    async def pending(self, session_ids: Sequence[str]) -> dict[str, int]:
        return dict(await self._read("count_pending", orjson.dumps(list(session_ids)).decode()))

    async def outline(self, session_id: str) -> Outline:
        names = ("outline", "list_runs", "list_decisions", "list_annotations", "list_receipts")
        messages, runs, decisions, annotations, receipts = [await self._read(name, session_id) for name in names]
        return Outline(
            tuple(map(message_from, messages)),
            tuple(map(run_from, runs)),
            tuple(map(decision_from, decisions)),
            tuple(map(annotation_from, annotations)),
            tuple(map(receipt_from, receipts)),
        )

    async def messages(self, session_id: str, versions: Sequence[str]) -> list[MessageRecord]:
        rows = await self._read("get_messages", session_id, orjson.dumps(list(versions)).decode())
        found = {record.version: record for record in map(message_from, rows)}
        return [found[version] for version in versions if version in found]

    async def run(self, run_id: str) -> RunRecord | None:
        rows = await self._read("get_run", run_id)
        return run_from(rows[0]) if rows else None

    async def unfinished(self) -> list[RunRecord]:
        return [run_from(row) for row in await self._read("unfinished_runs")]

    async def annotations(
        self, session_id: str, version: str, kind: str | None, limit: int, offset: int
    ) -> list[AnnotationRecord]:
        rows = await self._read("annotations_of", session_id, version, kind, limit, offset)
        return [annotation_from(row) for row in rows]

    async def due(self, before: int) -> list[DecisionRecord]:
        return [decision_from(row) for row in await self._read("due_decisions", before, DUE_AT_ONCE)]

    async def events(
        self, session_id: str, first_seq: int, last_seq: int, run: str | None = None
    ) -> list[tuple[int, bytes]]:
        if run is None:
            rows = await self._read("read_log", session_id, first_seq, last_seq)
        else:
            rows = await self._read("read_log_of_run", session_id, first_seq, last_seq, run)
        return merged((lines.unpack(raw) for (raw,) in rows), first_seq, last_seq)

    async def expire(self, before: int) -> int:
        gone = 0
        while True:
            removed = await asyncio.shield(asyncio.ensure_future(self._expire(before)))
            gone += removed
            if removed < _EXPIRED_AT_ONCE:
                return gone

    async def checkpoint(self, *, truncate: bool = False) -> bool:
        """See the port. PASSIVE runs beside the writer; ``truncate`` takes a turn between two commits."""
        db = self._sweeper
        if db is None:
            return False
        size = _size(self._wal)
        self._sweeps += 1
        if not truncate and self._sweeps < _SWEEPS and size <= self._swept + _GROWTH:
            return False
        self._sweeps, self._swept = 0, 0 if truncate else size
        try:
            if not truncate:
                ((_, pages, _),) = await db.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
                if pages < _LONG_WAL:
                    return False
            async with self._turn:
                # With no commit in between, everything is copied, and the next commit starts the WAL over.
                mode = "TRUNCATE" if truncate else "PASSIVE"
                ((busy, _, _),) = await db.execute_fetchall(f"PRAGMA wal_checkpoint({mode})")
                return truncate and not busy
        except (sqlite3.Error, ValueError) as error:
            # ValueError is aiosqlite's "closed". The WAL only stays longer: the next checkpoint finds it.
            logger.warning("checkpoint of %s failed: %s", self.path, error, extra={"action": "checkpoint-failed"})
            return False

    async def _connect(self, pragmas: str) -> aiosqlite.Connection:
        db = await aiosqlite.connect(self.path, timeout=schema.BUSY_SECONDS, isolation_level=None)
        try:
            await db.executescript(pragmas)
        except BaseException:
            await db.close()
            raise
        return db

    async def _commit(self, batch: Batch) -> None:
        async with self._turn:
            if self._last is not None and batch.number <= self._last:
                return
            db = self._open_writer()
            try:
                if self._last is not None and batch.only_entries:
                    # One statement is a transaction of its own, and one call instead of three.
                    await put_entries(db, batch)
                    self._last = batch.number
                    return
                await db.execute_fetchall(SQL["begin"])
                if self._last is None:
                    # The commit before this one failed or was torn down: the file knows whether it counts.
                    ((self._last,),) = await db.execute_fetchall(SQL["last_batch"])
                if batch.number > self._last:
                    await write(db, batch)
                await db.execute_fetchall(SQL["commit"])
            except BaseException as error:
                self._last = None
                await self._roll_back(db)
                if isinstance(error, sqlite3.IntegrityError):
                    raise Conflict(f"The store has decided otherwise: {error}.") from error
                if isinstance(error, sqlite3.Error) and not isinstance(error, OF_THE_BATCH):
                    raise unavailable(error, self.path) from error
                raise
            self._last = max(self._last, batch.number)

    async def _expire(self, before: int) -> int:
        async with self._turn:
            db = self._open_writer()
            try:
                await db.execute_fetchall(SQL["begin"])
                cursor = await db.execute(SQL["expire_log"], (before, _EXPIRED_AT_ONCE))
                await db.execute_fetchall(SQL["commit"])
            except BaseException as error:
                await self._roll_back(db)
                if isinstance(error, sqlite3.Error):
                    raise unavailable(error, self.path) from error
                raise
            return cursor.rowcount

    async def _roll_back(self, db: aiosqlite.Connection) -> None:
        with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors
            await db.execute_fetchall(SQL["rollback"])

    async def _read(self, name: str, *values: Any) -> list[Any]:
        if self._reader is None:
            raise self._not_open()
        try:
            return list(await self._reader.execute_fetchall(SQL[name], values))
        except sqlite3.Error as error:
            raise unavailable(error, self.path) from error

    async def _close(self) -> None:
        async with self._turn:
            try:
                if self._writer is not None and self._sweeper is not None:
                    # FULL: the mark says that everything before it is on disk.
                    await self._writer.execute_fetchall("PRAGMA synchronous = FULL")
                    await self._writer.execute_fetchall(SQL["put_meta"], ("process", "closed"))
                    await self._sweeper.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                logger.warning(
                    "%s could not be closed cleanly, the next start will recover it: %s",
                    self.path,
                    error,
                    extra={"action": "unclean-close"},
                )
            finally:
                await self._let_go()

    async def _let_go(self) -> None:
        connections = (self._reader, self._sweeper, self._writer)
        self._reader = self._sweeper = self._writer = None
        for db in connections:
            if db is not None:
                with suppress(sqlite3.Error):
                    await db.close()
        self._lock.release()

    def _open_writer(self) -> aiosqlite.Connection:
        if self._writer is None:
            raise self._not_open()
        return self._writer

    def _not_open(self) -> StoreUnavailable:
        return StoreUnavailable(f"The store {self.path} is not open.")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


async def _to_its_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Await something that must not be left half done: a cancellation is passed on when it has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        raise
