"""Spawned agents that ask (PROTOCOL §15, §17.6): what they are called with when they go on, whatever became of who
has spawned them, and what is left of them when it is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asking import decide, pending, tools
from rig import Answer, Rig, running
from strandline import Ended, Run
from strandline.errors import ChunkRefused, Misconfigured
from strandline.testing import ManualClock, ScriptedAgent, until

C = "/api/sessions/c"


async def spawn(call: Any, *args: Any, **named: Any) -> Any:
    """What the agent gets from ``run.spawn``, called by itself."""
    got: list[Any] = []

    async def act(run: Run) -> None:
        try:
            got.append(await run.spawn(*args, **named))
        except Exception as exc:
            got.append(exc)

    call.do(act)
    await until(lambda: got)
    return got[0]


def ask(call: Any, said: str = "Hm. ", **named: Any) -> None:
    """Let an agent ask whether it may refund, and return."""
    call.say(said).do(lambda run: run.request_approval("refund", {"of": "SECRET-INPUT"}, **named)).finish()


async def suspended(rig: Rig, call: Any, other: ScriptedAgent, **named: Any) -> Any:
    """The handle of a spawned agent that has asked for something, and waits."""
    before = len(other.calls)
    handle = await spawn(call, "other", **named)
    ask(await other.called(before + 1))
    await rig.ended_run(handle.id)
    return handle


async def beside(rig: Rig) -> list[Any]:
    return list((await rig.ask("GET", C)).json["spawned"])


def words(message: Any) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


async def reasons(rig: Rig) -> dict[str, tuple[str, str]]:
    return {
        end["run"]: (end["status"], end["reason"]) for end in await rig.log_from_store() if end["type"] == "run-ended"
    }


# ------------------------------------------------------------------------------------------------ going on

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]},
]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("prompt", ["Is it good?", MESSAGES, None])
async def test_it_goes_on_with_what_it_was_given(tmp_path: Path, prompt: Any, killed: bool) -> None:
    """And with what it has said; also where its parent was lost with the process."""
    clock, path, other = ManualClock(), tmp_path / "chat.db", ScriptedAgent()

    async def goes_on(rig: Rig, other: ScriptedAgent, times: int) -> None:
        [waits] = await pending(rig)
        decided = await decide(rig, waits["id"], {"approved": True})
        turn = await other.called(times)
        assert (turn.run.id, turn.run.message_id) == (decided.json["run"], handle.message_id)
        assert turn.run.prompt() == [*shown, {"role": "assistant", "content": "Hm. "}]
        assert (dict(turn.run.body), turn.run.user.user) == ({"depth": 3, "of": ["x"]}, "ann")
        [decision] = turn.run.decisions
        assert (decision.approved, decision.input) == (True, {"of": "SECRET-INPUT"})
        assert words(turn.run.message) == "Hm. "
        ask(turn, "Hm again. ")
        await rig.ended_run(turn.run.id)
        # A second time as well.
        [waits] = await pending(rig)
        await decide(rig, waits["id"], {"approved": False})
        turn = await other.called(times + 1)
        assert turn.run.prompt() == [*shown, {"role": "assistant", "content": "Hm. \n\nHm again. "}]
        assert dict(turn.run.body) == {"depth": 3, "of": ["x"]}
        turn.say("Done.").finish()
        await rig.ended_run(turn.run.id)
        [found] = await beside(rig)
        assert words(found["message"]) == "Hm. Hm again. Done."

    async with running(path, clock=clock, more={"other": other}) as rig:
        _, call = await rig.begun(extra=1)
        given = {"of": ["x"]}
        handle = await spawn(call, "other", prompt=prompt, depth=3, **given)
        first = await other.called()
        given["of"].append("y")
        shown = first.run.prompt()
        ask(first)
        await rig.ended_run(handle.id)
        if killed:
            for name in ("chat.db", "chat.db-wal"):
                shutil.copy(tmp_path / name, tmp_path / f"killed-{name}")
        else:
            await goes_on(rig, other, 2)
        call.finish()
        await rig.ended()
    if killed:
        again = ScriptedAgent()
        async with running(tmp_path / "killed-chat.db", clock=clock, more={"other": again}) as rig:
            assert (await reasons(rig))[call.run.id] == ("lost", "process-lost")
            await goes_on(rig, again, 1)


async def test_one_that_was_asked_what_its_parent_was_asked(rig_with_other: Any) -> None:
    """However deep; and a parent that goes on itself has its own message to show."""
    rig, other = rig_with_other
    _, call = await rig.begun()
    await spawn(call, "other", prompt="the task")
    inner = await other.called()
    deeper = await spawn(inner, "other")
    ask(await other.called(2))
    await rig.ended_run(deeper.id)
    ask(inner, "Inner. ")
    await rig.ended_run(inner.run.id)
    [of_deeper, of_inner] = await pending(rig)
    await decide(rig, of_inner["id"], {"approved": True})
    inner = await other.called(3)
    third = await spawn(inner, "other")
    ask(await other.called(4))
    await rig.ended_run(third.id)
    [of_deeper, of_third] = await pending(rig)
    await decide(rig, of_deeper["id"], {"approved": True})
    turn = await other.called(5)
    task = {"role": "user", "content": "the task"}
    assert turn.run.prompt() == [task, {"role": "assistant", "content": "Hm. "}]
    await decide(rig, of_third["id"], {"approved": True})
    turn = await other.called(6)
    assert turn.run.prompt() == [task, *({"role": "assistant", "content": said} for said in ("Inner. ", "Hm. "))]
    call.fail(ValueError("everything ends"))
    await rig.ended()


async def test_what_it_was_given_is_kept_no_longer_than_it_may_go_on(rig_with_other: Any) -> None:
    rig, other = rig_with_other
    _, call = await rig.begun()
    done = await spawn(call, "other", prompt="one")
    (await other.called()).finish()
    await rig.ended_run(done.id)
    waits = await suspended(rig, call, other, prompt="two")
    state = (await rig.sessions.find("c")).state
    stored = {run.id: run.body for run in (await rig.store.outline("c")).runs}
    for bodies in (stored, {run.id: run.body for run in state.runs.values()}):
        assert bodies[done.id] is None
        assert bodies[waits.id]["prompt"][0]["parts"] == [{"type": "text", "text": "two"}]
    # Nobody is shown it.
    feed = await rig.open("GET", f"{C}/events?after=0")
    snapshot = (await rig.ask("GET", C)).body
    assert b'"two"' not in feed.body + snapshot
    call.finish()
    await rig.ended()


async def test_what_may_be_kept_has_a_bound() -> None:
    other = ScriptedAgent("done")

    async def helper(run: Run) -> str:
        return str(len(run.prompt()[0]["content"]))

    async with running(more={"other": other}, chunk_limit=5000, delta_limit=5000) as rig:
        _, call = await rig.begun()
        refused = await spawn(call, "other", prompt="x" * 5000)
        assert isinstance(refused, ChunkRefused)
        assert refused.code == "prompt-too-long"
        assert (await (await spawn(call, "other", prompt="x" * 4000)).result()).status == "completed"
        # What cannot be called again is not kept.
        assert (await (await spawn(call, helper, name="helper", prompt="x" * 5000)).result()).text == "5000"
        call.finish()
        await rig.ended()


async def test_an_agent_that_is_no_longer_there_fails_and_leaves_no_call_open(tmp_path: Path) -> None:
    clock, path, other = ManualClock(), tmp_path / "chat.db", ScriptedAgent()
    async with running(path, clock=clock, more={"other": other}) as rig:
        _, call = await rig.begun()
        await suspended(rig, call, other)
        call.finish()
        await rig.ended()
    async with running(path, clock=clock) as rig:
        [waits] = await pending(rig)
        run = (await decide(rig, waits["id"], {"approved": True})).json["run"]
        await rig.ended_run(run)
        assert (await reasons(rig))[run] == ("failed", "agent-error")
        [found] = await beside(rig)
        assert [part["state"] for part in tools(found["message"])] == ["output-error"]


# ------------------------------------------------------------------------------------------------ functions

ASKS: dict[str, Callable[[Run], Any]] = {
    "approval": lambda run: run.request_approval("refund", {}),
    "client": lambda run: run.call_client_tool("where", {}),
    "tools": lambda run: run.client_tools("where"),
    "library": lambda run: run.approvals("pay"),
}


@pytest.mark.parametrize("how", ASKS)
async def test_a_function_that_nobody_could_call_again_may_not_ask(rig: Rig, how: str) -> None:
    async def helper(run: Run) -> str:
        with pytest.raises(Misconfigured, match=r"@chat\.agent\(name=.helper.\)") as refused:
            asking = ASKS[how](run)
            if asking is not None:
                await asking
        return refused.value.code

    _, call = await rig.begun()
    outcome = await (await spawn(call, helper, name="helper")).result()
    assert (outcome.status, outcome.text) == ("completed", "cannot-suspend")
    assert tools(outcome.message) == []
    call.finish()
    await rig.ended()


async def test_nor_by_the_stream_of_a_library(rig: Rig) -> None:
    async def helper(run: Run) -> Any:
        yield {"type": "tool-input-available", "toolCallId": "t", "toolName": "refund", "input": {}}
        yield {"type": "tool-approval-request", "toolCallId": "t", "approvalId": "a"}

    _, call = await rig.begun()
    outcome = await (await spawn(call, helper, name="helper")).result()
    assert (outcome.status, outcome.reason) == ("failed", "agent-error")
    assert [part["state"] for part in tools(outcome.message)] == ["output-error"]
    assert await pending(rig) == []
    call.say("goes on").finish()
    await rig.ended()


async def test_a_function_that_is_an_agent_may_ask(rig: Rig) -> None:
    _, call = await rig.begun()
    handle = await spawn(call, rig.agent, prompt="you, too")
    ask(await rig.agent.called(2))
    assert (await handle.result()).status == "suspended"
    call.finish()
    await rig.ended()


# ------------------------------------------------------------------------------------------------ the handle


async def test_the_handle_says_that_it_waits_and_then_follows_it(rig_with_other: Any) -> None:
    rig, other = rig_with_other
    _, call = await rig.begun()
    handle = await suspended(rig, call, other)
    outcome = await handle.result()
    assert (outcome.status, outcome.reason, outcome.text) == ("suspended", "awaiting-decisions", "Hm. ")
    [waits] = await pending(rig)
    # Nothing that goes on could be stopped.
    await handle.stop()
    assert await pending(rig) == [waits]
    await decide(rig, waits["id"], {"approved": True})
    turn = await other.called(2)
    results: list[Any] = []

    async def wait(run: Run) -> None:
        results.append(await handle.result())

    call.do(wait)
    turn.say("Done.").finish()
    await until(lambda: results)
    assert (results[0].status, results[0].text, results[0].message["id"]) == (
        "completed",
        "Hm. \n\nDone.",
        handle.message_id,
    )
    call.finish()
    await rig.ended()


async def test_the_handle_stops_what_goes_on(rig_with_other: Any) -> None:
    rig, other = rig_with_other
    _, call = await rig.begun()
    handle = await suspended(rig, call, other)
    [waits] = await pending(rig)
    await decide(rig, waits["id"], {"approved": True})
    turn = await other.called(2)
    await handle.stop()
    outcome = await handle.result()
    assert (outcome.status, outcome.reason, turn.cancelled) == ("stopped", "parent", True)
    call.finish()
    await rig.ended()


@pytest.mark.parametrize("how", ["completed", "stopped", "superseded", "failed"])
async def test_what_waits_outlives_its_parent_and_what_goes_on_does_not(how: str) -> None:
    """A run that is suspended has ended: no other end changes that. One that goes on is its parent's again."""
    other, ends = ScriptedAgent(), []
    async with running(more={"other": other}, prepare=lambda chat: chat.on_end(ends.append)) as rig:
        _, call = await rig.begun()
        waiting, going = [await suspended(rig, call, other) for _ in range(2)]
        [_, waits] = await pending(rig)
        await decide(rig, waits["id"], {"approved": True})
        turn = await other.called(3)
        if how == "completed":
            call.finish()
        elif how == "stopped":
            await rig.stop("c")
        elif how == "superseded":
            _, newer = await rig.begun(text="next", id="u2")
        else:
            call.fail(ValueError("no"))
        await rig.ended_run(call.run.id)
        if how == "completed":
            turn.finish()
        await rig.ended_run(turn.run.id)
        ended = ("completed", "completed") if how == "completed" else ("stopped", "parent-ended")
        assert (await reasons(rig))[turn.run.id] == ended
        [left] = await pending(rig)
        assert left["run"] == waiting.id
        run = (await decide(rig, left["id"], {"approved": True})).json["run"]
        last = await other.called(4)
        last.say("Late.").finish()
        await rig.ended_run(run)
        assert words((await beside(rig))[0]["message"]) == "Hm. Late."
        await until(lambda: any(end.run == run for end in ends))
        [told] = [end for end in ends if end.run == run]
        assert (told.agent, told.spawned, told.user, told.status) == ("other", True, "ann", "completed")
        assert isinstance(told, Ended)
        if how == "superseded":
            newer.finish()
        await rig.ended()
        assert going.id != run


