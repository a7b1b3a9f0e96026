"""A model of a disk that loses its power: what was synced is there, of what was written since then anything may be.

It knows what SQLite syncs, and in which order (3.40, ``wal.c``): with ``synchronous=FULL`` the WAL before a commit
returns; with NORMAL only the WAL before a checkpoint writes to the database; in both the database before a checkpoint
ends, and the header of a WAL that starts over before anything that follows it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
HEADER = 32


@dataclass(frozen=True, slots=True)
class Files:
    """The database and its WAL. The third file, ``-shm``, is memory: it does not survive."""

    db: bytes
    wal: bytes

    def put(self, path: Path) -> None:
        for name in ("-wal", "-shm", "-journal", ".lock"):
            Path(f"{path}{name}").unlink(missing_ok=True)
        path.write_bytes(self.db)
        if self.wal:
            Path(f"{path}-wal").write_bytes(self.wal)


def files_of(path: Path) -> Files:
    wal = Path(f"{path}-wal")
    return Files(path.read_bytes(), wal.read_bytes() if wal.exists() else b"")


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which the power may go: ``synced`` is on the disk for certain, ``written`` is what the system had been
    given when it ended. Of the batches the first ``least`` must be there afterwards, and no more than ``most``."""

    what: str
    synced: Files
    written: Files
    least: int
    most: int

    def crash(self, chance: random.Random) -> Files:
        """What is on the disk when the power comes back."""
        db, wal = _torn(self.synced.db, self.written.db, chance), self.synced.wal
        if self.written.wal[:HEADER] != wal[:HEADER]:
            if len(self.written.wal) < HEADER or chance.random() < 0.2:
                # The header itself is on its way; all that follows it is of the time before.
                return Files(db, _torn(wal[:HEADER], self.written.wal[:HEADER], chance) + wal[HEADER:])
            wal = self.written.wal[:HEADER] + wal[HEADER:]
        return Files(db, _torn(wal, self.written.wal, chance))


def _torn(old: bytes, new: bytes, chance: random.Random) -> bytes:
    """A file that was being changed from ``old`` to ``new``, which is not shorter. Bytes that are equal are safe."""
    if old == new:
        return old
    how = chance.choice(["nothing", "everything", "prefix", "sectors", "zeroed", "garbage"])
    if how == "nothing":
        return old
    if how == "everything":
        return new
    # Where the writes had come to: any byte, so that a sector may be half written and the file of any length.
    end = chance.randint(_first_difference(old, new), len(new))
    mixed = bytearray(new[:end] + old[end:])
    ruined = chance.randint(0, end)
    for at in range(0, end, SECTOR):
        upto = min(at + SECTOR, end)
        was, is_now = old[at:upto].ljust(upto - at, b"\0"), new[at:upto]
        if was == is_now:
            continue
        if how == "sectors" and chance.random() < 0.5:
            # The disk writes in an order of its own; what it left out beyond the old end is a hole.
            mixed[at:upto] = was
        elif how in ("zeroed", "garbage") and at >= ruined:
            waste = bytes(SECTOR) if how == "zeroed" else chance.randbytes(SECTOR)
            mixed[at:upto] = (
                x if x == y and at + i < len(old) else z
                for i, (x, y, z) in enumerate(zip(was, is_now, waste, strict=False))
            )
    return bytes(mixed)


def _first_difference(old: bytes, new: bytes) -> int:
    for at in range(0, len(old), SECTOR):
        if old[at : at + SECTOR] != new[at : at + SECTOR]:
            return next(at + i for i in range(SECTOR) if old[at + i : at + i + 1] != new[at + i : at + i + 1])
    return len(old)
