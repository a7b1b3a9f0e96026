"""What a session is made of when it stands still: the rows that history reads and a restart loads.

Frozen values, replaced as a whole. ``version`` is the server-minted identity of a message, unique in the store;
``message_id`` is the id that the wire knows and is unique on a session's active path only (DESIGN §5, branches).
Times are wall-clock milliseconds since 1970 (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strandline.core.run import ACTIVE, Status


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One conversation. ``owner`` is the user that created it; ``leaf`` the newest message of the active path;
    ``archived`` says only where it is listed."""

    id: str
    epoch: str
    owner: str
    created_at: int
    updated_at: int
    last_seq: int
    leaf: str | None = None
    title: str | None = None
    archived: bool = False


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """One message version. ``parts`` is None in an outline, which leaves the content out.

    ``run`` is the newest run that wrote an assistant message; None for user and imported messages.
    """

    session: str
    version: str
    message_id: str
    parent: str | None
    role: str
    author: str
    created_at: int
    run: str | None = None
    parts: tuple[Mapping[str, Any], ...] | None = None
    metadata: Any = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution of an agent. ``first_seq`` is the number of its ``RunQueued`` event, ``last_seq`` of its end.

    ``message`` is the version of the assistant message that it writes, ``parent`` the version of the message that
    it answers, ``key`` the idempotency key of the request that caused it.
    """

    id: str
    session: str
    message: str
    message_id: str
    parent: str | None
    agent: str
    author: str
    status: Status
    created_at: int
    first_seq: int
    last_seq: int | None = None
    parent_run: str | None = None
    key: str | None = None
    reason: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    ended_at: int | None = None

    @property
    def active(self) -> bool:
        """True until the run has ended."""
        return self.status in ACTIVE
