"""Whatever is asked and however it is decided: the log of a session folds to the messages that are stored."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asking import REFUND, answering, decide, pending, post_back, reply, tools
from rig import Rig, running
from strandline.core.message import FoldState

ACTS = {
    "text": lambda run: run.text("words "),
    "reason": lambda run: run.reasoning("thought"),
    "tool": lambda run: run.tool_call("lookup", {"q": [1, None]}),
    "data": lambda run: run.data("note", {"n": 1}, id="same"),
    "approval": lambda run: run.request_approval("refund", REFUND, reason="large"),
    "client": lambda run: run.call_client_tool("locate", {"precise": True}),
    "metadata": lambda run: run.metadata({"model": {"name": "m"}}),
    "restart": lambda run: run.restart(),
}
ASKING = ("approval", "client")

round_of_acts = st.lists(st.sampled_from(sorted(ACTS)), max_size=6)
one_answer = st.tuples(st.booleans(), st.sampled_from(["api", "post"]), st.integers(0, 5))
stories = st.lists(st.tuples(round_of_acts, st.lists(one_answer, min_size=6, max_size=6), st.booleans()), max_size=4)


def answer_to(decision: dict[str, Any], yes: bool) -> dict[str, Any]:
    if decision["kind"] == "approval":
        return {"approved": yes, "reason": "so"} if yes else {"approved": False}
    return {"output": {"lat": [1.5, {}]}} if yes else {"errorText": "no signal"}


async def played(rig: Rig, story: list[tuple[list[str], list[tuple[bool, str, int]], bool]]) -> None:
    number = 0
    for calls, (acts, answers, superseded) in enumerate(story):
        session = await rig.sessions.find("c")
        if session is None or not session.live:
            number += 1
            await rig.post("c", f"message {number}", f"u{number}")
        call = await rig.agent.called(calls + 1)
        for decision in call.run.decisions:
            if decision.approved and len(acts) % 2:
                call.do(lambda run, call=decision.tool_call: run.tool_result(call, {"done": True}))
        for act in acts:
            call.do(ACTS[act])
        call.finish()
        await rig.ended()
        for yes, how, pick in answers:
            waiting = await pending(rig)
            if not waiting or superseded:
                break
            chosen = waiting[pick % len(waiting)]
            if how == "api":
                assert (await decide(rig, chosen["id"], answer_to(chosen, yes))).status == 200
            else:
                posted = await post_back(rig, answering(await reply(rig), answer_to(waiting[0], yes)))
                assert posted.status == 200, posted.body
                await posted.drop()


async def check_log(rig: Rig) -> None:
    session = await rig.sessions.find("c")
    if session is None:
        return
    folds: dict[str, FoldState] = {}
    for event in await rig.log():
        version = event.get("message")
        if event["type"] == "run-queued":
            folds.setdefault(version, FoldState(event["message_id"]))
        elif event["type"] == "message-reset":
            folds[version] = FoldState(event["message_id"])  # what it went on with follows
        elif event["type"] in ("appended", "decision-made"):
            for chunk in event["chunks"]:
                folds[version].push(chunk)
    for message in await rig.store.messages("c", list(folds)):
        fold = folds[message.version]
        assert list(message.parts or ()) == fold.parts()
        assert message.metadata == fold.metadata
        waits = {each.tool_call for each in session.state.waiting(message.version)}
        assert {part["toolCallId"] for part in tools({"parts": fold.parts()}) if not _over(part)} == waits


def _over(part: dict[str, Any]) -> bool:
    return part["state"] in ("output-available", "output-error", "output-denied")


@settings(derandomize=True, max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(stories)
def test_the_log_of_any_story_folds_to_what_is_stored(story: Any) -> None:
    async def tell() -> None:
        async with running() as rig:
            await played(rig, story)
            if rig.agent.calls and not rig.agent.calls[-1].closed:
                rig.agent.calls[-1].finish()
                await rig.ended()
            await check_log(rig)

    asyncio.run(tell())
