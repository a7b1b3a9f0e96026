"""Makes a database file ready to be served: is it ours, is its schema known, what did the last process leave behind.

Synchronous, on one connection, under the lock; ``SqliteStore.open`` runs it in a thread. Every step is a transaction
of its own, so a process that is killed here leaves a file that the next one carries on with.
"""

from __future__ import annotations

import secrets
import sqlite3
import string
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from strandline.core.erasing import Erasure, TakenBack
from strandline.errors import StoreDamaged, StoreTooNew
from strandline.stores import lines
from strandline.stores.faults import refused
from strandline.stores.port import Entry
from strandline.stores.queries import MIGRATIONS, SQL, Migration
from strandline.stores.rows import erased, erasure_from, inflate, segment_row, segments_from, unpack_journal
from strandline.stores.wal import is_damaged

Durability = Literal["full", "normal"]

APPLICATION_ID = 0x53747264
"""``Strd``, in the header of every Strandline database."""

BUSY_SECONDS = 3.0
"""How long a connection waits for a lock inside SQLite. Only a foreign process can hold one for that long."""

_CHECKED_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked as a whole at every start (about 0.1 s); larger ones where they are read."""

_SLICE_BYTES = 8 * 1024 * 1024
_ALPHABET = string.digits + string.ascii_lowercase


def mint_epoch() -> str:
    """A new epoch: 8 characters of ``[0-9a-z]``, not guessable, not seen before."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def connect(path: Path) -> sqlite3.Connection:
    """A synchronous connection that knows the functions which the queries use."""
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    db.create_function("inflate", 1, inflate, deterministic=True)
    db.create_function("mint_epoch", 0, mint_epoch)
    return db


def prepare(path: Path, durability: Durability) -> int:
    """Check, migrate and recover a file, and mark it as served; return the highest batch number.

    Raises StoreTooNew, StoreDamaged or StoreUnavailable; a file that is refused has not been changed.
    """
    try:
        looked = _look(path)
        with closing(connect(path)) as db:
            version = admit(db, path)
            if not looked:
                _check(db, path)
            db.execute("PRAGMA journal_mode = WAL")
            # FULL whatever the store's durability: the mark below must be on disk before anything is shown that is
            # not, else an unclean end with durability "normal" could not be told from a clean one.
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            migrate(db, version)
            last = _settled(db, path)
            _take_over(db, durability)
            return last
    except sqlite3.Error as error:
        raise refused(error, path) from error
    except (ValueError, TypeError) as error:
        # SQLite hands on what it finds; what it finds in a damaged file need not even be text.
        raise StoreDamaged(f"{path} is damaged, it cannot be read: restore a backup ({error}).") from error


def admit(db: sqlite3.Connection, path: Path) -> int:
    """Read the schema version (0 for a new file) without writing. Raises StoreTooNew or StoreDamaged."""
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        empty = db.execute(SQL["count_tables"]).fetchone()[0] == 0
        if application or version or not empty:
            raise StoreDamaged(
                f"{path} is a SQLite database of another application: Strandline keeps its own file, give another path."
            )
        return 0
    newest = MIGRATIONS[-1].version
    if version > newest:
        raise StoreTooNew(
            f"{path} has schema {version}, this Strandline knows schemas up to {newest}: "
            "install a newer strandline, or restore a backup from before the upgrade."
        )
    return version


