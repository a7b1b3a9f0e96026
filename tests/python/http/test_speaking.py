"""Agents that speak unasked, from elsewhere and in this process: what a policy makes of it (PROTOCOL §18.7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from far import Worker, asked, served
from rig import Answer, Rig, running
from strandline.errors import Conflict, NotFound, TooMany, Unprocessable
from strandline.testing import ScriptedAgent, until


async def speak(worker: Worker, claim: str = "k1", **more: Any) -> Answer:
    named = {"session": "c", "holder": worker.holder, "claim": claim, **more}
    answer = await worker.ask("POST", "/api/agents/far/runs", named)
    if answer.status == 201 and answer.json["state"] == "running":
        worker.run, worker.producer, worker.sent = answer.json["run"], answer.json["producer"], 0
    return answer


async def texts(rig: Rig) -> list[str]:
    found = (await rig.history("c"))["messages"]
    return ["".join(part["text"] for part in each["parts"] if part["type"] == "text") for each in found]


# ---------------------------------------------------------------------- from elsewhere


@pytest.mark.parametrize("where", ["session", "request"])
async def test_agents_speak_at_once_where_the_policy_says_so(where: str) -> None:
    more = {"submit": "concurrent"} if where == "request" else {}
    async with served(max_concurrent=3) as rig:
        answer, person = await asked(rig)
        await person.append("for you")
        assert (await speak(Worker(rig.app, "one"))).code == "run-active"
        if where == "session":
            await rig.ask("PATCH", "/api/sessions/c", {"submit": "concurrent"})
        one, two = Worker(rig.app, "one"), Worker(rig.app, "two")
        first = await speak(one, **more)
        assert (first.status, first.json["prompt"]) == (201, [{"role": "user", "content": "hello"}]), (
            "not what is written"
        )
        assert (await speak(two, "k2", **more)).status == 201
        full = await speak(Worker(rig.app, "three"), "k3", **more)
        assert (full.status, full.code) == (429, "too-many")
        elsewhere = await speak(Worker(rig.app, "three"), "k3", answers="u1", **more)
        assert (elsewhere.status, elsewhere.code) == (409, "run-active"), "it would leave what is being written"
        for worker, said in ((two, "two"), (one, "one"), (person, "")):
            await worker.append(said or " alone")
            await worker.end()
        await answer.end()
        await rig.ended()
        assert (answer.text, await texts(rig)) == ("for you alone", ["hello", "for you alone", "one", "two"])


async def test_an_agent_waits_for_its_turn_where_the_policy_says_so(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with served(path, submit="queue") as rig:
        _, person = await asked(rig)
        await person.append("for you")
        told = await speak(Worker(rig.app, "one"), body={"about": "tides"})
        assert (told.status, told.json["state"], told.json["session"]) == (202, "queued", "c")
        assert (await speak(Worker(rig.app, "one"))).json == told.json, "the same claim is the same run"
    async with served(path, submit="queue") as rig:
        person.app = rig.app
        one = Worker(rig.app, "one")
        listening = await one.work()
        assert listening.frames == []
        await person.end()
        await listening.until(lambda: listening.frames)
        assert listening.frames[0].chunk["run"] == told.json["run"]
        claimed = await speak(one)
        assert (claimed.status, claimed.json["run"], claimed.json["body"]) == (
            201,
            told.json["run"],
            {"about": "tides"},
        )
        assert claimed.json["prompt"][-1] == {"role": "assistant", "content": "for you"}
        await one.append("by the way")
        await one.end()
        await rig.ended()
        assert await texts(rig) == ["hello", "for you", "by the way"]
        await listening.drop()


@pytest.mark.parametrize("body", [{"submit": "now"}, {"body": "text"}, {"answers": "nobody"}])
async def test_what_is_wrong_with_it_is_said(body: dict[str, Any]) -> None:
    async with served() as rig:
        _, worker = await asked(rig)
        await worker.end()
        assert (await speak(Worker(rig.app), **body)).status == 422


# ---------------------------------------------------------------------- in this process


async def test_an_application_has_an_agent_speak() -> None:
    herald = ScriptedAgent()
    async with running(more={"herald": herald}) as rig:
        _, call = await rig.begun()
        with pytest.raises(Conflict, match="is being written"):
            await rig.chat.speak("c", agent="herald", key="k1")
        call.say("first").finish()
        await rig.ended()
        run = await rig.chat.speak("c", agent="herald", body={"text": "The ship is in."}, key="k1")
        assert await rig.chat.speak("c", agent="herald", key="k1") == run
        said = await herald.called()
        assert (said.run.id, said.run.body, said.run.user.user) == (run, {"text": "The ship is in."}, "agent:herald")
        assert [each["role"] for each in said.run.messages] == ["user", "assistant"]
        said.say(said.run.body["text"]).finish()
        await rig.ended()
        assert (await texts(rig), len(herald.calls)) == (["hello", "first", "The ship is in."], 1)
        for error, more in (
            (NotFound, {"session": "nobody"}),
            (Unprocessable, {"agent": "nobody"}),
            (Unprocessable, {"submit": "now"}),
            (Unprocessable, {"answers": "nobody"}),
            (TypeError, {"body": {"x": object()}}),
        ):
            with pytest.raises(error):
                await rig.chat.speak(**{"session": "c", **more})


async def test_it_waits_its_turn_and_what_it_comes_after_may_be_deleted() -> None:
    async with running(max_queued=1) as rig:
        answer, call = await rig.begun()
        await rig.chat.speak("c", body={"n": 1}, submit="queue")
        with pytest.raises(TooMany):
            await rig.chat.speak("c", submit="queue")
        await rig.ask("DELETE", f"/api/sessions/c/messages/{call.run.message_id}")
        await answer.end()
        second = await rig.agent.called(2)
        assert (second.run.body, [each["id"] for each in second.run.messages]) == ({"n": 1}, ["u1"])
        second.say("still said").finish()
        await rig.ended()
        assert await texts(rig) == ["hello", "still said"]


async def test_an_application_has_a_remote_agent_speak() -> None:
    async with served() as rig:
        _, worker = await asked(rig)
        await worker.end()
        listening = await worker.work()
        run = await rig.chat.speak("c", agent="far", body={"about": "tides"})
        await until(lambda: [frame.chunk["run"] for frame in listening.frames] == [run])
        claimed = await worker.claim(run, "second")
        assert (claimed.json["body"], claimed.json["user"]) == ({"about": "tides"}, "agent:far")
        await worker.append("tides")
        await worker.end()
        assert (await texts(rig))[-1] == "tides"
        await listening.drop()
