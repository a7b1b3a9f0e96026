"""Whether a write-ahead log has been damaged since it was written. Reads two files, writes nothing.

SQLite takes a WAL up to its first frame that does not check, and silently: it cannot know whether what follows was ever
promised to anybody. With ``synchronous=FULL`` that can be known: a commit begins only after the one before it was
synced, so after a loss of power at most one commit is torn. Where two commits do not count because of one frame, one of
them was acknowledged, and something has changed the file since (https://sqlite.org/walformat.html).
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_HEADER = 32
_FRAME_HEADER = 24
_BIG_ENDIAN = 0x377F0683
_MAX_FRAME_AT = 16
"""Where the ``-shm`` file says, in the byte order of the machine, how many frames SQLite has taken."""

_TORN = 1
"""Commits that a loss of power may leave unreadable."""


def is_damaged(database: Path) -> bool:
    """True when commits that were synced can no longer be read. To be called while a connection has the WAL open."""
    with Path(f"{database}-shm").open("rb") as shm:
        shm.seek(_MAX_FRAME_AT)
        taken = int.from_bytes(shm.read(4), sys.byteorder)
    with Path(f"{database}-wal").open("rb") as wal:
        header = wal.read(_HEADER)
        if len(header) < _HEADER:
            return False
        magic, _, page_size = struct.unpack_from(">III", header)
        order = ">" if magic == _BIG_ENDIAN else "<"
        if _summed(order, bytes(8), header[:24]) != header[24:]:
            # It was being started over, which is only done when the database has everything.
            return False
        size = _FRAME_HEADER + page_size
        # Each frame is checked against the sum that the one before it carries, be that one sound or not: behind a
        # frame that was damaged the others still check, behind one that was never written they do not.
        sums, broken, commits = header[24:], 0, 0
        if taken:
            wal.seek(_HEADER + (taken - 1) * size)
            sums = wal.read(size)[16:24]
        while len(frame := wal.read(size)) == size:
            sound = frame[8:16] == header[16:24]
            sound = sound and _summed(order, sums, frame[:8] + frame[_FRAME_HEADER:]) == frame[16:24]
            broken += not sound
            if broken > 1:
                return False
            commits += frame[4:8] != b"\0\0\0\0"
            if commits > _TORN:
                return True
            sums = frame[16:24]
    return False


def _summed(order: str, sums: bytes, data: bytes) -> bytes:
    low, high = struct.unpack(">II", sums)
    values = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(values, values, strict=True):
        low = (low + first + high) & 0xFFFFFFFF
        high = (high + second + low) & 0xFFFFFFFF
    return struct.pack(">II", low, high)
