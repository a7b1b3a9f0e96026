"""Where features meet: what is true of notes, spawned runs, decisions and deletions together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asking import decide, pending
from rig import Answer, Rig, running
from strandline import Run
from strandline.agents.spawning import Spawned
from strandline.runtime.spawning import DEEPEST
from strandline.testing import ManualClock, ScriptedAgent, until

C = "/api/sessions/c"


def message(text: str, id: str) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


async def tell(rig: Any, text: str, id: str, **more: Any) -> None:
    answer: Answer = await rig.ask("POST", f"{C}/steer", {"message": message(text, id), **more})
    assert answer.status == 202, answer.body


async def spawn(call: Any, *args: Any, **named: Any) -> Any:
    got: list[Any] = []

    async def act(run: Run) -> None:
        try:
            got.append(await run.spawn(*args, **named))
        except Exception as exc:
            got.append(exc)

    call.do(act)
    await until(lambda: got)
    return got[0]


async def ids(rig: Rig) -> list[str]:
    shown = (await rig.ask("GET", C)).json["messages"]
    return [each["id"] if each["role"] == "user" else "reply" for each in shown]


async def test_what_a_spawned_agent_was_told_is_kept_when_its_parent_fails() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        answer, call = await rig.begun(extra=1)
        handle = await spawn(call, "other", prompt="one")
        await other.called()
        await tell(rig, "for the other", "n1", run=handle.id)
        call.fail(ValueError("no"))
        await answer.end()
        await rig.ended()
        assert await ids(rig) == ["u1", "reply", "n1"]


async def test_what_an_agent_was_told_is_kept_when_its_reply_is_deleted(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("reply")
    await answer.until_text("reply")
    await tell(rig, "a note", "n1")
    assert (await rig.ask("DELETE", f"{C}/messages/{call.run.message_id}")).status == 204
    await rig.ended()
    assert await ids(rig) == ["u1", "n1"]


async def test_a_spawned_reply_that_goes_on_is_deleted() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        _, call = await rig.begun()
        handle = await spawn(call, "other", prompt="one")
        first = await other.called()
        first.do(lambda run: run.request_approval("refund", {})).finish()
        await rig.ended_run(handle.id)
        [waits] = await pending(rig)
        assert (await decide(rig, waits["id"], {"approved": True})).status == 200
        second = await other.called(2)
        assert second.run.message_id == handle.message_id
        second.say("goes on")
        assert (await rig.ask("DELETE", f"{C}/messages/{handle.message_id}")).status == 204
        await until(lambda: second.closed)
        call.finish()
        await rig.ended()


async def test_a_spawned_agent_goes_on_for_who_has_asked_its_parent() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        _, call = await rig.begun()
        handle = await spawn(call, "other", prompt="one")
        run = handle.id
        for times in range(1, DEEPEST + 2):
            turn = await other.called(times)
            assert turn.run.user.user == "ann"
            turn.do(lambda run: run.request_approval("refund", {})).finish()
            await rig.ended_run(run)
            [waits] = await pending(rig)
            run = (await decide(rig, waits["id"], {"approved": True})).json["run"]
        queued = [event["by"] for event in await rig.log() if event["type"] == "run-queued" and event.get("spawned")]
        assert set(queued) == {"agent:scripted"}
        # However often it was asked again, it stands where it was spawned.
        last = await other.called(DEEPEST + 2)
        assert isinstance(await spawn(last, "other", prompt="two"), Spawned)
        call.fail(ValueError("no"))
        await rig.ended()


async def test_a_note_that_is_deleted_is_gone_from_the_log(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db", max_concurrent=4) as rig:
        answer, call = await rig.begun()
        call.say("one")
        await answer.until_text("one")
        second, other = await rig.begun(text="two", id="u2", headers={"Strandline-Submit": "concurrent"})
        await tell(rig, "SECRET-NOTE", "n1", run=call.run.id)
        call.fail(ValueError("no"))
        await answer.end()
        other.finish()
        await second.end()
        await rig.ended()
        assert await ids(rig) == ["u1", "reply", "u2", "reply", "n1"]
        await rig.go_cold()
        assert (await rig.ask("DELETE", f"{C}/messages/n1")).status == 204
        assert "SECRET" not in str(await rig.log_from_store())


async def test_of_a_note_that_was_deleted_nothing_is_kept_that_tells_what_it_said(rig: Rig) -> None:
    answer, call = await rig.begun()
    await tell(rig, "SECRET-NOTE", "n1")
    call.fail(ValueError("no"))
    await answer.end()
    await rig.ended()
    assert [each.digest is None for each in (await rig.store.outline("c")).receipts] == [False]
    assert (await rig.ask("DELETE", f"{C}/messages/n1")).status == 204
    assert (await rig.sessions.find("c")).state.receipts.named("n1") is None
    assert [each.digest for each in (await rig.store.outline("c")).receipts] == [None]


async def test_an_agent_that_begins_again_is_told_again_what_it_was_told(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "chat.db"
    async with running(path, clock=clock, recover="restart", commit_patience=0.0) as rig:
        answer, call = await rig.begun()
        await tell(rig, "a note", "n1")

        async def take(run: Run) -> None:
            run.take_steering()

        call.do(take)
        await answer.until(lambda: "steering-message" in answer.types)
        rig.store.fail()
    async with running(path, clock=clock, recover="restart") as rig:
        call = await rig.agent.called()
        notes: list[Any] = []

        async def take_again(run: Run) -> None:
            notes.extend(run.take_steering())

        call.do(take_again).finish()
        await rig.ended()
        assert [note.text for note in notes] == ["a note"]


@pytest.mark.parametrize("recover", ["restart", "continue"])
async def test_a_note_that_was_taken_by_a_lost_attempt_is_gone_from_the_log_when_it_is_deleted(
    tmp_path: Path, recover: str
) -> None:
    """The attempt that took it was taken back, and with it that it was taken: so it became a message."""
    clock, path = ManualClock(), tmp_path / "chat.db"

    async def take(run: Run) -> None:
        await run.checkpoint("SECRET-CHECKPOINT")
        run.take_steering()

    async with running(path, clock=clock, recover=recover, commit_patience=0.0) as rig:
        answer, call = await rig.begun()
        call.say("one")
        await tell(rig, "SECRET-NOTE", "n1")
        call.do(take)
        await answer.until(lambda: "steering-message" in answer.types)
        rig.store.fail()
    async with running(path, clock=clock, recover=recover) as rig:
        (await rig.agent.called()).say("two").fail(ValueError("no"))
        await rig.ended()
        assert await ids(rig) == ["u1", "reply", "n1"]
        assert "SECRET-NOTE" in str(await rig.log_from_store())
        assert (await rig.ask("DELETE", f"{C}/messages/n1")).status == 204
        assert "SECRET-NOTE" not in str(await rig.log_from_store())
        whole = await rig.ask("GET", "/api/chat/c/stream?run=" + (await rig.history("c"))["runs"]["msg-2"]["run"])
        assert whole.text.endswith("two"), "the reply is what it was"
        assert (await rig.ask("DELETE", f"{C}/messages/msg-2")).status == 204
        assert "SECRET" not in str(await rig.log_from_store())


async def test_names_of_annotations_of_a_deleted_message_are_gone_from_the_log(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    answer, call = await rig.begun()
    call.say("reply").finish()
    await answer.end()
    await rig.ended()
    for id in ("a", "b"):
        body = {"message": call.run.message_id, "type": "reaction", "data": {"name": "SECRET"}, "id": id}
        assert (await rig.ask("POST", f"{C}/annotations", body)).status == 201
    assert (await rig.ask("DELETE", f"{C}/annotations/a")).status == 204
    assert (await rig.ask("DELETE", f"{C}/messages/{call.run.message_id}")).status == 204
    assert "SECRET" not in str(await rig.log_from_store())


async def test_a_question_that_is_deleted_before_its_turn_is_not_answered(rig: Rig) -> None:
    answer, call = await rig.begun()
    await rig.post("c", "two", "u2", headers={"Strandline-Submit": "queue"}, secret="SECRET")
    assert (await rig.ask("DELETE", f"{C}/messages/u2")).status == 204
    session = await rig.sessions.find("c")
    assert "SECRET" not in str([live.caller for live in session.live.values()])
    third = await rig.post("c", "three", "u3", headers={"Strandline-Submit": "queue"})
    call.say("one").finish()
    await answer.end()
    second = await rig.agent.called(2)
    assert [turn["content"] for turn in second.run.prompt()] == ["hello", "one", "three"]
    second.finish()
    await third.end()


@pytest.mark.parametrize("recover", ["restart", "continue"])
async def test_a_reply_that_goes_on_after_decisions_is_recovered(tmp_path: Path, recover: str) -> None:
    clock, path = ManualClock(), tmp_path / "chat.db"

    async def told(run: Run) -> None:
        run.take_steering()

    async with running(path, clock=clock, recover=recover, commit_patience=0.0) as rig:
        answer, call = await rig.begun()
        await tell(rig, "early", "n0")
        call.do(told).say("before ")
        call.do(lambda run: run.request_approval("refund", {})).finish()
        await answer.end()
        await rig.ended()
        [waits] = await pending(rig)
        assert (await decide(rig, waits["id"], {"approved": True})).status == 200
        second = await rig.agent.called(2)
        await tell(rig, "settled", "n1")
        second.do(told).say("settled ").do(lambda run: run.checkpoint())
        await until(lambda: rig.store.committed and any("checkpointed" in rig.kinds(b) for b in rig.store.committed))
        await tell(rig, "late", "n2")
        second.do(told).say("lost")
        whole = await rig.resume("c")
        await whole.until(lambda: whole.types.count("steering-message") == 3)
        await tell(rig, "never taken", "n3")
        rig.store.fail()
    async with running(path, clock=clock, recover=recover) as rig:
        third = await rig.agent.called()
        assert [each.outcome for each in third.run.decisions] == ["approved"]
        texts: list[str] = []

        async def again(run: Run) -> None:
            texts.extend(note.text for note in run.take_steering())

        third.do(again).say("after").finish()
        await rig.ended()
        begun = ["settled"] if recover == "restart" else []
        assert texts == [*begun, "late", "never taken"]
        shown = await rig.history("c")
        assert [each["role"] for each in shown["messages"]] == ["user", "assistant"]
        said = [part.get("text", part.get("id")) for part in shown["messages"][1]["parts"]]
        said = [each for each in said if each is not None]
        middle = ["n1", "n2", "n3"] if recover == "restart" else ["n1", "settled ", "n2", "n3"]
        assert said == ["n0", "before ", *middle, "after"]


async def test_what_was_decided_is_forgotten_with_what_the_reply_said(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    answer, call = await rig.begun()
    call.do(lambda run: run.call_client_tool("where", {})).finish()
    await answer.end()
    await rig.ended()
    [waits] = await pending(rig)
    assert (await decide(rig, waits["id"], {"output": "SECRET"})).status == 200
    (await rig.agent.called(2)).finish()
    await rig.ended()
    await rig.chat.replace_message("c", call.run.message_id, [{"type": "text", "text": "new"}])
    for _ in range(2):
        assert (await rig.ask("GET", f"{C}/decisions?all=true")).json == {"decisions": [], "next": None}
        await rig.go_cold()


async def test_a_stop_of_everything_loses_nothing_that_was_told() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        _, call = await rig.begun()
        beside = await spawn(call, "other", prompt="one")
        deeper = await spawn(await other.called(), "other", prompt="two")
        await other.called(2)
        for id, run in (("n1", call.run.id), ("n2", beside.id), ("n3", deeper.id)):
            await tell(rig, "a note", id, run=run)
        await rig.post("c", "two", "u2", headers={"Strandline-Submit": "queue"})
        stopped = (await rig.ask("POST", f"{C}/stop", {"all": True})).json["runs"]
        assert [each["status"] for each in stopped] == ["stopped"] * 4
        assert await ids(rig) == ["u1", "reply", "u2", "reply", "n1", "n2", "n3"]
        # The same at an interruption: what the spawned one was told comes before what interrupts.
        _, call = await rig.begun(text="three", id="u3")
        beside = await spawn(call, "other", prompt="one")
        await tell(rig, "a note", "n4", run=beside.id)
        answer, call = await rig.begun(text="four", id="u4")
        assert (await ids(rig))[-4:] == ["reply", "n4", "u4", "reply"]
        call.finish()
        await answer.end()
