"""Looking into a database file from the command line: synchronous, read-only, also beside a running server.

No lock is taken and nothing is written. Every answer is one snapshot. ``renew_epochs`` is the exception: it writes,
and so it takes the lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType

from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.errors import StoreRefused
from strandline.stores import lines, schema
from strandline.stores.faults import refused
from strandline.stores.lock import FileLock
from strandline.stores.queries import BEGINNING, MIGRATIONS, SQL
from strandline.stores.rows import (
    inflate,
    merged,
    message_from,
    run_and_time,
    run_from,
    session_from,
    unpack_journal,
)

_EVER = 2**63 - 1


class Inspector:
    """Reads one database file. Raises StoreRefused (missing, foreign, too new, damaged) when it is made."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        _check_exists(self.path)
        self._db = _read_only(self.path)
        try:
            with self._snapshot():
                version, newest = _admit(self._db, self.path), MIGRATIONS[-1].version
            if version < newest:
                raise StoreRefused(
                    f"{self.path} has schema {version}, this Strandline reads schema {newest}: "
                    "start the server once, it brings the file forward."
                )
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Inspector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def sessions(self, limit: int = 100) -> list[SessionRecord]:
        """Everybody's sessions, newest ``updated_at`` first."""
        with self._snapshot() as db:
            return [session_from(row) for row in db.execute(SQL["list_sessions"], (*BEGINNING, None, limit))]

    def session(self, session_id: str) -> SessionRecord | None:
        """One session, or None."""
        with self._snapshot() as db:
            row = db.execute(SQL["get_session"], (session_id,)).fetchone()
            return None if row is None else session_from(row)

    def messages(self, session_id: str) -> list[MessageRecord]:
        """Every message version with its content, in order of creation; the active path leads up from ``leaf``."""
        with self._snapshot() as db:
            return [message_from(row) for row in db.execute(SQL["all_messages"], (session_id,))]

    def runs(self, session_id: str) -> list[RunRecord]:
        """Every run of a session, in order of creation."""
        with self._snapshot() as db:
            return [run_from(row) for row in db.execute(SQL["list_runs"], (session_id,))]

    def events(self, session_id: str, run: str | None = None) -> list[tuple[int, bytes]]:
        """Every event that is retained, from the log and from what is still in the journal, in order."""
        with self._snapshot() as db:
            if run is None:
                rows = db.execute(SQL["read_log"], (session_id, 0, _EVER))
            else:
                rows = db.execute(SQL["read_log_of_run"], (session_id, 0, _EVER, run))
            segments = [list(lines.unpack(raw)) for (raw,) in rows]
            segments.append(list(_journal_events(db, session_id, run)))
        return merged(segments, 0, _EVER)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute(SQL["begin_snapshot"])
            try:
                yield self._db
            finally:
                self._db.execute(SQL["rollback"])
        except sqlite3.Error as error:
            raise refused(error, self.path) from error


def renew_epochs(path: str | PathLike[str]) -> int:
    """Give every session a new epoch, and return how many sessions there are.

    To be run once after restoring a backup: positions that clients hold may name events that the backup does not
    have. They become stale, and every client fetches its conversation anew. Raises StoreInUse while a server runs.
    """
    file = Path(path)
    _check_exists(file)
    lock = FileLock(file)
    if not lock.take():
        raise lock.in_use(0)
    try:
        with closing(schema.connect(file)) as db:
            _admit(db, file)
            return schema.renew(db)
    except sqlite3.Error as error:
        raise refused(error, file) from error
    finally:
        lock.release()


def _read_only(path: Path) -> sqlite3.Connection:
    # Without a WAL nobody serves the file. SQLite would then make empty -wal and -shm files, and leave them behind,
    # owned by whoever inspects: a server of another user could not start any more. ``immutable`` makes none.
    quiet = not Path(f"{path}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if quiet else ''}"
    db = sqlite3.connect(uri, uri=True, timeout=schema.BUSY_SECONDS, isolation_level=None)
    db.create_function("inflate", 1, inflate, deterministic=True)
    return db


def _admit(db: sqlite3.Connection, path: Path) -> int:
    version = schema.admit(db, path)
    if version == 0:
        raise StoreRefused(f"{path} is empty: no Strandline server has written to it yet.")
    return version


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise StoreRefused(f"There is no database file {path}: give the path that the server was started with.")


def _journal_events(db: sqlite3.Connection, session_id: str, run: str | None) -> Iterator[tuple[int, bytes]]:
    void = schema.Void(db)
    for number, blob in db.execute(SQL["read_journal"]):
        for entry in unpack_journal(blob):
            if entry.session == session_id:
                for seq, event in void.left(number, entry).items():
                    if run is None or run_and_time(event)[0] == run:
                        yield seq, event
