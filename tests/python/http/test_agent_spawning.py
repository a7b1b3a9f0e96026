"""Agents that remote agents start beside themselves (PROTOCOL §18.13): each once, and with its parent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asking import decide
from far import LEASE, Worker, asked, who
from rig import Answer, Rig, running
from strandline.http.auth import Auth
from strandline.runtime.spawning import DEEPEST, MOST_BESIDE
from strandline.testing import ScriptedAgent


@asynccontextmanager
async def served(path: Path | None = None, **more: Any) -> AsyncIterator[tuple[Rig, ScriptedAgent]]:
    """With the agents ``far`` and ``near``, which are elsewhere, and ``critic``, which is here."""
    critic = ScriptedAgent()

    def prepare(chat: Any) -> None:
        chat.remote_agent("far", lease=LEASE, spawns=["critic", "near"])
        chat.remote_agent("near", lease=LEASE, spawns=["near"])

    more = {"claim_timeout": 100.0, "more": {"critic": critic}, **more}
    async with running(path, auth=Auth(who), prepare=prepare, **more) as rig:
        yield rig, critic


async def spawn(worker: Worker, agent: Any = "critic", sequence: int | None = None, **given: Any) -> Answer:
    number = sequence or worker.sent + 1
    answer = await worker.about("spawn", sequence=number, agent=agent, **given)
    if answer.status == 200:
        worker.sent = max(worker.sent, number)
    return answer


async def beside(rig: Rig) -> list[dict[str, Any]]:
    """What was spawned, by the feed's own eyes."""
    return [event for event in await rig.log_from_store() if event["type"] == "run-queued" and event.get("spawned")]


async def ends(rig: Rig) -> dict[str, tuple[str, str]]:
    found = [event for event in await rig.log_from_store() if event["type"] == "run-ended"]
    return {event["run"]: (event["status"], event["reason"]) for event in found}


async def test_an_agent_of_the_server_says_something_beside_a_remote_one() -> None:
    async with served() as (far, critic):
        answer, worker = await asked(far)
        await worker.append("main ")
        told = await spawn(worker, prompt="Is it good?", body={"depth": 3})
        assert {name: told.json[name] for name in ("state", "sequence", "notes")} == {
            "state": "running", "sequence": 2, "notes": 0,
        }  # fmt: skip
        call = await critic.called()
        assert told.json["spawned"] == {
            "run": call.run.id, "messageId": call.run.message_id, "agent": "critic",
        }  # fmt: skip
        assert call.run.prompt() == [{"role": "user", "content": "Is it good?"}]
        assert (dict(call.run.body), call.run.user.user) == ({"depth": 3}, "ann")
        call.say("It is.").finish()
        await far.ended_run(call.run.id)
        await worker.append("text")
        await worker.end()
        assert (await answer.end()).text == "main text"
        (queued,) = await beside(far)
        assert (queued["agent"], queued["parent_run"], queued["by"]) == ("critic", worker.run, "agent:far")
        seen = (await far.ask("GET", "/api/sessions/c")).json["spawned"]
        assert [(each["agent"], each["message"]["parts"][-1]["text"]) for each in seen] == [("critic", "It is.")]


async def test_without_a_prompt_it_is_asked_what_its_parent_was() -> None:
    async with served() as (far, critic):
        _, worker = await asked(far)
        await spawn(worker)
        assert (await critic.called()).run.prompt() == [{"role": "user", "content": "hello"}]


