"""Which strings may be an id (PROTOCOL §2.1)."""

from __future__ import annotations

import re

MAX_ID = 200
_ID = re.compile(r"[!-~]{1,200}", re.ASCII)
_FORBIDDEN = frozenset("/\\%?#")


class InvalidId(ValueError):
    """The text cannot be an id; the message says what and why."""


def check_id(value: object, what: str) -> str:
    """Return ``value`` if it may be an id, else raise InvalidId naming ``what``."""
    if not isinstance(value, str):
        raise InvalidId(f"{what} must be a string")
    if _ID.fullmatch(value) is None or value in (".", "..") or not _FORBIDDEN.isdisjoint(value):
        raise InvalidId(
            f"{what} must be 1 to {MAX_ID} printable ASCII characters without space, '/', '\\', '%', '?' or '#', "
            "and not '.' or '..'"
        )
    return value
