"""How many runs there may be, counted right where something goes wrong, or goes on (PROTOCOL §14.1, §15.3, §18.7)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asking import decide, pending
from rig import Rig, at_once, running
from strandline import Run
from strandline.core.decisions import APPROVED, Answer
from strandline.core.intake import SUBMIT, Incoming, Request
from strandline.errors import Conflict, NotStored, TooMany
from strandline.runtime.live_run import Caller
from strandline.runtime.speaking import Unasked
from strandline.testing import ScriptedAgent

C = "/api/sessions/c"
YES = {"approved": True}
SAID = ({"type": "text", "text": "hello"},)


async def ask(run: Run) -> None:
    await run.request_approval("delete", {"path": "a"}, id="call-1")


# ------------------------------------------------------------------------------------------------ what never began


async def submitted(rig: Rig, body: Any) -> Any:
    request = Request(SUBMIT, None, Incoming("u9", "user", SAID), None)
    return await rig.sessions.submit("d", request, Caller("ann", body=body), "scripted", lambda record: True)


@pytest.mark.parametrize("waited", [True, False])
async def test_a_start_that_cannot_be_written_down_holds_no_place(waited: bool) -> None:
    async with running(recover="restart", max_active_runs=1) as rig:
        starting = asyncio.ensure_future(submitted(rig, {"not": object()}))
        if waited:
            with pytest.raises(TypeError):
                await starting
        else:
            await asyncio.sleep(0)
            starting.cancel()
            await rig.sessions.journal.barrier()
        _, call = await rig.begun()
        call.finish()


async def test_a_continuation_that_cannot_be_written_down_holds_no_place() -> None:
    async with running(recover="restart", max_active_runs=1) as rig:
        _, call = await rig.begun()
        call.do(ask).finish()
        await rig.ended()
        (decision,) = await pending(rig)
        with pytest.raises(TypeError):
            await rig.sessions.answer_one(
                "c", decision["id"], Answer(APPROVED), Caller("ann", body={"not": object()}), lambda record: True
            )
        assert (await decide(rig, decision["id"], YES)).status == 200
        (await rig.agent.called(2)).finish()


async def test_a_start_that_the_store_refuses_holds_no_place() -> None:
    """Another run with this key is a defect of ours: what was under way elsewhere goes on, and so does what follows."""
    async with running(max_active_runs=2) as rig:
        answer, other = await rig.begun("other", id="u0")
        commit, refused = rig.store.commit, []

        async def refusing(batch: Any) -> None:
            if batch.runs and not refused:
                refused.append(batch)
                raise Conflict("The store has decided otherwise.")
            await commit(batch)

        rig.store.commit = refusing  # type: ignore[method-assign]
        with pytest.raises(NotStored):
            await submitted(rig, {})
        assert refused
        assert rig.sessions.journal.healthy
        _, call = await rig.begun()
        call.finish()
        other.say("goes on").finish()
        assert (await answer.end()).text == "goes on"


# ------------------------------------------------------------------------------------------------ what goes on


async def test_a_decision_starts_nothing_beside_as_many_as_there_may_be() -> None:
    async with running(max_concurrent=1) as rig:
        _, first = await rig.begun()
        first.finish()
        await rig.ended()
        old = (await rig.ask("GET", C)).json["messages"][-1]["id"]
        await rig.post("c", "hello", "u1", trigger="regenerate-message")
        (await rig.agent.called(2)).do(ask).finish()
        await rig.ended()
        (decision,) = await pending(rig)
        # Another branch is gone on with: what waits here is not superseded by that.
        assert (await rig.ask("POST", f"{C}/branch", {"message": old})).status == 200
        await rig.post("c", "more", "u2")
        beside = await rig.agent.called(3)
        refused = await decide(rig, decision["id"], YES)
        assert (refused.status, refused.code) == (429, "too-many")
        assert [each["outcome"] for each in await pending(rig)] == [None], "and it can be decided later"
        beside.finish()
        await rig.ended()
        assert (await decide(rig, decision["id"], YES)).json["run"] is not None
        (await rig.agent.called(4)).finish()


# ------------------------------------------------------------------------------------------------ nobody asked


async def test_an_agent_that_speaks_unasked_takes_the_place_of_what_is_pending(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    _, call = await rig.begun()
    call.do(ask).finish()
    await rig.ended()
    await rig.go_cold()
    wanted = Unasked("scripted", key="k1", holder="w")
    _, run = await rig.sessions.speak("c", wanted, lambda record: True)
    speaking = await rig.agent.called(2)
    (asked,) = [part for part in speaking.run.messages[-1]["parts"] if "toolCallId" in part]
    assert asked["state"] == "output-denied", "no call is left open to the model"
    assert await pending(rig) == []
    begun = next(batch for batch in rig.store.committed if "run-claimed" in rig.kinds(batch))
    assert rig.kinds(begun)[0] == "decision-made", "one commit"
    assert (await rig.sessions.speak("c", wanted, lambda record: True))[1] == run
    speaking.say("By the way.").finish()
    await rig.ended()
    assert [each["role"] for each in (await rig.ask("GET", C)).json["messages"]] == ["user", "assistant", "assistant"]


# ------------------------------------------------------------------------------------------------ in one commit


@pytest.mark.parametrize("how", ["spawned", "spoken"])
async def test_what_begins_in_one_commit_are_no_more_than_there_may_be(tmp_path: Path, how: str) -> None:
    critic, chats = ScriptedAgent(), ["c1", "c2", "c3"]
    async with running(tmp_path / "chat.db", more={"critic": critic}, max_active_runs=4) as rig:
        calls = {chat: (await rig.begun(chat, id=f"u-{chat}"))[1] for chat in [*chats, "blocker"]}
        calls.pop("blocker").finish()
        await rig.ended("blocker")

        async def begin(chat: str) -> Any:
            if how == "spawned":
                return await calls[chat].run.spawn("critic")
            return await rig.chat.speak(chat, submit="concurrent")

        async def asked(chat: str) -> Any:
            try:
                return await begin(chat)
            except TooMany as refused:
                return refused

        answers = await at_once(rig, *map(asked, chats))
        assert sum(len(session.live) for session in rig.sessions.in_memory()) == 4
        assert [isinstance(each, TooMany) for each in answers] == [False, True, True]
        assert rig.sessions._starting == {}
        calls["c2"].finish()
        await rig.ended("c2")
        assert not isinstance(await asked("c3"), TooMany), "a place that is free is given away"
