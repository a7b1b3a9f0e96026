"""What SQLite complains about, in words that say what to do. No I/O."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from strandline.errors import StoreDamaged, StoreRefused, StoreUnavailable

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

OF_THE_BATCH = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""Values that SQLite does not take (too long, or of no type that it knows): waiting does not make them better."""

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk (or a quota) is full: make room, the same write is tried again",
    sqlite3.SQLITE_BUSY: "another connection has been holding its write lock: end whatever else writes to this file",
    sqlite3.SQLITE_LOCKED: "another connection has been holding its write lock: end whatever else writes to this file",
    sqlite3.SQLITE_READONLY: "it cannot be written: check the permissions of the file, its directory and the mount",
    sqlite3.SQLITE_PERM: "it cannot be written: check the permissions of the file, its directory and the mount",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that it is a file and the permissions of its directory",
    sqlite3.SQLITE_IOERR: "the disk reports an I/O error: check the disk, its limits (ulimit -f) and the system log",
    sqlite3.SQLITE_NOMEM: "memory has run out",
}


def unavailable(error: sqlite3.Error, path: Path) -> StoreUnavailable:
    """The error of a store that is open, or of a file that may work at the next attempt."""
    code = _primary(error)
    if code in _DAMAGED:
        advice = f"the file is damaged: stop the service and restore a backup, or try `sqlite3 {path} .recover`"
    else:
        advice = _ADVICE.get(code, "SQLite refused")
    return StoreUnavailable(f"Cannot use the store {path} just now: {advice} ({_said(error)}).")


def refused(error: sqlite3.Error, path: Path) -> StoreRefused | StoreUnavailable:
    """The error of a store that is being opened: a damaged file will not get better by waiting."""
    if _primary(error) in _DAMAGED:
        return StoreDamaged(
            f"{path} is not a usable SQLite database: give another path, restore a backup, "
            f"or try `sqlite3 {path} .recover` ({_said(error)})."
        )
    return unavailable(error, path)


def _primary(error: sqlite3.Error) -> int:
    # Errors that Python's module raises by itself carry no code.
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _said(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", None)
    return f"{name}: {error}" if name else str(error)
