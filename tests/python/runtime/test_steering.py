"""Telling a running agent something (PROTOCOL §14.3): taken or not, it is never lost and never counts twice."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline import Run
from strandline.runtime.live_run import Note
from strandline.stores import SqliteStore
from strandline.testing import FailingStore, ManualClock, ScriptedAgent, until

S = "/api/sessions"
STEER = {"Strandline-Submit": "steer"}


def message(text: str, id: str) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


async def steer(rig: Any, text: str, id: str, chat: str = "c", **more: Any) -> Answer:
    answer: Answer = await rig.ask("POST", f"{S}/{chat}/steer", {"message": message(text, id), **more})
    return answer


async def told(rig: Any, text: str, id: str, **more: Any) -> None:
    answer = await steer(rig, text, id, **more)
    assert answer.status == 202, answer.body


async def kinds(rig: Rig, since: str) -> list[str]:
    """The kinds of what follows the first event of this kind."""
    found = [event["type"] for event in await rig.log()]
    return found[found.index(since) + 1 :]


class Taken:
    """What agents took."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    async def now(self, run: Run) -> None:
        self.notes += run.take_steering()

    @property
    def texts(self) -> list[str]:
        return [note.text for note in self.notes]


async def path(rig: Rig) -> list[tuple[str, list[str]]]:
    """Every message of the conversation: its id, or ``reply``, and its parts."""
    shown = (await rig.ask("GET", f"{S}/c")).json["messages"]
    return [
        (each["id"] if each["role"] == "user" else "reply", [part.get("text", part["type"]) for part in each["parts"]])
        for each in shown
    ]


# ------------------------------------------------------------------------------------------------ taken


