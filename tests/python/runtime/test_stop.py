"""Stop stops: durable, ordered, acknowledged with the offset of the end, and nothing after it (DESIGN §1.4, §7)."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rig import Rig, running
from strandline import Run
from strandline.core.offset import parse
from strandline.testing import until


async def stored_text(rig: Rig, chat: str = "c") -> str:
    parts = (await rig.history(chat))["messages"][-1]["parts"]
    return "".join(part["text"] for part in parts if part["type"] == "text")


async def test_a_stop_while_streaming_keeps_the_words_and_marks_the_message(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("one ", "two ")
    await answer.until_text("one two ")
    stopped = await rig.stop("c", reason="enough")
    assert stopped.status == 200
    assert stopped.json == {
        "run": call.run.id, "status": "stopped", "reason": "enough", "stopped": True,
        "cursor": stopped.json["cursor"],
    }  # fmt: skip
    await answer.end()
    assert answer.types[-4:] == ["text-end", "finish-step", "abort", "[DONE]"]
    assert answer.frames[-2].chunk["reason"] == "enough"
    assert answer.cursor == stopped.json["cursor"]
    assert await stored_text(rig) == "one two "
    history = await rig.history("c")
    assert history["activeRun"] is None
    assert [(run["status"], run["reason"]) for run in history["runs"].values()] == [("stopped", "enough")]
    assert (await rig.resume("c", stopped.json["cursor"])).status == 204
    await until(lambda: call.closed)
    assert call.cancelled
    kinds = [event["type"] for event in await rig.log()]
    assert kinds[-3:] == ["stop-requested", "appended", "run-ended"]


async def test_nothing_is_appended_after_the_offset_of_the_stop(rig: Rig) -> None:
    answer, call = await rig.begun()
    for _ in range(20):
        call.say("x")
    stopping = asyncio.create_task(rig.stop("c"))
    for _ in range(50):
        call.say("y")
        await asyncio.sleep(0)
    offset = parse((await stopping).json["cursor"])
    await answer.end()
    await rig.clock.advance(30)
    assert len(await rig.log()) == offset.seq
    assert await stored_text(rig) == answer.text


async def test_pending_words_are_discarded_not_written_after_the_stop(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("shown ")
    await answer.until_text("shown ")
    rig.store.hang()
    call.say("in flight ")
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    call.say("pending")
    stopping = asyncio.create_task(rig.stop("c"))
    await asyncio.sleep(0.01)
    rig.store.mend()
    assert (await stopping).json["stopped"] is True
    await answer.end()
    assert answer.text == await stored_text(rig) == "shown in flight "


async def test_a_second_stop_gets_the_recorded_end(rig: Rig) -> None:
    answer, _ = await rig.begun()
    first = (await rig.stop("c", reason="first")).json
    for body in ({"run": first["run"]}, {"messageId": "u1"}, {"run": first["run"], "reason": "second"}):
        assert (await rig.stop("c", **body)).json == {**first, "stopped": False}
    assert (await rig.stop("c")).json == {"run": None, "status": "idle", "stopped": False}
    await answer.end()


async def test_a_stop_after_the_end_gets_the_recorded_end(rig: Rig) -> None:
    answer, call = await rig.begun(key="k1")
    call.say("all of it").finish()
    await answer.end()
    for body in (
        {"run": call.run.id},
        {"messageId": "u1"},
        {"messageId": call.run.message_id},
        {"key": "k1"},
    ):
        told = (await rig.stop("c", **body)).json
        assert (told["status"], told["reason"], told["stopped"]) == ("completed", "completed", False)
        assert told["cursor"] == answer.cursor
    assert await stored_text(rig) == "all of it"


async def test_two_stops_at_the_same_moment_have_one_winner(rig: Rig) -> None:
    answer, _ = await rig.begun()
    told = [each.json for each in await asyncio.gather(*(rig.stop("c", run="run-1", reason=f"r{n}") for n in range(8)))]
    assert [each["stopped"] for each in told].count(True) == 1
    assert len({(each["reason"], each["cursor"]) for each in told}) == 1
    await answer.end()
    assert [event["type"] for event in await rig.log()].count("run-ended") == 1


@pytest.mark.parametrize(("before", "after"), list(itertools.product(range(8), range(3))))
async def test_a_stop_that_races_the_natural_end_has_one_outcome_everywhere(before: int, after: int) -> None:
    async with running() as rig:
        answer, call = await rig.begun()
        call.say("one ")
        await answer.until_text("one ")
        if after == 1:
            call.say("two")
        if after == 2:
            rig.store.hang()
        call.finish()
        for _ in range(before * 2):
            await asyncio.sleep(0)
        stopping = asyncio.create_task(rig.stop("c", run=call.run.id))
        await asyncio.sleep(0.002)
        rig.store.mend()
        told = (await stopping).json
        await answer.end()
        (run,) = (await rig.history("c"))["runs"].values()
        assert told["status"] == run["status"]
        assert told["stopped"] == (run["status"] == "stopped")
        assert answer.types[-2] == {"stopped": "abort", "completed": "finish"}[run["status"]]
        assert answer.cursor == told["cursor"]
        assert answer.text == await stored_text(rig)
        assert run["status"] == "stopped" or answer.text == "one " + "two" * (after == 1)
        assert [event["type"] for event in await rig.log()].count("run-ended") == 1


@pytest.mark.parametrize("name", ["messageId", "key"])
async def test_a_stop_that_comes_before_its_message(rig: Rig, name: str) -> None:
    told = await rig.stop("c", **{name: "u1" if name == "messageId" else "k1"}, reason="early")
    assert (told.status, told.json) == (202, {"run": None, "status": "remembered", "stopped": False})
    answer = await (await rig.post("c", key="k1")).end()
    assert answer.types == ["start", "abort", "[DONE]"]
    assert answer.frames[1].chunk["reason"] == "early"
    assert not rig.agent.calls
    assert (await rig.resume("c")).status == 204
    history = await rig.history("c")
    assert [(run["status"], run["reason"]) for run in history["runs"].values()] == [("stopped", "early")]
    kinds = [event["type"] for event in await rig.log()]
    assert kinds == ["message-created", "run-queued", "stop-requested", "run-ended"]


async def test_an_early_stop_works_in_a_session_that_exists(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.finish()
    await answer.end()
    assert (await rig.stop("c", messageId="u2")).status == 202
    answer = await (await rig.post("c", id="u2")).end()
    assert answer.types[-2] == "abort"
    assert len(rig.agent.calls) == 1


async def test_an_early_stop_is_used_up_under_all_its_names(rig: Rig) -> None:
    assert (await rig.stop("c", messageId="u1", key="k1")).status == 202
    await (await rig.post("c", key="k1")).end()
    edited, call = await rig.begun(text="edited", messageId="u1", key="k2")
    call.say("fine").finish()
    await edited.end()
    assert edited.text == "fine"


@pytest.mark.parametrize(("seconds", "stopped"), [(59, True), (61, False)])
async def test_an_early_stop_is_remembered_for_60_seconds(rig: Rig, seconds: int, stopped: bool) -> None:
    await rig.stop("c", messageId="u1")
    await rig.clock.advance(seconds)
    answer = await rig.post("c")
    if stopped:
        await answer.end()
        assert not rig.agent.calls
    else:
        (await rig.agent.called()).finish()
        await answer.end()
        assert answer.types[-2] == "finish"


async def test_somebody_elses_early_stop_has_no_effect(rig: Rig) -> None:
    assert (await rig.as_user("eve").stop("c", messageId="u1")).status == 202
    answer, call = await rig.begun()
    assert (await rig.as_user("eve").stop("c", messageId="u1")).status == 202
    assert (await rig.as_user("eve").stop("c")).status == 404
    assert (await rig.as_user("eve").stop("c", run=call.run.id)).status == 404
    call.say("fine").finish()
    await answer.end()
    assert answer.text == "fine"


async def test_early_stops_are_bounded_and_the_oldest_is_forgotten() -> None:
    async with running(stop_memory_limit=3) as rig:
        for number in range(4):
            await rig.stop("c", messageId=f"u{number}")
        assert len(rig.sessions._stops._stops) == 3
        _, call = await rig.begun(id="u0")
        call.finish()
        assert (await (await rig.post("c", id="u3")).end()).types[-2] == "abort"


async def test_unknown_sessions_and_runs_are_not_found(rig: Rig) -> None:
    for chat, body in [("nowhere", {}), ("nowhere", {"run": "run-1"})]:
        told = await rig.stop(chat, **body)
        assert (told.status, told.code) == (404, "not-found")
    _, call = await rig.begun()
    told = await rig.stop("c", run="run-99")
    assert (told.status, told.code) == (404, "not-found")
    assert not call.closed
    await rig.begun("d")
    assert (await rig.stop("d", run=call.run.id)).status == 404


async def test_a_stop_without_a_body_is_enough(rig: Rig) -> None:
    answer, _ = await rig.begun()
    told = await rig.ask("POST", "/api/chat/c/stop", headers={"content-type": "text/plain"})
    assert told.json["stopped"] is True
    assert told.json["reason"] == "user"
    await answer.end()


async def test_the_providers_stream_is_closed_by_a_stop() -> None:
    closed: list[str] = []

    async def provider() -> AsyncIterator[str]:
        try:
            while True:
                yield "token "
                await asyncio.sleep(0)
        finally:
            closed.append("provider")

    async def reply(run: Run) -> AsyncIterator[Any]:
        stream = provider()
        try:
            async for token in stream:
                yield token
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
            closed.append("agent")

    async def handed_over(run: Run) -> Any:
        return provider()

    async def nested(run: Run) -> AsyncIterator[Any]:
        yield provider()

    for agent, expected in [(reply, ["provider", "agent"]), (handed_over, ["provider"]), (nested, ["provider"])]:
        closed.clear()
        async with running(agent=agent) as rig:
            answer = await rig.post("c")
            await answer.until_text("token token ")
            await rig.stop("c")
            await answer.end()
            await until(lambda expected=expected: closed == expected)


async def test_an_agent_in_a_thread_stops() -> None:
    over = threading.Event()
    seen: list[bool] = []

    def reply(run: Run) -> Iterator[str]:
        try:
            while True:
                yield "tick "
        finally:
            seen.append(run.cancelled)
            over.set()

    async with running(agent=reply) as rig:
        answer = await rig.post("c")
        await answer.until_text("tick ")
        assert (await rig.stop("c")).json["stopped"] is True
        await answer.end()
        await until(over.is_set)
        assert seen == [True]
        assert answer.text == await stored_text(rig)


async def test_an_agent_that_swallows_its_cancellation_adds_nothing() -> None:
    refused: list[str] = []

    async def stubborn(run: Run) -> None:
        await run.text("before ")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            try:
                await run.text("after")
            except Exception as exc:
                refused.append(type(exc).__name__)

    async with running(agent=stubborn) as rig:
        answer = await rig.post("c")
        await answer.until_text("before ")
        await rig.stop("c")
        await answer.end()
        await until(lambda: refused)
        assert refused == ["RunOver"]
        assert await stored_text(rig) == "before "


async def test_what_an_agent_left_running_adds_nothing_after_the_end_and_cannot_hold_it_up() -> None:
    refused: list[str] = []
    leaked: list[asyncio.Task[None]] = []

    async def leaky(run: Run) -> None:
        async def chatter() -> None:
            try:
                while True:
                    await run.text("x")
                    await asyncio.sleep(0)
            except Exception as exc:
                refused.append(type(exc).__name__)

        leaked.append(asyncio.create_task(chatter()))
        await asyncio.sleep(0.005)

    async with running(agent=leaky) as rig:
        answer = await rig.post("c")
        await answer.end()
        assert answer.types[-2] == "finish"
        assert refused == ["RunOver"]


# ---------------------------------------------------------------------- interrupt


async def test_a_new_message_interrupts_in_one_commit_in_this_order(rig: Rig) -> None:
    first, call = await rig.begun()
    call.say("partial ")
    await first.until_text("partial ")
    before = len(rig.store.committed)
    second, other = await rig.begun(text="wait", id="u2")
    batches = [batch for batch in rig.store.committed[before:] if batch.entries]
    assert rig.kinds(batches[0]) == [
        "stop-requested", "appended", "run-ended", "message-created", "run-queued", "run-started",
    ]  # fmt: skip
    await first.end()
    assert first.types[-2] == "abort"
    assert first.frames[-2].chunk["reason"] == "superseded"
    await until(lambda: call.closed)
    assert call.cancelled
    assert [message["id"] for message in other.run.messages] == ["u1", call.run.message_id, "u2"]
    assert other.run.prompt()[1] == {"role": "assistant", "content": "partial "}
    other.say("new").finish()
    await second.end()
    history = await rig.history("c")
    assert [message["role"] for message in history["messages"]] == ["user", "assistant", "user", "assistant"]
    assert [run["reason"] for run in history["runs"].values()] == ["superseded", "completed"]
    told = (await rig.stop("c", run=call.run.id)).json
    assert (told["status"], told["reason"], told["stopped"]) == ("stopped", "superseded", False)


async def test_an_interrupt_does_not_count_what_it_ends() -> None:
    async with running(max_active_runs=1) as rig:
        await rig.begun()
        await rig.begun(id="u2")
        refused = await rig.post("d")
        assert (refused.status, refused.code) == (429, "too-many")


async def test_interrupts_at_every_pace_leave_one_run_and_a_gapless_log(rig: Rig) -> None:
    answers = []
    for number in range(30):
        answers.append(asyncio.create_task(rig.post("c", f"text {number}", id=f"u{number}")))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        for call in rig.agent.calls:
            call.say("x")
    posted = await asyncio.gather(*answers)
    await until(lambda: sum(answer.over for answer in posted) == 29)
    history = await rig.history("c")
    assert history["activeRun"] is not None
    assert len(history["messages"]) == 59
    rig.agent.calls[-1].finish()
    await until(lambda: all(answer.over for answer in posted))
    log = await rig.log()
    active = 0
    for event in log:
        active += {"run-queued": 1, "run-ended": -1}.get(event["type"], 0)
        assert active <= 1