# ------------------------------------------------------------------------------------------------ other ways to go


async def test_a_stop_of_one_that_waits_tells_that_it_has_ended(rig_with_other: Any) -> None:
    rig, other = rig_with_other
    answer, call = await rig.begun()
    handle = await suspended(rig, call, other)
    [waits] = await pending(rig)
    for named in ({"run": handle.id}, {"messageId": handle.message_id}):
        stopped = (await rig.stop("c", **named)).json
        assert (stopped["run"], stopped["status"], stopped["stopped"]) == (handle.id, "suspended", False)
    stopped = (await rig.ask("POST", f"{C}/stop", {"agent": "other"})).json
    assert stopped["runs"] == []
    assert await pending(rig) == [waits]
    call.finish()
    await answer.end()


@pytest.mark.parametrize("other_was", ["approved", "expired"])
async def test_what_it_asks_for_expires(other_was: str) -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        _, call = await rig.begun()
        handle = await spawn(call, "other", prompt="task", depth=1)
        turn = await other.called()
        turn.do(lambda run: run.request_approval("one", {}, expires_in=5))
        turn.do(lambda run: run.request_approval("two", {}, expires_in=None if other_was == "approved" else 5)).finish()
        await rig.ended_run(handle.id)
        call.finish()
        await rig.ended()
        if other_was == "approved":
            await decide(rig, (await pending(rig))[1]["id"], {"approved": True})
        await rig.clock.advance(6)
        await rig.passing(lambda: "decision-made" in rig.kinds(rig.store.committed[-1]) or len(other.calls) > 1)
        while await pending(rig):
            await rig.clock.advance(0.5)
        if other_was == "approved":
            turn = await other.called(2)
            assert turn.run.prompt()[0] == {"role": "user", "content": "task"}
            assert {each.outcome for each in turn.run.decisions} == {"approved", "expired"}
            turn.finish()
            await rig.ended()
        assert len(other.calls) == (2 if other_was == "approved" else 1)
        [found] = await beside(rig)
        states = [part["state"] for part in tools(found["message"])]
        assert states == (["output-denied", "output-error"] if other_was == "approved" else ["output-denied"] * 2)


