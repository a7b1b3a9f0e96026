"""What was decided about the interrupts of an AG-UI agent, as it is told so (``ag-ui-protocol 1.0.0``,
``RunAgentInput.resume``)."""

from __future__ import annotations

from typing import Any

from strandline.agents.run import Run
from strandline.agents.sources.ag_ui_asides import mapping
from strandline.agents.sources.ag_ui_calls import INTERRUPT
from strandline.codecs.ag_ui_input import interrupt_of
from strandline.saying.decision import Decision


def resume_entries(run: Run) -> dict[str, dict[str, Any]]:
    """The entry for each tool call that stands for an interrupt and was decided. Outputs of other tools of a client are
    in the messages, as this protocol has it."""
    parts = run.message["parts"]
    asked = [mapping(part, "data") for part in parts if part["type"] == f"data-{INTERRUPT}"]
    outputs = {each.get("toolCallId"): each.get("id") for each in asked}
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        call = part.get("toolCallId")
        decision = run.decided(call) if call is not None else None
        if decision is None:
            continue
        interrupt = interrupt_of(part) or outputs.get(call) or part.get("approval", {}).get("id")
        if interrupt is not None:
            found[call] = {"interruptId": interrupt, **_answer(decision)}
    return found


def _answer(decision: Decision) -> dict[str, Any]:
    if decision.outcome == "expired":
        return {"status": "cancelled"}
    payload = decision.output if decision.error is None else {"error": decision.error}
    if decision.kind == "approval":
        payload = {"approved": decision.approved}
        if decision.reason is not None:
            payload["reason"] = decision.reason
    return {"status": "resolved", "payload": payload}
