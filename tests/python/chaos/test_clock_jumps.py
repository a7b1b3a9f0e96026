"""Somebody sets the wall clock while replies are being written. What happens is ordered by number and measured with the
other clock, so only what is shown of time is wrong; logs are kept rather too long than too short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from store_samples import copied

from rig import Answer, Rig, running
from strandline.testing import ManualClock

DAY, YEAR = 86_400.0, 31_536_000.0
JUMPS = {"a year ahead": (YEAR,), "a day back": (-DAY,), "there and back": (YEAR, -YEAR), "back and there": (-DAY, DAY)}
RETENTION = 200.0


class SetClock(ManualClock):
    """A clock whose wall time can be set without any time passing."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self._off = 0.0

    def now(self) -> int:
        return super().now() + round(self._off * 1000)

    def set_by(self, seconds: float) -> None:
        self._off += seconds


@asynccontextmanager
async def kept(path: Path | None = None, clock: SetClock | None = None, **settings: Any) -> AsyncIterator[Rig]:
    made = {"log_retention": RETENTION, "session_idle": 5.0, "segment_age": 1.0, **settings}
    async with running(path, clock=clock or SetClock(), **made) as rig:
        yield rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with kept() as made:
        yield made


async def replied(rig: Rig, chat: str = "c", id: str = "u1") -> Answer:
    """A whole reply, which has left memory."""
    answer, call = await rig.begun(chat, id=id)
    call.say("one ", "two").finish()
    await answer.end()
    await rig.ended(chat)
    await rig.go_cold(chat)
    return answer


async def goes_on_exactly(rig: Rig, answer: Answer) -> bool:
    """Whether the reader of the first frame still gets all that came after it, and nothing else."""
    again = await (await rig.resume("c", answer.frames[0].cursor)).end()
    return again.headers["strandline-replay"] == "tail" and again.frames == answer.frames[1:]


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
async def test_order_ends_and_readers_do_not_care_what_time_it_is(rig: Rig, jumps: tuple[float, ...]) -> None:
    answer, call = await rig.begun()
    feed = await rig.open("GET", "/api/sessions/c/events")
    said = "before "
    call.say(said)
    await answer.until_text(said)
    for number, jump in enumerate(jumps):
        rig.clock.set_by(jump)
        await rig.clock.advance(2)
        said += f"jump {number} "
        call.say(f"jump {number} ")
        await answer.until_text(said)
    call.finish()
    await answer.end()
    await feed.until(lambda: "run-ended" in feed.types)
    seqs = [frame.chunk["seq"] for frame in feed.frames if "seq" in frame.chunk]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert len(await rig.log()) == seqs[-1]
    # The next message, under yet another time, comes after it, and a stop ends what it names.
    rig.clock.set_by(-3 * DAY)
    second, call = await rig.begun(id="u2")
    call.say("second")
    await second.until_text("second")
    assert (await rig.stop("c")).json["status"] == "stopped"
    await second.end()
    history = await rig.history("c")
    assert [message["role"] for message in history["messages"]] == ["user", "assistant"] * 2
    assert [run["status"] for run in history["runs"].values()] == ["completed", "stopped"]
    await feed.drop()
    await rig.go_cold()
    assert await goes_on_exactly(rig, answer)
    assert await rig.history("c") == history


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
async def test_deadlines_and_memories_are_of_time_that_has_passed(jumps: tuple[float, ...]) -> None:
    async with kept(run_deadline=100.0, stop_memory=60.0, owed_for=30.0) as rig:
        slow, call = await rig.begun("slow")
        assert (await rig.history("slow"))["activeRun"] is not None
        assert (await rig.stop("early", messageId="u1")).status == 202
        for jump in jumps:
            rig.clock.set_by(jump)
            await rig.clock.advance(5)
        assert not slow.over, "the deadline has not passed"
        stopped = await (await rig.post("early")).end()
        assert stopped.types[-2] == "abort", "the stop is remembered"
        call.say("word").finish()
        await slow.end()
        assert (await (await rig.resume("slow")).end()).text == "word", "the replay is still owed"
        late, _ = await rig.begun("late")
        await rig.stop("later", messageId="u1")
        await rig.clock.advance(101)
        assert (await late.end()).types[-2] == "error"
        assert [run["reason"] for run in (await rig.history("late"))["runs"].values()] == ["deadline"]
        forgotten, call = await rig.begun("later")
        call.finish()
        assert (await forgotten.end()).types[-2] == "finish"


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
async def test_no_log_expires_before_it_is_as_old_as_it_may_get(
    rig: Rig, jumps: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    before = await replied(rig)
    for jump in jumps:
        rig.clock.set_by(jump)
        await rig.clock.advance(70)
        assert await goes_on_exactly(rig, before)
    assert caplog.text.count("the wall clock was set by") == len(jumps)
    await rig.clock.advance(RETENTION - 100)
    assert await goes_on_exactly(rig, before)
    await rig.clock.advance(200)
    gone = await rig.store.events("c", 0, 2**62) == []
    # What was written a day ago by a clock that has gone back a day since is still of tomorrow.
    assert gone == (sum(jumps) >= 0)
    assert "one two" in str(await rig.history("c"))


async def test_what_was_written_while_the_clock_was_behind_is_kept_for_its_time_too(rig: Rig) -> None:
    rig.clock.set_by(-DAY)
    await rig.clock.advance(RETENTION + 100)
    behind = await replied(rig)
    rig.clock.set_by(DAY)
    await rig.clock.advance(RETENTION - 100)
    assert await goes_on_exactly(rig, behind)
    await rig.clock.advance(200)
    assert await rig.store.events("c", 0, 2**62) == []


async def test_time_that_passes_at_once_is_no_jump(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A machine that was asleep, where both clocks have gone on: expiry is punctual."""
    await replied(rig)
    await rig.clock.jump(RETENTION + 100)
    await rig.clock.advance(70)
    assert await rig.store.events("c", 0, 2**62) == []
    assert "the wall clock was set" not in caplog.text


@pytest.mark.parametrize("jump", [YEAR, -DAY], ids=["a year ahead", "a day back"])
async def test_a_start_under_another_time_loses_no_word(tmp_path: Path, jump: float) -> None:
    """Between two processes nobody sees a jump: ahead, the logs of replies that have ended expire at once, and readers
    are given the whole; back, they are kept for longer. The replies themselves are not touched."""
    async with kept(tmp_path / "first.db") as rig:
        finished = await replied(rig)
        cut, call = await rig.begun("cut")
        call.say("half a ")
        await cut.until_text("half a ")
        cursor = cut.cursor
        copied(tmp_path / "first.db", tmp_path / "second.db")
    clock = SetClock("second")
    clock.set_by(jump)
    async with kept(tmp_path / "second.db", clock) as rig:
        for _ in range(140):
            await clock.advance(0.5)
            await asyncio.sleep(0.001)
        assert (await rig.store.events("c", 0, 2**62) == []) == (jump > 0)
        assert "one two" in str(await rig.history("c"))
        history = await rig.history("cut")
        assert [run["status"] for run in history["runs"].values()] == ["lost"]
        assert "half a " in str(history["messages"])
        rest = await (await rig.resume("cut", cursor)).end()
        assert rest.frames[-2].chunk["code"] == "lost"
        whole = await (await rig.resume("c", finished.frames[0].cursor)).end()
        if jump > 0:
            assert (whole.headers["strandline-replay"], whole.text, whole.types[-2]) == ("full", "one two", "finish")
        else:
            assert whole.frames == finished.frames[1:]
        again, call = await rig.begun("c", id="u2")
        call.say("more").finish()
        assert (await again.end()).text == "more"
