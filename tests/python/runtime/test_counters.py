"""``chat.counters()``: exact figures for what was made to happen, taken from any thread, and never less than before."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rig import SHIM, Answer, Rig, running
from strandline import Strandline, open_on_loopback
from strandline.runtime.counters import (
    BYTES,
    EVENTS,
    GAUGES,
    MAX_CODES,
    SECONDS,
    Counters,
    Distribution,
    Histogram,
    Tally,
)
from strandline.stores import MemoryStore, SqliteStore
from strandline.testing import FailingStore, until

FIELDS = [field.name for field in dataclasses.fields(Counters)]


def only(histogram: Histogram) -> dict[float, int]:
    """Bound → how many, without the empty ones."""
    bounds = [*histogram.bounds, float("inf")]
    return {bound: count for bound, count in zip(bounds, histogram.counts, strict=True) if count}


def said(counted: Mapping[str, int]) -> dict[str, int]:
    """Without those that are 0."""
    return {name: count for name, count in counted.items() if count}


def zero() -> Counters:
    return Tally().reading()


def test_a_reading_is_frozen_and_of_plain_values_that_json_can_say() -> None:
    made = zero()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.commits = 1  # type: ignore[misc]
    plain = dataclasses.asdict(made)
    assert json.loads(json.dumps(plain)) == json.loads(orjson.dumps(made))
    for name, value in plain.items():
        assert isinstance(value, int | dict), name


def test_a_distribution_counts_what_is_at_most_its_bound() -> None:
    distribution = Distribution((1.0, 2.5))
    for value in (0.0, 1.0, 1.01, 2.5, 3.0, 1000.0):
        distribution.add(value)
    reading = distribution.reading()
    assert (reading.counts, reading.count, reading.sum) == ((2, 2, 2), 6, 1007.51)
    assert all(list(bounds) == sorted(set(bounds)) for bounds in (SECONDS, EVENTS, BYTES))


def test_a_reading_does_not_move_on() -> None:
    tally = Tally()
    before = tally.reading()
    tally.runs_ended["completed"] += 1
    tally.resumes["tail"] += 1
    tally.refused("x")
    tally.committed(1)
    assert before == zero()


def test_the_codes_that_an_application_invents_are_bounded() -> None:
    tally = Tally()
    for number in range(MAX_CODES + 5):
        tally.refused(f"code-{number}")
    tally.refused("code-3")
    refused = tally.reading().requests_refused
    assert (len(refused), refused["other"], refused["code-3"]) == (MAX_CODES + 1, 5, 2)


# ---------------------------------------------------------------------- what was made to happen


async def test_before_the_start_and_after_the_end_it_can_be_read_too() -> None:
    chat = Strandline("memory:", auth=open_on_loopback())
    assert chat.counters() == zero()
    async with running() as rig:
        answer, call = await rig.begun()
        call.finish()
        await answer.end()
        during = rig.chat.counters()
        assert (during.active_runs, during.sessions_in_memory) == (0, 1)
    after = rig.chat.counters()
    assert (after.sessions_in_memory, after.readers) == (0, 0)
    assert after.runs_ended == during.runs_ended
    async with rig.chat.lifespan():
        assert rig.chat.counters().runs_ended == during.runs_ended, "totals of the object, not of one life"


async def test_what_was_committed_is_counted_exactly(rig: Rig) -> None:
    answers = []
    for number in range(3):
        answer, call = await rig.begun(f"c{number}", id=f"u{number}")
        call.say("one ", {"type": "data-x", "data": 1}, "two")
        answers.append((answer, call))
    for answer, call in answers:
        await answer.until_text("two")
        call.finish()
        await answer.end()
    found = rig.chat.counters()
    batches = [batch for batch in rig.store.committed if batch.entries]
    blobs = [blob for batch in batches for entry in batch.entries for blob in entry.events]
    assert found.commits == len(rig.store.committed)
    assert found.events == len(blobs)
    assert found.bytes == sum(map(len, blobs))
    logs = [await rig.log(f"c{number}") for number in range(3)]
    # What comes right before an end closes what the agent has left open; it did not say that.
    added = [event for log in logs for event, after in pairwise(log) if after["type"] != "run-ended"]
    assert found.chunks == sum(len(event.get("chunks", ())) for event in added) > 9
    assert found.batch_events.count == found.batch_bytes.count == found.added_lag_seconds.count == len(batches)
    assert (found.batch_events.sum, found.batch_bytes.sum) == (found.events, found.bytes)
    assert found.commit_seconds.count == found.commits
    assert (found.commit_failures, found.commit_retries) == (0, 0)
    assert (found.submits, found.runs_started, said(found.runs_ended)) == (3, 3, {"completed": 3})


async def test_how_long_a_commit_takes_and_how_long_the_first_of_a_batch_has_waited(rig: Rig) -> None:
    answer, call = await rig.begun()
    before = rig.chat.counters()
    rig.store.hang()
    call.say("first ")
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    await rig.clock.advance(0.2)
    call.say("second")
    await until(lambda: rig.chat.counters().pending_bytes)
    pending = rig.chat.counters().pending_bytes
    await rig.clock.advance(0.05)
    call.say(" third")
    await until(lambda: rig.chat.counters().pending_bytes > pending)
    await rig.clock.advance(0.05)
    rig.store.mend()
    await answer.until_text("first second third")
    after = rig.chat.counters()
    assert after.pending_bytes == 0
    assert after.commits == before.commits + 2
    # The first commit took 0.3 s, the second none; what it held had waited for 0.1 s behind the first.
    assert after.commit_seconds.sum - before.commit_seconds.sum == pytest.approx(0.3)
    assert after.added_lag_seconds.sum - before.added_lag_seconds.sum == pytest.approx(0.4)
    assert only(after.added_lag_seconds) == {0.001: before.added_lag_seconds.count, 0.1: 1, 0.5: 1}


async def test_what_does_not_fit_into_a_commit_has_waited_since_it_came() -> None:
    async with running(commit_limit=256) as rig:
        calls = [await rig.begun(name, id=name) for name in ("a", "b", "c")]
        before = rig.chat.counters()
        rig.store.hang()
        calls[0][1].say("wait")
        await until(lambda: rig.store.attempts > len(rig.store.committed))
        for _, call in calls:
            call.say("x" * 300)
        await until(lambda: rig.chat.counters().pending_bytes > 900)
        await rig.clock.advance(0.3)
        rig.store.mend()
        for answer, _ in calls:
            await answer.until_text("x" * 300)
        after = rig.chat.counters()
        assert after.commits - before.commits == 4, "one session per commit"
        assert after.added_lag_seconds.sum - before.added_lag_seconds.sum == pytest.approx(4 * 0.3)


async def test_commits_that_fail_are_counted_and_so_are_those_that_are_tried_again(rig: Rig) -> None:
    answer, call = await rig.begun()
    before = rig.chat.counters()
    rig.store.fail()
    call.say("x")
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    for _ in range(3):
        await rig.clock.advance(0.2)
    rig.store.mend()
    await rig.clock.advance(2)
    await answer.until_text("x")
    after = rig.chat.counters()
    assert after.commit_failures == rig.store.attempts - len(rig.store.committed) > 1
    assert after.commit_retries == after.commit_failures, "each was followed by another attempt"
    assert after.commits == before.commits + 1


async def test_every_end_is_counted_by_its_status(rig: Rig) -> None:
    for name, how in (("done", "finish"), ("broken", "fail"), ("stopped", "stop")):
        answer, call = await rig.begun(name, id=name)
        if how == "finish":
            call.finish()
        elif how == "fail":
            call.fail(RuntimeError("a defect of the agent"))
        else:
            assert (await rig.stop(name)).json["stopped"]
        await answer.end()
    await rig.stop("idle", messageId="early")
    answer = await rig.post("idle", id="early")  # born stopped
    await answer.end()
    await rig.begun("going", id="going")
    found = rig.chat.counters()
    assert said(found.runs_ended) == {"completed": 1, "failed": 1, "stopped": 2}
    assert (found.runs_started, found.active_runs, found.submits) == (4, 1, 5)
    assert (found.stops, found.stop_seconds.count) == (2, 1), "one has met nothing yet"


async def test_how_long_a_stop_takes(rig: Rig) -> None:
    await rig.begun()
    rig.store.hang()
    stopping = asyncio.create_task(rig.stop("c"))
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    await rig.clock.advance(0.04)
    rig.store.mend()
    assert (await stopping).json["stopped"]
    assert not (await rig.stop("c")).json["stopped"]
    found = rig.chat.counters()
    assert (found.stops, only(found.stop_seconds)) == (2, {0.05: 1})


async def test_who_attaches_to_a_run_that_is_there_starts_none(rig: Rig) -> None:
    await rig.begun()
    await rig.post("c")
    found = rig.chat.counters()
    assert (found.submits, found.runs_started, found.readers) == (2, 1, 2)


async def test_resumes_are_counted_by_what_they_are_given(rig: Rig) -> None:
    assert (await rig.resume("nowhere")).status == 204
    answer, call = await rig.begun()
    call.say("one ")
    await answer.until_text("one ")
    cursor = answer.cursor
    await (await rig.resume("c")).until_text("one ")
    await rig.resume("c", cursor)
    await rig.resume("c", "garbage")  # a stock client: all of it
    await rig.resume("c", "garbage", shim=True)
    assert said(rig.chat.counters().resumes) == {"none": 1, "whole": 2, "tail": 1, "resync": 1}
    await rig.open("GET", "/api/sessions/c/events")
    await rig.open("GET", f"/api/sessions/c/events?after={cursor}")
    assert said(rig.chat.counters().resumes) == {"none": 1, "whole": 3, "tail": 2, "resync": 1}
    joined = await rig.open("GET", f"/api/tanstack?offset=-1&runId={call.run.id}")
    await joined.until(lambda: joined.cursor is not None)
    await rig.open("GET", f"/api/tanstack?offset={joined.cursor}&runId={call.run.id}")
    await rig.open("GET", f"/api/tanstack/events?threadId=c&after={cursor}")
    assert (await rig.ask("GET", f"/api/tanstack?offset=garbage&runId={call.run.id}")).status == 409
    found = rig.chat.counters()
    assert said(found.resumes) == {"none": 1, "whole": 4, "tail": 4, "resync": 2}
    assert said(found.requests_refused) == {"resync": 1}


@asynccontextmanager
async def choking() -> AsyncIterator[Rig]:
    """A server whose writes to the reader ``slow`` never return once they say ``choke``."""

    def choked(app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def choke(message: Any) -> None:
                if b"choke" in message.get("body", b"") and b"slow" in scope["query_string"]:
                    await asyncio.Event().wait()
                await send(message)

            await app(scope, receive, choke)

        return wrapped

    async with running(wrap=choked, send_timeout=0.05) as rig:
        yield rig


async def test_readers_that_come_are_replaced_and_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with choking() as rig:
        answer, call = await rig.begun()
        feeds: list[Answer] = []
        for _ in range(3):
            feeds.append(await rig.open("GET", "/api/sessions/c/events", headers={"Strandline-Reader": "page"}))
            await feeds[-1].until(lambda: feeds[-1].frames)
        await feeds[0].end()
        await feeds[1].end()
        slow = await rig.open("GET", "/api/sessions/c/events?reader=slow")
        found = rig.chat.counters()
        assert (found.readers_attached, found.readers_replaced, found.readers_dropped) == (5, 2, 0)
        assert found.readers == 3
        with caplog.at_level("INFO", "strandline"):
            call.say("choke")
            await slow.end()
        await until(lambda: rig.chat.counters().readers_dropped == 1)
        assert rig.chat.counters().readers == 2
        [dropped] = [record for record in caplog.records if vars(record).get("action") == "reader-dropped"]
        assert (vars(dropped)["session"], vars(dropped)["reader"]) == ("c", "slow")
        call.finish()
        await answer.end()
    assert rig.chat.counters().readers == 0


async def test_what_is_refused_is_counted_by_its_code(rig: Rig) -> None:
    await rig.ask("GET", "/api/sessions/nobody")
    await rig.ask("GET", "/api/sessions/nobody/readers")
    await rig.ask("GET", "/api/nowhere")  # the application's own 404
    await rig.ask("POST", "/api/chat", {"id": "a/b", "messages": []})
    await rig.stop("c", run="no-such-run")
    rig.sessions.accepting = False
    await rig.post("c")
    rig.sessions.accepting = True
    rig.store.fail(RuntimeError("a defect"), reads=True)
    assert (await rig.resume("other")).status == 500
    rig.store.mend()
    refused = rig.chat.counters().requests_refused
    assert refused == {"not-found": 3, "invalid-id": 1, "shutting-down": 1, "internal": 1}


async def test_sessions_that_are_deleted_and_that_leave_memory(rig: Rig) -> None:
    for name in ("a", "b"):
        answer, call = await rig.begun(name, id=name)
        call.finish()
        await answer.end()
    assert (await rig.ask("DELETE", "/api/sessions/a")).status == 204
    await rig.go_cold("b")
    found = rig.chat.counters()
    assert (found.sessions_deleted, found.sessions_evicted, found.sessions_in_memory) == (1, 1, 0)


async def test_runs_of_an_earlier_process_are_counted_as_recovered(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db") as rig:
        for name in ("a", "b"):
            answer, call = await rig.begun(name, id=name)
            call.say("said")
            await answer.until_text("said")
        for end in ("chat.db", "chat.db-wal"):
            (tmp_path / f"copy-{end}").write_bytes((tmp_path / end).read_bytes())
    for end in ("chat.db", "chat.db-wal"):
        (tmp_path / f"copy-{end}").rename(tmp_path / end)
    async with running(tmp_path / "chat.db") as again:
        found = again.chat.counters()
        assert (found.runs_recovered, said(found.runs_ended), found.runs_started) == (2, {"lost": 2}, 0)


async def test_segments_that_the_retention_lets_go_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "strandline")
    async with running(log_retention=3600.0) as rig:
        answer, call = await rig.begun()
        call.finish()
        await answer.end()
        await rig.go_cold()
        assert rig.chat.counters().segments_expired == 0
        await rig.clock.jump(3700)
        await rig.passing(lambda: rig.chat.counters().segments_expired)
        [record] = [record for record in caplog.records if vars(record).get("action") == "log-expired"]
        assert vars(record)["segments"] == rig.chat.counters().segments_expired == 2


async def test_it_can_be_read_from_other_threads_while_everything_moves(tmp_path: Path) -> None:
    over, readings, failures = threading.Event(), 0, []

    async with running(store=FailingStore(SqliteStore(tmp_path / "chat.db"))) as rig:

        def read() -> None:
            nonlocal readings
            last = zero()
            while not over.wait(0.0005):
                try:
                    now = rig.chat.counters()
                    assert_no_less(last, now)
                    last, readings = now, readings + 1
                except BaseException as error:
                    failures.append(error)
                    return

        thread = threading.Thread(target=read)
        thread.start()
        try:
            for number in range(40):
                answer, call = await rig.begun(f"c{number}", id=f"u{number}")
                call.say("x").finish()
                await answer.end()
        finally:
            over.set()
            thread.join()
    assert not failures and readings > 10


# ---------------------------------------------------------------------- the law


def assert_no_less(before: Counters, after: Counters) -> None:
    for name in FIELDS:
        then, now = getattr(before, name), getattr(after, name)
        if name in GAUGES:
            assert now >= 0
        elif isinstance(then, Histogram):
            assert all(one <= other for one, other in zip(then.counts, now.counts, strict=True)), name
            assert then.sum <= now.sum, name
        elif isinstance(then, Mapping):
            assert all(count <= now[key] for key, count in then.items()), name
        else:
            assert then <= now, name


STEPS = [
    "post",
    "say",
    "finish",
    "fail",
    "stop",
    "resume",
    "tail",
    "watch",
    "leave",
    "delete",
    "refuse",
    "outage",
    "wait",
]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=3, max_size=25))
def test_totals_never_decrease_whatever_happens(steps: list[str]) -> None:
    asyncio.run(play(steps))


async def play(steps: list[str]) -> None:
    async with running(store=MemoryStore()) as rig:
        seen = rig.chat.counters()
        opened: list[Answer] = []
        for number, step in enumerate(["post", *steps]):
            call = rig.agent.calls[-1] if rig.agent.calls else None
            if step == "post":
                answer = await rig.post("c", id=f"u{number}")
                if answer.status == 200:
                    opened.append(answer)
            elif step == "say" and call is not None:
                call.say("more ")
            elif step == "finish" and call is not None:
                call.finish()
            elif step == "fail" and call is not None:
                call.fail(RuntimeError("a defect of the agent"))
            elif step == "stop":
                await rig.ask("POST", "/api/chat/c/stop", {})
            elif step == "resume":
                opened.append(await rig.resume("c", headers=""))
            elif step == "tail":
                cursors = [answer.cursor for answer in opened if answer.cursor]
                opened.append(await rig.resume("c", cursors[-1] if cursors else "garbage", **SHIM))
            elif step == "watch":
                opened.append(await rig.open("GET", "/api/sessions/c/events?reader=page"))
            elif step == "leave" and opened:
                await opened.pop().drop()
            elif step == "delete":
                await rig.ask("DELETE", "/api/sessions/c")
            elif step == "refuse":
                await rig.ask("GET", "/api/sessions/nobody")
            elif step == "outage":
                rig.store.fail()
                await rig.clock.advance(1)
                rig.store.mend()
                await rig.clock.advance(3)
            elif step == "wait":
                await rig.clock.advance(130)
            for _ in range(20):
                await asyncio.sleep(0)
            now = rig.chat.counters()
            assert_no_less(seen, now)
            seen = now
        for answer in opened:
            await answer.drop()
    after = rig.chat.counters()
    assert_no_less(seen, after)
    assert sum(after.runs_ended.values()) >= after.runs_started, "each one that was started has ended"
    assert (after.readers, after.active_runs) == (0, 0)
