"""Where conversations are kept: the port (``port.py``) and its two implementations."""

from __future__ import annotations

from os import PathLike
from typing import Literal

from strandline.stores.memory import MemoryStore
from strandline.stores.port import Batch, Entry, Segment, Store
from strandline.stores.sqlite import SqliteStore

__all__ = ["Batch", "Entry", "MemoryStore", "Segment", "SqliteStore", "Store", "open_store"]


def open_store(
    target: str | PathLike[str] | Store, *, durability: Literal["full", "normal"] = "full", lock_wait: float = 5.0
) -> Store:
    """The store that ``target`` names, not opened yet: ``"memory:"``, the path of a database file, or a store."""
    if isinstance(target, (str, PathLike)):
        if target == "memory:":
            return MemoryStore()
        return SqliteStore(target, durability=durability, lock_wait=lock_wait)
    return target
