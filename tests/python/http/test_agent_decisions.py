"""Remote agents that ask for decisions (PROTOCOL §18.11): suspended like any run, and gone on with by any worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asking import REFUND, answering, decide, pending, tools
from asking import reply as message
from far import LEASE, Worker, asked, reply, served
from rig import Answer, Rig
from strandline.testing import until


def call(id: str, name: str = "refund", input: Any = REFUND) -> list[dict[str, Any]]:
    named = {"toolCallId": id, "toolName": name}
    return [{"type": "tool-input-start", **named}, {"type": "tool-input-available", **named, "input": input}]


def approval(id: str) -> list[dict[str, Any]]:
    return [*call(id), {"type": "tool-approval-request", "approvalId": f"ask-{id}", "toolCallId": id}]


async def suspended(rig: Rig, *chunks: Any, awaits: Any = None) -> tuple[Answer, Worker]:
    answer, worker = await asked(rig)
    await worker.append({"type": "start-step"}, *(chunks or approval("c1")))
    ended = await worker.end(**({"awaits": awaits} if awaits is not None else {}))
    assert (ended.json["state"], ended.json["status"]) == ("over", "suspended"), ended.body
    assert (await worker.end()).json == ended.json
    await answer.end()
    return answer, worker


async def go_on(rig: Rig, worker: Worker, claim: str = "go-on") -> dict[str, Any]:
    """Take the run that goes on; what its claim is answered."""
    session = await rig.sessions.find("c")
    (run,) = session.live
    claimed = (await worker.claim(run, claim)).json
    assert claimed["state"] == "running"
    return dict(claimed)


async def test_an_approval_suspends_the_run_and_the_next_one_is_offered_with_what_was_decided(far: Rig) -> None:
    answer, worker = await suspended(far)
    assert answer.frames[-2].chunk["finishReason"] == "tool-calls"
    listening = await worker.work()
    (asked_for,) = await pending(far)
    assert (asked_for["id"], asked_for["kind"], asked_for["input"], asked_for["roles"]) == (
        "ask-c1",
        "approval",
        REFUND,
        None,
    )
    decided = await decide(far, "ask-c1", {"approved": True, "reason": "Of course."})
    await listening.until(lambda: listening.frames)
    assert listening.frames[0].chunk["run"] == decided.json["run"]
    claimed = await go_on(far, worker)
    (decision,) = claimed["decisions"]
    assert {name: decision[name] for name in ("id", "toolCallId", "tool", "input", "outcome", "value", "by")} == {
        "id": "ask-c1",
        "toolCallId": "c1",
        "tool": "refund",
        "input": REFUND,
        "outcome": "approved",
        "value": {"approved": True, "reason": "Of course."},
        "by": "user:ann",
    }
    assert claimed["partial"]["id"] == claimed["messageId"] == asked_for["messageId"]
    assert claimed["messages"][-1]["id"] == claimed["messageId"]
    assert tools(claimed["partial"])[0]["state"] == "approval-responded"
    output = {"type": "tool-output-available", "toolCallId": "c1", "output": "done"}
    assert (await worker.append(output, {"type": "start-step"})).status == 200
    await worker.append("Settled.")
    await worker.end()
    parts, how = await reply(far)
    assert (tools({"parts": parts})[0]["output"], parts[-1]["text"], how["status"]) == ("done", "Settled.", "completed")
    await listening.drop()


@pytest.mark.parametrize("unfriendly", [True, False])
async def test_what_was_decided_waits_for_a_worker_over_restarts_of_both(tmp_path: Path, unfriendly: bool) -> None:
    path = tmp_path / "chat.db"

    def leave(rig: Rig) -> None:
        if unfriendly:
            rig.chat.service.stop = rig.chat.service._close  # type: ignore[method-assign]

    async with served(path) as rig:
        _, worker = await suspended(rig)
        leave(rig)
    async with served(path) as rig:
        assert (await decide(rig, "ask-c1", {"approved": True})).status == 200
        leave(rig)
    async with served(path) as rig:
        worker.app = rig.app
        claimed = await go_on(rig, worker, "first")
        await worker.append({"type": "start-step"}, {"type": "text-start", "id": "t"})
        leave(rig)
    async with served(path) as rig:
        # The worker was killed as well: another taking of the same holder.
        worker.app = rig.app
        again = await go_on(rig, worker, "second")
        assert (again["decisions"], again["producer"]) == (claimed["decisions"], 2)
        assert [each["outcome"] for each in again["decisions"]] == ["approved"]
        assert tools(again["partial"])[0]["state"] == "approval-responded", "closed, and nobody has given its output"
        await worker.append({"type": "tool-output-available", "toolCallId": "c1", "output": "done"})
        await worker.end()
        parts, how = await reply(rig)
        assert (tools({"parts": parts})[0]["output"], how["status"]) == ("done", "completed")


@pytest.mark.parametrize("comes", [True, False])
async def test_what_was_decided_waits_for_a_worker_longer_than_a_question_does(comes: bool) -> None:
    async with served(claim_timeout=30.0, decided_timeout=7200.0, run_deadline=600.0) as rig:
        _, worker = await suspended(rig)
        decided = await decide(rig, "ask-c1", {"approved": True})
        await until(lambda: rig.chat._leases.find(decided.json["run"]))
        for _ in range(719):
            await rig.clock.advance(10)
        if not comes:
            await rig.clock.advance(11)
            await until(lambda: rig.chat.counters().active_runs == 0)
            parts, how = await reply(rig)
            assert (how["status"], how["reason"]) == ("failed", "no-agent")
            assert tools({"parts": parts})[0]["state"] == "output-error"
            return
        await go_on(rig, worker)
        await worker.append({"type": "tool-output-available", "toolCallId": "c1", "output": "done"})
        for _ in range(59):
            await rig.clock.advance(10)
            assert (await worker.beat()).json["state"] == "running"
        await rig.clock.advance(20)
        await until(lambda: rig.chat.counters().active_runs == 0)
        assert (await reply(rig))[1]["reason"] == "deadline", "which begins when the run is taken"


async def test_an_approved_call_without_output_is_closed_when_its_worker_is_gone(far: Rig) -> None:
    _, worker = await suspended(far)
    await decide(far, "ask-c1", {"approved": True})
    await go_on(far, worker)
    await far.clock.advance(LEASE + 1)
    await until(lambda: far.chat.counters().active_runs == 0)
    parts, how = await reply(far)
    assert (tools({"parts": parts})[0]["state"], how["reason"]) == ("output-error", "lease-expired")


async def test_a_worker_that_dies_after_it_has_asked_and_before_it_has_ended_has_not_asked(far: Rig) -> None:
    _, worker = await asked(far)
    await worker.append({"type": "start-step"}, *approval("c1"))
    claimed = (await worker.claim(worker.run, "again")).json
    assert tools(claimed["partial"])[0]["state"] == "output-error"
    await worker.append({"type": "start-step"}, *approval("c2"))
    assert (await worker.end()).json["status"] == "suspended"
    assert [each["toolCallId"] for each in await pending(far)] == ["c2"]


LOCATE = [{"toolCallId": "c1", "roles": ["field"], "expiresIn": 60.5}]


async def test_a_tool_of_the_client_is_awaited_where_the_worker_says_so_and_of_who_has_the_role(far: Rig) -> None:
    _, worker = await suspended(far, *call("c1", "locate", {}), *call("c2", "look"), awaits=LOCATE)
    (wanted,) = await pending(far)
    assert (wanted["kind"], wanted["tool"], wanted["roles"]) == ("tool", "locate", ["field"])
    assert wanted["expiresAt"] - wanted["createdAt"] == 60_500
    parts, _ = await reply(far)
    assert [tool["state"] for tool in tools({"parts": parts})] == ["input-available", "output-error"]
    assert (await decide(far, "c1", {"output": 1})).code == "not-yours-to-decide"
    far.headers["x-roles"] = "field"
    assert (await decide(far, "c1", {"output": {"at": 7}})).status == 200
    (decision,) = (await go_on(far, worker))["decisions"]
    assert (decision["outcome"], decision["value"]) == ("output", {"output": {"at": 7}})


@pytest.mark.parametrize(
    "wrong", [{"expiresIn": 1e16}, {"expiresIn": 0}, {"roles": ["x"] * 101}, {"roles": ["x" * 201]}]
)
async def test_what_is_awaited_has_bounds_and_who_breaks_them_can_still_end(far: Rig, wrong: Any) -> None:
    _, worker = await asked(far)
    await worker.append({"type": "start-step"}, *call("c1", "locate", {}))
    refused = await worker.end(awaits=[{"toolCallId": "c1", **wrong}])
    assert (refused.status, refused.code) == (422, "invalid-request")
    assert (await worker.end()).json["status"] == "completed"


async def test_what_nobody_decides_in_time_expires_and_the_worker_of_the_rest_is_told(far: Rig) -> None:
    _, worker = await suspended(far, *call("c1", "locate", {}), *approval("c2"), awaits=LOCATE)
    await decide(far, "ask-c2", {"approved": True})
    await far.clock.advance(60)
    session = await far.sessions.find("c")
    assert not session.live
    await far.passing(lambda: session.live)
    claimed = await go_on(far, worker)
    assert [(each["toolCallId"], each["outcome"]) for each in claimed["decisions"]] == [
        ("c1", "expired"),
        ("c2", "approved"),
    ]


async def test_a_denial_a_changed_input_and_a_chat_that_answers(far: Rig) -> None:
    _, worker = await suspended(far, *approval("c1"))
    copy = await message(far)
    forged = answering(copy, {"approved": True})
    for part in tools(forged):
        part["input"] = {**REFUND, "amount": 1e6}
    body = {"id": "c", "messages": [forged], "trigger": "submit-message", "messageId": forged["id"]}
    assert (await far.ask("POST", "/api/chat", body)).code == "input-changed"
    denied = answering(copy, {"approved": False, "reason": "Too much."})
    going = await far.open("POST", "/api/chat", {**body, "messages": [denied]})
    (decision,) = (await go_on(far, worker))["decisions"]
    assert (decision["outcome"], decision["value"]["reason"]) == ("denied", "Too much.")
    await worker.append("As you wish.")
    await worker.end()
    await going.end()
    parts, _ = await reply(far)
    assert (tools({"parts": parts})[0]["state"], parts[-1]["text"]) == ("output-denied", "As you wish.")


@pytest.mark.parametrize(
    "awaits",
    [
        "c1",
        ["c1"],
        [{}],
        [{"toolCallId": 1}],
        [{"toolCallId": "nowhere"}],
        [{"toolCallId": "c1", "roles": "all"}],
        [{"toolCallId": "c1", "roles": [1]}],
        [{"toolCallId": "c1", "expiresIn": "1"}],
        [{"toolCallId": "c1", "expiresIn": 0}],
        [{"toolCallId": "c1", "expiresIn": True}],
    ],
)
async def test_what_is_awaited_has_to_make_sense_and_harms_nothing_where_it_does_not(far: Rig, awaits: Any) -> None:
    _, worker = await asked(far)
    await worker.append({"type": "start-step"}, *call("c1"))
    refused = await worker.end(awaits=awaits)
    assert (refused.status, refused.code) == (422, "invalid-request")
    assert (await worker.end(awaits=[{"toolCallId": "c1"}])).json["status"] == "suspended"