async def test_it_counts_once_however_often_it_comes() -> None:
    async with served() as (far, critic):
        _, worker = await asked(far)
        far.store.hang()
        words = asyncio.create_task(worker.append("words ", sequence=1))
        await asyncio.sleep(0.01)
        more = asyncio.create_task(worker.append("and more ", sequence=2))
        twins = [asyncio.create_task(spawn(worker, sequence=3)) for _ in range(3)]
        await asyncio.sleep(0.01)
        after = asyncio.create_task(worker.append("!", sequence=4))
        await asyncio.sleep(0.01)
        assert not any(each.done() for each in (words, more, *twins, after)), "answered before it is durable"
        far.store.mend()
        answers = [(await twin).json["spawned"] for twin in twins]
        assert answers[0] and answers == [answers[0]] * 3
        assert [(await each).status for each in (words, more, after)] == [200] * 3
        assert (await spawn(worker, sequence=3)).json["spawned"] == answers[0]
        late = await spawn(worker, sequence=6)
        assert (late.code, late.json["expected"]) == ("gap", 5)
        assert (len(await beside(far)), len(critic.calls)) == (1, 1)
        numbers = [event["sent"] for event in await far.log() if event.get("sent")]
        assert numbers == sorted(numbers), "the next server would take an earlier one for the newest"
        assert ["appended", "run-queued", "run-started"] in [far.kinds(each)[:3] for each in far.store.committed]
        await worker.append("?")
        await worker.end()
        assert (await far.history("c"))["messages"][-1]["parts"][-1]["text"] == "words and more !?"


@pytest.mark.parametrize("unfriendly", [True, False])
async def test_the_next_server_knows_that_it_was_done(tmp_path: Path, unfriendly: bool) -> None:
    """What ran in the server is lost with it; what runs elsewhere goes on."""
    path = tmp_path / "chat.db"
    async with served(path, shutdown_grace=0.01) as (far, critic):
        _, worker = await asked(far)
        first = (await spawn(worker, "critic", prompt="one")).json
        second = (await spawn(worker, "near", prompt="two", body={"x": 1})).json
        await critic.called()
        near = Worker(far.app, "n", role="agent:near")
        assert (await near.claim(second["spawned"]["run"])).status == 200
        await near.append("near ")
        if unfriendly:
            far.chat.service.stop = far.chat.service._close  # type: ignore[method-assign]
    async with served(path) as (far, critic):
        worker.app = near.app = far.app
        assert (await spawn(worker, "critic", 1, prompt="one")).json == first
        assert (await spawn(worker, "near", 2, prompt="two")).json == second
        claimed = (await near.claim(near.run, "again")).json
        assert (claimed["prompt"], claimed["body"], claimed["user"]) == (
            [{"role": "user", "content": "two"}], {"x": 1}, "ann",
        )  # fmt: skip
        await near.append("goes on")
        await near.end()
        await worker.append("main")
        await worker.end()
        assert critic.calls == []
        assert [queued["agent"] for queued in await beside(far)] == ["critic", "near"]
        found = await ends(far)
        assert found[first["spawned"]["run"]][0] == "lost"
        assert found[near.run] == found[worker.run] == ("completed", "completed")


@pytest.mark.parametrize("unfriendly", [True, False])
async def test_one_that_asks_goes_on_with_what_it_was_given(tmp_path: Path, unfriendly: bool) -> None:
    path = tmp_path / "chat.db"

    def leave(rig: Rig) -> None:
        if unfriendly:
            rig.chat.service.stop = rig.chat.service._close  # type: ignore[method-assign]

    async with served(path) as (far, _):
        _, worker = await asked(far)
        run = (await spawn(worker, "near", prompt="two", body={"x": 1})).json["spawned"]["run"]
        near = Worker(far.app, "n", role="agent:near")
        await near.claim(run)
        call = {"toolCallId": "k", "toolName": "refund"}
        request = {"type": "tool-approval-request", "approvalId": "ask", "toolCallId": "k"}
        await near.append({"type": "start-step"}, {"type": "tool-input-available", **call, "input": {}}, request)
        assert (await near.end()).json["status"] == "suspended"
        await worker.end()
        going = (await decide(far, "ask", {"approved": True})).json["run"]
        leave(far)
    async with served(path) as (far, _):
        near.app = far.app
        claimed = (await near.claim(going, "second")).json
        assert (claimed["prompt"], claimed["body"], claimed["user"]) == (
            [{"role": "user", "content": "two"}], {"x": 1}, "ann",
        )  # fmt: skip
        assert [each["outcome"] for each in claimed["decisions"]] == ["approved"]
        await near.append({"type": "tool-output-available", "toolCallId": "k", "output": "done"})
        assert (await near.end()).json["status"] == "completed"


