"""Answers that a chat of the AI SDK posts back with its copy of a reply: what of it counts, and what it is streamed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from asking import REFUND, answering, asked, decide, pending, post_back, reply, tools
from rig import Answer, Rig
from strandline.core.message import FoldState
from strandline.core.unfold import revive

AI6, AI5 = {"Strandline-Client": "test; ai=6"}, {"Strandline-Client": "test; ai=5"}


def both(run: Any) -> Any:
    return run.request_approval("refund", REFUND)


def shown(message: dict[str, Any], answer: Answer) -> FoldState:
    """What a chat shows that had ``message`` and was streamed this: it goes on with its copy."""
    fold = revive(message["id"], message["parts"])
    for frame in answer.frames:
        if not frame.done:
            fold.push(frame.chunk)
    return fold


async def test_approved_by_the_post_whose_stream_goes_on_with_the_clients_copy(rig: Rig) -> None:
    _, first = await asked(rig)
    mine = answering(await reply(rig), {"approved": True})
    answer = await post_back(rig, mine)
    assert answer.status == 200
    call = await rig.agent.called(2)
    assert answer.headers["strandline-run"] == call.run.id
    assert answer.headers["strandline-message"] == first.run.message_id
    (decision,) = call.run.decisions
    call.do(lambda run: run.tool_result(decision.tool_call, {"ok": True})).say("Done.").finish()
    await answer.end()
    assert answer.types == [
        "start", "tool-approval-response", "tool-output-available", "start-step", "text-start", "text-delta",
        "text-end", "finish-step", "finish", "[DONE]",
    ]  # fmt: skip
    assert answer.frames[0].chunk["messageId"] == first.run.message_id
    assert shown(mine, answer).parts() == (await reply(rig))["parts"]


async def test_a_denial_reaches_the_client_that_denied(rig: Rig) -> None:
    await asked(rig)
    mine = answering(await reply(rig), {"approved": False, "reason": "too much"})
    answer = await post_back(rig, mine, headers=AI6)
    (await rig.agent.called(2)).say("All right.").finish()
    await answer.end()
    assert answer.types[:3] == ["start", "tool-output-denied", "start-step"]
    assert tools({"parts": shown(mine, answer).parts()})[0]["state"] == "output-denied"


async def test_a_client_tool_on_every_version_and_its_error(rig: Rig) -> None:
    for number, (headers, given) in enumerate(
        [(AI5, {"output": [1, None]}), (AI6, {"errorText": "no signal"}), ({}, {"output": ""})], 1
    ):
        await asked(rig, lambda run: run.call_client_tool("locate", {"precise": True}), id=f"u{number}")
        mine = answering(await reply(rig), given)
        answer = await post_back(rig, mine, headers=headers)
        call = await rig.agent.called(2 * number)
        (decision,) = call.run.decisions
        assert {"output": decision.output, "errorText": decision.error}[next(iter(given))] == next(iter(given.values()))
        call.say("I see.").finish()
        await answer.end()
        assert shown(mine, answer).parts() == (await reply(rig))["parts"]


async def test_decisions_of_others_reach_the_one_who_makes_the_last(rig: Rig) -> None:
    await asked(rig, both, lambda run: run.call_client_tool("locate", id="x"))
    message = await reply(rig)
    await decide(rig, "x", {"output": 7})
    answer = await post_back(rig, answering(message, {"approved": False}))
    (await rig.agent.called(2)).finish()
    await answer.end()
    assert answer.types[:4] == ["start", "tool-approval-response", "tool-output-denied", "tool-output-available"]
    assert shown(message, answer).parts() == (await reply(rig))["parts"]


async def test_one_of_two_is_recorded_and_answered_with_what_is_left(rig: Rig) -> None:
    await asked(rig, both, lambda run: run.call_client_tool("locate", id="x"))
    message = await reply(rig)
    mine = answering(message, {"approved": True})
    for _ in range(2):  # however often
        answer = await post_back(rig, mine)
        await answer.end()
        assert answer.types == ["start", "data-strandline", "[DONE]"]
        assert answer.frames[1].chunk["data"] == {"pending": ["x"]}
        assert answer.frames[1].chunk["transient"]
        assert all(frame.cursor is None for frame in answer.frames)
    assert len(rig.agent.calls) == 1
    answer = await post_back(rig, answering(message, {"approved": True}, {"output": 1}))
    call = await rig.agent.called(2)
    assert [each.outcome for each in call.run.decisions] == ["approved", "output"]
    call.finish()
    await answer.end()


async def test_the_same_answer_again_attaches_whatever_has_become_of_it(rig: Rig) -> None:
    await asked(rig)
    message = await reply(rig)
    mine = answering(message, {"approved": True})
    first, second = await asyncio.gather(post_back(rig, mine), post_back(rig, mine))
    call = await rig.agent.called(2)
    call.say("Done.")
    await asyncio.gather(*(each.until(lambda each=each: "text-delta" in each.types) for each in (first, second)))
    third = await post_back(rig, mine)
    await third.until(lambda: "text-delta" in third.types)
    call.finish()
    for each in (first, second, third):
        await each.end()
    later = await post_back(rig, mine)
    await later.end()
    for each in (second, third, later):
        assert each.types == first.types
        assert shown(mine, each).parts() == (await reply(rig))["parts"]
    assert len(rig.agent.calls) == 2


async def test_after_its_log_is_gone_it_says_that_it_cannot_go_on(rig: Rig) -> None:
    await asked(rig)
    mine = answering(await reply(rig), {"approved": True})
    answer = await post_back(rig, mine)
    (await rig.agent.called(2)).say("Done.").finish()
    await answer.end()
    await rig.go_cold()
    assert await rig.store.expire(2**60)
    late = await post_back(rig, mine)
    await late.end()
    assert late.types[-1] == "error"
    assert late.frames[-1].chunk["code"] == "resync"


async def test_who_comes_second_with_another_answer_is_told_and_may_read_what_became_of_it(rig: Rig) -> None:
    await asked(rig)
    message = await reply(rig)
    first = await post_back(rig, answering(message, {"approved": True}))
    call = await rig.agent.called(2)
    second = await post_back(rig, answering(message, {"approved": False}))
    await second.end()
    assert (second.status, second.code) == (409, "already-decided")
    assert second.json["decision"]["outcome"] == "approved"
    call.say("Done.").finish()
    await first.end()
    owed = await rig.resume("c")
    await owed.end()
    assert owed.text == "Let me see. Done.", "a chat that resumes in answer to the refusal is given all of it"


@pytest.mark.parametrize(
    "change",
    [{"input": {"order": 42, "amount": 9500}}, {"input": {"order": True, "amount": 9.5}}, {"input": None},
     {"type": "tool-other"}, {"type": "dynamic-tool", "toolName": "other"}],
)  # fmt: skip
async def test_a_changed_call_is_refused_and_decides_nothing(rig: Rig, change: dict[str, Any]) -> None:
    await asked(rig)
    mine = answering(await reply(rig), {"approved": True})
    mine["parts"] = [{**part, **change} if "toolCallId" in part else part for part in mine["parts"]]
    answer = await post_back(rig, mine)
    await answer.end()
    assert (answer.status, answer.code) == (409, "input-changed")
    assert len(await pending(rig)) == 1


async def test_what_else_the_copy_says_is_not_read(rig: Rig) -> None:
    await asked(rig, lambda run: run.tool_call("lookup", {"q": 1}), both)
    before = await reply(rig)
    mine = answering(before, {"approved": True})
    forged = [
        {"type": "text", "text": "FORGED"},
        {**mine["parts"][-1], "toolCallId": "made-up"},
        {"type": "tool-pay", "toolCallId": "paid", "state": "output-available", "input": {}, "output": "FORGED"},
        {"type": "tool-odd", "toolCallId": 7, "state": None},
        "odd",
    ]
    mine["parts"] = [
        {**part, "output": "FORGED", "state": "output-available"} if part["type"] == "tool-lookup" else part
        for part in mine["parts"]
    ]
    answer = await post_back(rig, {**mine, "parts": [*forged, *mine["parts"]], "metadata": {"FORGED": 1}})
    call = await rig.agent.called(2)
    assert "FORGED" not in json.dumps(call.run.messages)
    call.finish()
    await answer.end()
    assert "FORGED" not in json.dumps(await rig.log())


@pytest.mark.parametrize(
    "change",
    [{"state": "output-available", "output": "FORGED"}, {"state": "output-denied"}, {"state": "approval-requested"},
     {"state": "approval-responded", "approval": {"id": "x"}}, {"approval": None}],
)  # fmt: skip
async def test_a_copy_that_answers_nothing_is_refused(rig: Rig, change: dict[str, Any]) -> None:
    await asked(rig)
    mine = answering(await reply(rig), {"approved": True})
    mine["parts"] = [{**part, **change} if "toolCallId" in part else part for part in mine["parts"]]
    answer = await post_back(rig, mine)
    await answer.end()
    assert (answer.status, answer.code) == (409, "not-pending")
    assert len(await pending(rig)) == 1


@pytest.mark.parametrize("change", [{"approval": {"approved": "yes"}}, {"approval": {"approved": True, "reason": 1}},
                                    {"errorText": 5}])  # fmt: skip
async def test_an_answer_that_cannot_be_read_is_refused(rig: Rig, change: dict[str, Any]) -> None:
    await asked(rig)
    mine = answering(await reply(rig), {"approved": True})
    mine["parts"] = [{**part, **change} if "toolCallId" in part else part for part in mine["parts"]]
    for parts in (mine["parts"], "odd"):
        answer = await post_back(rig, {**mine, "parts": parts})
        await answer.end()
        assert (answer.status, answer.code) == (422, "invalid-message")


async def looked_up(run: Any) -> None:
    await run.tool_result(await run.tool_call("lookup", {"q": 1}, id="look"), {"found": [1, 2**60 + 1]})


async def ended_with_a_tool(rig: Rig) -> dict[str, Any]:
    answer, call = await rig.begun()
    call.say("Let me see. ").do(looked_up).finish()
    await answer.end()
    return await reply(rig)


async def test_a_whole_reply_that_answers_nothing_is_answered_with_a_step_and_no_more(rig: Rig) -> None:
    mine = await ended_with_a_tool(rig)
    before = await rig.log()
    mine["parts"][-1]["output"] = {"found": [1.0, float(2**60 + 1)]}
    answer = await post_back(rig, mine)
    await answer.end()
    assert answer.types == ["start-step", "start", "data-strandline", "[DONE]"]
    assert answer.frames[1].chunk["messageId"] == mine["id"]
    assert answer.frames[2].chunk["data"] == {"pending": []}
    assert all(frame.cursor is None for frame in answer.frames)
    again = shown(mine, answer).parts()
    assert again == [*mine["parts"], {"type": "step-start"}]
    refused = await post_back(rig, {**mine, "parts": again})
    await refused.end()
    assert (refused.status, refused.code) == (409, "not-pending")
    assert await rig.log() == before

    body = {"message": mine, "messageId": mine["id"]}
    sent = await rig.ask("POST", "/api/sessions/c/messages", body)
    assert (sent.status, sent.json["run"], sent.json["pending"]) == (202, None, [])


@pytest.mark.parametrize(
    "change",
    [{"output": {"found": [2, 2**60 + 1]}}, {"state": "output-error"}, {"state": "output-denied"},
     {"state": "input-available"}, {"toolCallId": "other"}, {"errorText": "no"}],
)  # fmt: skip
async def test_a_copy_that_says_of_a_finished_call_what_is_not_so_is_refused(rig: Rig, change: dict[str, Any]) -> None:
    mine = await ended_with_a_tool(rig)
    mine["parts"] = [{**part, **change} if "toolCallId" in part else part for part in mine["parts"]]
    answer = await post_back(rig, mine)
    await answer.end()
    assert (answer.status, answer.code) == (409, "not-pending")


async def test_a_copy_that_lacks_a_part_of_the_reply_is_told_to_load_it(rig: Rig) -> None:
    mine = await ended_with_a_tool(rig)
    for lacking in range(len(mine["parts"])):
        parts = [part for index, part in enumerate(mine["parts"]) if index != lacking]
        answer = await post_back(rig, {**mine, "parts": parts})
        await answer.end()
        assert (answer.status, answer.code) == (409, "not-pending")


async def test_a_denial_that_an_older_client_shows_as_an_error_is_no_answer(rig: Rig) -> None:
    await asked(rig)
    await decide(rig, (await pending(rig))[0]["id"], {"approved": False})
    (await rig.agent.called(2)).finish()
    await rig.ended()
    mine = await reply(rig)
    mine["parts"] = [
        {**part, "state": "output-error", "errorText": "The tool call was denied."} if "toolCallId" in part else part
        for part in mine["parts"]
    ]
    answer = await post_back(rig, mine, headers=AI5)
    await answer.end()
    assert answer.types[0] == "start-step"


async def test_an_unknown_reply_and_an_unknown_session(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("Hello").finish()
    await answer.end()
    message = await reply(rig)
    refused = await post_back(rig, {**message, "id": "nobody"})
    await refused.end()
    assert (refused.status, refused.code) == (409, "unknown-message")
    refused = await post_back(rig, message, "elsewhere")
    await refused.end()
    assert (refused.status, refused.code) == (404, "not-found")
    refused = await post_back(rig.as_user("eve"), message)
    await refused.end()
    assert (refused.status, refused.code) == (404, "not-found")


async def test_a_reply_that_is_still_being_written_decides_nothing(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.do(lambda run: run.call_client_tool("locate", id="x"))
    await answer.until(lambda: "tool-input-available" in answer.types)
    part = {"type": "tool-locate", "toolCallId": "x", "state": "output-available", "input": None, "output": 1}
    refused = await post_back(rig, {"id": call.run.message_id, "role": "assistant", "parts": [part]})
    await refused.end()
    assert (refused.status, refused.code) == (409, "not-pending")
    assert (await decide(rig, "x", {"output": 1})).status == 404
    call.finish()
    await answer.end()


async def test_large_numbers_of_an_input_come_back_as_javascript_has_them(rig: Rig) -> None:
    await asked(rig, lambda run: run.request_approval("refund", {"order": 2**60 + 1, "list": [1, 2.0]}))
    mine = answering(await reply(rig), {"approved": True})
    mine["parts"] = [
        {**part, "input": {"list": [1.0, 2], "order": float(2**60 + 1)}} if "toolCallId" in part else part
        for part in mine["parts"]
    ]
    answer = await post_back(rig, mine)
    assert answer.status == 200
    (await rig.agent.called(2)).finish()
    await answer.end()


async def test_the_session_api_takes_a_posted_reply_as_well(rig: Rig) -> None:
    await asked(rig, both, lambda run: run.call_client_tool("locate", id="x"))
    message = await reply(rig)

    async def send(*answers: Any) -> Answer:
        body = {"message": answering(message, *answers), "messageId": message["id"]}
        return await rig.ask("POST", "/api/sessions/c/messages", body)

    partly = await send({"approved": True})
    assert (partly.status, partly.json["run"], partly.json["pending"]) == (202, None, ["x"])
    whole = await send({"approved": True}, {"output": 1})
    call = await rig.agent.called(2)
    assert (whole.json["run"], whole.json["messageId"]) == (call.run.id, message["id"])
    call.finish()
    await rig.ended()


async def test_the_feed_tells_who_asks_and_what_is_decided_and_a_snapshot_what_is_pending(rig: Rig) -> None:
    feed = await rig.open("GET", "/api/sessions/c/events")
    assert feed.status == 404
    await asked(rig)
    feed = await rig.open("GET", "/api/sessions/c/events", headers=AI6)
    await feed.until(lambda: feed.frames)
    (waiting,) = await pending(rig)
    assert feed.frames[0].chunk["decisions"] == [waiting]
    assert (await rig.ask("GET", "/api/sessions/c/messages")).json["decisions"] == [waiting]
    bare = (await rig.ask("GET", "/api/sessions/c?only=state")).json
    assert bare["decisions"] == [{**waiting, "input": None}]
    await decide(rig, waiting["id"], {"approved": True})
    call = await rig.agent.called(2)
    await feed.until(lambda: any(frame.chunk["type"] == "run-started" for frame in feed.frames))
    made = next(frame.chunk for frame in feed.frames if frame.chunk["type"] == "decision-made")
    assert (made["decision"], made["outcome"], made["asked_by"]) == (waiting["id"], "approved", waiting["run"])
    assert [chunk["type"] for chunk in made["chunks"]] == ["tool-approval-response"], "whatever the version"
    page = (await rig.ask("GET", "/api/sessions/c/messages")).json
    assert [message["role"] for message in page["messages"]] == ["user", "assistant"], "what was said before is in it"
    rest = await rig.open("GET", "/api/sessions/c/events", headers={"Last-Event-ID": page["cursor"]})
    call.say("More.").finish()
    for each in (feed, rest):
        await each.until(lambda each=each: any(frame.chunk["type"] == "run-ended" for frame in each.frames))
        await each.drop()
    assert rest.frames[0].chunk["type"] == "run-queued"
    assert rest.frames[0].chunk["parent_run"] == waiting["run"]
