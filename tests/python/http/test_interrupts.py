"""Decisions on the TanStack wire: interrupts, ``resume``, and what those are sent who join, follow or come back."""

from __future__ import annotations

from typing import Any

import pytest

from asking import REFUND, asked, decide, pending, reply, tools
from rig import Answer, Rig

URL = "/api/tanstack"


def types(answer: Answer) -> list[str]:
    return [frame.chunk["type"] for frame in answer.frames]


def texts(answer: Answer) -> str:
    return "".join(frame.chunk.get("delta", "") for frame in answer.frames if "TEXT" in frame.chunk["type"])


async def resume(rig: Rig, run: str, *items: Any, headers: dict[str, str] | None = None) -> Answer:
    resumed = [{"interruptId": id, "status": status, "payload": payload} for id, status, payload in items]
    body = {"threadId": "c", "runId": run, "messages": [], "resume": resumed}
    return await rig.open("POST", URL, body, headers)


async def hydrate(rig: Rig) -> Any:
    return (await rig.ask("GET", f"{URL}?threadId=c")).json


def both(run: Any) -> Any:
    return run.request_approval("refund", REFUND)


async def test_what_it_waits_for_is_in_the_end_and_in_what_is_loaded(rig: Rig) -> None:
    _, call = await asked(rig, both, lambda run: run.call_client_tool("locate", id="x", expires_in=60))
    refund, _ = await pending(rig)
    joined = await rig.ask("GET", f"{URL}?runId={call.run.id}&offset=-1")
    outcome = joined.frames[-1].chunk["outcome"]
    assert outcome["type"] == "interrupt"
    assert [(each["id"], each["reason"]) for each in outcome["interrupts"]] == [
        (refund["id"], "approval_required"), ("x", "client_tool_input"),
    ]  # fmt: skip
    assert outcome["interrupts"][0]["metadata"] == {"kind": "approval", "toolName": "refund", "input": REFUND}
    loaded = await hydrate(rig)
    assert loaded["interrupts"] == {"runId": call.run.id, "pending": outcome["interrupts"]}
    calls = [part["id"] for part in loaded["messages"][-1]["parts"] if part["type"] == "tool-call"]
    assert [each["toolCallId"] for each in outcome["interrupts"]] == calls
    await decide(rig, refund["id"], {"approved": True})
    assert [each["id"] for each in (await hydrate(rig))["interrupts"]["pending"]] == ["x"]


async def test_the_run_that_goes_on_has_the_clients_id_and_says_what_it_adds(rig: Rig) -> None:
    _, first = await asked(rig, both, lambda run: run.call_client_tool("locate", id="x"))
    refund, _ = await pending(rig)
    partly = await resume(rig, "mine-0", ("x", "resolved", {"lat": 1}))
    await partly.end()
    assert types(partly) == ["RUN_STARTED", "RUN_FINISHED"]
    assert [each["id"] for each in partly.frames[1].chunk["outcome"]["interrupts"]] == [refund["id"]]
    assert [frame.cursor for frame in partly.frames] == [None, None]
    answer = await resume(rig, "mine", (refund["id"], "resolved", {"approved": False, "reason": "no"}))
    call = await rig.agent.called(2)
    assert (call.run.id, call.run.message_id) == ("mine", first.run.message_id)
    call.say("So.")
    await answer.until(lambda: "So." in texts(answer))
    cursor = answer.cursor
    assert types(answer)[:3] == ["RUN_STARTED", "TOOL_CALL_RESULT", "TOOL_CALL_RESULT"]
    assert answer.frames[0].chunk["parentRunId"] == first.run.id
    joined = await rig.open("GET", f"{URL}?runId=mine&offset=-1")
    await joined.until(lambda: "Let me see. So." in texts(joined))
    loaded = await hydrate(rig)
    assert [message["role"] for message in loaded["messages"]] == ["user"]
    assert (loaded["activeRun"], loaded["interrupts"]) == ({"runId": "mine"}, None)
    live = await rig.open("GET", f"{URL}/events?threadId=c", headers={"Last-Event-ID": loaded["cursor"]})
    await live.until(lambda: "Let me see. So." in texts(live))
    await live.drop()
    again = await resume(rig, "mine", (refund["id"], "resolved", {"approved": False}))
    rest = await rig.open("POST", URL, {"threadId": "c", "runId": "mine"}, {"Last-Event-ID": cursor or ""})
    call.say(" Bye.").finish()
    for each in (answer, joined, again, rest):
        await each.end()
        assert types(each)[-1] == "RUN_FINISHED"
    assert types(again) == types(answer)
    assert (texts(again), texts(rest), texts(joined)) == ("So. Bye.", " Bye.", "Let me see. So. Bye.")
    assert [part["state"] for part in tools(await reply(rig))] == ["output-denied", "output-available"]


