"""What a suspended run waits for: asked in the commit that ends it, decided exactly once, and gone on from (§15)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asking import REFUND, answering, asked, decide, pending, post_back, reply, tools
from rig import Rig, running, user_of
from strandline import Run
from strandline.core.run import Status
from strandline.http.auth import Auth
from strandline.stores import SqliteStore
from strandline.testing import ManualClock


@pytest.fixture(params=["memory", "sqlite"])
async def any_rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "chat.db" if request.param == "sqlite" else None) as rig:
        yield rig


async def kinds(rig: Rig) -> list[str]:
    return [event["type"] for event in await rig.log()]


# ---------------------------------------------------------------------- asking


async def test_a_run_that_asks_is_suspended_and_asks_in_the_commit_that_ends_it(any_rig: Rig) -> None:
    rig = any_rig
    answer, call = await asked(rig)
    assert answer.types[-3:] == ["finish-step", "finish", "[DONE]"]
    assert answer.frames[-2].chunk["finishReason"] == "tool-calls"
    last = rig.kinds(rig.store.committed[-1]) or rig.kinds(rig.store.committed[-2])
    assert last[-2:] == ["decision-requested", "run-ended"]
    ended = (await rig.log())[-1]
    assert (ended["status"], ended["reason"]) == ("suspended", "awaiting-decisions")
    (waiting,) = await pending(rig)
    part = tools(await reply(rig))[0]
    assert part["state"] == "approval-requested"
    assert waiting == {
        "id": part["approval"]["id"], "kind": "approval", "run": call.run.id, "messageId": call.run.message_id,
        "toolCallId": part["toolCallId"], "tool": "refund", "input": REFUND, "roles": None,
        "createdAt": rig.clock.now(), "expiresAt": None, "outcome": None, "value": None, "by": None, "at": None,
    }  # fmt: skip
    assert (await rig.resume("c")).status == 204, "suspended is not active"
    assert (await rig.history("c"))["activeRun"] is None


async def test_what_else_is_open_is_closed(rig: Rig) -> None:
    await asked(
        rig,
        lambda run: run.tool_call("lookup", {"q": 1}),
        lambda run: run.call_client_tool("locate", {}, id="here"),
        lambda run: run.request_approval("refund", REFUND, reason="It is a lot."),
    )
    lookup, locate, refund = tools(await reply(rig))
    assert (lookup["state"], lookup["errorText"]) == (
        "output-error",
        "The reply paused before this tool call was finished.",
    )
    assert locate["state"] == "input-available"
    assert refund["approval"]["requestReason"] == "It is a lot."
    assert [(each["id"], each["kind"]) for each in await pending(rig)] == [
        ("here", "tool"), (refund["approval"]["id"], "approval"),
    ]  # fmt: skip


async def test_a_library_that_asks_suspends_the_run_too(rig: Rig) -> None:
    _, call = await rig.begun()
    call.do(_marking)
    for name, id in (("locate", "one"), ("other", "two"), ("refund", "three")):
        call.say({"type": "tool-input-available", "toolCallId": id, "toolName": name, "input": {}})
    call.say({"type": "tool-approval-request", "approvalId": "a b", "toolCallId": "three"})
    call.say({"type": "finish", "finishReason": "tool-calls"}).finish()
    await rig.ended()
    one, two = await pending(rig)
    assert (one["id"], one["kind"], one["roles"]) == ("one", "tool", ["pilot"])
    assert (two["toolCallId"], two["kind"]) == ("three", "approval")
    assert two["id"] != "a b", "no path could have it"
    assert tools(await reply(rig))[1]["state"] == "output-error"


async def _marking(run: Run) -> None:
    run.client_tools("locate", roles=["pilot"])


async def test_ids_of_a_library_are_unique_in_the_session_whatever_it_counts(rig: Rig) -> None:
    for number in (1, 2):
        _, call = await rig.begun(id=f"u{number}")
        call.say({"type": "tool-input-available", "toolCallId": "call_0", "toolName": "refund", "input": number})
        call.say({"type": "tool-approval-request", "approvalId": "approval_0", "toolCallId": "call_0"}).finish()
        await rig.ended()
    (second,) = await pending(rig)
    every = (await rig.ask("GET", "/api/sessions/c/decisions?all=true")).json["decisions"]
    assert [(each["id"], each["outcome"]) for each in every] == [("approval_0", "superseded"), (second["id"], None)]
    answer = await post_back(rig, answering(await reply(rig), {"approved": True}))
    assert answer.status == 200, "by its tool call it is found all the same"
    (await rig.agent.called(3)).finish()
    await answer.end()


async def test_what_was_sent_along_is_not_kept_with_a_run_that_nobody_is_called_with_again(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db", recover="continue") as rig:
        answer, call = await rig.begun(extra="SECRET-BODY")
        call.do(lambda run: run.request_approval("refund", REFUND)).finish()
        await answer.end()
        await rig.ended()
        outline = await rig.store.outline("c")
        assert [run.body for run in outline.runs] == [None]


async def test_an_id_that_is_as_long_as_it_may_be_can_be_used_again_and_decided(rig: Rig) -> None:
    wanted, found = "a" * 200, []
    for number in range(3):
        _, call = await rig.begun(id=f"u{number}")
        call.say({"type": "tool-input-available", "toolCallId": "call_0", "toolName": "refund", "input": number})
        call.say({"type": "tool-approval-request", "approvalId": wanted, "toolCallId": "call_0"}).finish()
        await rig.ended()
        (waiting,) = await pending(rig)
        found.append(waiting["id"])
    assert len(set(found)) == 3
    assert found[0] == wanted
    assert (await decide(rig, found[-1], {"approved": True})).status == 200
    (await rig.agent.called(4)).finish()


async def test_a_wait_that_no_clock_reaches_is_refused_in_the_agent(sqlite_rig: Rig) -> None:
    answer, call = await sqlite_rig.begun()
    call.do(lambda run: run.request_approval("refund", REFUND, expires_in=1e16)).finish()
    await answer.end()
    (run,) = (await sqlite_rig.history("c"))["runs"].values()
    assert (run["status"], sqlite_rig.sessions.journal.healthy) == ("failed", True)


async def test_an_agent_that_fails_after_it_has_asked_has_asked_nothing(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.do(lambda run: run.request_approval("refund", REFUND)).fail(RuntimeError("no"))
    await answer.end()
    assert await pending(rig) == []
    assert tools(await reply(rig))[0]["state"] == "output-error"


# ---------------------------------------------------------------------- deciding


async def test_an_approval_starts_the_continuation_which_writes_the_same_message(any_rig: Rig) -> None:
    rig = any_rig
    _, first = await asked(rig)
    (waiting,) = await pending(rig)
    answer = await decide(rig, waiting["id"], {"approved": True, "reason": "fine"})
    assert answer.status == 200, answer.body
    call = await rig.agent.called(2)
    assert answer.json == {
        "decision": {
            **waiting, "input": None, "outcome": "approved", "value": {"approved": True, "reason": "fine"},
            "by": "user:ann", "at": rig.clock.now(),
        },
        "run": call.run.id,
        "messageId": first.run.message_id,
    }  # fmt: skip
    assert (await kinds(rig))[-3:] == ["decision-made", "run-queued", "run-started"]
    assert rig.kinds(rig.store.committed[-1]) == ["decision-made", "run-queued", "run-started"], "one commit"
    (decision,) = call.run.decisions
    assert (decision.approved, decision.input, decision.tool, decision.decided_by) == (
        True,
        REFUND,
        "refund",
        "user:ann",
    )
    assert call.run.decided(decision.tool_call) == decision
    assert call.run.messages[-1]["id"] == first.run.message_id
    assert tools(call.run.messages[-1])[0]["state"] == "approval-responded"
    call.do(lambda run: run.tool_result(decision.tool_call, {"ok": True})).say("Done.").finish()
    await rig.ended()
    history = await rig.history("c")
    assert [message["role"] for message in history["messages"]] == ["user", "assistant"]
    assert [part["type"] for part in history["messages"][-1]["parts"]] == [
        "step-start", "text", "tool-refund", "step-start", "text",
    ]  # fmt: skip
    assert tools(history["messages"][-1])[0]["output"] == {"ok": True}
    assert history["runs"][first.run.message_id]["run"] == call.run.id
    session = await rig.sessions.find("c")
    assert session.state.runs[call.run.id].parent_run == first.run.id


async def test_the_answer_is_shown_at_once_to_who_loads_the_chat(rig: Rig) -> None:
    await asked(rig, lambda run: run.request_approval("refund", REFUND), lambda run: run.call_client_tool("locate"))
    refund, locate = await pending(rig)
    answer = await decide(rig, refund["id"], {"approved": False, "reason": "too much"})
    assert answer.json["run"] is None, "something else is pending"
    part = tools(await reply(rig))[0]
    assert (part["state"], part["approval"]["reason"]) == ("output-denied", "too much")
    assert [each["id"] for each in await pending(rig)] == [locate["id"]]
    assert len(rig.agent.calls) == 1
    answer = await decide(rig, locate["id"], {"output": {"lat": 1}})
    call = await rig.agent.called(2)
    assert answer.json["run"] == call.run.id
    assert [(each.outcome, each.output, each.reason) for each in call.run.decisions] == [
        ("denied", None, "too much"), ("output", {"lat": 1}, None),
    ]  # fmt: skip
    call.finish()
    await rig.ended()


async def test_it_is_decided_once_and_the_loser_is_told_what_was_decided(any_rig: Rig) -> None:
    rig = any_rig
    await asked(rig)
    (waiting,) = await pending(rig)
    answers = await asyncio.gather(
        *(decide(rig, waiting["id"], {"approved": approved}) for approved in (True, False, True, False))
    )
    assert sorted(answer.status for answer in answers) == [200, 200, 409, 409]
    won = next(answer for answer in answers if answer.status == 200)
    for answer in answers:
        if answer.status == 409:
            assert answer.code == "already-decided"
            assert answer.json["decision"] == won.json["decision"]
        else:
            assert answer.json == won.json
    assert (await kinds(rig)).count("decision-made") == 1
    assert len(rig.agent.calls) == 1 or len(rig.agent.calls) == 2
    (await rig.agent.called(2)).finish()
    await rig.ended()
    again = await decide(rig, waiting["id"], {"approved": won.json["decision"]["outcome"] == "approved"})
    assert again.json == won.json, "also when all is over"


async def test_another_output_for_the_same_call_is_refused(rig: Rig) -> None:
    await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    message = await reply(rig)
    assert (await decide(rig, "x", {"output": [1]})).status == 200
    for other in ({"output": [2]}, {"output": [True]}, {"errorText": "no"}):
        answer = await decide(rig, "x", other)
        assert (answer.status, answer.json["decision"]["value"]) == (409, {"output": [1]})
        posted = await post_back(rig, answering(message, other))
        await posted.end()
        assert (posted.status, posted.code) == (409, "already-decided")
    assert (await decide(rig, "x", {"output": [1.0]})).status == 200
    (await rig.agent.called(2)).finish()
    await rig.ended()


async def test_the_agent_goes_on_for_who_asked_it_whoever_decides() -> None:
    async with running(auth=Auth(user_of, policy=lambda identity, session, action: True)) as rig:
        await asked(rig)
        (waiting,) = await pending(rig)
        assert (await decide(rig.as_user("boss"), waiting["id"], {"approved": True})).status == 200
        call = await rig.agent.called(2)
        assert (call.run.user.user, call.run.decisions[0].decided_by) == ("ann", "user:boss")
        call.finish()
        await rig.ended()


async def test_decisions_of_one_message_that_are_made_at_once_are_all_in_it(any_rig: Rig) -> None:
    rig = any_rig
    await asked(rig, *[lambda run, n=n: run.call_client_tool("locate", n, id=f"x{n}") for n in range(6)])
    answers = await asyncio.gather(*(decide(rig, f"x{n}", {"output": n}) for n in range(6)))
    assert [answer.status for answer in answers] == [200] * 6
    assert sorted(answer.json["run"] is None for answer in answers) == [False] + [True] * 5
    assert [part["output"] for part in tools(await reply_of(rig))] == list(range(6))
    (await rig.agent.called(2)).finish()
    await rig.ended()
    assert (await kinds(rig)).count("run-queued") == 2


async def reply_of(rig: Rig) -> dict[str, Any]:
    """The message as the store has it, also while it is being written."""
    session = await rig.sessions.find("c")
    (stored,) = await rig.store.messages("c", [session.state.record.leaf])
    return {"parts": stored.parts}


@pytest.mark.parametrize("path", ["/api/sessions/c", "/api/sessions/c/messages", "/api/chat/c/messages"])
async def test_what_is_read_is_of_one_moment_though_the_reply_goes_on_meanwhile(
    sqlite_rig: Rig, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    rig = sqlite_rig
    await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    read, late = rig.store.messages, False

    async def slow(*which: Any) -> Any:
        nonlocal late
        if not late:
            late = True
            await decide(rig, "x", {"output": 1})
            (await rig.agent.called(2)).say("More.").finish()
            await rig.ended()
        return await read(*which)

    monkeypatch.setattr(rig.store, "messages", slow)
    answer = (await rig.ask("GET", path)).json
    assert len(rig.agent.calls) == 2
    runs = answer["runs"]
    newest = runs[-1] if isinstance(runs, list) else next(iter(runs.values()))
    said = "".join(part.get("text", "") for part in answer["messages"][-1]["parts"])
    assert (newest["status"], said) == ("completed", "Let me see. More.")


@pytest.mark.parametrize("is_published", [True, False])
async def test_what_waits_and_what_is_shown_to_wait_are_of_one_moment(
    sqlite_rig: Rig, monkeypatch: pytest.MonkeyPatch, is_published: bool
) -> None:
    rig = sqlite_rig
    await asked(rig, *[lambda run, n=n: run.call_client_tool("locate", n, id=f"x{n}") for n in range(2)])
    read, commit, late = rig.store.messages, rig.store.commit, False
    kept, publish = asyncio.Event(), asyncio.Event()
    deciding: list[asyncio.Task[Any]] = []

    async def held(batch: Any) -> Any:
        kept_by = await commit(batch)
        if batch.decisions:
            kept.set()
            await publish.wait()
        return kept_by

    async def slow(*which: Any) -> Any:
        nonlocal late
        if late:
            return await read(*which)
        late = True
        deciding.append(asyncio.create_task(decide(rig, "x0", {"output": 1})))
        await kept.wait()
        if is_published:
            publish.set()
            await deciding[0]
        try:
            return await read(*which)
        finally:
            asyncio.get_running_loop().call_later(0.01, publish.set)

    monkeypatch.setattr(rig.store, "commit", held)
    monkeypatch.setattr(rig.store, "messages", slow)
    answer = (await rig.ask("GET", "/api/sessions/c")).json
    await deciding[0]
    waiting = [part["toolCallId"] for part in tools(answer["messages"][-1]) if part["state"] == "input-available"]
    assert [each["toolCallId"] for each in answer["decisions"]] == waiting == ["x1"]


async def test_an_approved_call_that_gets_no_output_is_closed(rig: Rig) -> None:
    await asked(rig)
    await decide(rig, (await pending(rig))[0]["id"], {"approved": True})
    (await rig.agent.called(2)).finish()
    await rig.ended()
    message = await reply(rig)
    assert tools(message)[0]["state"] == "output-error"
    assert message["parts"][-1]["type"] == "step-start", "so that a chat does not send its last step again"


async def test_ids_of_what_follows_do_not_meet_those_of_what_was_said(rig: Rig) -> None:
    _, call = await rig.begun()
    call.do(lambda run: run.reasoning("hm")).do(lambda run: run.tool_call("a", {}, id="call-1"))
    call.do(lambda run: run.tool_result("call-1", 1)).say("first")
    call.do(lambda run: run.call_client_tool("locate", id="x")).finish()
    await rig.ended()
    await decide(rig, "x", {"output": 1})
    call = await rig.agent.called(2)
    call.do(lambda run: run.reasoning("more")).do(lambda run: run.tool_call("a", {})).say("second").finish()
    await rig.ended()
    message = await reply(rig)
    assert len({part["toolCallId"] for part in tools(message)}) == 3
    reasoning = [part["id"] for part in message["parts"] if part["type"] == "reasoning"]
    assert len(set(reasoning)) == 2


async def test_a_restart_of_a_continuation_goes_back_to_where_it_began(rig: Rig) -> None:
    await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    await decide(rig, "x", {"output": 1})
    call = await rig.agent.called(2)
    call.say("thrown away").do(lambda run: run.restart()).say("kept").finish()
    await rig.ended()
    message = await reply(rig)
    assert [part.get("text") for part in message["parts"] if part["type"] == "text"] == ["Let me see. ", "kept"]
    assert tools(message)[0]["output"] == 1


async def test_a_second_round_is_asked_and_decided_in_the_same_message(rig: Rig) -> None:
    await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    await decide(rig, "x", {"output": 1})
    call = await rig.agent.called(2)
    call.do(lambda run: run.request_approval("refund", REFUND)).finish()
    await rig.ended()
    (second,) = await pending(rig)
    answer = await post_back(rig, answering(await reply(rig), {"approved": True}))
    call = await rig.agent.called(3)
    assert [each.tool for each in call.run.decisions] == ["refund"]
    call.do(lambda run: run.tool_result(second["toolCallId"], "ok")).finish()
    await answer.end()
    assert [part["state"] for part in tools(await reply(rig))] == ["output-available"] * 2
    assert (await rig.history("c"))["activeRun"] is None


async def test_roles_and_policy_say_who_may_decide(rig: Rig) -> None:
    await asked(rig, lambda run: run.request_approval("refund", REFUND, roles=["boss"]))
    (waiting,) = await pending(rig)
    answer = await decide(rig, waiting["id"], {"approved": True})
    assert (answer.status, answer.code) == (403, "not-yours-to-decide")
    answer = await post_back(rig, answering(await reply(rig), {"approved": True}))
    await answer.end()
    assert (answer.status, answer.code) == (403, "not-yours-to-decide")
    answer = await decide(rig.as_user("eve"), waiting["id"], {"approved": True})
    assert (answer.status, answer.code) == (404, "not-found")
    assert len(await pending(rig)) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"approved": 1}, {"approved": True, "output": 1}, {"output": 1, "reason": "x"}, {"errorText": None},
     {"approved": None}, {"approved": True, "reason": 1}, {"approved": True, "more": 1}, {"output": 1},
     {"errorText": "x"}],
)  # fmt: skip
async def test_an_answer_that_is_none_is_refused(rig: Rig, body: dict[str, Any]) -> None:
    await asked(rig)
    (waiting,) = await pending(rig)
    answer = await decide(rig, waiting["id"], body)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert len(await pending(rig)) == 1


async def test_an_answer_has_a_bound_and_is_json_that_clients_can_read(rig: Rig) -> None:
    await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    too_large = await decide(rig, "x", {"output": "y" * rig.chat.settings.chunk_limit})
    assert (too_large.status, too_large.code) == (413, "body-too-large")
    odd = await decide(rig, "x", {"output": {"__proto__": 1}})
    assert (odd.status, odd.code) == (422, "invalid-request")
    assert len(await pending(rig)) == 1
    for decision in ("y", "a/b"):
        assert (await decide(rig, decision, {"output": 1})).status in (404, 422)


# ---------------------------------------------------------------------- nobody decides


@pytest.mark.parametrize("how", ["next", "edit", "regenerate"])
async def test_another_message_supersedes_what_is_pending_in_the_same_commit(any_rig: Rig, how: str) -> None:
    rig = any_rig
    await asked(
        rig, lambda run: run.request_approval("refund", REFUND), lambda run: run.call_client_tool("locate", id="x")
    )
    message = await reply(rig)
    if how == "next":
        answer = await rig.post("c", "never mind", "u2")
    elif how == "edit":
        answer = await rig.post("c", "never mind", "u1", messageId="u1")
    else:
        answer = await rig.post("c", "refund me", "u1", trigger="regenerate-message", messageId=message["id"])
    call = await rig.agent.called(2)
    (batch,) = [each for each in rig.store.committed if "decision-made" in rig.kinds(each)]
    assert [kind for kind in rig.kinds(batch) if kind != "message-created"] == [
        "decision-made", "decision-made", "run-queued", "run-started",
    ]  # fmt: skip
    assert await pending(rig) == []
    session = await rig.sessions.find("c")
    (stored,) = await rig.store.messages("c", [session.state.runs[rig.agent.calls[0].run.id].message])
    assert [part["state"] for part in tools({"parts": stored.parts})] == ["output-denied", "output-error"]
    late = await decide(rig, "x", {"output": 1})
    assert (late.status, late.code, late.json["decision"]["outcome"]) == (409, "already-decided", "superseded")
    call.finish()
    await answer.end()
    assert len(rig.agent.calls) == 2


async def test_what_nobody_decides_in_time_expires_and_goes_on_only_if_the_rest_was_decided(any_rig: Rig) -> None:
    rig = any_rig
    await asked(rig, lambda run: run.request_approval("refund", REFUND, expires_in=60))
    await asked(
        rig,
        lambda run: run.request_approval("refund", REFUND),
        lambda run: run.call_client_tool("locate", id="x", expires_in=60),
        chat="d",
    )
    for chat in ("c", "d"):
        assert [each["expiresAt"] for each in await pending(rig, chat)][-1] == rig.clock.now() + 60_000
    await decide(rig, (await pending(rig, "d"))[0]["id"], {"approved": True}, "d")
    await rig.clock.advance(59)
    assert len(await pending(rig)) == 1
    await rig.passing(lambda: len(rig.agent.calls) == 3)
    assert await pending(rig) == []
    assert tools(await reply(rig))[0]["state"] == "output-denied"
    call = rig.agent.calls[2]
    assert call.run.session_id == "d"
    assert [each.outcome for each in call.run.decisions] == ["approved", "expired"]
    assert call.run.user.user == "ann"
    call.finish()
    await rig.ended("d")
    late = await decide(rig, "x", {"output": 1}, "d")
    assert (late.status, late.json["decision"]["outcome"], late.json["decision"]["by"]) == (409, "expired", "server")
    locate = tools(await reply(rig, "d"))[1]
    assert (locate["state"], locate["errorText"]) == ("output-error", "Nobody decided in time.")


# ---------------------------------------------------------------------- restarts


async def test_it_survives_a_restart_and_a_continuation_that_is_lost_keeps_its_words(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        await asked(rig, lambda run: run.request_approval("refund", REFUND, roles=["boss"], expires_in=5))
        await asked(rig, lambda run: run.request_approval("refund", REFUND), chat="d")
        before = await pending(rig), await pending(rig, "d")
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        assert (await pending(rig), await pending(rig, "d")) == before
        answer = await decide(rig, before[1][0]["id"], {"approved": True}, "d")
        assert answer.status == 200
        call = await rig.agent.called()
        assert call.run.decisions[0].input == REFUND
        call.say("So far. ")
        resumed = await rig.resume("d")
        await resumed.until_text("Let me see. So far. ")
        whole = resumed.text
        await resumed.drop()
        for name in ("chat.db", "chat.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / f"killed-{name}")
    async with running(tmp_path / "killed-chat.db", clock=clock) as rig:
        message = await reply(rig, "d")
        run = (await rig.history("d"))["runs"][message["id"]]
        assert (run["status"], run["reason"]) == ("lost", "process-lost")
        assert "".join(part.get("text", "") for part in message["parts"]) == whole
        assert [part["state"] for part in tools(message)] == ["output-error"]
        await clock.advance(6)
        await rig.passing(lambda: any("decision-made" in rig.kinds(batch) for batch in rig.store.committed))
        assert await pending(rig) == []


async def test_a_cold_session_is_decided_and_what_is_joined_is_the_whole_message(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db") as rig:
        await asked(rig)
        (waiting,) = await pending(rig)
        await rig.go_cold()
        await decide(rig, waiting["id"], {"approved": True})
        call = await rig.agent.called(2)
        call.say("More.")
        history = await rig.history("c")
        assert [message["role"] for message in history["messages"]] == ["user"]
        joined = await rig.resume("c", history["cursor"])
        fresh = await rig.resume("c")
        for each in (joined, fresh):
            await each.until_text("Let me see. More.")
        call.finish()
        for each in (joined, fresh):
            await each.end()
            assert each.types.count("start") == 1
        again = await rig.resume("c", history["cursor"])
        await again.end()
        assert again.text == "Let me see. More."


async def test_a_continuation_that_was_stopped_before_it_arrived_is_born_stopped(rig: Rig) -> None:
    await asked(rig, lambda run: run.call_client_tool("locate", id="x"))
    stopped = await rig.stop("c", key="k1")
    assert stopped.json["status"] == "remembered"
    answer = await post_back(rig, answering(await reply(rig), {"output": 1}), headers={"Idempotency-Key": "k1"})
    await answer.end()
    assert answer.types[-2:] == ["abort", "[DONE]"]
    assert len(rig.agent.calls) == 1
    assert tools(await reply(rig))[0]["output"] == 1
    session = await rig.sessions.find("c")
    assert list(session.state.runs.values())[-1].status is Status.STOPPED


async def test_a_store_that_fails_decides_nothing(rig: Rig) -> None:
    await asked(rig)
    (waiting,) = await pending(rig)
    rig.store.fail()
    deciding = asyncio.create_task(decide(rig, waiting["id"], {"approved": True}))
    await rig.passing(deciding.done)
    assert (await deciding).status == 503
    rig.store.mend()
    await rig.passing(lambda: rig.chat.service.ready)
    assert await pending(rig) == [waiting]
    assert (await decide(rig, waiting["id"], {"approved": False})).status == 200
    (await rig.agent.called(2)).finish()
    await rig.ended()


async def test_a_session_on_disk_has_its_decisions_in_the_rows(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db") as rig:
        await asked(rig, lambda run: run.call_client_tool("locate", id="x", expires_in=10))
    store = SqliteStore(tmp_path / "chat.db", lock_wait=0)
    await store.open()
    (due,) = await store.due(2**60)
    assert (due.id, due.tool, due.pending) == ("x", "locate", True)
    await store.close()
