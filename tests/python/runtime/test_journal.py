"""Append → commit → publish: what is visible when, how much is taken at a time, and what happens when commits fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
from typing import Any

import pytest

from rig import Rig, running
from strandline import Run
from strandline.core.message import fold
from strandline.stores import MemoryStore
from strandline.testing import FailingStore, ManualClock, ScriptedAgent, fold_frames, until


async def test_the_first_delta_is_shown_at_once(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("H")
    await answer.until_text("H")
    assert answer.types == ["start", "start-step", "text-start", "text-delta"]
    assert answer.frames[0].chunk["messageId"] == call.run.message_id


async def test_nothing_is_visible_before_it_is_committed(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("seen ")
    await answer.until_text("seen ")
    rig.store.hang()
    call.say("unseen")
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    late = await rig.resume("c")
    feed = await rig.ask("GET", "/api/sessions/c")
    assert answer.text == late.text == "seen "
    assert "unseen" not in feed.body.decode()
    assert (await rig.history("c"))["activeRun"]["id"] == call.run.id
    rig.store.mend()
    await answer.until_text("seen unseen")
    await late.until_text("seen unseen")


async def test_a_message_that_is_not_committed_starts_no_agent_and_answers_nothing(rig: Rig) -> None:
    rig.store.hang()
    posting = asyncio.create_task(rig.post("c"))
    await until(lambda: rig.store.attempts == 1)
    assert not rig.agent.calls
    assert not posting.done()
    assert (await rig.resume("c")).status == 204
    rig.store.mend()
    assert (await posting).status == 200


async def test_numbers_are_gapless_and_published_in_order_of_commits(rig: Rig) -> None:
    answer, call = await rig.begun()
    for number in range(40):
        call.say(f"{number} ")
        await asyncio.sleep(0)
    call.finish()
    await answer.end()
    log = await rig.log()
    assert [event["type"] for event in log[:3]] == ["message-created", "run-queued", "run-started"]
    assert log[-1]["type"] == "run-ended"
    cursors = [frame.cursor for frame in answer.frames if frame.cursor]
    assert cursors == sorted(cursors, key=lambda cursor: [int(part) for part in cursor.split(".")[1:]])
    assert len(set(cursors)) == len(cursors)


async def test_deltas_that_wait_for_the_same_commit_become_one_and_the_message_is_the_same(rig: Rig) -> None:
    dice = random.Random(3)
    answer, call = await rig.begun()
    expected = ""
    for _ in range(30):
        rig.store.hang()
        for _ in range(dice.randint(1, 12)):
            piece = dice.choice(["a", "äö", "🦩", " ", "word "])
            expected += piece
            call.say(piece)
        await asyncio.sleep(0.001)
        rig.store.mend()
    call.finish()
    await answer.end()
    assert answer.text == expected
    log = await rig.log()
    chunks = [chunk for event in log if event["type"] == "appended" for chunk in event["chunks"]]
    deltas = [chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta"]
    assert len(deltas) <= 62, "two commits at most for each time that the store was held back"
    assert "".join(deltas) == expected
    stored = (await rig.history("c"))["messages"][-1]
    assert stored["parts"] == fold([{"type": "start", "messageId": "m"}, *chunks]).parts()
    for event in log:
        if event["type"] == "appended":
            kinds = [(chunk["type"], chunk.get("id")) for chunk in event["chunks"]]
            assert all(one != next or one[0] != "text-delta" for one, next in itertools.pairwise(kinds))


async def test_a_run_with_too_much_pending_waits_for_a_commit_and_goes_on() -> None:
    said: list[int] = []
    go = asyncio.Event()

    async def agent(run: Run) -> None:
        await go.wait()
        for number in range(40):
            await run.text("x" * 1000)
            said.append(number)

    async with running(agent=agent, pending_limit=10_000) as rig:
        answer = await rig.post("c")
        rig.store.hang()
        go.set()
        await until(lambda: rig.store.attempts > len(rig.store.committed))
        for _ in range(50):
            await asyncio.sleep(0)
        stuck = len(said)
        assert 1 <= stuck <= 22, "what is being committed, and one limit more"
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(said) == stuck
        rig.store.mend()
        await answer.end()
        assert len(said) == 40
        assert answer.text == "x" * 40_000


async def test_an_agent_that_never_waits_lets_the_loop_go_on_every_64_chunks() -> None:
    turns = 0
    seen: list[int] = []

    async def agent(run: Run) -> None:
        for number in range(640):
            await run.text("x")
            seen.append(turns)
            if number == 0:
                asyncio.get_running_loop().call_soon(count)

    def count() -> None:
        nonlocal turns
        turns += 1
        if turns < 10_000:
            asyncio.get_running_loop().call_soon(count)

    async with running(agent=agent) as rig:
        answer = await rig.post("c")
        await answer.end()
        turns = 10_000
    runs = [seen.count(turn) for turn in set(seen)]
    assert max(runs) <= 65
    assert len(runs) >= 9


async def test_a_commit_takes_no_more_than_its_limit_and_every_session_gets_its_turn() -> None:
    async with running(commit_limit=4000) as rig:
        answers = []
        for number in range(8):
            answer, _ = await rig.begun(f"c{number}", id=f"u{number}")
            answers.append(answer)
        rig.store.hang()
        rig.agent.calls[0].say("wait")
        await until(lambda: rig.store.attempts > len(rig.store.committed))
        before = len(rig.store.committed)
        for call in rig.agent.calls:
            call.say("x" * 1500)
        for _ in range(20):
            await asyncio.sleep(0)
        rig.store.mend()
        for answer in answers:
            await answer.until_text("x" * 1500)
        batches = rig.store.committed[before + 1 :]
        sizes = [sum(len(blob) for entry in batch.entries for blob in entry.events) for batch in batches]
        assert max(sizes) <= 4000 + 2000
        served = [entry.session for batch in batches for entry in batch.entries]
        assert sorted(served[:8]) == [f"c{number}" for number in range(8)], "nobody twice before everybody once"


async def test_many_runs_share_few_commits(rig: Rig) -> None:
    answers = [await rig.post(f"c{number}", id=f"u{number}") for number in range(30)]
    await rig.agent.called(30)
    before = len(rig.store.committed)
    rig.store.hang()
    for _ in range(5):
        for call in rig.agent.calls:
            call.say("word ")
        for _ in range(12):
            await asyncio.sleep(0)
    rig.store.mend()
    for answer in answers:
        await answer.until_text("word " * 5)
    assert len(rig.store.committed) - before <= 3


async def test_a_cancelled_request_does_not_undo_its_message(rig: Rig) -> None:
    rig.store.hang()
    posting = asyncio.create_task(rig.post("c"))
    await until(lambda: rig.store.attempts == 1)
    for task in asyncio.all_tasks():
        if "Client.open.<locals>.call" in repr(task):
            task.cancel()
    posting.cancel()
    rig.store.mend()
    call = await rig.agent.called()
    call.say("still here").finish()
    await rig.ended()
    assert (await rig.history("c"))["messages"][-1]["parts"][-1]["text"] == "still here"


# ---------------------------------------------------------------------- commits that fail


async def test_a_commit_that_fails_for_a_while_loses_nothing(rig: Rig) -> None:
    answer, call = await rig.begun()
    rig.store.fail()
    call.say("one ", "two ", "three")
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    await rig.clock.advance(5)
    assert answer.text == ""
    assert not answer.over
    assert (await rig.ask("GET", "/api/readyz")).status == 200
    rig.store.mend()
    await rig.clock.advance(2)
    call.finish()
    await answer.end()
    assert answer.text == "one two three"
    assert answer.types[-2:] == ["finish", "[DONE]"]
    await rig.log()


async def given_up(rig: Rig) -> None:
    rig.store.fail()
    for call in rig.agent.calls:
        call.say("never stored")
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    for _ in range(15):
        await rig.clock.advance(1)
    assert not rig.chat.service.ready


async def test_when_commits_are_given_up_runs_are_cancelled_and_readers_are_told(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("kept ")
    await answer.until_text("kept ")
    feed = await rig.open("GET", "/api/sessions/c/events")
    await given_up(rig)
    await answer.end()
    await feed.end()
    last = answer.frames[-1]
    assert (last.cursor, last.chunk["type"], last.chunk["code"]) == (None, "error", "store-unavailable")
    assert (feed.frames[-1].cursor, feed.frames[-1].chunk["code"]) == (None, "store-unavailable")
    assert answer.text == "kept "
    await until(lambda: call.closed)
    assert call.cancelled
    health = await rig.ask("GET", "/api/readyz")
    assert (health.status, health.json) == (503, {"ready": False, "reason": "store-unavailable"})


async def test_while_given_up_nothing_new_is_taken_and_reading_still_works(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.finish()
    await answer.end()
    await rig.begun("other")
    await given_up(rig)
    refused = await rig.post("c", id="u2")
    assert (refused.status, refused.code) == (503, "store-unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    refused = await rig.stop("other")
    assert (refused.status, refused.code) == (503, "store-unavailable")
    assert len((await rig.history("c"))["messages"]) == 2
    assert (await rig.resume("other")).frames[-1].chunk["code"] == "store-unavailable"


async def test_everybody_who_waits_is_refused_when_commits_are_given_up(rig: Rig) -> None:
    await rig.begun()
    rig.store.fail()
    first = [asyncio.create_task(rig.post(f"c{number}", id="x")) for number in range(3)]
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    second = [asyncio.create_task(rig.post(f"c{number}", id="y")) for number in range(5)]
    stopping = asyncio.create_task(rig.stop("c"))
    for _ in range(15):
        await rig.clock.advance(1)
    for task in [*first, *second, stopping]:
        assert (await task).status == 503


async def test_when_the_store_is_back_the_runs_have_ended_as_lost_and_everything_works(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("kept ")
    await answer.until_text("kept ")
    quiet, other = await rig.begun("quiet", id="q1")
    other.finish()
    await quiet.end()
    await given_up(rig)
    rig.store.mend()
    await rig.clock.advance(2)
    await until(lambda: rig.chat.service.ready)
    await rig.ended()
    history = await rig.history("c")
    assert [message["role"] for message in history["messages"]] == ["user", "assistant"]
    assert history["messages"][1]["parts"][-1]["text"] == "kept "
    (run,) = history["runs"].values()
    assert (run["status"], run["reason"]) == ("lost", "store-unavailable")
    # A session that had nothing to do with it is read again as well.
    again, call = await rig.begun("quiet", id="q2")
    call.say("fine").finish()
    await again.end()
    assert (again.text, again.types[-1]) == ("fine", "[DONE]")


async def test_an_idle_service_finds_out_by_itself_that_the_store_is_back(rig: Rig) -> None:
    rig.store.fail()
    posting = asyncio.create_task(rig.post("c"))
    await until(lambda: rig.store.attempts == 1)
    for _ in range(15):
        await rig.clock.advance(1)
    assert (await posting).status == 503
    rig.store.mend()
    await rig.clock.advance(3)
    await until(lambda: rig.chat.service.ready)
    assert (await rig.post("c")).status == 200


async def test_a_natural_end_that_waits_when_commits_are_given_up_is_not_called_completed(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("kept ")
    await answer.until_text("kept ")
    rig.store.fail()
    call.say("lost words").finish()
    await until(lambda: rig.store.attempts > len(rig.store.committed) and call.closed)
    for _ in range(15):
        await rig.clock.advance(1)
    rig.store.mend()
    await rig.clock.advance(2)
    await rig.ended()
    history = await rig.history("c")
    assert [run["status"] for run in history["runs"].values()] == ["lost"]
    assert history["messages"][-1]["parts"][-1]["text"] == "kept "


async def test_a_failure_that_no_store_should_have_is_logged_and_survived(rig: Rig, caplog: Any) -> None:
    answer, call = await rig.begun()
    rig.store.fail(ValueError("a defect"))
    call.say("never")
    await answer.end()
    assert answer.frames[-1].chunk["code"] == "store-unavailable"
    assert "a defect" in caplog.text
    rig.store.mend()
    await rig.clock.advance(3)
    await until(lambda: rig.chat.service.ready)
    assert (await rig.post("c", id="u2")).status == 200


async def test_readers_hang_on_while_the_store_hangs_and_the_loop_stays_free(rig: Rig) -> None:
    answer, call = await rig.begun()
    feed = await rig.open("GET", "/api/sessions/c/events")
    rig.store.hang()
    call.say("x")
    await asyncio.sleep(0.02)
    assert not answer.over
    assert not feed.over
    rig.store.mend()
    await answer.until_text("x")


async def test_what_cannot_be_written_ends_its_run_and_nobody_elses(rig: Rig, caplog: Any) -> None:
    answer, call = await rig.begun("good")
    bad, worse = await rig.begun("bad")
    session = await rig.sessions.find("bad")
    session.live[worse.run.id].pending.add({"type": "text-delta", "id": "t", "delta": "\ud800"}, 10, 1000)
    rig.sessions.journal.mark(session)
    await bad.end()
    assert bad.frames[-2].chunk["code"] == "chunk-refused"
    call.say("fine").finish()
    await answer.end()
    assert answer.text == "fine"


async def test_shutting_down_with_a_dead_store_does_not_hang() -> None:
    async with asyncio.timeout(10):
        async with running(commit_patience=0.0) as rig:
            _, call = await rig.begun()
            await given_up(rig)
        assert call.closed


# ---------------------------------------------------------------------- segments and the journal


async def test_a_run_that_has_ended_is_in_segments_and_the_journal_is_trimmed(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    answer, call = await rig.begun()
    call.say("words").finish()
    await answer.end()
    await rig.clock.advance(11)
    session = await rig.sessions.find("c")
    await until(lambda: session.segmented == session.feed.last_seq)
    await rig.post("other", id="o1")
    segments = [segment for batch in rig.store.committed for segment in batch.segments]
    assert {segment.run for segment in segments} == {None, call.run.id}
    assert max(batch.trim or 0 for batch in rig.store.committed) > 0
    events = await rig.store.events("c", 1, 10**9)
    assert [seq for seq, _ in events] == list(range(1, session.feed.last_seq + 1))


async def test_a_long_run_is_segmented_by_age(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("old ")
    await answer.until_text("old ")
    assert not [batch for batch in rig.store.committed if batch.segments]
    await rig.clock.advance(9)
    assert not [batch for batch in rig.store.committed if batch.segments]
    await rig.clock.advance(2)
    await until(lambda: [batch for batch in rig.store.committed if batch.segments])
    # The session's row is no older than its log, although nothing but the log has changed since.
    batch = next(batch for batch in rig.store.committed if batch.segments)
    assert batch.sessions[0].last_seq == max(segment.last_seq for segment in batch.segments)
    call.say("new").finish()
    await answer.end()
    assert answer.text == "old new"


async def test_a_long_run_is_segmented_by_size_and_leaves_memory() -> None:
    async with running(tail_limit=20_000, delta_limit=1000) as rig:
        answer, call = await rig.begun()
        for number in range(60):
            call.say(f"{number:04d}" + "x" * 996)
            await answer.until_text(f"{number:04d}")
        session = await rig.sessions.find("c")
        await until(lambda: session.feed.size <= 21_000)
        assert session.feed.first_seq > 10
        assert max(len(batch.segments) for batch in rig.store.committed) <= 8
        call.finish()
        await answer.end()
        assert len(answer.text) == 60_000


async def test_few_sessions_are_segmented_per_commit(rig: Rig) -> None:
    for number in range(40):
        answer, call = await rig.begun(f"c{number}", id=f"u{number}")
        call.say("x")
        await answer.until_text("x")
    before = len(rig.store.committed)
    await rig.clock.advance(11)
    sessions = [await rig.sessions.find(f"c{number}") for number in range(40)]
    await until(lambda: all(session.segmented == session.feed.last_seq for session in sessions))
    per_commit = [len({segment.session for segment in batch.segments}) for batch in rig.store.committed[before:]]
    assert max(per_commit) <= 8
    assert rig.store.committed[-1].trim is not None


async def test_a_restart_at_any_moment_finds_every_event_once() -> None:
    memory, clock = MemoryStore(), ManualClock()
    expected: dict[int, bytes] = {}
    for turn in range(6):
        store = FailingStore(memory)
        async with running(store=store, clock=clock, tail_limit=500 * turn) as rig:
            answer, call = await rig.begun(id=f"u{turn}")
            for number in range(5 * turn):
                call.say(f"{number} ")
                await answer.until_text(f"{number} ")
            await clock.advance(6)
            if turn % 2:
                call.finish()
                await answer.end()
        for batch in store.committed:
            for entry in batch.entries:
                expected |= dict(enumerate(entry.events, entry.first_seq))
    await memory.open()
    assert await memory.events("c", 1, 10**9) == sorted(expected.items())
    assert list(expected) == list(range(1, len(expected) + 1))
    kinds = [json.loads(blob)["type"] for blob in expected.values()]
    assert kinds.count("run-ended") == kinds.count("run-queued") == 6
    await memory.close()


async def test_idle_sessions_leave_memory_and_come_back_as_they_were(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("words").finish()
    await answer.end()
    warm = await rig.history("c")
    await rig.go_cold()
    assert await rig.history("c") == warm
    again, call = await rig.begun(id="u2")
    call.say("more").finish()
    await again.end()
    assert [event["type"] for event in await rig.log()].count("run-ended") == 2
    assert call.run.messages[0]["id"] == "u1"


async def test_a_session_with_a_reader_or_a_run_stays_in_memory(rig: Rig) -> None:
    answer, call = await rig.begun()
    await rig.clock.jump(200)
    await rig.clock.advance(1)
    assert [session.id for session in rig.sessions.in_memory()] == ["c"]
    call.finish()
    await answer.end()
    feed = await rig.open("GET", "/api/sessions/c/events")
    await feed.until(lambda: feed.frames)
    await rig.clock.jump(200)
    await rig.clock.advance(1)
    assert [session.id for session in rig.sessions.in_memory()] == ["c"]
    await feed.drop()
    await rig.clock.jump(200)
    await rig.clock.advance(1)
    await until(lambda: not rig.sessions.in_memory())


async def test_a_journal_that_dies_is_not_a_service_that_looks_well(rig: Rig, caplog: Any) -> None:
    answer, call = await rig.begun()
    rig.sessions.journal._publish = None  # a defect
    with caplog.at_level(logging.CRITICAL):
        call.say("x")
        await answer.end()
    assert "the journal has died" in caplog.text
    assert (await rig.ask("GET", "/api/readyz")).status == 503
    assert (await rig.post("d", id="u2")).status == 503


@pytest.mark.parametrize("agent", [ScriptedAgent("a", "b", "c")])
async def test_a_reader_that_comes_after_the_end_of_an_instant_reply_has_it_all(rig: Rig, agent: Any) -> None:
    async with running(agent=agent) as quick:
        answers = [await quick.post("c") for _ in range(3)]
        for answer in answers:
            await answer.end()
            assert fold_frames(answer.frames).parts()[-1]["text"] == "abc"
        assert len(agent.calls) == 1
