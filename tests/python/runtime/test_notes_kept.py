"""What an agent was told is never lost with what it takes back, nor left behind where it waits for somebody (PROTOCOL
§14.3, §17.1, §17.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rig import Rig, running
from strandline import Run
from strandline.testing import ScriptedAgent

C = "/api/sessions/c"


async def told(rig: Rig, text: str = "shorter", id: str = "n1", **more: Any) -> None:
    message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
    answer = await rig.ask("POST", f"{C}/steer", {"message": message, **more})
    assert answer.status == 202, answer.body


async def take(run: Run) -> None:
    assert [note.text for note in run.take_steering()] == ["shorter"]


async def path(rig: Rig) -> list[tuple[str, list[str]]]:
    shown = (await rig.ask("GET", C)).json["messages"]
    return [
        (each["id"] if each["role"] == "user" else "reply", [part.get("text", part["type"]) for part in each["parts"]])
        for each in shown
    ]


# ------------------------------------------------------------------------------------------------ taken back


async def restart(run: Run) -> None:
    await run.restart()


async def say_instead(run: Run) -> None:
    await run.replace("Instead.")


async def say_parts_instead(run: Run) -> None:
    await run.replace([part for part in run.partial["parts"] if part["type"] != "text"])


async def reset_step(run: Run) -> None:
    await run.reset_step()


async def pass_on_a_reset_step(run: Run) -> None:
    await run.append({"type": "reset-step"})


@pytest.mark.parametrize(
    ("take_back", "kept"),
    [
        (restart, ["steering-message"]),
        (say_instead, ["steering-message", "step-start", "Instead."]),
        (say_parts_instead, ["step-start", "steering-message"]),
        (reset_step, ["step-start", "steering-message"]),
        (pass_on_a_reset_step, ["step-start", "steering-message"]),
    ],
)
async def test_what_it_has_taken_stays_when_an_agent_takes_back_what_it_said(
    rig: Rig, take_back: Callable[[Run], Any], kept: list[str]
) -> None:
    answer, call = await rig.begun()
    call.say("Much too long. ")
    await answer.until_text("Much too long. ")
    await told(rig)
    call.do(take).say("Even longer. ").do(take_back).do(take_back).finish()
    await answer.end()
    await rig.ended()
    assert await path(rig) == [("u1", ["hello"]), ("reply", kept)]
    assert len(rig.agent.calls) == 1
    await rig.go_cold()
    assert await path(rig) == [("u1", ["hello"]), ("reply", kept)]
    _, call = await rig.begun(text="and?", id="u2")
    prompt = [(turn["role"], turn["content"]) for turn in call.run.prompt()]
    assert ("user", "shorter") in prompt, "the next model is told as well"
    assert "longer" not in str(prompt) and "long." not in str(prompt)


async def test_an_agent_that_begins_again_is_not_told_twice_what_it_has_taken(rig: Rig) -> None:
    answer, call = await rig.begun()
    await told(rig)
    heard: list[list[str]] = []

    async def listen(run: Run) -> None:
        heard.append([note.text for note in run.take_steering()])

    call.do(listen).do(restart).do(listen).say("Short.").finish()
    await answer.end()
    await rig.ended()
    assert heard == [["shorter"], []]
    assert await path(rig) == [("u1", ["hello"]), ("reply", ["steering-message", "step-start", "Short."])]


# ------------------------------------------------------------------------------------------------ suspended


async def ask(run: Run) -> None:
    await run.request_approval("delete", {"path": "a"}, id="call-1")


async def test_a_note_that_came_before_the_question_takes_its_place_and_is_answered(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    answer, call = await rig.begun()
    await told(rig, body={"model": "large"})
    call.say("I would delete it.").do(ask).finish()
    await answer.end()
    answering = await rig.agent.called(2)
    assert [(turn["role"], turn["content"]) for turn in answering.run.prompt()][-1] == ("user", "shorter")
    assert dict(answering.run.body) == {"model": "large"}
    (asked,) = [part for part in answering.run.messages[-2]["parts"] if "toolCallId" in part]
    assert asked["state"] == "output-denied", "no call is left open to the model"
    ending = next(batch for batch in rig.store.committed if "run-ended" in rig.kinds(batch))
    expected = ["decision-requested", "run-ended", "decision-made", "message-created", "run-queued"]
    assert [kind for kind in rig.kinds(ending) if kind != "appended"] == expected, "one commit"
    (decision,) = (await rig.ask("GET", f"{C}/decisions?all=true")).json["decisions"]
    assert (decision["outcome"], decision["by"]) == ("superseded", "user:ann")
    late = await rig.ask("POST", f"{C}/decisions/{decision['id']}", {"approved": True})
    assert (late.status, late.code) == (409, "already-decided")
    answering.say("It stays.").finish()
    await rig.ended()
    runs = (await rig.ask("GET", C)).json["runs"]
    assert [run["status"] for run in runs] == ["suspended", "completed"]
    assert [id for id, _ in await path(rig)] == ["u1", "reply", "n1", "reply"]
    before = await path(rig)
    await rig.go_cold()
    assert await path(rig) == before


async def test_a_note_that_was_taken_leaves_the_question_to_be_answered(rig: Rig) -> None:
    answer, call = await rig.begun()
    await told(rig)
    call.do(take).do(ask).finish()
    await answer.end()
    await rig.ended()
    (decision,) = (await rig.ask("GET", f"{C}/decisions")).json["decisions"]
    assert (await rig.ask("POST", f"{C}/decisions/{decision['id']}", {"approved": True})).json["run"] is not None
    (await rig.agent.called(2)).say("Deleted.").finish()
    await rig.ended()
    assert [id for id, _ in await path(rig)] == ["u1", "reply"]


async def test_what_waits_in_the_queue_comes_after_the_answer_to_a_note(rig: Rig) -> None:
    """The order of the log: the queued message was there before the note became one."""
    _, call = await rig.begun()
    await rig.post("c", "later", "u2", headers={"Strandline-Submit": "queue"})
    await told(rig)
    call.do(ask).finish()
    second = await rig.agent.called(2)
    assert second.run.prompt()[-1]["content"] == "later"
    second.finish()
    third = await rig.agent.called(3)
    assert third.run.prompt()[-1]["content"] == "shorter"
    third.finish()
    await rig.ended()
    assert [id for id, _ in await path(rig)] == ["u1", "reply", "u2", "reply", "n1", "reply"]


async def test_a_continuation_that_asks_again_is_overtaken_like_any_run(rig: Rig) -> None:
    _, call = await rig.begun()
    call.do(ask).finish()
    await rig.ended()
    (decision,) = (await rig.ask("GET", f"{C}/decisions")).json["decisions"]
    assert (await rig.ask("POST", f"{C}/decisions/{decision['id']}", {"approved": True})).status == 200
    going_on = await rig.agent.called(2)
    await told(rig)

    async def ask_more(run: Run) -> None:
        await run.request_approval("delete", {"path": "b"}, id="call-2")

    going_on.do(ask_more).finish()
    (await rig.agent.called(3)).say("Fine.").finish()
    await rig.ended()
    outcomes = [each["outcome"] for each in (await rig.ask("GET", f"{C}/decisions?all=true")).json["decisions"]]
    assert sorted(outcomes) == ["approved", "superseded"]
    assert [id for id, _ in await path(rig)] == ["u1", "reply", "n1", "reply"]


async def test_what_a_spawned_agent_was_told_does_not_answer_for_the_conversation() -> None:
    helper = ScriptedAgent()
    async with running(more={"helper": helper}) as rig:
        _, call = await rig.begun()

        async def spawn(run: Run) -> None:
            await run.spawn("helper")

        call.do(spawn)
        beside = await helper.called(1)
        await told(rig, run=beside.run.id)
        beside.do(ask).finish()
        await rig.ended_run(beside.run.id)
        (decision,) = (await rig.ask("GET", f"{C}/decisions")).json["decisions"]
        assert decision["outcome"] is None
        call.finish()
        await rig.ended()
        assert len(rig.agent.calls) == 1
