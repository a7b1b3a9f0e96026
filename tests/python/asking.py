"""What the tests of decisions have in common: agents that ask, and clients that answer as the real ones do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rig import Answer, Client, Rig

REFUND = {"order": 42, "amount": 9.5}


async def asked(rig: Rig, *acts: Any, chat: str = "c", id: str = "u1", text: str = "refund me") -> tuple[Answer, Any]:
    """A POST, a run that does ``acts`` (by default: asks whether it may refund) and is suspended."""
    answer, call = await rig.begun(chat, text, id)
    call.say("Let me see. ")
    for act in acts or [lambda run: run.request_approval("refund", REFUND)]:
        call.do(act)
    call.finish()
    await answer.end()
    await rig.ended(chat)
    return answer, call


async def pending(client: Client, chat: str = "c") -> list[dict[str, Any]]:
    answer = await client.ask("GET", f"/api/sessions/{chat}/decisions")
    assert answer.status == 200, answer.body
    return list(answer.json["decisions"])


async def decide(client: Client, decision: str, body: Mapping[str, Any], chat: str = "c") -> Answer:
    return await client.ask("POST", f"/api/sessions/{chat}/decisions/{decision}", body)


async def reply(client: Client, chat: str = "c") -> dict[str, Any]:
    """The last message of the history."""
    return dict((await client.history(chat))["messages"][-1])


def tools(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [part for part in message["parts"] if part["type"].startswith(("tool-", "dynamic-tool"))]


def answering(message: Mapping[str, Any], *answers: Mapping[str, Any]) -> dict[str, Any]:
    """The copy of a reply that a chat has after its user has answered: each answer changes the next tool part that
    waits."""
    left = list(answers)
    parts = []
    for part in message["parts"]:
        waits = part.get("state") in ("approval-requested", "input-available")
        if waits and left:
            answer = dict(left.pop(0))
            if "approved" in answer:
                part = {**part, "state": "approval-responded", "approval": {**part["approval"], **answer}}
            else:
                part = {**part, **answer, "state": "output-error" if "errorText" in answer else "output-available"}
        parts.append(part)
    return {**message, "parts": parts}


async def post_back(
    client: Client, message: Mapping[str, Any], chat: str = "c", headers: Mapping[str, str] | None = None, **body: Any
) -> Answer:
    """As a chat of the AI SDK sends the answers: all of its messages, the reply last."""
    user = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "refund me"}]}
    whole = {"id": chat, "messages": [user, message], "trigger": "submit-message", "messageId": message["id"], **body}
    return await client.open("POST", "/api/chat", whole, headers)


async def ask(rig: Rig, text: str = "pay it", id: str = "u1") -> None:
    await (await rig.post("c", text, id)).end()
    await rig.ended()


async def decided(rig: Rig, *bodies: dict[str, Any]) -> None:
    """Decide about all that is pending, in order, and wait for what follows."""
    for decision, body in zip(await pending(rig), bodies, strict=True):
        answer = await decide(rig, decision["id"], body)
        assert answer.status == 200, answer.body
    await rig.ended()


async def last_run(rig: Rig) -> Any:
    return [event for event in await rig.log_from_store() if event["type"] == "run-ended"][-1]