async def test_cold_and_after_its_log_is_gone_it_is_told_from_what_is_there(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    answer = await resume(rig, "mine", ("x", "resolved", 5))
    (await rig.agent.called(2)).do(lambda run: run.restart()).say("So.").finish()
    await answer.end()
    await rig.go_cold()
    for _ in range(2):
        joined = await rig.ask("GET", f"{URL}?runId=mine&offset=-1")
        assert texts(joined) == "Let me see. So."
        assert types(joined)[-1] == "RUN_FINISHED"
        await rig.store.expire(2**60)


@pytest.mark.parametrize(
    ("item", "outcome", "value"),
    [
        (("x", "cancelled", {"lat": 1}), "error", {"errorText": "The tool was cancelled."}),
        (("x", "resolved", {"error": "no signal"}), "error", {"errorText": "no signal"}),
        (("x", "resolved", {"error": "no", "more": 1}), "output", {"output": {"error": "no", "more": 1}}),
        (("x", "resolved", None), "output", {"output": None}),
    ],
)
async def test_what_a_payload_means(rig: Rig, item: Any, outcome: str, value: Any) -> None:
    await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    answer = await resume(rig, "mine", item)
    (await rig.agent.called(2)).finish()
    await answer.end()
    (made,) = (await rig.ask("GET", "/api/sessions/c/decisions?all=true")).json["decisions"]
    assert (made["outcome"], made["value"]) == (outcome, value)


async def test_what_is_refused(rig: Rig) -> None:
    await asked(rig, lambda run: run.request_approval("refund", REFUND, roles=["boss"]))
    (waiting,) = await pending(rig)
    for item, status, code in (
        ((waiting["id"], "resolved", {"approved": "yes"}), 422, "invalid-request"),
        ((waiting["id"], "resolved", None), 422, "invalid-request"),
        ((waiting["id"], "resolved", {"approved": True}), 403, "not-yours-to-decide"),
        (("nobody", "cancelled", None), 404, "not-found"),
    ):
        answer = await resume(rig, "mine", item)
        await answer.end()
        assert (answer.status, answer.code) == (status, code)
    stranger = await resume(rig.as_user("eve"), "mine", (waiting["id"], "cancelled", None))  # type: ignore[arg-type]
    await stranger.end()
    assert (stranger.status, stranger.code) == (404, "not-found")
    assert len(await pending(rig)) == 1


async def test_the_live_thread_tells_what_was_decided(rig: Rig) -> None:
    await asked(rig)
    loaded = await hydrate(rig)
    live = await rig.open("GET", f"{URL}/events?threadId=c", headers={"Last-Event-ID": loaded["cursor"]})
    (waiting,) = await pending(rig)
    later = await resume(rig, "mine", (waiting["id"], "cancelled", None), headers={"Prefer": "respond-async"})
    await later.end()
    assert (later.status, later.json["runId"]) == (202, "mine")
    (await rig.agent.called(2)).say("So.").finish()
    await live.until(lambda: "RUN_FINISHED" in types(live))
    assert types(live)[:3] == ["CUSTOM", "RUN_STARTED", "TOOL_CALL_RESULT"]
    assert live.frames[0].chunk["value"] == {
        "id": waiting["id"], "outcome": "denied", "runId": waiting["run"], "messageId": waiting["messageId"],
    }  # fmt: skip
    await live.drop()


async def test_an_answer_at_once_names_no_run_while_something_else_is_pending(rig: Rig) -> None:
    at_once = {"Prefer": "respond-async"}
    _, call = await asked(rig, both, lambda run: run.call_client_tool("locate", id="x"))
    refund, _ = await pending(rig)
    for _ in range(2):  # the same again is answered like the first
        partly = await (await resume(rig, "mine", ("x", "resolved", 5), headers=at_once)).end()
        assert (partly.status, partly.headers["preference-applied"]) == (202, "respond-async")
        assert partly.json == {"runId": None, "messageId": call.run.message_id, "pending": [refund["id"]]}
    assert (await rig.ask("GET", f"{URL}?runId=mine&offset=-1")).status == 404
    assert len((await rig.store.outline("c")).runs) == 1
    whole = await (await resume(rig, "mine", (refund["id"], "cancelled", None), headers=at_once)).end()
    assert whole.json == {"runId": "mine", "messageId": call.run.message_id}, "the id was free"
    late = await (await resume(rig, "other", ("x", "resolved", 5), headers=at_once)).end()
    assert late.json == whole.json, "the run that goes on has the name that it got"
    (await rig.agent.called(2)).finish()
    await rig.ended()


async def test_a_run_id_that_is_taken_costs_nobody_anything(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    other, working = await rig.begun("other", "hello", "o1")
    earlier, call = await rig.begun(key="taken", id="u0")
    call.finish()
    await earlier.end()
    _, first = await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    # That of the run which asks, of an earlier one, and the key of one.
    for run in (first.run.id, call.run.id, "taken"):
        answer = await resume(rig, run, ("x", "resolved", 5))
        await answer.end()
        assert (answer.status, answer.code) == (409, "run-exists")
    assert [each["id"] for each in await pending(rig)] == ["x"]
    answer = await resume(rig, "mine", ("x", "resolved", 5))
    (await rig.agent.called(4)).say("So.").finish()
    await answer.end()
    again = await resume(rig, "mine", ("x", "resolved", 5))
    assert types(await again.end()) == types(answer), "the same request again is no other one"
    working.say("Still here.").finish()
    assert (await other.end()).text == "Still here."
