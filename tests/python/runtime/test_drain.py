"""The end of a process, and what was being decided when it began (DESIGN §7): run within the grace, or ended as lost,
never called afterwards, never left without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline import Run
from strandline.errors import ShuttingDown
from strandline.runtime import journal as journal_module
from strandline.testing import until


def last_runs(rig: Rig) -> dict[str, Any]:
    """What the store knows of every run."""
    return {run.id: run for batch in rig.store.committed for run in batch.runs}


async def in_flight(rig: Rig, chat: str = "c") -> asyncio.Task[Answer]:
    """A POST whose commit has begun and does not come to its end."""
    before = rig.store.attempts
    rig.store.hang()
    posting = asyncio.create_task(rig.post(chat))
    await until(lambda: rig.store.attempts > before)
    return posting


async def test_a_run_that_was_being_committed_gets_the_grace() -> None:
    async with running(shutdown_grace=60.0) as rig:
        posting = await in_flight(rig)
        draining = rig.chat.service.drain()
        for _ in range(20):
            await asyncio.sleep(0)
        rig.store.mend()
        answer = await posting
        call = await rig.agent.called()
        call.say("in ")
        await answer.until_text("in ")
        assert not draining.done()
        call.say("time").finish()
        await answer.end()
        assert answer.text == "in time"
        assert answer.types[-2:] == ["finish", "[DONE]"]
        await asyncio.wait_for(draining, 10)
        assert [run.status.value for run in last_runs(rig).values()] == ["completed"]


async def test_an_end_that_is_slow_to_be_committed_is_waited_for() -> None:
    async with running(shutdown_grace=60.0) as rig:
        answer, call = await rig.begun()
        call.say("all ")
        await answer.until_text("all ")
        draining = rig.chat.service.drain()
        rig.store.hang()
        call.say("of it").finish()
        await until(lambda: call.closed)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not draining.done()
        rig.store.mend()
        await asyncio.wait_for(draining, 10)
        await answer.end()
        assert answer.text == "all of it"
        assert [run.status.value for run in last_runs(rig).values()] == ["completed"]


async def test_without_a_grace_it_ends_as_lost_and_no_agent_is_called() -> None:
    async with running(shutdown_grace=0.0) as rig:
        posting = await in_flight(rig)
        await asyncio.wait_for(rig.chat.service.drain(), 10)
        rig.store.mend()
        answer = await posting
        assert answer.status == 200
        await asyncio.wait_for(rig.chat.service.stop(), 10)
        await answer.end()
        assert not rig.agent.calls
        (run,) = last_runs(rig).values()
        assert (run.status.value, run.reason) == ("lost", "shutdown")
        assert [event["type"] for event in await rig.log()][-2:] == ["run-started", "run-ended"]


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_at_every_moment_of_a_submit_the_drain_leaves_nothing_behind(turns: int) -> None:
    running_now = 0
    begun = 0

    async def agent(run: Run) -> AsyncIterator[str]:
        nonlocal running_now, begun
        running_now, begun = running_now + 1, begun + 1
        try:
            yield "words "
            await asyncio.Event().wait()
        finally:
            running_now -= 1

    async with running(agent=agent, shutdown_grace=0.0) as rig:
        posting = [asyncio.create_task(rig.post(chat)) for chat in ("c", "d")]
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(rig.chat.service.drain(), 10)
        called = begun
        await asyncio.wait_for(rig.chat.service.stop(), 10)
        for each in posting:
            answer = await (await asyncio.wait_for(each, 10)).end()
            assert answer.status in (200, 503)
        assert (running_now, begun) == (0, called)
        assert {(run.status.value, run.reason) for run in last_runs(rig).values()} <= {("lost", "shutdown")}


# ---------------------------------------------------------------------- decisions that come too late


async def test_a_decision_after_the_writer_has_stopped_is_refused() -> None:
    async with running() as rig:
        answer, call = await rig.begun()
        call.finish()
        await answer.end()
        sessions = rig.sessions
        session = await sessions.find("c")
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(sessions.journal.decide(session, lambda session: None), 5)


async def test_requests_that_a_store_keeps_waiting_are_answered_when_the_writer_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal_module, "_STOP_PATIENCE", 0.05)
    async with running(shutdown_grace=0.0, commit_patience=0.0) as rig:
        posting = [await in_flight(rig), asyncio.create_task(rig.post("c", id="u2"))]
        session = rig.sessions._live["c"]
        await until(lambda: session.commands)
        await asyncio.wait_for(rig.chat.service.stop(), 10)
        for each in posting:
            answer = await asyncio.wait_for(each, 10)
            assert (answer.status, answer.code) == (503, "shutting-down")
        assert not rig.agent.calls
