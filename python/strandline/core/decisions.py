"""Decisions: what a suspended run waits for, and what an answer makes of its message (PROTOCOL §15).

The store holds the input of a call. What a client posts is compared with it and then forgotten: an answer is one of
``Answer``, whatever else the client says about the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strandline.core.chunks import check
from strandline.core.events import DecisionMade, DecisionRequested
from strandline.core.ids import MAX_ID
from strandline.core.message import FoldState
from strandline.core.partial_json import ABSENT
from strandline.core.parts import Tool
from strandline.core.records import DecisionRecord

APPROVAL = "approval"
CLIENT_TOOL = "tool"

APPROVED, DENIED, OUTPUT, ERROR, EXPIRED, SUPERSEDED = "approved", "denied", "output", "error", "expired", "superseded"

GIVEN = {APPROVAL: frozenset({APPROVED, DENIED}), CLIENT_TOOL: frozenset({OUTPUT, ERROR})}
"""What somebody can decide, by kind. The other outcomes come about by themselves."""

_TEXTS = {EXPIRED: "Nobody decided in time.", SUPERSEDED: "A newer message took the place of this."}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is decided. ``reason`` is a text about an approval or a denial; ``output`` and ``error`` are a tool's."""

    outcome: str
    reason: str | None = None
    output: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Awaited:
    """A tool call that a run leaves to be decided. ``decision`` is the wanted id, ``expires_at`` in ms."""

    tool_call: str
    kind: str
    decision: str
    roles: tuple[str, ...] | None = None
    expires_at: int | None = None


def requested(
    awaited: Iterable[Awaited], fold: FoldState, taken: Iterable[str], run: str, message: str, message_id: str, at: int
) -> list[DecisionRequested]:
    """The events that ask. An id that another decision of the session has by now is changed."""
    used = set(taken)
    found = []
    for each in awaited:
        tool = fold.tool(each.tool_call)
        if tool is None or tool.finished:
            continue
        decision = _unused(each.decision, used)
        used.add(decision)
        known = tool.input()
        found.append(
            DecisionRequested(
                at,
                run,
                message,
                message_id,
                decision,
                each.kind,
                each.tool_call,
                tool.name,
                None if known is ABSENT else known,
                each.expires_at,
                each.roles,
            )
        )
    return found


def _unused(wanted: str, used: set[str]) -> str:
    """An id that nothing has, as like the wanted one as it can be: however often a library gives the same."""
    if wanted not in used:
        return wanted
    number = 2
    while (decision := f"{wanted[: MAX_ID - 10]}~{number}") in used:
        number += 1
    return decision


def asked(session: str, event: DecisionRequested) -> DecisionRecord:
    """The record of a decision that nobody has made yet."""
    return DecisionRecord(
        session=session,
        id=event.decision,
        run=event.run,
        message=event.message,
        message_id=event.message_id,
        kind=event.kind,
        tool_call=event.tool_call,
        tool=event.tool,
        created_at=event.at,
        input=event.input,
        roles=event.roles,
        expires_at=event.expires_at,
    )


def decided_value(event: DecisionMade) -> dict[str, Any] | None:
    """What was decided, as the record keeps it (``DecisionRecord.value``); None where nobody has decided."""
    if event.outcome in ("expired", "superseded"):
        return None
    if event.outcome == "output":
        return {"output": next(chunk["output"] for chunk in event.chunks if chunk["type"] == "tool-output-available")}
    if event.outcome == "error":
        return {"errorText": next(chunk["errorText"] for chunk in event.chunks if chunk["type"] == "tool-output-error")}
    value: dict[str, Any] = {"approved": event.outcome == "approved"}
    return value if event.reason is None else {**value, "reason": event.reason}


def made(decision: DecisionRecord, answer: Answer, fold: FoldState, by: str, at: int) -> DecisionMade:
    """The event that decides; ``fold``, the message so far, takes in its chunks. Raises ChunkInvalid and FoldError, and
    then nothing has changed."""
    tool = awaiting(decision, fold)
    chunks = _chunks(decision, answer, tool) if tool is not None else []
    for chunk in chunks:
        check(chunk)
    for chunk in chunks:
        fold.push(chunk)
    return DecisionMade(
        at,
        by,
        decision.id,
        decision.run,
        decision.message,
        decision.message_id,
        answer.outcome,
        tuple(chunks),
        answer.reason,
    )


def awaiting(decision: DecisionRecord, fold: FoldState) -> Tool | None:
    """The call that waits for a decision; None when the message does not have it any more."""
    tool = fold.tool(decision.tool_call)
    return None if tool is None or tool.finished else tool


def told(decision: DecisionRecord, fold: FoldState) -> list[dict[str, Any]]:
    """The chunks of a decision that was made, once more: for who reads only what follows it. ``fold`` is any state of
    the message that has the call."""
    tool = fold.tool(decision.tool_call)
    return [] if tool is None or decision.outcome is None else _chunks(decision, recorded(decision), tool)


def plain(decision: DecisionRecord) -> dict[str, Any]:
    """A decision as clients see it (PROTOCOL §15.2)."""
    return {
        "id": decision.id,
        "kind": decision.kind,
        "run": decision.run,
        "messageId": decision.message_id,
        "toolCallId": decision.tool_call,
        "tool": decision.tool,
        "input": decision.input,
        "roles": decision.roles,
        "createdAt": decision.created_at,
        "expiresAt": decision.expires_at,
        "outcome": decision.outcome,
        "value": decision.value,
        "by": decision.decided_by,
        "at": decision.decided_at,
    }


