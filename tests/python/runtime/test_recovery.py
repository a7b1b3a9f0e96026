"""Agents that are called again because their process is gone (PROTOCOL §17.3): nothing stands twice, nothing that was
settled is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline import Run
from strandline.errors import Misconfigured
from strandline.testing import ManualClock, ScriptedAgent, fold_frames, until


class Lives:
    """The processes that serve one file, one after the other. What ends one of them is a shutdown without any grace, or
    a store that fails to the end, as a killed process leaves it."""

    def __init__(self, path: Path, recover: Any, **settings: Any) -> None:
        self.path = path
        self.recover = recover
        self.settings = settings
        self.clock = ManualClock()
        self.count = 0

    @asynccontextmanager
    async def life(self, *, killed: bool = False, **more: Any) -> AsyncIterator[Rig]:
        self.count += 1
        settings = {**self.settings, **({"commit_patience": 0.0} if killed else {})}
        async with running(
            self.path, agent=ScriptedAgent(), clock=self.clock, recover=self.recover, **{**settings, **more}
        ) as rig:
            yield rig
            if killed:
                rig.store.fail()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def words(parts: list[dict[str, Any]]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text")


async def published(rig: Rig, text: str) -> None:
    session = await rig.sessions.find("c")
    await until(lambda: any(words(live.fold.parts()).endswith(text) for live in session.live.values()))


async def reply(rig: Rig) -> tuple[str, dict[str, Any]]:
    """What the last reply says, and how its run ended, where the log and the stored message agree."""
    history = await rig.history("c")
    message = history["messages"][-1]
    whole = await (await rig.resume("c", query=f"?run={history['runs'][message['id']]['run']}")).end()
    assert fold_frames(whole.frames).parts() == message["parts"]
    return words(message["parts"]), history["runs"][message["id"]]


async def begun_and_left(lives: Lives, said: str, *, killed: bool, **more: Any) -> Answer:
    async with lives.life(killed=killed) as rig:
        answer, call = await rig.begun(**more)
        call.say(said)
        return await answer.until_text(said)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("recover", [True, "restart"])
async def test_a_reply_is_written_again_from_the_beginning(path: Path, recover: Any, killed: bool) -> None:
    lives = Lives(path, recover)
    cut = await begun_and_left(lives, "first words", killed=killed, extra="along")
    async with lives.life() as rig:
        call = await rig.agent.called()
        run = call.run
        assert (run.recovered, run.attempt, run.partial["parts"], run.checkpoints) == (True, 2, [], ())
        assert (run.body, run.user.user, dict(run.user.claims)) == ({"extra": "along"}, "ann", {})
        assert [message["role"] for message in run.messages] == ["user"]
        # Who was reading: a stock client gets all of it, the shim is told to.
        stock = await rig.resume("c", cut.cursor)
        shim = await (await rig.resume("c", cut.cursor, shim=True)).end()
        assert [frame.chunk["code"] for frame in shim.frames] == ["resync"]
        call.say("second ", "words").finish()
        await stock.end()
        assert stock.text == "second words"
        assert (await reply(rig)) == ("second words", {"run": run.id, "status": "completed", "reason": "completed"})
        counted = rig.chat.counters()
        assert (counted.runs_called_again, counted.runs_recovered, counted.runs_started) == (1, 0, 1)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_reply_goes_on_where_it_was_cut(path: Path, killed: bool) -> None:
    lives = Lives(path, "continue")
    cut = await begun_and_left(lives, "first ", killed=killed)
    async with lives.life() as rig:
        call = await rig.agent.called()
        assert words(call.run.partial["parts"]) == "first "
        going_on = await rig.resume("c", cut.cursor, shim=True)
        call.say("and ", "second").finish()
        await going_on.end()
        text, run = await reply(rig)
        assert (text, run["status"]) == ("first and second", "completed")
        # The same part goes on: what the reader had and what it got is the whole.
        [part] = [part for part in fold_frames([*cut.frames, *going_on.frames]).parts() if part["type"] == "text"]
        assert part["text"] == text
        assert "message-reset" not in [event["type"] for event in await rig.log_from_store()]


async def test_what_came_after_the_last_checkpoint_is_taken_back(path: Path) -> None:
    lives = Lives(path, "continue")
    async with lives.life(killed=True) as rig:
        answer, call = await rig.begun()
        call.say("one ").do(lambda run: run.checkpoint("one")).say("two ").do(lambda run: run.checkpoint("two"))
        call.say("three")
        await answer.until_text("one two three")
    for attempt in (2, 3):
        async with lives.life(killed=attempt == 2, max_attempts=5) as rig:
            call = await rig.agent.called()
            run = call.run
            assert (run.attempt, run.checkpoints, words(run.partial["parts"])) == (attempt, ("one", "two"), "one two ")
            call.say(f"attempt {attempt}")
            await (await rig.resume("c")).until_text(f"attempt {attempt}")
            if attempt == 3:
                call.finish()
                await rig.ended()
                assert (await reply(rig))[0] == "one two attempt 3"


async def test_a_checkpoint_with_nothing_after_it_needs_no_reset(path: Path) -> None:
    lives = Lives(path, "continue")
    async with lives.life(killed=True) as rig:
        answer, call = await rig.begun()
        call.say("one ").do(lambda run: run.checkpoint("one"))
        await answer.until_text("one")
        await until(lambda: call.run.checkpoints)
    async with lives.life() as rig:
        call = await rig.agent.called()
        call.say("two").finish()
        await rig.ended()
        assert (await reply(rig))[0] == "one two"
        kinds = [event["type"] for event in await rig.log_from_store()]
        assert kinds.count("run-recovered") == 1
        assert "message-reset" not in kinds


@pytest.mark.parametrize(
    ("recover", "again"), [("restart", ["settled", "taken", "waits"]), ("continue", ["taken", "waits"])]
)
async def test_what_an_attempt_was_told_comes_back_with_what_is_taken_back(
    path: Path, recover: Any, again: list[str]
) -> None:
    async def tell(rig: Rig, text: str) -> None:
        message = {"id": text, "role": "user", "parts": [{"type": "text", "text": text}]}
        assert (await rig.ask("POST", "/api/sessions/c/steer", {"message": message})).status == 202

    async def take(run: Run) -> None:
        run.take_steering()

    lives = Lives(path, recover)
    async with lives.life(killed=True) as rig:
        answer, call = await rig.begun()
        await tell(rig, "settled")
        call.say("one ").do(take).do(lambda run: run.checkpoint())
        await answer.until(lambda: "steering-message" in answer.types)
        await tell(rig, "taken")
        call.do(take).say("two")
        await answer.until_text("two")
        await tell(rig, "waits")
    async with lives.life() as rig:
        call = await rig.agent.called()
        assert [note.text for note in call.run.take_steering()] == again
        call.say("three").finish()
        await rig.ended()
        seen = (await rig.ask("GET", "/api/sessions/c")).json["messages"]
        told = [part["id"] for part in seen[1]["parts"] if part["type"] == "steering-message"]
        assert (told, len(seen)) == (["settled", "taken", "waits"], 2)


async def test_a_reset_forgets_the_checkpoints_before_it_in_every_process(path: Path) -> None:
    lives = Lives(path, "continue", max_attempts=9)
    async with lives.life(killed=True) as rig:
        _answer, call = await rig.begun()
        call.say("one ").do(lambda run: run.checkpoint("one")).do(lambda run: run.replace("instead ")).say("more")
        await published(rig, "instead more")
    async with lives.life(killed=True) as rig:
        call = await rig.agent.called()
        assert (call.run.checkpoints, words(call.run.partial["parts"])) == ((), "instead more")
        call.do(lambda run: run.checkpoint("late")).say(" lost")
        await published(rig, " lost")
    async with lives.life() as rig:
        call = await rig.agent.called()
        assert (call.run.checkpoints, words(call.run.partial["parts"])) == (("late",), "instead more")
        call.finish()
        await rig.ended()


async def test_a_reply_is_not_carried_on_for_ever(path: Path) -> None:
    lives = Lives(path, True, max_attempts=3)
    await begun_and_left(lives, "one", killed=True)
    for killed in (True, True):
        async with lives.life(killed=killed) as rig:
            call = await rig.agent.called()
            call.say(f"attempt {call.run.attempt}")
            await published(rig, f"attempt {call.run.attempt}")
    async with lives.life() as rig:
        text, run = await reply(rig)
        assert (text, run["status"], run["reason"]) == ("attempt 3", "lost", "process-lost")
        assert rig.agent.calls == []


async def test_the_last_attempt_ends_as_lost_at_shutdown(path: Path) -> None:
    lives = Lives(path, True, max_attempts=1)
    await begun_and_left(lives, "one", killed=False)
    async with lives.life() as rig:
        assert (await reply(rig))[1]["reason"] == "shutdown"


@pytest.mark.parametrize("recover", [None, False])
async def test_without_recovery_a_reply_is_lost(path: Path, recover: Any) -> None:
    lives = Lives(path, recover)
    await begun_and_left(lives, "one", killed=True, extra="along")
    async with lives.life() as rig:
        assert (await reply(rig))[1]["reason"] == "process-lost"
        assert rig.agent.calls == []
        queued = [event for event in await rig.log_from_store() if event["type"] == "run-queued"]
        assert "body" not in queued[0]


async def test_what_the_client_sent_along_is_not_shown(path: Path) -> None:
    async with Lives(path, True).life() as rig:
        feed = await rig.open("GET", "/api/sessions/c/events") if await rig.sessions.find("c") else None
        assert feed is None
        _, call = await rig.begun(secret="s3cret")
        feed = await rig.open("GET", "/api/sessions/c/events")
        _, call = await rig.begun(text="b", id="u2", secret="s3cret")
        await feed.until(lambda: any(frame.chunk["type"] == "run-queued" for frame in feed.frames))
        assert b"s3cret" not in feed.body
        call.finish()
        await rig.ended()


async def test_a_stop_that_was_recorded_wins(path: Path) -> None:
    lives = Lives(path, True)
    async with lives.life(killed=True) as rig:
        answer, call = await rig.begun()
        call.say("one")
        await answer.until_text("one")
        assert (await rig.stop("c")).json["stopped"]
    async with lives.life() as rig:
        assert (await reply(rig))[1]["status"] == "stopped"
        assert rig.agent.calls == []


async def test_a_recovered_run_is_stopped_like_any_other(path: Path) -> None:
    lives = Lives(path, "continue")
    await begun_and_left(lives, "one", killed=True)
    async with lives.life() as rig:
        call = await rig.agent.called()
        assert (await rig.stop("c")).json["stopped"]
        await until(lambda: call.cancelled)
        assert (await reply(rig))[:1] == ("one",)


async def test_the_deadline_is_that_of_the_attempt(path: Path) -> None:
    lives = Lives(path, "continue", run_deadline=100.0)
    async with lives.life(killed=True) as rig:
        answer, call = await rig.begun()
        call.say("one")
        await answer.until_text("one")
        await rig.clock.advance(90)
    async with lives.life() as rig:
        call = await rig.agent.called()
        await rig.clock.advance(90)
        assert not call.run.cancelled
        await rig.passing(lambda: call.run.cancelled)
        assert (await reply(rig))[1]["reason"] == "deadline"


async def test_at_shutdown_readers_are_told_to_come_back_and_nothing_is_added_any_more(path: Path) -> None:
    lives = Lives(path, "continue")
    late: list[str] = []

    class Stubborn(ScriptedAgent):
        async def __call__(self, run: Run) -> AsyncIterator[Any]:
            try:
                async for item in super().__call__(run):
                    yield item
            finally:
                try:
                    await run.text("too late")
                except Exception as exc:
                    late.append(type(exc).__name__)

    async with running(path, agent=Stubborn(), clock=lives.clock, recover="continue") as rig:
        answer, call = await rig.begun()
        shim = await rig.resume("c", shim=True)
        call.say("one")
        await answer.until_text("one")
        await shim.until_text("one")
        await rig.chat.service.drain()
        await answer.end()
        await shim.end()
        assert answer.frames[-1].chunk["code"] == "shutting-down"
        assert shim.types[-1] == "text-delta"
        assert late == ["RunOver"]
    async with lives.life() as rig:
        call = await rig.agent.called()
        assert words(call.run.partial["parts"]) == "one"
        call.finish()
        await rig.ended()


async def test_an_agent_that_is_gone_or_does_not_recover_any_more_loses_the_run(path: Path) -> None:
    await begun_and_left(Lives(path, True), "one", killed=True)
    async with Lives(path, None).life() as rig:
        assert (await reply(rig))[1]["reason"] == "process-lost"


async def test_what_recover_may_be() -> None:
    with pytest.raises(Misconfigured, match="recover"):
        async with running(recover="always"):
            pass
