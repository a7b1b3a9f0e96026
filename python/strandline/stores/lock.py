"""One process per database file: an operating-system lock on a side file, ``<database>.lock``.

The system gives the lock back when its process dies, however it dies; the side file stays and means nothing. It is
not SQLite's own lock, so reading the database beside a running server stays possible (``inspect.py``).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from strandline.errors import StoreInUse, StoreRefused, StoreUnavailable

_POLL = 0.05
"""Seconds between attempts. ``flock`` offers no wait that an event loop could give up."""


class FileLock:
    """The exclusive right to serve one database file."""

    def __init__(self, database: Path) -> None:
        # The real path: two names for one file (a symbolic link) must not become two locks.
        self._database = database
        self._path = Path(os.path.realpath(database) + ".lock")
        self._fd: int | None = None

    async def acquire(self, wait: float) -> None:
        """Take the lock, trying for ``wait`` seconds. Raises StoreInUse, StoreUnavailable or StoreRefused."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while not self.take():
            left = deadline - loop.time()
            if left <= 0:
                raise self.in_use(wait)
            await asyncio.sleep(min(_POLL, left))

    def take(self) -> bool:
        """Take the lock if it is free. Raises StoreUnavailable when the side file cannot be made."""
        if sys.platform == "win32":
            raise StoreRefused(
                "The SQLite store is not supported on Windows yet: run Strandline in WSL or a container, "
                'or use MemoryStore() ("memory:") for trying things out.'
            )
        import fcntl

        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnavailable(
                f"Cannot create the lock file {self._path} beside the database: {error.strerror}. "
                "The directory must exist and be writable by this process."
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                return False
            raise StoreUnavailable(
                f"Cannot lock {self._path}: {error.strerror}. The database must lie on a file system that has locks."
            ) from error
        self._fd = fd
        self._sign(fd)
        return True

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def in_use(self, waited: float) -> StoreInUse:
        """The error for a lock that somebody else holds, with what to do about it."""
        holder = self._holder()
        who = f"process {holder}" if holder is not None else "another process"
        return StoreInUse(
            f"{self._database} is in use by {who} (waited {waited:g} s). A SQLite store is served by exactly one "
            "process: run one worker (no `--workers 2`, no second server on this file), or give this one another "
            "path. With `--reload` the new process waits until the old one has let go; if that one hangs, end it."
        )

    def _sign(self, fd: int) -> None:
        # For the message only. A full disk must not keep the lock from its owner.
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            return

    def _holder(self) -> int | None:
        try:
            return int(self._path.read_text("ascii"))
        except (OSError, ValueError):
            return None
