"""A submit to somebody else's session is answered like one to a session that does not exist, whatever is wrong with it
(PROTOCOL §6.7)."""

from __future__ import annotations

from typing import Any

import pytest

from rig import Answer, Rig, running

USER = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
REPLY = {"id": "msg-2", "role": "assistant", "parts": [{"type": "text", "text": "x"}]}

REFUSED: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "no messages, to answer again": {"messages": [], "trigger": "regenerate-message"},
    "a reply last": {"messages": [USER, REPLY]},
    "a reply last, to answer again": {"messages": [USER, REPLY], "trigger": "regenerate-message", "messageId": "none"},
    "an unknown message named": {"messages": [USER], "messageId": "nobody"},
    "a known message named": {"messages": [USER], "messageId": "u1"},
    "a known reply named": {"messages": [USER, REPLY], "messageId": "msg-2"},
    "a part that nobody may send": {"messages": [{**USER, "parts": [{"type": "step-start"}]}]},
    "no parts": {"messages": [{**USER, "parts": []}]},
    "an odd trigger": {"messages": [USER], "trigger": "resume-stream"},
}


def told(answer: Answer) -> Any:
    return answer.status, answer.headers.get("retry-after"), answer.body


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("active", [True, False])
async def test_an_invalid_submit_tells_nothing(rig: Rig, name: str, active: bool) -> None:
    answer, call = await rig.begun("anns")
    call.say("secret")
    await answer.until_text("secret")
    if not active:
        call.finish()
        await answer.end()
    eve = rig.as_user("eve")
    for headers in ({}, {"idempotency-key": "k1"}):
        foreign = await eve.ask("POST", "/api/chat", {"id": "anns", **REFUSED[name]}, headers)
        unknown = await eve.ask("POST", "/api/chat", {"id": "nobodys", **REFUSED[name]}, headers)
        assert told(foreign) == told(unknown)
        assert foreign.status >= 400
    assert (await rig.history("anns"))["activeRun"] is not None or not active
    assert len(rig.agent.calls) == 1


async def test_a_session_that_is_full_tells_a_stranger_nothing() -> None:
    async with running(max_readers_per_session=1) as rig:
        answer, call = await rig.begun("anns")
        assert (await rig.post("anns", id="u2")).status == 429
        eve = rig.as_user("eve")
        foreign = await eve.post("anns", id="u9")
        assert (foreign.status, foreign.code) == (404, "not-found")
        for body in REFUSED.values():
            assert told(await eve.ask("POST", "/api/chat", {"id": "anns", **body})) == told(
                await eve.ask("POST", "/api/chat", {"id": "nobodys", **body})
            )
        call.finish()
        await answer.end()
