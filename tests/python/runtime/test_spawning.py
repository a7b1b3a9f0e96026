"""Agents beside agents (PROTOCOL §17.6): each message whole and attributed, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline import Ended, PublicError, Run
from strandline.errors import Misconfigured, TooMany
from strandline.runtime.spawning import DEEPEST, MOST_BESIDE
from strandline.testing import ScriptedAgent, until

C = "/api/sessions/c"


def words(message: Any) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


async def spawned(call: Any, *args: Any, **named: Any) -> Any:
    """What the agent gets from ``run.spawn``, called by itself."""
    got: list[Any] = []

    async def spawn(run: Run) -> None:
        try:
            got.append(await run.spawn(*args, **named))
        except Exception as exc:
            got.append(exc)

    call.do(spawn)
    await until(lambda: got)
    return got[0]


async def look(rig: Rig, query: str = "") -> Any:
    return (await rig.ask("GET", f"{C}{query}")).json


async def feed_of(rig: Rig, query: str = "") -> Answer:
    return await rig.open("GET", f"{C}/events{query}")


def events(feed: Answer, kind: str) -> list[Any]:
    return [frame.chunk for frame in feed.frames if frame.chunk["type"] == kind]


async def test_another_agent_says_something_beside_the_first() -> None:
    critic = ScriptedAgent()
    async with running(more={"critic": critic}) as rig:
        answer, call = await rig.begun(extra=1)
        feed = await feed_of(rig)
        call.say("main ")
        handle = await spawned(call, "critic", prompt="Is it good?", depth=3)
        other = await critic.called()
        asked = other.run
        assert asked.prompt() == [{"role": "user", "content": "Is it good?"}]
        assert (dict(asked.body), asked.user.user, asked.id) == ({"depth": 3}, "ann", handle.id)
        other.say("It is.").finish()
        outcome = await handle.result()
        assert (outcome.status, outcome.text, outcome.message["id"]) == ("completed", "It is.", handle.message_id)
        call.say("text").finish()
        await answer.end()
        # The AI SDK wire has nothing of it, and history neither.
        assert answer.text == "main text"
        assert [message["role"] for message in (await rig.history("c"))["messages"]] == ["user", "assistant"]
        assert (await (await rig.resume("c", query=f"?run={handle.id}")).end()).text == "It is."
        # The feed has everything, attributed.
        await feed.until(lambda: len(events(feed, "run-ended")) == 2)
        queued = events(feed, "run-queued")[-1]
        assert (queued["agent"], queued["parent_run"], queued["spawned"]) == ("critic", call.run.id, True)
        assert queued["by"] == "agent:scripted"
        # A cold device as well.
        await feed.drop()
        await rig.go_cold()
        seen = await look(rig)
        assert [message["role"] for message in seen["messages"]] == ["user", "assistant"]
        [beside] = seen["spawned"]
        about = (words(beside["message"]), beside["run"], beside["agent"], beside["parent"])
        assert about == ("It is.", handle.id, "critic", call.run.message_id)
        page = (await rig.ask("GET", f"{C}/messages")).json
        assert (page["spawned"], len(page["messages"])) == ([beside], 2)
        assert (await rig.ask("GET", f"{C}/messages?limit=1&before={page['messages'][1]['id']}")).json["spawned"] == []
        # What is asked next comes after the reply, not after what was said beside it.
        _, third = await rig.begun(text="next", id="u2")
        assert [words(message) for message in third.run.messages] == ["hello", "main text", "next"]
        third.finish()


async def test_four_at_once_one_is_stopped_and_one_crashes() -> None:
    """The others go on; each message is whole and attributed."""
    others = {name: ScriptedAgent() for name in ("alpha", "beta", "gamma", "delta")}
    async with running(more=others) as rig:
        answer, call = await rig.begun()
        feed = await feed_of(rig)
        handles = {name: await spawned(call, name) for name in others}
        calls = {name: await agent.called() for name, agent in others.items()}
        for number in range(30):
            for name, other in calls.items():
                other.say(f"{name}{number} ")
            call.say(f"main{number} ")
            if number == 10:
                calls["beta"].fail(ValueError("a crash"))
            if number == 20:
                await feed.until(lambda: b"alpha15 " in feed.body)
                stopped = (await rig.stop("c", run=handles["alpha"].id)).json
                assert (stopped["run"], stopped["stopped"]) == (handles["alpha"].id, True)
            await asyncio.sleep(0)
        for name in ("gamma", "delta"):
            calls[name].finish()
        ends = {name: await handle.result() for name, handle in handles.items()}
        call.finish()
        await answer.end()
        assert {name: (end.status, end.reason) for name, end in ends.items()} == {
            "alpha": ("stopped", "user"),
            "beta": ("failed", "agent-error"),
            "gamma": ("completed", "completed"),
            "delta": ("completed", "completed"),
        }
        whole = {name: "".join(f"{name}{number} " for number in range(30)) for name in (*others, "main")}
        assert answer.text == whole["main"]
        for name, end in ends.items():
            said = end.text
            assert whole[name].startswith(said)
            assert said == whole[name] or name in ("alpha", "beta")
            assert said.startswith(whole[name][:50])
        assert ends["beta"].text == "".join(f"beta{number} " for number in range(11))
        seen = await look(rig)
        assert [(each["agent"], words(each["message"])) for each in seen["spawned"]] == [
            (name, end.text) for name, end in ends.items()
        ]
        # And as the events of the feed tell it.
        await feed.until(lambda: len(events(feed, "run-ended")) == 5)
        agents = {queued["run"]: queued["agent"] for queued in events(feed, "run-queued")}
        told: dict[str, str] = {}
        for event in events(feed, "appended"):
            name = agents.get(event["run"], "main")
            deltas = [chunk["delta"] for chunk in event["chunks"] if chunk["type"] == "text-delta"]
            told[name] = told.get(name, "") + "".join(deltas)
        assert all(whole[name].startswith(text) or text in whole[name] for name, text in told.items())


@pytest.mark.parametrize("how", ["stopped", "failed", "superseded", "deleted"])
async def test_what_a_run_has_spawned_ends_with_it_in_the_same_commit(how: str) -> None:
    inner, leaf = ScriptedAgent(), ScriptedAgent()
    async with running(more={"inner": inner, "leaf": leaf}) as rig:
        answer, call = await rig.begun()
        first = await spawned(call, "inner", prompt="x")
        second = await spawned(await inner.called(), "leaf", prompt="y")
        (await leaf.called()).say("words")
        await (await rig.resume("c", query=f"?run={second.id}")).until_text("words")
        if how == "stopped":
            await rig.stop("c")
        elif how == "failed":
            call.fail(PublicError("no"))
        elif how == "superseded":
            await rig.begun(text="next", id="u2")
        else:
            assert (await rig.ask("DELETE", C)).status == 204
        await answer.end()
        await until(lambda: leaf.calls[0].closed and inner.calls[0].closed)
        if how == "deleted":
            return
        log = await rig.log()
        ends = {event["run"]: event for event in log if event["type"] == "run-ended"}
        assert [(ends[each.id]["status"], ends[each.id]["reason"]) for each in (first, second)] == [
            ("stopped", "parent-ended")
        ] * 2
        assert ends[first.id]["by"] == "server"
        [batch] = [each for each in rig.store.committed if "run-ended" in rig.kinds(each)]
        assert rig.kinds(batch).count("run-ended") == 3
        assert (await second.result()).text == "words"


async def test_after_a_run_that_came_to_its_end_they_go_on() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        answer, call = await rig.begun()
        handle = await spawned(call, "other")
        call.say("done").finish()
        await answer.end()
        history = await rig.history("c")
        assert history["activeRun"] is None
        assert (await rig.resume("c")).status == 204
        assert (await rig.stop("c")).json["status"] == "idle"
        # Who follows the feed after a page of messages gets all of it.
        page = (await rig.ask("GET", f"{C}/messages")).json
        assert (page["activeRun"], page["spawned"], len(page["messages"])) == (None, [], 2)
        feed = await feed_of(rig, f"?after={page['cursor']}")
        # A new message does not end what goes on beside the one before.
        _, second = await rig.begun(text="next", id="u2")
        (await other.called()).say("still here").finish()
        assert (await handle.result()).text == "still here"
        await feed.until(lambda: events(feed, "run-ended"))
        assert events(feed, "run-queued")[0]["run"] == handle.id
        assert "still here" not in [words(message) for message in second.run.messages]
        second.finish()


async def test_a_replay_that_is_owed_is_that_of_the_reply(rig: Rig) -> None:
    """Also where something was spawned after the promise was made."""
    _, call = await rig.begun()
    assert (await rig.history("c"))["activeRun"]["id"] == call.run.id

    async def helper(run: Run) -> str:
        return "beside"

    await (await spawned(call, helper, name="helper")).result()
    call.say("main").finish()
    await rig.ended()
    assert (await (await rig.resume("c")).end()).text == "main"


@pytest.mark.parametrize("over", [False, True])
async def test_what_was_spawned_beside_a_message_goes_with_it(over: bool) -> None:
    critic = ScriptedAgent()
    async with running(more={"critic": critic}) as rig:
        answer, call = await rig.begun(extra=1)
        call.say("main")
        handle = await spawned(call, "critic", prompt="one")
        other = await critic.called()
        deeper = await spawned(other, "critic", prompt="two")
        last = await critic.called()
        other.say("beside")
        last.say("beside that")
        if over:
            call.finish()
            await answer.end()
        feed = await feed_of(rig)
        assert (await rig.ask("DELETE", f"{C}/messages/{call.run.message_id}")).status == 204
        await until(lambda: call.closed and other.closed and last.closed)
        assert (call.cancelled, other.cancelled, last.cancelled) == (not over, True, True)
        await feed.until(lambda: events(feed, "message-deleted"))
        why = {end["run"]: end["reason"] for end in events(feed, "run-ended")}
        beside = {handle.id: "parent-ended", deeper.id: "parent-ended"}
        assert why == (beside if over else {call.run.id: "deleted", **beside})
        await feed.drop()
        for _ in range(2):
            seen = await look(rig)
            page = (await rig.ask("GET", f"{C}/messages")).json
            assert (len(seen["messages"]), seen["spawned"], seen["active"], page["spawned"]) == (1, [], [], [])
            await rig.go_cold()


async def test_what_was_spawned_is_deleted_by_itself() -> None:
    critic = ScriptedAgent()
    async with running(more={"critic": critic}) as rig:
        answer, call = await rig.begun(extra=1)
        call.say("main")
        handle = await spawned(call, "critic", prompt="one")
        other = await critic.called()
        other.say("beside")
        assert (await rig.ask("POST", f"{C}/branch", {"message": handle.message_id})).status == 409
        assert (await rig.ask("DELETE", f"{C}/messages/{handle.message_id}")).status == 204
        await until(lambda: other.cancelled)
        assert (await handle.result()).status == "stopped"
        call.finish()
        await answer.end()
        for _ in range(2):
            seen = await look(rig)
            assert ([words(each) for each in seen["messages"]], seen["spawned"]) == (["hello", "main"], [])
            await rig.go_cold()


async def test_a_parent_stops_what_it_has_spawned() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        answer, call = await rig.begun()
        handle = await spawned(call, "other")
        (await other.called()).say("words")
        await (await rig.resume("c", query=f"?run={handle.id}")).until_text("words")
        await asyncio.gather(handle.stop(), handle.stop())
        outcome = await handle.result()
        assert (outcome.status, outcome.reason, outcome.text) == ("stopped", "parent", "words")
        call.say("goes on").finish()
        await answer.end()
        assert answer.text == "goes on"


async def test_an_agent_in_another_process_is_not_spawned() -> None:
    async with running(prepare=lambda chat: chat.remote_agent("writer")) as rig:
        answer, call = await rig.begun()
        refused = await spawned(call, "writer")
        assert isinstance(refused, Misconfigured) and "chat.speak" in str(refused)
        call.say("goes on").finish()
        assert (await answer.end()).text == "goes on"


async def test_a_function_under_a_name_a_prompt_of_messages_and_the_parents_own() -> None:
    async with running() as rig:
        seen: list[Any] = []

        async def helper(run: Run) -> str:
            seen.append(run.prompt())
            return "helped"

        _, call = await rig.begun()
        image = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
        asked = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [*image, {"type": "text", "text": "What is this?"}]},
            {"id": "x", "role": "assistant", "parts": [{"type": "text", "text": "A cat."}]},
        ]
        for prompt in (asked, None):
            handle = await spawned(call, helper, name="helper", prompt=prompt)
            assert (await handle.result()).text == "helped"
        assert seen[0] == [*asked[:2], {"role": "assistant", "content": "A cat."}]
        assert seen[1] == [{"role": "user", "content": "hello"}]
        assert [each["agent"] for each in (await look(rig))["spawned"]] == ["helper", "helper"]
        for wrong in (
            await spawned(call, helper),
            await spawned(call, helper, name="a/b"),
            await spawned(call, helper, name="scripted"),
        ):
            assert isinstance(wrong, Misconfigured)
        assert (await spawned(call, "nobody")).code == "unknown-agent"
        assert isinstance(await spawned(call, helper, name="helper", prompt=[{"role": "user"}]), TypeError)
        assert isinstance(await spawned(call, helper, name="helper", thing=object()), TypeError)
        call.finish()
        await rig.ended()
        assert rig.chat._spawner._tasks == {}


async def test_bounds() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        _, call = await rig.begun()
        for _ in range(MOST_BESIDE):
            await spawned(call, "other")
        refused = await spawned(call, "other")
        assert isinstance(refused, TooMany)
        assert refused.code == "too-many-spawned"
        (await other.called()).finish()
        await until(lambda: len(list(rig.sessions._live["c"].live)) == MOST_BESIDE)
        assert not isinstance(await spawned(call, "other"), Exception)
        call.finish()


async def test_the_most_runs_and_the_depth() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}, max_active_runs=3) as rig:
        _, call = await rig.begun()
        await spawned(call, "other")
        await spawned(call, "other")
        assert (await spawned(call, "other")).code == "too-many"
        call.finish()
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        _, call = await rig.begun()
        for depth in range(1, DEEPEST + 1):
            await spawned(call, "other")
            call = await other.called(depth)
        assert (await spawned(call, "other")).code == "spawned-too-deep"


async def test_a_spawned_message_is_no_place_to_go_on_from() -> None:
    other = ScriptedAgent("beside")
    async with running(more={"other": other}) as rig:
        _, call = await rig.begun()
        handle = await spawned(call, "other")
        await handle.result()
        call.finish()
        await rig.ended()
        body = {"id": "c", "messages": [], "trigger": "regenerate-message", "messageId": handle.message_id}
        assert (await rig.ask("POST", "/api/chat", body)).code == "unknown-message"
        # But it has a name to stop it by.
        assert (await rig.stop("c", messageId=handle.message_id)).json["run"] == handle.id


async def test_what_the_hooks_are_told() -> None:
    other = ScriptedAgent("beside")
    async with running(more={"other": other}) as rig:
        told: list[Ended] = []
        rig.chat.on_end(told.append)
        _, call = await rig.begun()
        await (await spawned(call, "other")).result()
        call.finish()
        await until(lambda: len(told) == 2)
        assert [(each.agent, each.spawned, each.user) for each in told] == [
            ("other", True, "ann"),
            ("scripted", False, "ann"),
        ]


async def test_the_live_thread_of_the_other_wire_does_not_show_it() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        _, first = await rig.begun()
        first.say("one").finish()
        await rig.ended()
        thread = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
        live = await rig.open("GET", f"/api/tanstack/events?threadId=c&after={thread['cursor']}")
        answer, call = await rig.begun(text="two", id="u2")
        handle = await spawned(call, "other")
        (await other.called()).say("beside").finish()
        await handle.result()
        call.say("main").finish()
        await answer.end()
        await live.until(lambda: [frame.chunk["type"] for frame in live.frames][-1:] == ["RUN_FINISHED"])
        assert b"beside" not in live.body
        assert {frame.chunk.get("runId") for frame in live.frames} == {None, call.run.id}
        # It goes on from its last frame, past what it was not shown.
        again = await rig.open("GET", f"/api/tanstack/events?threadId=c&after={live.cursor}")
        assert again.status == 200
        joined = await (await rig.open("GET", f"/api/tanstack?runId={handle.id}&offset=-1")).end()
        assert b"beside" in joined.body
        messages = (await rig.ask("GET", "/api/tanstack?threadId=c")).json["messages"]
        assert len(messages) == 4


async def test_after_a_crash_what_was_spawned_is_lost_and_its_parent_called_again(tmp_path: Path) -> None:
    path, other = tmp_path / "chat.db", ScriptedAgent()
    async with running(path, more={"other": other}, recover=True, commit_patience=0.0) as rig:
        _, call = await rig.begun()
        handle = await spawned(call, "other")
        (await other.called()).say("words")
        await (await rig.resume("c", query=f"?run={handle.id}")).until_text("words")
        rig.store.fail()
    clock = rig.clock
    async with running(path, more={"other": other}, recover=True, clock=clock) as rig:
        call = await rig.agent.called()
        assert call.run.recovered
        [beside] = (await look(rig))["spawned"]
        assert words(beside["message"]) == "words"
        ends = [event for event in await rig.log_from_store() if event["type"] == "run-ended"]
        assert [(end["run"], end["status"], end["reason"]) for end in ends] == [(handle.id, "lost", "process-lost")]
        call.finish()


async def test_after_a_crash_a_reply_and_what_it_has_spawned_are_lost(tmp_path: Path) -> None:
    path, other = tmp_path / "chat.db", ScriptedAgent()
    async with running(path, more={"other": other}, commit_patience=0.0) as rig:
        _, call = await rig.begun()
        await spawned(call, "other")
        rig.store.fail()
    async with running(path, more={"other": other}, clock=rig.clock) as rig:
        ends = [event for event in await rig.log_from_store() if event["type"] == "run-ended"]
        assert [(end["status"], end["reason"]) for end in ends] == [("lost", "process-lost")] * 2


# ------------------------------------------------------------------------------------------------ progress


async def test_progress_is_replaced_in_place_and_interrupts_no_text(rig: Rig) -> None:
    answer, call = await rig.begun()

    async def work(run: Run) -> None:
        await run.text("one ")
        for done in range(200):
            await run.progress("files", {"label": "Files", "done": done, "of": 200})
        await run.progress("pages", 1)
        await run.text("two")

    call.do(work).finish()
    await answer.end()
    parts = (await rig.history("c"))["messages"][-1]["parts"]
    assert parts == [
        {"type": "step-start"},
        {"type": "text", "text": "one two", "state": "done"},
        {"type": "data-progress", "id": "files", "data": {"label": "Files", "done": 199, "of": 200}},
        {"type": "data-progress", "id": "pages", "data": 1},
    ]
    logged = [chunk for event in await rig.log() if event["type"] == "appended" for chunk in event["chunks"]]
    assert len([chunk for chunk in logged if chunk["type"] == "data-progress"]) < 20


async def test_progress_that_comes_after_a_step_was_reset_is_kept(rig: Rig) -> None:
    _, call = await rig.begun()

    async def work(run: Run) -> None:
        await run.text("wrong")
        await run.progress("a", 1)
        await run.reset_step()
        await run.progress("a", 2)

    call.do(work).finish()
    await rig.ended()
    parts = (await rig.history("c"))["messages"][-1]["parts"]
    assert [part for part in parts if part["type"] == "data-progress"] == [
        {"type": "data-progress", "id": "a", "data": 2}
    ]


async def test_an_agent_in_a_thread_says_how_far_it_is() -> None:
    def work(run: Run) -> str:
        run.wait(run.progress("a", {"done": 1}))
        return run.wait(run.checkpoint("x")) and "done"

    async with running(agent=work) as rig:
        answer = await (await rig.post("c")).end()
        assert answer.text == "done"
        assert (await rig.history("c"))["messages"][-1]["parts"][0]["type"] == "data-progress"


async def test_an_agent_on_the_event_loop_is_told_not_to_wait(rig: Rig) -> None:
    _, call = await rig.begun()
    with pytest.raises(RuntimeError, match="await"):
        call.run.wait(call.run.progress("a", 1))
    call.finish()


async def test_progress_can_be_read_without_the_main_text() -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        _, call = await rig.begun(text="question")
        call.say("first words").do(lambda run: run.progress("p", 1))
        feed = await feed_of(rig, "?only=progress")
        handle = await spawned(call, "other", prompt="p")
        (await other.called()).say("a lot of text").do(lambda run: run.progress("q", {"done": 1, "of": 2})).finish()
        await handle.result()
        call.say("more words").do(lambda run: run.progress("p", 2)).do(lambda run: run.reset_step())
        await feed.until(lambda: events(feed, "resync"))
        call.do(lambda run: run.progress("p", 3)).finish()
        await feed.until(lambda: len(events(feed, "run-ended")) == 2)
        assert b"words" not in feed.body
        assert b"text" not in feed.body
        assert b"question" not in feed.body.split(b'"messages"')[1]
        snapshot = events(feed, "snapshot")[0]
        [active] = snapshot["active"]
        assert [chunk["type"] for chunk in active["chunks"]] in (["start"], ["start", "data-progress"])
        chunks = [(event["run"], chunk) for event in events(feed, "appended") for chunk in event["chunks"]]
        assert {chunk["type"] for _, chunk in chunks} == {"data-progress"}
        assert (handle.id, {"type": "data-progress", "id": "q", "data": {"done": 1, "of": 2}}) in chunks
        assert {frame.chunk["type"] for frame in feed.frames} <= {
            *("snapshot", "readers", "run-queued", "run-started", "appended", "run-ended", "resync", "position")
        }
        seen = await look(rig, "?only=progress")
        assert [part["type"] for part in seen["messages"][-1]["parts"]] == ["data-progress"]
        assert [part["type"] for part in seen["spawned"][0]["message"]["parts"]] == ["data-progress"]
        assert (await look(rig, "?only=state"))["spawned"] == []
        assert [each["run"] for each in (await look(rig, f"?run={handle.id}"))["spawned"]] == [handle.id]
        assert (await look(rig, f"?run={call.run.id}"))["spawned"] == []
        assert (await rig.ask("GET", f"{C}?only=progress,state")).code == "invalid-request"