@pytest.mark.parametrize("how", ["edit", "regenerate", "new", "switch"])
async def test_the_conversation_goes_elsewhere_and_what_waits_beside_it_stays(rig_with_other: Any, how: str) -> None:
    """As what is still being written beside it does."""
    rig, other = rig_with_other
    answer, call = await rig.begun()
    handle = await suspended(rig, call, other, prompt="task")
    call.say("reply").finish()
    await answer.end()
    if how == "switch":
        _, edited = await rig.begun(text="changed", id="u1", messageId="u1")
        edited.finish()
        await rig.ended()
        await rig.ask("POST", f"{C}/branch", {"message": "u1", "index": 0})
        newer = None
    elif how == "regenerate":
        before = len(rig.agent.calls)
        await rig.open(
            "POST",
            "/api/chat",
            {"id": "c", "messages": [], "trigger": "regenerate-message", "messageId": call.run.message_id},
        )
        newer = await rig.agent.called(before + 1)
    elif how == "edit":
        _, newer = await rig.begun(text="changed", id="u1", messageId="u1")
    else:
        _, newer = await rig.begun(text="next", id="u2")
    [waits] = await pending(rig)
    assert waits["run"] == handle.id
    await decide(rig, waits["id"], {"approved": True})
    turn = await other.called(2)
    assert turn.run.prompt() == [{"role": "user", "content": "task"}, {"role": "assistant", "content": "Hm. "}]
    if newer is not None:
        assert not newer.cancelled
        newer.finish()
    turn.say("Done.").finish()
    await rig.ended()
    assert words(await message_of(rig, handle)) == "Hm. Done."


