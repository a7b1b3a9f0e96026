"""Decisions as an agent sees them: who may decide, and what was decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strandline.core.decisions import APPROVED
from strandline.errors import Misconfigured

LONGEST_WAIT = 10 * 366 * 86_400
"""Seconds: ten years. What lasts longer is not waited for."""
MOST_ROLES = 100
LONGEST_ROLE = 200


@dataclass(frozen=True, slots=True)
class Terms:
    """Who may decide (None: whoever the policy lets), and within how many seconds after the run was suspended."""

    roles: tuple[str, ...] | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision that was made. ``kind`` is ``approval`` or ``tool``; ``input`` is the one that was asked about, as
    the store has it; ``outcome`` is ``approved``, ``denied``, ``output``, ``error`` or ``expired``."""

    id: str
    kind: str
    tool_call: str
    tool: str
    input: Any
    outcome: str
    reason: str | None
    output: Any
    error: str | None
    decided_by: str | None

    @property
    def approved(self) -> bool:
        """True for an approval that was given."""
        return self.outcome == APPROVED


def read(plain: Mapping[str, Any]) -> Decision:
    """A decision that was made, of what clients see of it (PROTOCOL §15.2) with its input."""
    value = plain["value"] or {}
    return Decision(
        plain["id"],
        plain["kind"],
        plain["toolCallId"],
        plain["tool"],
        plain["input"],
        plain["outcome"],
        value.get("reason"),
        value.get("output"),
        value.get("errorText"),
        plain["by"],
    )


def terms(roles: Iterable[str] | None, expires_in: float | None) -> Terms:
    """Who may decide, and how long they have. Raises Misconfigured."""
    if isinstance(roles, str):
        raise Misconfigured("`roles` is a list of names, not one str")
    if expires_in is not None and not 0 < expires_in <= LONGEST_WAIT:
        raise Misconfigured(f"`expires_in` is a number of seconds, at most {LONGEST_WAIT}, not {expires_in!r:.60}")
    named = tuple(roles) if roles is not None else None
    if named is not None and (len(named) > MOST_ROLES or any(len(role) > LONGEST_ROLE for role in named)):
        raise Misconfigured(f"`roles` are at most {MOST_ROLES} names of at most {LONGEST_ROLE} characters")
    return Terms(named, expires_in)
