"""The interrupts of a graph as what somebody has to decide, and what was decided as what resumes the graph.

Everything that resuming needs is in the message: the id of an approval begins with that of its interrupt, and the call
that stands for any other interrupt has it in ``providerMetadata.langgraph``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from strandline.agents.run import Run
from strandline.agents.sources.langgraph_messages import OWN, Chunks
from strandline.saying.decision import Decision

TOOL = "interrupt"
"""What the call is named that stands for an interrupt. Its output is the value of the resume."""

_APPROVAL = re.compile(r"([0-9a-f]{32})(?:\.(\d+))?")


def asked(run: Run, interrupts: Iterable[Any]) -> Chunks:
    """The chunks that ask for what a graph waits for: an approval of each call that LangChain's
    ``HumanInTheLoopMiddleware`` asks about, the output of a call ``interrupt`` for anything else."""
    taken: set[str] = set()
    for each in interrupts:
        value = to_jsonable_python(each.value)
        for index, action in enumerate(actions := _actions(each, value)):
            batched = "tool_call_id" not in action
            approval = f"{each.id}.{index}" if batched else each.id
            call = (_shown(run, action, taken) or approval) if batched else action["tool_call_id"]
            taken.add(call)
            if not _is_shown(run, call):  # its model is not heard
                about = {"toolCallId": call, "toolName": action["name"], "input": action["args"]}
                yield {"type": "tool-input-available", **about}
            why = {"reason": action["description"]} if action.get("description") else {}
            yield {"type": "tool-approval-request", "approvalId": approval, "toolCallId": call, **why}
        if not actions:
            call = each.id
            while _is_shown(run, call):  # of a graph that interrupts with one id again
                call += "~"
            about = {"toolCallId": call, "toolName": TOOL, "providerMetadata": {OWN: {TOOL: each.id}}}
            yield {"type": "tool-input-available", **about, "input": value}
            run.leave_to_client(call, TOOL)


def resume_values(run: Run) -> dict[str, Any] | None:
    """What ``Command(resume=…)`` takes to go on with a graph: a value for each interrupt of this message that was
    decided; None when the agent is called for a new message. A call that failed or expired is ``{"error": text}``."""
    found: dict[str, Any] = {}
    batches: dict[str, dict[int, Any]] = {}
    for part in run.message["parts"]:
        decision = run.decided(part["toolCallId"]) if "toolCallId" in part else None
        if decision is None:
            continue
        of = interrupt_of(part)
        asked_as = _APPROVAL.fullmatch(str(part.get("approval", {}).get("id")))
        if of is not None:
            found[of] = decision.output if decision.outcome == "output" else {"error": part["errorText"]}
        elif asked_as is not None and asked_as[2] is not None:
            batches.setdefault(asked_as[1], {})[int(asked_as[2])] = _answer(decision, part)
        elif asked_as is not None:
            found[asked_as[1]] = _answer(decision, part)
    found |= {each: {"decisions": [batch[at] for at in sorted(batch)]} for each, batch in batches.items()}
    return found or None


def interrupt_of(part: Mapping[str, Any]) -> str | None:
    """The id of the interrupt that a tool part stands for; None for a tool's own."""
    kept = part.get("callProviderMetadata") or part.get("resultProviderMetadata") or {}
    found: str | None = kept.get(OWN, {}).get(TOOL)
    return found


def _answer(decision: Decision, part: Mapping[str, Any]) -> dict[str, Any]:
    if decision.approved:
        return {"type": "approve"}
    reason = part["approval"].get("reason")
    return {"type": "reject", "message": reason} if reason else {"type": "reject"}


def _actions(interrupt: Any, value: Any) -> list[Mapping[str, Any]]:
    """The calls that the middleware asks about, if a yes or a no is an answer to each of them."""
    if not isinstance(value, dict):
        return []
    if value.get("type") == "tool_approval":
        schema = orjson.dumps(getattr(interrupt, "response_schema", None)).decode()
        return [value] if all(f'"const":"{answer}"' in schema for answer in ("approve", "reject")) else []
    actions, configs = value.get("action_requests"), value.get("review_configs")
    if not isinstance(actions, list) or not isinstance(configs, list):
        return []
    answers = [set(each["allowed_decisions"]) for each in configs]
    return actions if all({"approve", "reject"} <= each for each in answers) else []


def _shown(run: Run, action: Mapping[str, Any], taken: set[str]) -> str | None:
    """The call of the message that an action is."""
    for part in run.message["parts"]:
        open_call = part.get("state") == "input-available" and part["toolCallId"] not in taken
        if open_call and part["type"] == f"tool-{action['name']}" and part.get("input") == action["args"]:
            return str(part["toolCallId"])
    return None


def _is_shown(run: Run, call: str) -> bool:
    return any(part.get("toolCallId") == call for part in run.message["parts"])