async def message_of(rig: Rig, handle: Any) -> Any:
    session = await rig.sessions.find("c")
    [record] = await rig.store.messages("c", [session.state.runs[handle.id].message])
    return {"parts": list(record.parts or ())}


# ------------------------------------------------------------------------------------------------ deleting


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("parent", ["over", "active"])
async def test_what_it_asks_for_goes_with_its_parents_message(tmp_path: Path, cold: bool, parent: str) -> None:
    other = ScriptedAgent()
    async with running(tmp_path / "chat.db", more={"other": other}) as rig:
        answer, call = await rig.begun()
        call.say("SECRET-REPLY")
        handle = await suspended(rig, call, other, prompt="SECRET-PROMPT", about="SECRET-BODY")
        inner = await spawn(call, "other", prompt="SECRET-PROMPT 2")
        turn = await other.called(2)
        turn.say("SECRET-WORDS")
        deepest = await suspended(rig, turn, other, prompt="SECRET-PROMPT 3")
        turn.finish()
        await rig.ended_run(inner.id)
        if parent == "over":
            call.finish()
            await answer.end()
            await rig.ended()
        if cold and parent == "over":
            await rig.go_cold()
        feed: Answer = await rig.open("GET", f"{C}/events")
        asked_for = [each["id"] for each in await pending(rig)]
        assert len(asked_for) == 2
        assert (await rig.ask("DELETE", f"{C}/messages/{call.run.message_id}")).status == 204
        kinds = rig.kinds(next(batch for batch in reversed(rig.store.committed) if rig.kinds(batch)))
        assert kinds.count("decision-made") == 2
        assert kinds.count("message-deleted") == 4
        await feed.until(lambda: [frame.chunk["type"] for frame in feed.frames].count("message-deleted") == 4)
        made = [frame.chunk for frame in feed.frames if frame.chunk["type"] == "decision-made"]
        assert {(each["decision"], each["outcome"], len(each["chunks"])) for each in made} == {
            (id, "superseded", 0) for id in asked_for
        }
        await feed.drop()
        for _ in range(2):
            assert await pending(rig) == []
            assert (await rig.ask("GET", f"{C}/decisions?all=true")).json["decisions"] == []
            assert [(await decide(rig, id, {"approved": True})).status for id in asked_for] == [404, 404]
            assert await beside(rig) == []
            for each in (handle, inner, deepest):
                assert (await rig.ask("DELETE", f"{C}/messages/{each.message_id}")).status == 204
            assert "SECRET" not in str(await rig.log_from_store())
            outline = await rig.store.outline("c")
            assert "SECRET" not in str(outline)
            versions = [each.version for each in outline.messages]
            assert "SECRET" not in str(await rig.store.messages("c", versions))
            session = await rig.sessions.find("c")
            assert "SECRET" not in str([session.state.runs, session.state.decisions])
            await rig.go_cold()
        await rig.chat.purge()
        assert not found_in(tmp_path, b"SECRET")
        assert len(other.calls) == 3


def found_in(folder: Path, text: bytes) -> list[str]:
    return [file.name for file in folder.iterdir() if text in file.read_bytes()]


async def test_what_stays_of_the_session_is_what_it_was(rig_with_other: Any) -> None:
    """What was spawned beside another message is none of it."""
    rig, other = rig_with_other
    answer, call = await rig.begun()
    kept = await suspended(rig, call, other)
    call.say("one").finish()
    await answer.end()
    answer, second = await rig.begun(text="two", id="u2")
    gone = await suspended(rig, second, other)
    second.say("two").finish()
    await answer.end()
    assert (await rig.ask("DELETE", f"{C}/messages/{second.run.message_id}")).status == 204
    assert [each["run"] for each in await pending(rig)] == [kept.id]
    assert [each["run"] for each in await beside(rig)] == [kept.id]
    assert gone.id not in str(await beside(rig))


@pytest.fixture
async def rig_with_other() -> Any:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        yield rig, other
