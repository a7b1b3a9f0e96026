"""``kill -9`` under agents that are called again: no word stands twice, none is missing, and the log, the store and
every reader agree (PROTOCOL §17.3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from crash_readers import Reading, Visitor

from replies import SHIM, counted, numbers, text_in, text_of
from server_process import ServerProcess
from strandline.core.message import FoldState
from strandline.testing import until

Serve = Callable[..., ServerProcess]

COUNT = 80


def folded(feed: Reading) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """What the log says: the parts of the message of each run, by run, with the name of its agent."""
    agents: dict[str, str] = {}
    folds: dict[str, FoldState] = {}
    for frame in feed.frames:
        event = frame.chunk
        match event["type"]:
            case "run-queued":
                agents[event["run"]] = event["agent"]
            case "message-reset":
                folds[event["run"]] = FoldState()
            case "appended":
                for chunk in event["chunks"]:
                    folds.setdefault(event["run"], FoldState()).push(chunk)
    return {run: (agents.get(run, "reply"), fold.parts()) for run, fold in folds.items()}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("recover", ["continue", "restart"])
async def test_after_any_kills_the_reply_is_whole_and_stands_once(serve: Serve, recover: str, seed: int) -> None:
    chance = random.Random(seed)
    env = {"STRANDLINE_LOCK_WAIT": "5", "STRANDLINE_MAX_ATTEMPTS": "100", "RECOVER": recover}
    server = serve(app="recovering", env=env)
    async with Visitor(server) as visitor:
        message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": str(COUNT)}]}
        sent = (await visitor._client.post("/api/sessions/c/messages", json={"message": message})).json()
        readings = [visitor.resume("c")]
        for _ in range(3):
            await readings[-1].until_text(1)
            readings.append(visitor.resume("c", headers=SHIM))
            await asyncio.sleep(chance.uniform(0, 0.4))  # the random moment
            await visitor.kill()
            await visitor.start()
            shown = [reading for reading in readings if reading.cursor is not None]
            readings += [visitor.go_on(chance.choice(shown), chance.choice([{}, SHIM])), visitor.resume("c")]
        while (await visitor.history("c"))["activeRun"] is not None:
            # Where the message was said anew a stream ends, and its client comes back.
            await readings[-1].end()
            readings.append(visitor.resume("c"))
        history = await visitor.history("c")
        reply = history["messages"][-1]
        assert text_of(reply) == numbers(COUNT)
        assert [(run["run"], run["status"]) for run in history["runs"].values()] == [(sent["run"], "completed")]

        # The log folds to what is stored, also of what was written beside it, attempt after attempt.
        feed = visitor.watch("c", sent["cursor"])
        await until(lambda: any(frame.chunk["type"] == "readers" for frame in feed.frames))
        log = folded(feed)
        assert log[sent["run"]] == ("reply", reply["parts"])
        seen = (await visitor._client.get("/api/sessions/c")).json()
        beside = {each["run"]: (each["agent"], each["message"]["parts"]) for each in seen["spawned"]}
        assert {run: said for run, said in log.items() if run != sent["run"]} == {
            run: said for run, said in beside.items() if said[1]
        }
        statuses = {run["id"]: run["status"] for run in seen["runs"]}
        assert beside, "the attempt that came to its end has one"  # an earlier one may have been killed before it
        for run, (agent, parts) in beside.items():
            assert agent == "beside"
            assert counted(text_of({"parts": parts})) == 20 or statuses[run] == "lost"

        # Whoever was cut off ends with the same, whatever it had been shown.
        for reading in [*readings]:
            if reading.cursor is None:
                continue
            stock = await visitor.go_on(reading, {}).end()
            if stock.status == 200:
                assert text_in(stock.frames) == numbers(COUNT)
            ours = await visitor.go_on(reading, SHIM).end()
            if ours.status == 200 and ours.frames[-1].chunk.get("code") != "resync":
                assert text_in(ours.frames) == numbers(COUNT)
        await feed.drop()


async def test_an_exit_signal_leaves_the_reply_to_the_next_process(serve: Serve) -> None:
    env = {"STRANDLINE_LOCK_WAIT": "5", "STRANDLINE_SHUTDOWN_GRACE": "0", "RECOVER": "continue"}
    server = serve(app="recovering", env=env)
    async with Visitor(server) as visitor:
        stock = visitor.ask("c", str(COUNT))
        await stock.until_text(10)
        ours = visitor.go_on(stock, SHIM)
        await asyncio.to_thread(server.terminate)
        await stock.end()
        await ours.end()
        # Unless it was said anew just before.
        assert stock.frames[-1].chunk["code"] in ("shutting-down", "resync")
        assert ours.frames[-1].chunk.get("code") in (None, "resync")
        await visitor.start()
        while (await visitor.history("c"))["activeRun"] is not None:
            await visitor.resume("c").end()
        history = await visitor.history("c")
        assert text_of(history["messages"][-1]) == numbers(COUNT)
        assert [run["status"] for run in history["runs"].values()] == ["completed"]