async def test_a_note_reaches_the_agent_with_who_said_it_and_is_acknowledged_in_the_reply(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("On ")
    await answer.until_text("On ")
    feed = await rig.open("GET", f"{S}/c/events")
    sent = await rig.ask("POST", f"{S}/c/steer", {"message": message("faster", "n1")}, {"Strandline-Device": "phone"})
    run = (await rig.ask("GET", f"{S}/c")).json["runs"][0]
    event = next(frame for frame in feed.frames if frame.chunk["type"] == "steered")
    assert sent.status == 202
    assert sent.json == {"run": run["id"], "messageId": run["messageId"], "cursor": event.cursor, "steered": "n1"}
    assert {name: event.chunk[name] for name in ("by", "run", "message_id")} == {
        "by": "user:ann",
        "run": run["id"],
        "message_id": "n1",
    }
    taken = Taken()
    call.do(taken.now).say("it.").finish()
    await answer.end()
    (note,) = taken.notes
    assert (note.id, note.text, note.by, note.device) == ("n1", "faster", "user:ann", "phone")
    assert await path(rig) == [("u1", ["hello"]), ("reply", ["step-start", "On ", "steering-message", "it."])]
    await feed.until(lambda: "run-ended" in feed.types)
    acknowledged = [chunk for frame in feed.frames for chunk in frame.chunk.get("chunks", ())]
    assert {"type": "steering-message", "id": "n1", "parts": message("faster", "n1")["parts"]} in acknowledged
    assert len(rig.agent.calls) == 1


async def test_an_agent_waits_for_notes_and_gets_them_in_order() -> None:
    heard: list[str] = []

    async def listen(run: Run) -> Any:
        yield "listening"
        async for note in run.steering():
            heard.append(note.text)
            yield note.text
            if note.text == "enough":
                break
        yield "!"

    async with running(agent=listen) as rig:
        answer = await rig.post("c")
        await answer.until_text("listening")
        for number, text in enumerate(["a", "b", "enough", "too late"]):
            await told(rig, text, f"n{number}")
            if text != "enough":
                await until(lambda text=text: text in heard or text == "too late")  # type: ignore[misc]
            else:
                break
        await answer.end()
        assert heard == ["a", "b", "enough"]
        refused = await steer(rig, "too late", "n9")
        assert (refused.status, refused.code) == (409, "not-running")


async def test_waiting_for_notes_ends_with_the_run() -> None:
    ended = asyncio.Event()

    async def listen(run: Run) -> None:
        async def side() -> None:
            async for _ in run.steering():
                raise AssertionError("there was none")
            ended.set()

        run_on = asyncio.create_task(side())
        try:
            await run.text("hi")
            await asyncio.sleep(3600)
        finally:
            await run_on

    async with running(agent=listen) as rig:
        answer = await rig.post("c")
        await answer.until_text("hi")
        await rig.stop("c")
        await asyncio.wait_for(ended.wait(), 5)


async def test_two_that_listen_share_the_notes() -> None:
    heard: list[tuple[str, str]] = []

    async def listen(run: Run) -> None:
        async def side(name: str) -> None:
            async for note in run.steering():
                heard.append((name, note.text))
                await asyncio.sleep(0)

        await asyncio.gather(side("x"), side("y"))

    async with running(agent=listen) as rig:
        await rig.post("c")
        for number in range(6):
            await told(rig, str(number), f"n{number}")
        await until(lambda: len(heard) == 6)
        assert sorted(text for _, text in heard) == list("012345")


async def test_a_plain_function_takes_notes_from_its_thread() -> None:
    heard: list[str] = []

    def listen(run: Run) -> Any:
        yield "listening"
        while not heard:
            heard.extend(note.text for note in run.take_steering())
        yield "done"

    async with running(agent=listen) as rig:
        answer = await rig.post("c")
        await answer.until_text("listening")
        await told(rig, "go", "n1")
        await answer.end()
        assert (heard, answer.text) == (["go"], "listeningdone")


async def test_files_and_data_reach_the_agent_and_the_reply_shows_what_clients_know(rig: Rig) -> None:
    answer, call = await rig.begun()
    parts = [
        {"type": "text", "text": "look", "state": "done"},
        {"type": "file", "url": "https://x.test/a.png", "mediaType": "image/png", "filename": 7},
        {"type": "data-place", "data": {"x": 1}},
    ]
    sent = await rig.ask("POST", f"{S}/c/steer", {"message": {"id": "n1", "role": "user", "parts": parts}})
    assert sent.status == 202
    taken = Taken()
    call.do(taken.now).finish()
    await answer.end()
    assert list(taken.notes[0].parts) == parts
    shown = (await rig.ask("GET", f"{S}/c")).json["messages"][1]["parts"]
    assert shown[-1]["parts"] == [
        {"type": "text", "text": "look"},
        {"type": "file", "url": "https://x.test/a.png", "mediaType": "image/png"},
    ]


async def test_what_was_said_in_between_is_a_turn_of_its_own_to_the_next_model(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("Red")
    await answer.until_text("Red")
    await told(rig, "blue please", "n1")
    call.do(Taken().now).say("Blue").finish()
    await answer.end()
    _, later = await rig.begun(text="thanks", id="u2")
    assert [(turn["role"], turn["content"]) for turn in later.run.prompt()] == [
        ("user", "hello"),
        ("assistant", "Red"),
        ("user", "blue please"),
        ("assistant", "Blue"),
        ("user", "thanks"),
    ]


# ------------------------------------------------------------------------------------------------ not taken


async def test_after_a_natural_end_notes_become_messages_and_the_last_is_answered(rig: Rig) -> None:
    answer, call = await rig.begun()
    await told(rig, "first note", "n1")
    await rig.as_user("ann").ask(
        "POST", f"{S}/c/steer", {"message": message("second note", "n2"), "body": {"model": "large"}}
    )
    call.say("Done.").finish()
    await answer.end()
    last = await rig.agent.called(2)
    assert [turn["content"] for turn in last.run.prompt()] == ["hello", "Done.", "first note", "second note"]
    assert (last.run.user.user, dict(last.run.body)) == ("ann", {"model": "large"})
    ending = next(batch for batch in rig.store.committed if "run-ended" in rig.kinds(batch))
    assert rig.kinds(ending)[-4:] == ["run-ended", "message-created", "message-created", "run-queued"]
    last.finish()
    await rig.ended()
    assert [id for id, _ in await path(rig)] == ["u1", "reply", "n1", "n2", "reply"]


@pytest.mark.parametrize("how", ["stop", "fail", "deadline"])
async def test_after_any_other_end_notes_become_messages_that_nobody_answers(rig: Rig, how: str) -> None:
    answer, call = await rig.begun()
    await told(rig, "a note", "n1")
    if how == "stop":
        await rig.stop("c")
    elif how == "fail":
        call.fail(RuntimeError("x"))
    else:
        await rig.clock.advance(rig.chat.settings.run_deadline + 1)
    await answer.end()
    await rig.ended()
    assert [id for id, _ in await path(rig)] == ["u1", "reply", "n1"]
    assert len(rig.agent.calls) == 1
    ending = next(batch for batch in rig.store.committed if "run-ended" in rig.kinds(batch))
    assert rig.kinds(ending)[-2:] == ["run-ended", "message-created"]


async def test_at_an_interruption_notes_come_before_the_new_message(rig: Rig) -> None:
    answer, _ = await rig.begun()
    await told(rig, "a note", "n1")
    _, call = await rig.begun(text="no, this", id="u2")
    await answer.end()
    assert [id for id, _ in await path(rig)] == ["u1", "reply", "n1", "u2", "reply"]
    assert [turn["content"] for turn in call.run.prompt()] == ["hello", "a note", "no, this"]


async def test_a_note_that_was_taken_but_whose_acknowledgement_a_stop_threw_away_becomes_a_message(rig: Rig) -> None:
    answer, call = await rig.begun()
    await told(rig, "a note", "n1")
    taken = Taken()
    rig.store.hang()
    stopping = asyncio.create_task(rig.stop("c"))
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    call.do(taken.now)
    await until(lambda: taken.notes)
    rig.store.mend()
    await stopping
    await answer.end()
    assert [id for id, _ in await path(rig)] == ["u1", "reply", "n1"]
    assert "steering-message" not in str((await rig.ask("GET", f"{S}/c")).json["messages"])


async def test_notes_wait_behind_what_is_queued(rig: Rig) -> None:
    answer, call = await rig.begun()
    await rig.post("c", "two", "u2", headers={"Strandline-Submit": "queue"})
    await told(rig, "a note", "n1")
    call.say("Done.").finish()
    await answer.end()
    second = await rig.agent.called(2)
    assert [turn["content"] for turn in second.run.prompt()] == ["hello", "Done.", "two"]
    second.say("Two.").finish()
    third = await rig.agent.called(3)
    assert [turn["content"] for turn in third.run.prompt()] == ["hello", "Done.", "two", "Two.", "a note"]


@pytest.mark.parametrize("taken", [True, False])
async def test_notes_survive_the_process(tmp_path: Path, taken: bool) -> None:
    clock = ManualClock()
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        answer, call = await rig.begun()
        await told(rig, "a note", "n1")
        if taken:
            call.do(Taken().now)
            await answer.until(lambda: "steering-message" in answer.types)
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"chat.db{suffix}", tmp_path / f"killed.db{suffix}")
    async with running(tmp_path / "killed.db", clock=clock) as rig:
        ids = [id for id, _ in await path(rig)]
        assert ids == (["u1", "reply"] if taken else ["u1", "reply", "n1"])
        assert (await rig.ask("GET", f"{S}/c")).json["runs"][-1]["status"] == "lost"
        # The same request again, by a client that got no answer: what was said is not said twice.
        if not taken:
            again = await steer(rig, "a note", "n1")
            assert again.json["steered"] == "n1"
            assert [id for id, _ in await path(rig)] == ids


# ------------------------------------------------------------------------------------------------ which, and how often


async def test_a_note_that_is_sent_again_is_the_same_note(rig: Rig) -> None:
    answer, call = await rig.begun()
    first = (await steer(rig, "a note", "n1")).json
    assert (await steer(rig, "a note", "n1")).json == first
    refused = await steer(rig, "another", "n1")
    assert (refused.status, refused.code) == (409, "message-exists")
    taken = Taken()
    call.do(taken.now).finish()
    await answer.end()
    assert taken.texts == ["a note"]
    # Also when the run is over: it is not said again.
    assert (await steer(rig, "a note", "n1")).json == first
    assert (await rig.post("c", "a note", "n1", headers=STEER)).frames[0].chunk["data"]["steered"]["messageId"] == "n1"
    assert [id for id, _ in await path(rig)] == ["u1", "reply"]


async def test_a_note_with_the_id_of_a_message_is_refused(rig: Rig) -> None:
    await rig.begun()
    refused = await steer(rig, "hello", "u1")
    assert (refused.status, refused.code) == (409, "message-exists")


async def test_a_note_goes_to_the_named_run_and_no_other(rig: Rig) -> None:
    _, one = await rig.begun()
    _, two = await rig.begun(text="two", id="u2", headers={"Strandline-Submit": "concurrent"})
    await told(rig, "to one", "n1", run=one.run.id)
    await told(rig, "to the newest", "n2")
    first, second = Taken(), Taken()
    one.do(first.now)
    two.do(second.now)
    await until(lambda: first.notes and second.notes)
    assert (first.texts, second.texts) == (["to one"], ["to the newest"])
    assert (await steer(rig, "x", "n3", run="no-such-run")).status == 404
    await rig.stop("c", run=one.run.id)
    assert (await steer(rig, "x", "n3", run=one.run.id)).code == "not-running"


async def test_only_who_may_write_may_steer(rig: Rig) -> None:
    await rig.begun()
    assert (await steer(rig.as_user("eve"), "x", "n1")).status == 404
    assert (await steer(rig, "x", "n1", chat="nowhere")).status == 404


async def test_only_so_much_waits_for_an_agent_that_does_not_listen(rig: Rig) -> None:
    await rig.begun()
    for number in range(100):
        await told(rig, "x", f"n{number}")
    refused = await steer(rig, "x", "n100")
    assert (refused.status, refused.code) == (429, "too-many-notes")


async def test_a_note_that_would_be_too_large_a_chunk_is_refused() -> None:
    async with running(chunk_limit=1000, delta_limit=1000) as rig:
        await rig.begun()
        assert (await steer(rig, "x" * 1000, "n1")).code == "body-too-large"
        noted = {"message": {**message("x", "n1"), "metadata": {"x": "x" * 1000}}}
        assert (await rig.ask("POST", f"{S}/c/steer", noted)).code == "body-too-large"
        assert (await steer(rig, "x" * 900, "n1")).status == 202


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": None},
        {"message": {"id": "a", "role": "assistant", "parts": []}},
        {"message": {"id": "a", "role": "user", "parts": []}},
        {"message": message("x", "a"), "run": "a/b"},
        {"message": message("x", "a"), "body": 7},
    ],
)
async def test_what_is_no_note_is_refused(rig: Rig, body: Any) -> None:
    await rig.begun()
    assert (await rig.ask("POST", f"{S}/c/steer", body)).status == 422


