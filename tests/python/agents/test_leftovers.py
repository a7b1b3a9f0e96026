"""What an agent leaves behind: tasks that go on, objects that it goes on changing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import Rig, running
from strandline import Run
from strandline.testing import until


class Leaky:
    """Its own task is cancelled (by its own cancel scope, say) while another of its tasks goes on talking."""

    def __init__(self) -> None:
        self.leaked: list[asyncio.Task[None]] = []
        self.refused: list[str] = []
        self.held = asyncio.Event()

    async def __call__(self, run: Run) -> None:
        if len(self.leaked) > 0:
            await run.text("second")
            return

        async def chatter() -> None:
            try:
                while True:
                    await run.text("x")
                    await asyncio.sleep(0)
            except Exception as exc:
                self.refused.append(type(exc).__name__)

        self.leaked.append(asyncio.create_task(chatter()))
        await self.held.wait()
        own = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        own.cancel()
        await own


@pytest.mark.parametrize("how", ["nothing", "stop", "deadline", "message"])
async def test_a_cancelled_agent_with_a_task_that_goes_on_ends_and_the_session_is_free(how: str) -> None:
    agent = Leaky()
    async with running(agent=agent, run_deadline=60.0, first_window=0.002, max_window=0.002) as rig:
        answer = await rig.post("c")
        await answer.until_text("x")
        agent.held.set()
        await asyncio.sleep(0.01)
        if how == "stop":
            assert (await asyncio.wait_for(rig.stop("c"), 5)).status == 200
        elif how == "deadline":
            await rig.clock.advance(61)
        elif how == "message":
            second = await asyncio.wait_for(rig.post("c", id="u2"), 5)
            await second.end()
            assert second.text == "second"
        await answer.end(5)
        assert answer.frames[-1].done
        assert (await rig.history("c"))["activeRun"] is None
        first = next(iter((await rig.history("c"))["runs"].values()))
        assert (first["status"], first["reason"]) == ("failed", "cancelled")
        await until(lambda: agent.refused)
        assert agent.refused == ["RunOver"]
        again = await (await rig.post("c", id="u3")).end(5)
        assert again.text == "second"


@pytest.mark.parametrize(
    ("opening", "delta"),
    [
        ({"type": "text-start", "id": "t"}, {"type": "text-delta", "id": "t", "delta": "word"}),
        ({"type": "reasoning-start", "id": "t"}, {"type": "reasoning-delta", "id": "t", "delta": "word"}),
    ],
)
async def test_what_came_with_a_delta_stays_as_it_was(rig: Rig, opening: Any, delta: Any) -> None:
    answer, call = await rig.begun()
    about: dict[str, Any] = {"provider": {"n": 1, "list": [1]}}

    async def says(run: Run) -> None:
        await run.append(opening)
        await run.append({**delta, "providerMetadata": about})
        about["provider"]["n"] = 2  # before it is committed
        about["provider"]["list"].append(2)

    async def goes_on(run: Run) -> None:
        about["provider"]["n"] = 3  # and after
        about["provider"]["unwritable"] = object()

    call.do(says)
    await answer.until(lambda: delta["type"] in answer.types)
    call.do(goes_on).finish()
    await answer.end()
    as_it_was = {"provider": {"n": 1, "list": [1]}}
    shown = next(frame.chunk for frame in answer.frames if frame.chunk.get("type") == delta["type"])
    assert shown["providerMetadata"] == as_it_was
    (logged,) = (
        chunk
        for event in await rig.log()
        for chunk in event.get("chunks", ())
        if chunk["type"] == delta["type"]
    )  # fmt: skip
    assert logged["providerMetadata"] == as_it_was
    await rig.ended()
    parts = (await rig.history("c"))["messages"][-1]["parts"]
    assert [part["providerMetadata"] for part in parts if "providerMetadata" in part] == [as_it_was]
    (run,) = (await rig.history("c"))["runs"].values()
    assert run["status"] == "completed"
