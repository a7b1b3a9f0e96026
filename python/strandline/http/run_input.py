"""Reads what an AG-UI client sends: ``RunAgentInput``, checked, bounded, nothing trusted (PROTOCOL §2, §11.2).

Shapes: ``@ag-ui/core@1.0.0`` and what ``@tanstack/ai-client@0.33.2 src/connection-adapters.ts`` adds (``data``, a copy
of ``forwardedProps``). Of the messages only the last is read: what was said before is in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline.codecs.ag_ui_messages import ContentInvalid, user_parts
from strandline.core.decisions import APPROVAL, APPROVED, DENIED, ERROR, OUTPUT, Answer
from strandline.core.ids import check_id
from strandline.core.intake import RUN, Incoming, Request
from strandline.core.records import DecisionRecord
from strandline.errors import ContinuationUnsupported, Unprocessable
from strandline.http.intake import incoming, policy_in

MAX_RESUMED = 100
CANCELLED = object()
"""In place of a payload."""
_PASSED_ON = ("context", "state", "tools")


def run_ids(body: Mapping[str, Any], header: str | None) -> tuple[str, str]:
    """The session id and the run id. The run id may also be in the header ``X-Run-Id``; the two must not differ."""
    session_id = check_id(body.get("threadId"), "threadId")
    named = body.get("runId")
    run_id = check_id(named if named is not None else header, "runId")
    if header is not None and header != run_id:
        raise Unprocessable("`X-Run-Id` and `runId` name two different runs.", code="invalid-request")
    return session_id, run_id


def resumed(body: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    """The interrupts that a request resumes: their ids and payloads (PROTOCOL §11.13). None for one that resumes none.
    Raises Unprocessable and InvalidId."""
    items = body.get("resume")
    if not items:
        return None
    if not isinstance(items, list) or len(items) > MAX_RESUMED:
        raise Unprocessable(f"`resume` must be a list of at most {MAX_RESUMED} items.", code="invalid-request")
    found = []
    for item in items:
        status = item.get("status") if isinstance(item, Mapping) else None
        if status not in ("resolved", "cancelled"):
            raise Unprocessable("An item of `resume` is `resolved` or `cancelled`.", code="invalid-request")
        payload = item.get("payload") if status == "resolved" else CANCELLED
        found.append((check_id(item.get("interruptId"), "interruptId"), payload))
    return found


def resolution(decision: DecisionRecord, payload: Any) -> Answer:
    """What the payload of a resumed interrupt decides. Raises Unprocessable."""
    if payload is CANCELLED:
        return Answer(DENIED) if decision.kind == APPROVAL else Answer(ERROR, error="The tool was cancelled.")
    if decision.kind == APPROVAL:
        given = payload if isinstance(payload, Mapping) else {}
        approved, reason = given.get("approved"), given.get("reason")
        if not isinstance(approved, bool) or not isinstance(reason, str | None):
            raise Unprocessable('The payload of an approval is `{"approved": bool}`.', code="invalid-request")
        return Answer(APPROVED if approved else DENIED, reason)
    # How the client says that its tool has failed (@tanstack/ai-client src/chat-client.ts, ``addToolResult``).
    if isinstance(payload, Mapping) and payload.keys() == {"error"} and isinstance(payload["error"], str):
        return Answer(ERROR, error=payload["error"])
    return Answer(OUTPUT, output=payload)


def agent_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the agent sees as ``run.body``."""
    props = body.get("forwardedProps")
    sent = dict(props) if isinstance(props, Mapping) else {}
    for name in _PASSED_ON:
        if body.get(name):
            sent.setdefault(name, body[name])
    return sent


def run_request(body: Mapping[str, Any], run_id: str, submit: str | None = None) -> tuple[Request, dict[str, Any]]:
    """The request, and what the agent sees as ``run.body``; ``submit`` is the header of that name. Raises
    Unprocessable, InvalidId or ContinuationUnsupported."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise Unprocessable("`messages` must be a list of AG-UI messages.", code="invalid-request")
    last = messages[-1] if messages else None
    if not isinstance(last, Mapping):
        raise Unprocessable("The last of `messages` must be the user message to answer.", code="invalid-message")
    if last.get("role") in ("tool", "assistant", "reasoning"):
        raise ContinuationUnsupported(
            "This looks like tool outputs or decisions for an existing reply: send them as `resume`. Otherwise the "
            "last of `messages` must be a user message."
        )
    return Request(RUN, None, _user_message(last), run_id, run_id, policy_in(submit)), agent_body(body)


def _user_message(message: Mapping[str, Any]) -> Incoming:
    try:
        parts = user_parts(message.get("content"))
    except ContentInvalid as error:
        raise Unprocessable(f"The message cannot be taken: {error}.", code="invalid-message") from None
    metadata = message.get("metadata")
    if isinstance(metadata, Mapping):
        # The client's own notes; they come back with every later message.
        metadata = {name: value for name, value in metadata.items() if name not in ("tanstack", "strandline")} or None
    return incoming({**message, "parts": parts, "metadata": metadata})