def migrate(db: sqlite3.Connection, version: int, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the schema from ``version`` to the newest, one transaction per step."""
    for step in migrations:
        if step.version > version:
            try:
                db.executescript(
                    f"{SQL['begin']}\n{step.script}\n"
                    f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {step.version};\n{SQL['commit']}"
                )
            except BaseException:
                if db.in_transaction:
                    db.execute(SQL["rollback"])
                raise


def settle_journal(db: sqlite3.Connection) -> int:
    """Turn what the journal holds into log segments, slice by slice; return the highest batch number.

    Killed between two slices, the next start carries on; an event that is in a segment already is not written again.
    """
    last = int(db.execute(SQL["last_batch"]).fetchone()[0])
    void = Void(db)
    while True:
        number, pending = _journal_slice(db, void)
        if number is None:
            if void:
                db.execute(SQL["trim_erased"], (last,))
                db.execute(SQL["trim_erasures"], (last,))
            return last
        with _transaction(db):
            for session, events in pending.items():
                _settle(db, session, events)
            db.execute(SQL["trim_journal"], (number,))
            db.execute(SQL["trim_erased"], (number,))
            db.execute(SQL["trim_erasures"], (number,))
            db.execute(SQL["put_meta"], ("last_batch", last))


class Void:
    """What the journal holds and must not be read any more: of sessions that were deleted, of messages that were
    deleted or replaced, and of annotations that were taken back, up to the batch that did it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._sessions: dict[str, int] = dict(db.execute(SQL["read_erased"]).fetchall())
        self._contents: dict[str, list[tuple[int, Erasure | TakenBack]]] = {}
        for number, text in db.execute(SQL["read_erasures"]).fetchall():
            what = erasure_from(text)
            self._contents.setdefault(what.session, []).append((number, what))

    def __bool__(self) -> bool:
        return bool(self._sessions or self._contents)

    def left(self, number: int, entry: Entry) -> Mapping[int, bytes]:
        """The events of an entry of batch ``number`` as they may be read."""
        if number <= self._sessions.get(entry.session, 0):
            return {}
        events: Mapping[int, bytes] = dict(enumerate(entry.events, entry.first_seq))
        for upto, what in self._contents.get(entry.session, ()):
            if number <= upto:
                events = erased(events, what)
        return events


def renew(db: sqlite3.Connection) -> int:
    """Give every session a new epoch; return how many there are. Cursors from before become stale."""
    return db.execute(SQL["renew_epochs"]).rowcount


def _settled(db: sqlite3.Connection, path: Path) -> int:
    try:
        return settle_journal(db)
    except (ValueError, TypeError) as error:
        # Skipping the row would lose what was acknowledged without anybody noticing.
        raise StoreDamaged(f"The journal in {path} cannot be read: restore a backup ({error}).") from error


def _journal_slice(db: sqlite3.Connection, void: Void) -> tuple[int | None, dict[str, dict[int, bytes]]]:
    """The oldest rows of the journal, not more than one transaction should take: events by session and number."""
    number: int | None = None
    pending: dict[str, dict[int, bytes]] = {}
    size = 0
    with closing(db.execute(SQL["read_journal"])) as rows:
        for number, blob in rows:
            for entry in unpack_journal(blob):
                if events := void.left(number, entry):
                    pending.setdefault(entry.session, {}).update(events)
                    size += sum(map(len, entry.events))
            if size >= _SLICE_BYTES:
                break
    return number, pending


def _settle(db: sqlite3.Connection, session: str, events: dict[int, bytes]) -> None:
    newest = max(events)
    for (raw,) in db.execute(SQL["read_log"], (session, min(events), newest)).fetchall():
        for seq, _ in lines.unpack(raw):
            events.pop(seq, None)
    db.executemany(SQL["put_segment"], map(segment_row, segments_from(session, events)))
    db.execute(SQL["raise_last_seq"], (session, newest))


def _take_over(db: sqlite3.Connection, durability: Durability) -> None:
    """Mark the file as served, and replace epochs that the last process may have used for events that are gone."""
    left = db.execute(SQL["get_meta"], ("process",)).fetchone()
    with _transaction(db):
        if left is not None and left[0] == "normal":
            renew(db)
        db.execute(SQL["put_meta"], ("process", durability))


def _look(path: Path) -> bool:
    """Check a file that has a WAL before anything is written; False when there is none. A connection that may write
    moves the WAL into the file when it is closed, and deletes it: what could be restored of a damaged file would be
    gone."""
    log = Path(f"{path}-wal")
    if not (path.is_file() and log.is_file() and log.stat().st_size):
        return False
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as db:
        if admit(db, path) == 0:
            return False
        _check(db, path)
        left = db.execute(SQL["get_meta"], ("process",)).fetchone()
        if left is not None and left[0] == "full" and is_damaged(path):
            raise StoreDamaged(
                f"{log} is damaged: commits in it that were acknowledged can no longer be read. Restore a backup, or "
                f"go on with what is left: `strandline new-epoch --db {path}`."
            )
    return True


def _check(db: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > _CHECKED_BYTES:
        return
    verdict = " ".join(db.execute("PRAGMA quick_check(1)").fetchone()[0].split())
    if verdict != "ok":
        raise StoreDamaged(
            f"{path} is damaged ({verdict}): restore a backup, or try `sqlite3 {path} .recover` into a new file."
        )


class _transaction:
    """``BEGIN IMMEDIATE`` … ``COMMIT``, or ``ROLLBACK`` when the block raises."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute(SQL["begin"])

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._db.execute(SQL["commit"] if kind is None else SQL["rollback"])
