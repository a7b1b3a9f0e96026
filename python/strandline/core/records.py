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
    ``archived`` says only where it is listed; ``submit`` what happens to a message that comes while a reply is being
    written, None: what the service does by default."""

    id: str
    epoch: str
    owner: str
    created_at: int
    updated_at: int
    last_seq: int
    leaf: str | None = None
    title: str | None = None
    archived: bool = False
    submit: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """One message version. ``parts`` is None in an outline, which leaves the content out.

    ``author`` is who said it, ``editor`` who has replaced what it says last (None: nobody); both are the ``by`` of an
    event. ``run`` is the newest run that wrote an assistant message; None for user and imported ones. A ``deleted`` one
    has no content any more and only keeps its place in the tree; a ``spawned`` one is on no path, ``parent`` is the
    message beside which it was written.
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
    deleted: bool = False
    spawned: bool = False
    editor: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution of an agent. ``first_seq`` is the number of its ``RunQueued`` event, ``last_seq`` of its end.

    ``message`` is the version of the assistant message that it writes, ``parent`` the version of the message that
    it answers, ``key`` the idempotency key of the request that caused it. ``attempt`` counts the processes that have
    called its agent, ``producer`` the remote agents that have taken it. ``body``: see ``RunQueued``.
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
    spawned: bool = False
    attempt: int = 1
    producer: int = 0
    body: Mapping[str, Any] | None = None

    @property
    def active(self) -> bool:
        """True until the run has ended."""
        return self.status in ACTIVE


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision that a run asked for (see ``DecisionRequested``). ``outcome`` is None while it is pending.

    ``id`` is unique in its session. ``value`` is what was decided: ``{"approved", "reason"?}``, ``{"output"}`` or
    ``{"errorText"}``, None where nobody has; ``run`` asked, ``message`` is the version it asked in. In an outline
    ``input`` is None once the decision was made.
    """

    session: str
    id: str
    run: str
    message: str
    message_id: str
    kind: str
    tool_call: str
    tool: str
    created_at: int
    input: Any = None
    roles: tuple[str, ...] | None = None
    expires_at: int | None = None
    outcome: str | None = None
    value: Mapping[str, Any] | None = None
    decided_at: int | None = None
    decided_by: str | None = None

    @property
    def pending(self) -> bool:
        """True until it was decided, expired or superseded."""
        return self.outcome is None


@dataclass(frozen=True, slots=True)
class ReceiptRecord:
    """That a running agent was told a message: the run, the number of the event, and how to know the request again.
    ``digest`` tells what it said from anything else; None once that was erased."""

    session: str
    message_id: str
    run: str
    seq: int
    digest: str | None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class AnnotationRecord:
    """One annotation of a message, or of the ``range`` of it (see ``Annotated``). ``name`` is what a summary counts it
    under. An outline leaves ``data`` and ``range`` out."""

    session: str
    id: str
    message: str
    message_id: str
    kind: str
    author: str
    created_at: int
    name: str | None = None
    data: Any = None
    range: Mapping[str, Any] | None = None
