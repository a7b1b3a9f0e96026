"""A commit that the store refuses for what one session says: nobody else notices, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from poisoned import POISON, SAID, cure, hold, last, poison, refusals, release, rows_of, sql
from rig import Answer, Rig, running
from strandline.runtime import journal
from strandline.runtime.refusals import smaller
from strandline.runtime.segments import Plan
from strandline.testing import fold_frames, until


def whole(answer: Answer) -> list[Any]:
    """The parts that a reader ends with."""
    return fold_frames(answer.frames).parts()


@pytest.mark.parametrize("bad", [{0}, {3}, {7}, {2, 5}, {1, 2, 3, 4, 5, 6, 7}])
async def test_words_that_are_refused_cost_their_own_run_and_nobody_elses(
    tmp_path: Path, bad: set[int], caplog: Any
) -> None:
    path, chats = tmp_path / "chat.db", [f"c{number}" for number in range(8)]
    async with running(path) as rig:
        answers, calls = [], []
        for number, chat in enumerate(chats):
            answer, call = await rig.begun(chat, id=f"u{number}")
            answers.append(answer)
            calls.append(call)
            call.say("one ")
            await answer.until_text("one ")
        _, blocker = await rig.begun("blocker", id="b")
        refused = refusals(rig)
        await poison(path, SAID)
        await hold(rig, blocker)
        for number, call in enumerate(calls):
            call.say(f"{POISON} " if number in bad else "two ", "and ", "more ")
            if number == min(bad):
                call.finish()  # which is not the end of a whole reply
        await release(rig, 8)
        for number in bad:
            await answers[number].end()
            ended = answers[number].frames[-2]
            assert (ended.chunk["type"], ended.chunk["code"]) == ("error", "not-stored")
            assert ended.cursor is not None
            assert answers[number].text == "one "
            assert await last(rig, chats[number]) == ("failed", "not-stored")
            await until(lambda call=calls[number]: call.closed)
        assert {entry.session for entry in refused[0].entries} == set(chats), "they were one batch"
        assert len(refused) <= 8 + 7
        good = [number for number in range(8) if number not in bad]
        for number in good:
            calls[number].say("three").finish()
        for number in good:
            await answers[number].end()
            assert answers[number].text == "one two and more three"
            cursors = [frame.cursor for frame in answers[number].frames if frame.cursor]
            assert len(set(cursors)) == len(cursors)
        assert rig.sessions.journal.healthy
        blamed = [record for record in caplog.records if getattr(record, "action", "").endswith("-defect")]
        assert sorted(record.session for record in blamed) == [chats[number] for number in sorted(bad)]
        assert {record.action for record in blamed} == {"session-defect"}
        assert "refused" in caplog.text
        for chat in chats:
            await rig.log(chat)  # every number once
        blobs = [blob for batch in rig.store.committed for entry in batch.entries for blob in entry.events]
        counters = rig.chat.counters()
        assert (counters.events, counters.bytes) == (len(blobs), sum(map(len, blobs)))
        again, call = await rig.begun(chats[min(bad)], id="again")
        call.say("fine").finish()
        assert (await again.end()).text == "fine"
        blocker.finish()
        await rig.ended("blocker")
        before = {chat: await rig.history(chat) for chat in chats}
        clock = rig.clock
    for number in good:
        assert before[chats[number]]["messages"][-1]["parts"] == whole(answers[number])
    await cure(path)
    async with running(path, clock=clock) as rig:
        assert {chat: await rig.history(chat) for chat in chats} == before


async def test_a_row_that_is_there_already_refuses_its_own_request_only(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        answer, call = await rig.begun("bad", id="u1")
        _, blocker = await rig.begun("blocker", id="b")
        there = "INSERT INTO receipts (session, message_id, run, seq) VALUES ('bad', 'x', 'r', {})"
        await sql(path, *(there.format(seq) for seq in range(4, 7)))
        await hold(rig, blocker)
        said: dict[str, Any] = {"id": "n1", "role": "user", "parts": [{"type": "text", "text": "quick"}]}
        note = {"message": said}
        told = asyncio.create_task(rig.ask("POST", "/api/sessions/bad/steer", note))
        posts = [asyncio.create_task(rig.post(f"c{number}", id=f"u{number}")) for number in range(5)]
        await release(rig, 6)
        refused = await told
        assert (refused.status, refused.code) == (503, "not-stored")
        assert "retry-after" in refused.headers
        assert "UNIQUE" not in refused.body.decode()
        assert [(await each).status for each in posts] == [200] * 5
        assert (await answer.end()).frames[-2].chunk["code"] == "not-stored"
        assert call.cancelled
        await rig.agent.called(7)
        assert len(rig.agent.calls) == 7, "each was called once"
        _, call = await rig.begun("bad", id="u2")
        assert (await rig.ask("POST", "/api/sessions/bad/steer", note)).status == 202
        assert rig.sessions._starting == {}


async def test_a_session_whose_ends_are_refused_as_well_is_tried_again_until_they_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        bad, call = await rig.begun("bad", id="u1")
        good, other = await rig.begun("good", id="u2")
        feed = await rig.open("GET", "/api/sessions/bad/events")
        call.say("kept ")
        await bad.until_text("kept ")
        await poison(path, SAID)
        await poison(path, rows_of("messages"))
        refused = refusals(rig)
        await hold(rig, other)
        call.say(POISON)
        await release(rig, 1)
        await bad.end()
        await feed.end()
        for answer in (bad, feed):
            assert (answer.frames[-1].cursor, answer.frames[-1].chunk["code"]) == (None, "store-unavailable")
        await until(lambda: call.closed)
        assert rig.sessions.journal.healthy
        attempts = rig.store.attempts
        await rig.clock.advance(5)
        for _ in range(20):
            await rig.history("good")
        assert rig.store.attempts == attempts, "not in vain all the time"
        await hold(rig, other)
        trying = asyncio.create_task(rig.post("bad", id="u3"))
        other.say("and ")
        await release(rig, 2)
        tried = await trying
        assert (tried.status, tried.code) == (503, "not-stored")
        other.say("goes on").finish()
        assert (await good.end()).text == "..and goes on"
        assert len(refused) > 2
        for batch in refused[2:]:
            assert {entry.session for entry in batch.entries} == {"bad"}, "others are not written beside it"
        await cure(path)
        await rig.passing(lambda: not rig.sessions._live["bad"].live)
        assert await last(rig, "bad") == ("failed", "not-stored")
        assert (await rig.history("bad"))["messages"][-1]["parts"][-1]["text"] == "kept "
        again, call = await rig.begun("bad", id="u4")
        call.say("fine").finish()
        assert (await again.end()).text == "fine"
        await rig.log("bad")


async def test_a_message_tries_at_once_what_is_to_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        answer, call = await rig.begun("bad", id="u1")
        await poison(path, SAID)
        await poison(path, rows_of("messages"))
        call.say(POISON)
        await answer.end()
        await cure(path)
        again, call = await rig.begun("bad", id="u2")
        call.say("fine").finish()
        assert (await again.end()).text == "fine"
        assert [run["status"] for run in (await rig.history("bad"))["runs"].values()] == ["failed", "completed"]


async def test_what_waits_for_its_turn_and_cannot_begin_does_not_wait_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path, submit="queue") as rig:
        first, call = await rig.begun("bad", id="u1")
        second = await rig.post("bad", id="u2")
        queued = next(reversed((await rig.sessions.find("bad")).state.runs))
        await poison(path, f"runs WHEN NEW.id = '{queued}' AND NEW.status = 'running'")
        call.say("said").finish()
        assert (await first.end()).text == "said"
        await second.end()
        assert second.types[-2:] == ["error", "[DONE]"]
        assert second.frames[-2].cursor is not None
        assert await last(rig, "bad") == ("lost", "not-stored")


async def test_segments_that_are_refused_keep_their_words_and_keep_nobody_from_theirs(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        await poison(path, rows_of("log"))
        texts = {"bad": "mine", "good": "yours", "third": "theirs"}
        _, blocker = await rig.begun("blocker", id="b")
        calls = [(await rig.begun(chat, id=chat))[1] for chat in texts]
        await hold(rig, blocker)
        for call, text in zip(calls, texts.values(), strict=True):
            call.say(text).finish()
        await release(rig, 3)
        for chat in texts:
            await rig.ended(chat)
        bad, good = [await rig.sessions.find(chat) for chat in ("bad", "good")]
        await rig.passing(lambda: good.segmented == good.feed.last_seq)
        assert bad.segmented == 0
        with pytest.raises(Exception, match="refuses"):
            await rig.chat.purge()
        answer, call = await rig.begun("bad", id="u2")
        call.say("more").finish()
        assert (await answer.end()).text == "more"
        await rig.passing(lambda: not rig.sessions.journal._segments.due())
        blocker.finish()
        await rig.ended("blocker")
        assert rig.sessions.journal.healthy
        await cure(path)
        await rig.passing(lambda: bad.segmented == bad.feed.last_seq)
        before = {chat: await rig.history(chat) for chat in texts}
        assert await rig.chat.purge()
        clock = rig.clock
    async with running(path, clock=clock) as rig:
        assert {chat: await rig.history(chat) for chat in texts} == before


async def test_what_is_deleted_in_a_batch_that_is_refused_is_gone_from_its_segments_too(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        await rig.begun("e", "a secret", id="u1")
        _, bad = await rig.begun("bad", id="u2")
        _, blocker = await rig.begun("blocker", id="b")
        await poison(path, SAID)
        refused = refusals(rig)
        await hold(rig, blocker)
        bad.say(POISON)
        purging = asyncio.create_task(rig.chat.purge())
        deleting = asyncio.create_task(rig.ask("DELETE", "/api/sessions/e/messages/u1"))
        await release(rig, 2)
        assert (await deleting).status == 204
        assert refused[0].segments
        assert refused[0].erased
        assert await purging
        stored = await rig.store.events("e", 1, 2**62)
        assert len(stored) >= 3
        assert not any(b"secret" in line for _, line in stored)
        clock = rig.clock
    await cure(path)
    async with running(path, clock=clock) as rig:
        assert "secret" not in str(await rig.log_from_store("e"))


async def test_a_journal_that_cannot_be_trimmed_costs_no_run(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        answer, call = await rig.begun()
        await poison(path, "journal", act="DELETE")
        other, quick = await rig.begun("d", id="u2")
        quick.say("said").finish()
        assert (await other.end()).text == "said"
        session = await rig.sessions.find("d")
        await rig.passing(lambda: session.segmented == session.feed.last_seq)
        with pytest.raises(Exception, match="refuses"):
            await rig.chat.purge()
        assert not rig.sessions.journal._segments.due(), "it is not tried with every batch"
        call.say("goes on").finish()
        assert (await answer.end()).text == "goes on"
        await cure(path)
        assert await rig.chat.purge()


async def test_one_session_that_is_refused_at_a_start_keeps_no_other_from_ending(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(journal, "_STOP_PATIENCE", 0.0)
    path = tmp_path / "chat.db"
    async with running(path, commit_patience=0.0) as rig:
        for chat in ("bad", "good"):
            answer, call = await rig.begun(chat, id=chat)
            call.say("kept")
            await answer.until_text("kept")
        clock = rig.clock
        rig.store.fail()  # nothing is written at the end
    await poison(path, rows_of("messages"))
    async with running(path, clock=clock) as rig:
        assert await last(rig, "good") == ("lost", "process-lost")
        assert rig.sessions.journal.healthy
        await cure(path)
        await rig.passing(lambda: not rig.sessions._live["bad"].live)
        assert (await rig.history("bad"))["messages"][-1]["parts"][-1]["text"] == "kept"


async def test_a_store_that_refuses_everything_is_no_sessions_fault(rig: Rig, caplog: Any) -> None:
    _, call = await rig.begun()
    rig.store.fail(ValueError("a defect"))
    call.say("never")
    await until(lambda: not rig.sessions.journal.healthy)
    await until(lambda: "commit-defect" in {getattr(record, "action", None) for record in caplog.records})
    assert "session-defect" not in {getattr(record, "action", None) for record in caplog.records}


def test_the_parts_of_a_batch_are_all_of_it_in_order() -> None:
    works: list[Any] = list(range(9))
    plan = Plan(trim=3)
    assert smaller(works, plan) == [((), plan), (works, Plan())]
    assert smaller((), plan) == smaller(works[:1], Plan()) == []
    for size in range(2, 10):
        parts = smaller(works[:size], Plan())
        assert [work for part, _ in parts for work in part] == works[:size]
        assert len(parts) == 2
        assert all(part for part, _ in parts)