# ------------------------------------------------------------------------------------------------ as a policy


async def test_an_ai_sdk_client_is_answered_with_one_transient_chunk(rig: Rig) -> None:
    _, call = await rig.begun()
    answer = await (await rig.post("c", "faster", "n1", headers=STEER)).end()
    assert answer.types == ["data-strandline", "[DONE]"]
    assert answer.frames[0].chunk == {
        "type": "data-strandline",
        "data": {"steered": {"run": call.run.id, "messageId": "n1"}},
        "transient": True,
    }
    assert [frame.cursor for frame in answer.frames] == [None, None]


async def test_a_tanstack_client_is_answered_with_a_run_of_nothing(rig: Rig) -> None:
    _, call = await rig.begun()
    body = {"threadId": "c", "runId": "r2", "messages": [{"id": "n1", "role": "user", "content": "faster"}]}
    for _ in range(2):
        answer = await (await rig.open("POST", "/api/tanstack", body, STEER)).end()
        assert answer.types == ["RUN_STARTED", "CUSTOM", "RUN_FINISHED"]
        assert answer.frames[1].chunk["value"] == {"run": call.run.id, "messageId": "n1"}
    later = await rig.ask("POST", "/api/tanstack", body, {**STEER, "Prefer": "respond-async"})
    assert (later.status, later.json["steered"]) == (202, "n1")
    taken = Taken()
    call.do(taken.now)
    await until(lambda: taken.notes)
    assert taken.texts == ["faster"]
    assert [event["type"] for event in await rig.log()].count("steered") == 1