@pytest.mark.parametrize("how", ["stopped", "failed", "lost"])
async def test_what_it_has_spawned_ends_with_it_in_the_same_commit(how: str) -> None:
    async with served() as (far, critic):
        _, worker = await asked(far)
        here = (await spawn(worker, "critic")).json["spawned"]["run"]
        there = (await spawn(worker, "near")).json["spawned"]["run"]
        call = await critic.called()
        near = Worker(far.app, "n", role="agent:near")
        assert (await near.claim(there)).status == 200
        if how == "stopped":
            await far.stop("c", run=worker.run)
        elif how == "failed":
            await worker.end(status="failed")
        else:
            await far.clock.advance(LEASE - 1)
            await near.beat()
            await far.clock.advance(2)
        await far.ended_run(worker.run)
        found = await ends(far)
        assert [found[here], found[there]] == [("stopped", "parent-ended")] * 2
        assert found[worker.run][0] == how
        (batch,) = [batch for batch in far.store.committed if "run-ended" in far.kinds(batch)]
        assert far.kinds(batch).count("run-ended") == 3
        assert (call.cancelled, (await near.beat()).json["state"]) == (True, "over")


async def test_a_zombie_spawns_nothing() -> None:
    async with served() as (far, critic):
        _, zombie = await asked(far)
        first = (await spawn(zombie, "near")).json["spawned"]
        newer = Worker(far.app)
        assert (await newer.claim(zombie.run, "again")).json["spawned"] == [first], "or it would do it again"
        assert (await spawn(zombie)).code == "fenced"
        assert (await newer.about("append", sequence=1, chunks=[])).status == 200
        await far.stop("c")
        assert (await spawn(newer)).json["state"] == "over"
        assert ([each["agent"] for each in await beside(far)], critic.calls) == (["near"], [])


async def test_too_many_and_too_deep_is_an_answer_as_final_as_a_run() -> None:
    async with served() as (far, _):
        _, worker = await asked(far)
        runs = [(await spawn(worker, prompt="x")).json["spawned"]["run"] for _ in range(MOST_BESIDE)]
        refused = await spawn(worker, prompt="x")
        assert (refused.status, refused.json["spawned"]) == (200, None)
        await far.stop("c", run=runs[0])
        assert (await spawn(worker, prompt="x", sequence=MOST_BESIDE + 1)).json["spawned"] is None
        assert (await spawn(worker, prompt="x")).json["spawned"] is not None
        assert len(await beside(far)) == MOST_BESIDE + 1
    async with served() as (far, _):
        _, worker = await asked(far)
        for depth in range(DEEPEST):
            run = (await spawn(worker, "near")).json["spawned"]["run"]
            worker = Worker(far.app, f"n{depth}", role="agent:near")
            await worker.claim(run)
        assert (await spawn(worker, "near")).json["spawned"] is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"agent": "nobody"}, "unknown-agent"),
        ({"agent": "far"}, "unknown-agent"),  # not one of those that it may spawn
        ({"agent": "a/b"}, "invalid-id"),
        ({}, "invalid-id"),
        ({"agent": "critic", "prompt": 5}, "invalid-request"),
        ({"agent": "critic", "prompt": ["words"]}, "invalid-request"),
        ({"agent": "critic", "prompt": [{"role": "user"}]}, "invalid-request"),
        ({"agent": "critic", "prompt": [{"role": "user", "parts": "words"}]}, "invalid-request"),
        ({"agent": "critic", "prompt": [{"role": "user", "content": "x"}] * 1001}, "invalid-request"),
        ({"agent": "critic", "body": [1]}, "invalid-request"),
        ({"agent": "critic", "prompt": "x" * 2_000_000}, "prompt-too-long"),
        ({"agent": "critic", "sequence": 0}, "invalid-request"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_harms_nothing(body: Any, code: str) -> None:
    async with served() as (far, critic):
        _, worker = await asked(far)
        refused = await worker.about("spawn", **{"sequence": 1, **body})
        assert (refused.status, refused.code) == (422, code)
        await worker.append("fine")
        await worker.end()
        assert (await far.history("c"))["messages"][-1]["parts"][-1]["text"] == "fine"
        assert (await beside(far), critic.calls) == ([], [])
