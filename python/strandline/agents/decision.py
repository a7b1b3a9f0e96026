"""What was decided, as the agent that asked for it sees it when it is called again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from strandline.agents.writing import Terms
from strandline.core import decisions
from strandline.core.message import FoldState
from strandline.core.partial_json import ABSENT
from strandline.core.records import DecisionRecord
from strandline.errors import Misconfigured


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
        return self.outcome == decisions.APPROVED


def made(records: Iterable[DecisionRecord], base: FoldState) -> list[Decision]:
    """The decisions of ``records`` that were made; ``base`` is the message that they are about."""
    found = []
    for record in records:
        if record.outcome is None:
            continue
        answer, tool = decisions.recorded(record), base.tool(record.tool_call)
        known = tool.input() if tool is not None else ABSENT
        found.append(
            Decision(
                record.id,
                record.kind,
                record.tool_call,
                record.tool,
                None if known is ABSENT else known,
                answer.outcome,
                answer.reason,
                answer.output,
                answer.error,
                record.decided_by,
            )
        )
    return found


def terms(roles: Iterable[str] | None, expires_in: float | None) -> Terms:
    """Who may decide, and how long they have. Raises Misconfigured."""
    if isinstance(roles, str):
        raise Misconfigured("`roles` is a list of names, not one str")
    if expires_in is not None and not 0 < expires_in < float("inf"):
        raise Misconfigured(f"`expires_in` is a number of seconds, not {expires_in!r}")
    return Terms(tuple(roles) if roles is not None else None, expires_in)