async def test_a_session_client_is_told_which_reply_takes_it(rig: Rig) -> None:
    _, call = await rig.begun()
    sent = await rig.ask("POST", f"{S}/c/messages", {"message": message("faster", "n1"), "submit": "steer"})
    assert (sent.status, sent.json["run"], sent.json["steered"]) == (202, call.run.id, "n1")


async def test_with_nothing_running_it_is_a_message_like_any_other(rig: Rig) -> None:
    answer = await rig.post("c", "hello", "u1", headers=STEER)
    (await rig.agent.called()).say("hi").finish()
    assert (await answer.end()).text == "hi"


async def test_a_stop_that_came_first_is_for_this_message_and_not_for_the_running_one(rig: Rig) -> None:
    _, call = await rig.begun()
    assert (await rig.stop("c", messageId="u2")).status == 202
    stopped = await (await rig.post("c", "two", "u2", headers=STEER)).end()
    assert stopped.types[-2:] == ["abort", "[DONE]"]
    assert not call.run.cancelled


async def test_a_snapshot_shows_what_the_agent_was_told_and_has_not_taken(rig: Rig) -> None:
    _, call = await rig.begun()
    await told(rig, "a note", "n1")
    (active,) = (await rig.ask("GET", f"{S}/c")).json["active"]
    (note,) = active["notes"]
    assert (note["message_id"], note["by"], note["parts"]) == ("n1", "user:ann", message("a note", "n1")["parts"])
    taken = Taken()
    call.do(taken.now).say("ok")
    await until(lambda: "steering-message" in str(rig.store.committed[-1]))
    assert (await rig.ask("GET", f"{S}/c")).json["active"][0]["notes"] == []