def recorded(decision: DecisionRecord) -> Answer:
    """What was decided, of a decision that was made."""
    assert decision.outcome is not None
    value = decision.value or {}
    return Answer(decision.outcome, value.get("reason"), value.get("output"), value.get("errorText"))


def same(decision: DecisionRecord, answer: Answer) -> bool:
    """Whether the answer is what was decided. The reason may differ: it is said, not decided."""
    known = recorded(decision)
    if known.outcome != answer.outcome:
        return False
    return alike(known.output, answer.output) and known.error == answer.error


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are one to a JavaScript client, which knows no integers beyond 2**53."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or float(one) == float(other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return type(one) is type(other) and bool(one == other)


def _chunks(decision: DecisionRecord, answer: Answer, tool: Tool) -> list[dict[str, Any]]:
    call: dict[str, Any] = {"toolCallId": decision.tool_call, **({"dynamic": True} if tool.dynamic else {})}
    match answer.outcome:
        case "output":
            return [{"type": "tool-output-available", **call, "output": answer.output}]
        case "error":
            return [{"type": "tool-output-error", **call, "errorText": answer.error}]
    reason = answer.reason if answer.reason is not None else _TEXTS.get(answer.outcome)
    if decision.kind == CLIENT_TOOL:
        return [{"type": "tool-output-error", **call, "errorText": reason}]
    approval = tool.fields.get("approval", {}).get("id", decision.id)
    response: dict[str, Any] = {"type": "tool-approval-response", "approvalId": approval}
    response["approved"] = answer.outcome == APPROVED
    if reason is not None:
        response["reason"] = reason
    return [response] if answer.outcome == APPROVED else [response, {"type": "tool-output-denied", **call}]


# ---------------------------------------------------------------------- what an AI SDK client posts


@dataclass(frozen=True, slots=True)
class Posted:
    """What a browser says of one tool call of a reply: its own copy of the part, of which only the answer counts."""

    tool_call: str
    tool: str
    state: str
    input: Any = None
    approved: bool | None = None
    reason: str | None = None
    output: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """A reply as a browser posts it: its tool calls, and its ``size`` (see ``size_of``)."""

    calls: tuple[Posted, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a posted reply answers. ``new``: to pending decisions; ``known``: decisions that were made like that;
    ``other``: one that was made differently; ``changed``: a call that is not the stored one. ``ahead``: how much longer
    the copy is than the stored reply, where its calls say the same; None where they do not."""

    new: tuple[tuple[DecisionRecord, Answer], ...] = ()
    known: tuple[DecisionRecord, ...] = ()
    other: DecisionRecord | None = None
    changed: DecisionRecord | None = None
    ahead: int | None = None


def size_of(parts: Iterable[Any]) -> int:
    """How many texts, steps and tool calls there are: what clients of every version have alike."""
    return sum(
        isinstance(part, Mapping) and ("toolCallId" in part or part.get("type") in ("text", "step-start"))
        for part in parts
    )


def read(posted: Copy, decisions: Iterable[DecisionRecord], stored: FoldState) -> Reading:
    """Compare a posted reply with the stored one. What it says of calls that nobody is asked about answers nothing: it
    is old, or made up."""
    asked = {each.tool_call: each for each in decisions}
    new: list[tuple[DecisionRecord, Answer]] = []
    known: list[DecisionRecord] = []
    other: DecisionRecord | None = None
    for each in posted.calls:
        decision, tool = asked.get(each.tool_call), stored.tool(each.tool_call)
        answer = _answer(each, decision) if decision is not None else None
        if decision is None or tool is None or answer is None:
            continue
        value = tool.input()
        if each.tool != tool.name or not alike(each.input, None if value is ABSENT else value):
            return Reading(changed=decision)
        if decision.pending:
            new.append((decision, answer))
        elif same(decision, answer):
            known.append(decision)
        elif not _shown(each, tool):
            other = other or decision
    calls = [entry for entry in stored.entries if isinstance(entry, Tool)]
    is_same = len(posted.calls) == len(calls) and all(map(_told, posted.calls, calls))
    ahead = posted.size - size_of(stored.parts()) if is_same else None
    return Reading(tuple(new), tuple(known), other, ahead=ahead)


def _answer(posted: Posted, decision: DecisionRecord) -> Answer | None:
    if decision.kind == APPROVAL:
        if posted.state != "approval-responded" or posted.approved is None:
            return None
        return Answer(APPROVED if posted.approved else DENIED, posted.reason)
    if posted.state == "output-available":
        return Answer(OUTPUT, output=posted.output)
    return Answer(ERROR, error=posted.error or "") if posted.state == "output-error" else None


def _told(posted: Posted, tool: Tool) -> bool:
    """Whether the part says of the stored call how it ended, and nothing else."""
    if posted.tool_call != tool.id:
        return False
    if posted.state == "output-error" and tool.state == "output-denied":
        return True  # what older clients are told of a denial
    is_alike = alike(posted.output, tool.fields.get("output")) and posted.error == tool.fields.get("errorText")
    return tool.finished and posted.state == tool.state and is_alike


def _shown(posted: Posted, tool: Tool) -> bool:
    """Whether the part says how the stored call failed: it was read, not answered."""
    return posted.state == "output-error" and posted.error == tool.fields.get("errorText")
