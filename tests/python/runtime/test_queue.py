"""Messages that wait for their turn (PROTOCOL §14.2): one order, shown to everybody, kept over restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline.stores import SqliteStore
from strandline.stores.port import Batch
from strandline.testing import FailingStore, ManualClock, ScriptedAgent, until

S = "/api/sessions"
QUEUE = {"Strandline-Submit": "queue"}


async def queued(rig: Rig, text: str, id: str, **more: Any) -> Answer:
    answer = await rig.post("c", text, id, headers=QUEUE, **more)
    assert answer.status == 200, answer.body
    return answer


async def statuses(rig: Rig) -> list[str]:
    return [run["status"] for run in (await rig.ask("GET", f"{S}/c")).json["runs"]]


async def path(rig: Rig) -> list[str]:
    shown = (await rig.ask("GET", f"{S}/c")).json["messages"]
    return ["".join(part.get("text", "") for part in message["parts"]) for message in shown]


def asked(call: Any) -> list[str]:
    return [str(turn["content"]) for turn in call.run.prompt()]


async def test_it_starts_when_the_reply_before_it_has_ended_and_knows_what_that_said(rig: Rig) -> None:
    first, call = await rig.begun(text="one")
    second = await queued(rig, "two", "u2")
    third = await queued(rig, "three", "u3")
    assert await statuses(rig) == ["running", "queued", "queued"]
    assert (second.frames, third.frames) == ([], [])
    call.say("first").finish()
    await first.end()
    next_call = await rig.agent.called(2)
    assert asked(next_call) == ["one", "first", "two"]
    assert await statuses(rig) == ["completed", "running", "queued"]
    next_call.say("second").finish()
    assert (await second.end()).text == "second"
    last = await rig.agent.called(3)
    assert asked(last) == ["one", "first", "two", "second", "three"]
    last.say("third").finish()
    assert (await third.end()).types[-2:] == ["finish", "[DONE]"]
    assert await path(rig) == ["one", "first", "two", "second", "three", "third"]


async def test_a_message_to_an_idle_session_starts_in_the_commit_that_brings_it(rig: Rig) -> None:
    answer = await queued(rig, "one", "u1")
    await rig.agent.called()
    assert rig.kinds(rig.store.committed[0]) == ["message-created", "run-queued", "run-started"]
    await answer.drop()


@pytest.mark.parametrize("how", ["stop", "fail", "deadline"])
async def test_the_queue_goes_on_however_the_reply_before_it_ends(rig: Rig, how: str) -> None:
    first, call = await rig.begun()
    second = await queued(rig, "two", "u2")
    if how == "stop":
        assert (await rig.stop("c")).json["run"] == call.run.id
    elif how == "fail":
        call.fail(RuntimeError("x"))
    else:
        await rig.clock.advance(rig.chat.settings.run_deadline + 1)
    await first.end()
    (await rig.agent.called(2)).say("second").finish()
    assert (await second.end()).text == "second"


async def test_a_queued_message_can_be_taken_back_and_the_order_of_the_rest_stays(rig: Rig) -> None:
    _, call = await rig.begun(text="one")
    answers = [await queued(rig, f"m{n}", f"u{n}", key=f"k{n}") for n in (2, 3, 4, 5)]
    runs = [answer.headers["strandline-run"] for answer in answers]
    by_run = (await rig.stop("c", run=runs[0])).json
    by_message = (await rig.stop("c", messageId="u3")).json
    by_key = (await rig.stop("c", key="k4")).json
    assert [(each["run"], each["status"], each["stopped"]) for each in (by_run, by_message, by_key)] == [
        (run, "stopped", True) for run in runs[:3]
    ]
    assert (await answers[0].end()).types == ["abort", "[DONE]"]
    assert await statuses(rig) == ["running", "stopped", "stopped", "stopped", "queued"]
    call.say("first").finish()
    last = await rig.agent.called(2)
    assert asked(last) == ["one", "first", "m2", "m3", "m4", "m5"]
    assert last.run.id == runs[3]


async def test_a_stop_without_a_name_means_what_is_running_and_then_the_next(rig: Rig) -> None:
    _, call = await rig.begun()
    second = await queued(rig, "two", "u2")
    assert (await rig.stop("c")).json["run"] == call.run.id
    await rig.agent.called(2)
    assert (await rig.stop("c")).json["run"] == second.headers["strandline-run"]
    assert (await rig.stop("c")).json["status"] == "idle"


async def test_there_are_only_so_many() -> None:
    async with running(max_queued=2) as rig:
        await rig.begun()
        await queued(rig, "two", "u2")
        await queued(rig, "three", "u3")
        refused = await rig.post("c", "four", "u4", headers=QUEUE)
        assert (refused.status, refused.code) == (429, "too-many-queued")
        assert "retry-after" in refused.headers
        # A retry of one that waits is none more.
        again = await rig.post("c", "three", "u3", headers=QUEUE)
        assert again.status == 200
        log = await rig.log()
        assert [event["message_id"] for event in log if event["type"] == "message-created"] == ["u1", "u2", "u3"]


async def test_an_interruption_ends_what_waits_as_well(rig: Rig) -> None:
    first, _ = await rig.begun()
    second = await queued(rig, "two", "u2")
    _, last = await rig.begun(text="now", id="u3")
    assert [(await answer.end()).types[-2] for answer in (first, second)] == ["abort", "abort"]
    assert await statuses(rig) == ["stopped", "stopped", "running"]
    assert asked(last) == ["hello", "two", "now"]


async def test_an_edit_ends_what_it_leaves_behind_and_waits_for_the_rest(rig: Rig) -> None:
    first, call = await rig.begun(text="one")
    second = await queued(rig, "two", "u2")
    edited = await queued(rig, "zwei", "u2", messageId="u2")
    assert (await second.end()).types == ["abort", "[DONE]"]
    assert await statuses(rig) == ["running", "stopped", "queued"]
    call.say("first").finish()
    await first.end()
    assert asked(await rig.agent.called(2)) == ["one", "first", "zwei"]
    await edited.drop()


# ------------------------------------------------------------------------------------------ what clients are shown


async def test_stock_clients_are_shown_the_conversation_up_to_the_running_reply(rig: Rig) -> None:
    _, call = await rig.begun(text="one")
    await queued(rig, "two", "u2")
    call.say("first")
    shown = await rig.history("c")
    assert [message["id"] for message in shown["messages"]] == ["u1"]
    assert shown["activeRun"]["id"] == call.run.id
    resumed = await rig.resume("c")
    assert resumed.headers["strandline-run"] == call.run.id
    hydrated = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
    assert [message["id"] for message in hydrated["messages"]] == ["u1"]
    assert (hydrated["activeRun"], hydrated["leaf"]) == ({"runId": call.run.id}, "u1")
    # The live thread says the rest, from the first event of this reply on; not from where it is started over.
    assert hydrated["more"] is False
    before = hydrated["cursor"]
    call.do(lambda run: run.restart()).say("anew")
    await resumed.until(lambda: resumed.over)
    hydrated = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
    assert (hydrated["more"], hydrated["cursor"] != before) == (True, True)
    live = await rig.open("GET", "/api/tanstack/events?threadId=c", headers={"Last-Event-ID": hydrated["cursor"]})
    await live.until(lambda: "anew" in live.body.decode())
    assert "two" not in live.body.decode()
    assert (await rig.ask("GET", S)).json["sessions"][0]["activeRun"] == call.run.id


async def test_the_session_wire_shows_what_waits(rig: Rig) -> None:
    _, call = await rig.begun(text="one")
    second = await queued(rig, "two", "u2")
    page = (await rig.ask("GET", f"{S}/c/messages")).json
    assert [message["id"] for message in page["messages"]] == ["u1", "u2"]
    assert page["activeRun"]["id"] == call.run.id
    whole = (await rig.ask("GET", f"{S}/c")).json
    assert [each["run"] for each in whole["active"]] == [call.run.id, second.headers["strandline-run"]]
    assert await path(rig) == ["one", "", "two", ""]


async def test_who_was_promised_the_running_reply_gets_it_though_the_next_one_has_begun(rig: Rig) -> None:
    first, call = await rig.begun(text="one")
    await queued(rig, "two", "u2")
    assert [message["id"] for message in (await rig.history("c"))["messages"]] == ["u1"]
    call.say("first").finish()
    await first.end()
    next_call = await rig.agent.called(2)
    assert (await (await rig.resume("c")).end()).text == "first"
    # It was paid: the next one is what is being written now.
    assert (await rig.resume("c")).headers["strandline-run"] == next_call.run.id


async def test_a_tanstack_client_is_told_at_once_that_its_run_exists(rig: Rig) -> None:
    _, call = await rig.begun()
    message = {"id": "u2", "role": "user", "content": "two"}
    body = {"threadId": "c", "runId": "r2", "messages": [message]}
    answer = await rig.open("POST", "/api/tanstack", body, QUEUE)
    await answer.until(lambda: answer.frames)
    assert answer.types == ["RUN_STARTED"]
    call.finish()
    (await rig.agent.called(2)).say("second").finish()
    await answer.end()
    assert answer.types[-1] == "RUN_FINISHED"
    assert answer.types.count("RUN_STARTED") == 1
    assert [frame.chunk["delta"] for frame in answer.frames if "delta" in frame.chunk] == ["second"]
    rest = await rig.open("GET", f"/api/tanstack?runId=r2&offset={answer.frames[0].cursor}")
    assert (await rest.end()).frames == answer.frames[1:]


async def test_a_live_thread_is_told_of_a_turn_when_it_comes(rig: Rig) -> None:
    first, call = await rig.begun(text="one")
    await queued(rig, "two", "u2")
    await queued(rig, "three", "u3")
    call.say("first").finish()
    await first.end()
    next_call = await rig.agent.called(2)
    # The reply before it is history, though it was still being written when this one was queued.
    loaded = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
    assert [message["role"] for message in loaded["messages"]] == ["user", "assistant", "user"]
    thread = await rig.open("GET", f"/api/tanstack/events?threadId=c&after={loaded['cursor']}")
    next_call.say("second").finish()
    await thread.until(lambda: "RUN_FINISHED" in thread.types)
    assert thread.types[0] == "RUN_STARTED"
    assert [frame.chunk["delta"] for frame in thread.frames if "delta" in frame.chunk] == ["second"]
    await thread.until(lambda: thread.types.count("RUN_STARTED") == 2)
    assert thread.frames[-1].chunk["metadata"]["strandline"]["parent"] == "u3"


async def test_a_live_thread_is_told_of_a_turn_that_comes_right_after_it_was_loaded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, call = await rig.begun(text="one")
    note = {"id": "n1", "role": "user", "parts": [{"type": "text", "text": "two"}]}
    assert (await rig.ask("POST", f"{S}/c/steer", {"message": note})).status == 202
    commit = rig.store.commit

    async def until_it_is_queued(batch: Batch) -> None:
        await commit(batch)
        if rig.kinds(batch)[-1:] == ["run-queued"]:
            rig.store.hang()

    monkeypatch.setattr(rig.store, "commit", until_it_is_queued)
    call.say("first").finish()
    await until(lambda: rig.kinds(rig.store.committed[-1])[-1:] == ["run-queued"])
    await rig.ended_run(call.run.id)
    loaded = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
    assert [message["id"] for message in loaded["messages"]][-1] == "n1"
    thread = await rig.open("GET", f"/api/tanstack/events?threadId=c&after={loaded['cursor']}")
    rig.store.mend()
    (await rig.agent.called(2)).say("second").finish()
    await thread.until(lambda: "RUN_FINISHED" in thread.types)
    assert (thread.types[0], thread.types.count("RUN_STARTED")) == ("RUN_STARTED", 1)
    assert thread.frames[0].chunk["runId"] == loaded["activeRun"]["runId"]
    assert [frame.chunk["delta"] for frame in thread.frames if "delta" in frame.chunk] == ["second"]


# ------------------------------------------------------------------------------------------------ after a restart


async def test_what_waits_survives_the_process_with_who_asked_and_what_came_along(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        await rig.begun(text="one")
        await queued(rig, "two", "u2", model="large")
        await queued(rig, "three", "u3")
    agent = ScriptedAgent()
    async with running(tmp_path / "chat.db", clock=clock, agent=agent) as rig:
        call = await agent.called()
        assert (call.run.user.user, dict(call.run.body)) == ("ann", {"model": "large"})
        assert asked(call) == ["one", "two"]
        assert await statuses(rig) == ["lost", "running", "queued"]
        call.say("second").finish()
        assert asked(await agent.called(2)) == ["one", "two", "second", "three"]


async def test_a_queue_with_nothing_before_it_goes_on_at_the_start(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        _, call = await rig.begun()
        await queued(rig, "two", "u2")
        rig.sessions.accepting = False  # as when the server shuts down
        call.finish()
        await until(lambda: call.closed)
        await rig.ended_run(call.run.id)
        assert len(rig.agent.calls) == 1
    agent = ScriptedAgent("hi")
    async with running(tmp_path / "chat.db", clock=clock, agent=agent) as rig:
        await agent.called()
        await rig.ended()
        assert await statuses(rig) == ["completed", "completed"]


async def test_a_start_that_the_store_could_not_write_is_made_up_for(tmp_path: Path) -> None:
    store = FailingStore(SqliteStore(tmp_path / "chat.db", lock_wait=0))
    async with running(store=store, commit_patience=0.0) as rig:
        first, call = await rig.begun()
        await queued(rig, "two", "u2")
        rig.sessions.accepting = False
        call.finish()
        await first.end()
        store.fail()
        rig.sessions.accepting = True
        rig.sessions.advance(await rig.sessions.find("c"))
        await rig.passing(lambda: not rig.sessions.journal.healthy)
        assert await statuses(rig) == ["completed", "queued"]
        store.mend()
        await rig.passing(lambda: len(rig.agent.calls) == 2)


async def test_what_waits_is_not_lost_with_the_run_before_it_when_the_store_fails(tmp_path: Path) -> None:
    store = FailingStore(SqliteStore(tmp_path / "chat.db", lock_wait=0))
    async with running(store=store, commit_patience=0.0) as rig:
        first, call = await rig.begun()
        second = await queued(rig, "two", "u2")
        store.fail()
        call.say("x")
        await first.end()
        assert first.frames[-1].chunk["code"] == "store-unavailable"
        store.mend()
        await rig.passing(lambda: len(rig.agent.calls) == 2)
        assert await statuses(rig) == ["lost", "running"]
        rig.agent.calls[1].say("second").finish()
        again = await rig.resume("c", query=f"?run={second.headers['strandline-run']}")
        assert (await again.end()).text == "second"