async def test_the_store_fails_while_notes_wait(tmp_path: Path) -> None:
    store = FailingStore(SqliteStore(tmp_path / "chat.db", lock_wait=0))
    async with running(store=store, commit_patience=0.0, agent=ScriptedAgent()) as rig:
        _, call = await rig.begun()
        await told(rig, "a note", "n1")
        store.fail()
        call.say("x")
        await rig.passing(lambda: not rig.sessions.journal.healthy)
        store.mend()
        await rig.passing(lambda: rig.sessions.journal.healthy)
        await rig.ended()
        assert [id for id, _ in await path(rig)] == ["u1", "reply", "n1"]


async def test_what_waits_for_an_agent_is_bounded_in_bytes_with_what_came_along() -> None:
    async with running(notes_limit=2000) as rig:
        _, call = await rig.begun()
        taken = Taken()
        await told(rig, "x" * 3000, "n0")  # one alone may be longer
        assert (await steer(rig, "x", "n1")).code == "too-many-notes"
        call.do(taken.now)
        await until(lambda: taken.notes)
        session = await rig.sessions.find("c")
        await until(lambda: not session.live[call.run.id].notes)
        await told(rig, "x" * 900, "n1")
        refused = await steer(rig, "x", "n2", body={"along": "y" * 1200})
        assert (refused.status, refused.code) == (429, "too-many-notes")
        submitted = await rig.post("c", "x" * 1200, "n2", headers=STEER)
        assert (submitted.status, submitted.code) == (429, "too-many-notes")
        await told(rig, "x", "n2", body={"along": "y" * 500})
        assert (await steer(rig, "x" * 900, "n1")).status == 202, "a repeat adds nothing"
        call.do(taken.now)
        await until(lambda: len(taken.notes) == 3)
        assert [len(text) for text in taken.texts] == [3000, 900, 1]


async def test_what_waits_counts_after_a_restart_as_well(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path / "chat.db", clock=clock, notes_limit=2000, recover=True) as rig:
        await rig.begun()
        await told(rig, "x" * 1500, "n1")
    async with running(tmp_path / "chat.db", clock=clock, notes_limit=2000, recover=True) as rig:
        await rig.agent.called(1)
        assert (await steer(rig, "x" * 1000, "n2")).code == "too-many-notes"
        await told(rig, "x" * 100, "n2")


async def test_what_came_along_with_a_note_is_let_go_once_it_was_taken(rig: Rig) -> None:
    _, call = await rig.begun()
    live = (await rig.sessions.find("c")).live[call.run.id]
    await told(rig, "x", "n1", body={"along": "SECRET"})
    assert live.notes["n1"].caller.body == {"along": "SECRET"}
    taken = Taken()
    call.do(taken.now)
    await until(lambda: live.taken)
    (kept,) = live.taken
    assert (kept.caller.user, kept.caller.body) == ("ann", {})
    assert taken.notes[0].caller.body == {"along": "SECRET"}, "the agent has it as it was told"
