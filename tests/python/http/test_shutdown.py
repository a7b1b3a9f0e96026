"""Who may be ended how (DESIGN §14.6): a stock client takes a clean end for success, so it is told."""

from __future__ import annotations

import asyncio

import pytest

from rig import Rig, running
from strandline import Strandline
from strandline.errors import Misconfigured
from strandline.http.auth import open_on_loopback
from strandline.settings import Settings
from strandline.testing import ManualClock, ScriptedAgent, until


@pytest.mark.parametrize("shim", [True, False])
async def test_a_feed_that_closes_under_a_reader(rig: Rig, shim: bool) -> None:
    answer, call = await rig.begun()
    call.say("half")
    await answer.until_text("half")
    reader = await rig.resume("c", shim=shim)
    await reader.until_text("half")
    rig.sessions.close()
    await reader.end()
    if shim:
        assert reader.types[-1] == "text-delta", "the shim comes back by itself"
    else:
        assert reader.frames[-1].chunk["code"] == "shutting-down"
        assert reader.frames[-1].cursor is None
    assert not any(frame.done for frame in reader.frames)
    assert b"[DONE]" not in reader.body


async def test_done_only_ever_follows_a_terminal_chunk(rig: Rig) -> None:
    answer, call = await rig.begun()
    rig.store.fail()
    call.say("x")
    for _ in range(15):
        await rig.clock.advance(1)
    await answer.end()
    assert answer.types[-1] == "error"
    assert b"[DONE]" not in answer.body


async def test_shutting_down_gives_running_agents_their_grace() -> None:
    async with running(shutdown_grace=5.0) as rig:
        answer, call = await rig.begun()
        draining = rig.chat.service.drain()
        refused = await rig.post("d")
        assert (refused.status, refused.code) == (503, "shutting-down")
        assert refused.headers["retry-after"]
        assert (await rig.ask("GET", "/api/readyz")).status == 503
        assert (await rig.post("c")).status == 200, "attaching starts nothing"
        assert (await rig.history("c"))["activeRun"] is not None
        call.say("finished in time").finish()
        await answer.end()
        assert answer.types[-2:] == ["finish", "[DONE]"]
        await draining


async def test_who_comes_after_the_feeds_were_closed_is_not_kept(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.finish()
    await answer.end()
    await rig.chat.service.drain()
    feed = await rig.open("GET", "/api/sessions/c/events")
    await feed.end()
    assert feed.frames[0].chunk["type"] == "snapshot"


async def test_without_auth_nothing_is_built() -> None:
    with pytest.raises(Misconfigured, match="open_on_loopback"):
        Strandline("memory:")


async def test_without_an_agent_nothing_starts() -> None:
    with pytest.raises(Misconfigured, match="agent"):
        async with Strandline("memory:", auth=open_on_loopback(), settings=Settings()).lifespan():
            pass


async def test_a_lifespan_that_is_entered_twice_runs_once(rig: Rig) -> None:
    async with rig.chat.lifespan():
        answer, call = await rig.begun()
    call.say("still here").finish()
    await answer.end()
    assert answer.text == "still here"


async def test_a_service_can_be_started_again() -> None:
    chat = Strandline("memory:", auth=open_on_loopback(), clock=ManualClock(), settings=Settings(shutdown_grace=0))
    agent = ScriptedAgent("x")
    chat.agent(agent)
    for _ in range(3):
        async with chat.lifespan():
            assert chat.service.ready
        assert not chat.service.ready


async def test_every_task_is_gone_after_the_end() -> None:
    before = asyncio.all_tasks()
    async with running() as rig:
        for number in range(5):
            await rig.begun(f"c{number}")
    await until(lambda: not [task for task in asyncio.all_tasks() - before if task.get_name().startswith("strandline")])
