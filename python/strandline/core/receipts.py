"""What running agents were told, so that the same request again is answered as it was the first time (PROTOCOL §14.3).

A note that its agent has taken is no message, and has no run of its own: this is all there is to know it by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from strandline.core.records import ReceiptRecord


def digest_of(parts: Iterable[Mapping[str, Any]]) -> str:
    """What tells one message from another with the same id."""
    return hashlib.sha256(json.dumps(tuple(parts), sort_keys=True).encode()).hexdigest()


class Receipts:
    """Those of one session: the newest for each message id, and every one that has a key."""

    __slots__ = ("_keyed", "_named")

    def __init__(self, records: Iterable[ReceiptRecord] = ()) -> None:
        self._named: dict[str, ReceiptRecord] = {}
        self._keyed: dict[str, ReceiptRecord] = {}
        for record in records:
            self.take(record)

    def take(self, record: ReceiptRecord) -> None:
        """One more, newer than the others."""
        self._named[record.message_id] = record
        if record.key is not None:
            self._keyed[record.key] = record

    def named(self, message_id: str) -> ReceiptRecord | None:
        """The newest of a message, unless what it said was erased."""
        found = self._named.get(message_id)
        return found if found is not None and found.digest is not None else None

    def keyed(self, key: str) -> ReceiptRecord | None:
        """The one of the request with this idempotency key."""
        return self._keyed.get(key)

    def erase(self, gone: Callable[[ReceiptRecord], bool]) -> None:
        """Of those that are ``gone`` nothing is kept but that there was one."""
        for known in (self._named, self._keyed):
            for name, record in known.items():
                if gone(record):
                    known[name] = replace(record, digest=None)
