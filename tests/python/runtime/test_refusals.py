"""A commit that the store refuses for what one session says: nobody else notices, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from poisoned import POISON, SAID, cure, hold, poison, refusals, release, rows_of, sql
from rig import Answer, Rig, running
from strandline.runtime import journal
from strandline.runtime.refusals import smaller
from strandline.runtime.segments import Plan
from strandline.stores.port import Batch
from strandline.testing import fold_frames, until


def whole(answer: Answer) -> list[Any]:
    """The parts that a reader ends with."""
    return fold_frames(answer.frames).parts()


async def last(rig: Rig, chat: str) -> tuple[str, str]:
    run = list((await rig.history(chat))["runs"].values())[-1]
    return run["status"], run["reason"]


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
        await release(rig)
        for number in bad:
            await answers[number].end()
            ended = answers[number].frames[-2]
            assert (ended.chunk["type"], ended.chunk["code"]) == ("error", "not-stored")
            assert ended.cursor is not None
            assert answers[number].text == "one "
            assert await last(rig, chats[number]) == ("failed", "not-stored")
            assert calls[number].cancelled
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
        assert rig.chat.service.ready
        blamed = [record for record in caplog.records if getattr(record, "action", "").endswith("-defect")]
        assert sorted(record.session for record in blamed) == [chats[number] for number in sorted(bad)]
        assert {record.action for record in blamed} == {"session-defect"}
        assert "refused" in caplog.text
        for chat in chats:
            await rig.log(chat)  # every number once
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
        await release(rig)
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
        await hold(rig, other)
        call.say(POISON)
        await release(rig)
        await bad.end()
        await feed.end()
        for answer in (bad, feed):
            assert (answer.frames[-1].cursor, answer.frames[-1].chunk["code"]) == (None, "store-unavailable")
        await until(lambda: call.closed)
        assert rig.chat.service.ready
        attempts = rig.store.attempts
        await rig.clock.advance(5)
        assert rig.store.attempts == attempts, "not in vain all the time"
        tried = await rig.post("bad", id="u3")
        assert (tried.status, tried.code) == (503, "not-stored")
        other.say("goes on").finish()
        assert (await good.end()).text == ".goes on"
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
        await release(rig)
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
        blocker.finish()
        await rig.ended("blocker")
        assert rig.chat.service.ready
        await cure(path)
        await rig.passing(lambda: bad.segmented == bad.feed.last_seq)
        before = {chat: await rig.history(chat) for chat in texts}
        assert await rig.chat.purge()
        clock = rig.clock
    async with running(path, clock=clock) as rig:
        assert {chat: await rig.history(chat) for chat in texts} == before


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
        assert rig.chat.service.ready
        await cure(path)
        await rig.passing(lambda: not rig.sessions._live["bad"].live)
        assert (await rig.history("bad"))["messages"][-1]["parts"][-1]["text"] == "kept"


# ---------------------------------------------------------------------- in the middle of it


async def interrupted(rig: Rig, path: Path, act: Any) -> list[asyncio.Task[Answer]]:
    """Five messages in one batch, which is refused; ``act`` is done once the first of its parts was taken."""
    _, blocker = await rig.begun("blocker", id="b")
    await poison(path, rows_of("messages", "c3"))
    refused, inner = refusals(rig), rig.store.inner.commit

    async def commit(batch: Batch) -> None:
        await inner(batch)
        if refused and batch.messages:
            rig.store.inner.commit = inner  # type: ignore[method-assign]
            act()

    await hold(rig, blocker)
    rig.store.inner.commit = commit  # type: ignore[method-assign]
    posts = [asyncio.create_task(rig.post(f"c{number}", id=f"u{number}")) for number in range(5)]
    await release(rig)
    return posts


async def test_an_outage_in_the_middle_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        posts = await interrupted(rig, path, rig.store.fail)
        await rig.passing(lambda: not rig.chat.service.ready)
        answers = [await post for post in posts]
        assert [answer.status for answer in answers] == [200, 200, 503, 503, 503]
        assert {answer.code for answer in answers[2:]} == {"store-unavailable"}
        await cure(path)
        rig.store.mend()
        await rig.passing(lambda: rig.chat.service.ready)
        assert await last(rig, "c0") == ("lost", "store-unavailable")
        again, call = await rig.begun("c3", id="u3")
        call.say("fine").finish()
        assert (await again.end()).text == "fine"
        await rig.log("c3")


async def test_a_shutdown_in_the_middle_leaves_nobody_waiting(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(journal, "_STOP_PATIENCE", 0.0)
    path = tmp_path / "chat.db"
    async with asyncio.timeout(30):
        async with running(path, commit_patience=0.0) as rig:
            posts = await interrupted(rig, path, rig.store.hang)
            await until(lambda: posts[0].done())
            clock = rig.clock
        answers = [await post for post in posts]
        assert [answer.status for answer in answers] == [200, 200, 503, 503, 503]
        assert {answer.code for answer in answers[2:]} == {"shutting-down"}
    await cure(path)
    async with running(path, clock=clock) as rig:
        assert await last(rig, "c0") == ("lost", "process-lost")


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
