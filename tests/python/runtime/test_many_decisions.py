"""How much a session may wait for: decisions, and what they are about (PROTOCOL §15.1)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asking import asked, decide, pending
from far import FAR, Worker, served
from rig import Rig, running
from strandline import Run
from strandline.errors import ChunkRefused

REASON = ("failed", "too-many-decisions")


def tool(name: str, input: Any = None) -> Any:
    return lambda run: run.call_client_tool("look", input, id=name)


def streamed(name: str, input: Any = None) -> dict[str, Any]:
    """What a library's stream says of a call."""
    return {"type": "tool-input-available", "toolCallId": name, "toolName": "look", "input": input}


async def ends(rig: Rig) -> list[tuple[str, str]]:
    events = [event for event in await rig.log() if event["type"] == "run-ended"]
    return [(event["status"], event["reason"]) for event in events]


async def test_an_agent_is_told_that_it_asks_for_too_much_and_may_go_on() -> None:
    refused: list[str] = []

    async def one_more(run: Run) -> None:
        for ask in (run.request_approval("refund", {}), run.call_client_tool("look")):
            with pytest.raises(ChunkRefused) as caught:
                await ask
            refused.append(caught.value.code)

    async with running(max_decisions=2) as rig:
        await asked(rig, tool("a"), tool("b"), one_more)
        assert refused == ["too-many-decisions"] * 2
        assert await ends(rig) == [("suspended", "awaiting-decisions")]
        assert [each["id"] for each in await pending(rig)] == ["a", "b"]
        for decision in ("a", "b"):
            assert (await decide(rig, decision, {"output": 1})).status == 200
        call = await rig.agent.called(2)
        call.do(tool("c")).do(tool("d")).finish()
        await rig.ended()
        assert [each["id"] for each in await pending(rig)] == ["c", "d"], "what was decided has made room"


async def test_what_an_agent_has_said_stays_when_it_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    async with running(max_decisions=2) as rig:
        await asked(rig, tool("a"), tool("b"), tool("c"))
        assert await ends(rig) == [REASON]
        assert await pending(rig) == []
        (message,) = [each for each in (await rig.history("c"))["messages"] if each["role"] == "assistant"]
        states = [part.get("text", part.get("state")) for part in message["parts"] if part["type"] != "step-start"]
        assert states == ["Let me see. ", "output-error", "output-error"]


async def test_a_stream_that_leaves_too_much_fails_and_its_calls_are_closed() -> None:
    async with running(max_decisions=2) as rig:
        answer, call = await rig.begun()
        call.run.client_tools("look")
        call.say("Let me see. ", *map(streamed, "abc")).finish()
        await answer.end()
        await rig.ended()
        assert await ends(rig) == [REASON]
        assert await pending(rig) == []
        assert "too-many-decisions" not in str(answer.frames[-2].chunk["errorText"])
        (message,) = [each for each in (await rig.history("c"))["messages"] if each["role"] == "assistant"]
        tools = [part["state"] for part in message["parts"] if part["type"] == "tool-look"]
        assert (tools, message["parts"][1]["text"]) == (["output-error"] * 3, "Let me see. ")
        _, call = await rig.begun(id="u2")
        call.run.client_tools("look")
        call.say(*map(streamed, "de")).finish()
        await rig.ended()
        assert [each["id"] for each in await pending(rig)] == ["d", "e"]


async def test_runs_beside_each_other_have_one_limit() -> None:
    async with running(max_decisions=2, submit="concurrent") as rig:
        _, first = await rig.begun()
        _, second = await rig.begun(id="u2")
        for call, names in ((first, "ab"), (second, "c")):
            for name in names:
                call.do(tool(name))
        await rig.passing(lambda: sum(len(call.run.message["parts"]) for call in (first, second)) == 5)
        first.finish()
        await rig.ended_run(first.run.id)
        second.finish()
        await rig.ended()
        assert await ends(rig) == [("suspended", "awaiting-decisions"), REASON]
        assert [each["id"] for each in await pending(rig)] == ["a", "b"]


@pytest.mark.parametrize(("sizes", "fits"), [((400, 400), True), ((400, 700), False), ((5000,), True)])
async def test_the_inputs_have_a_limit_together_and_a_single_one_has_not(sizes: tuple[int, ...], fits: bool) -> None:
    async with running(decisions_limit=1000) as rig:
        await asked(rig, *(tool(f"d{number}", "x" * size) for number, size in enumerate(sizes)))
        assert await ends(rig) == [("suspended", "awaiting-decisions") if fits else REASON]
        assert len(await pending(rig)) == (len(sizes) if fits else 0)


async def test_a_run_elsewhere_is_answered_with_how_it_has_ended() -> None:
    async with served(max_decisions=1) as rig:
        answer = await rig.post("c", headers=FAR)
        worker = Worker(rig.app)
        await worker.claim(answer.headers["strandline-run"])
        await worker.append({"type": "start-step"}, *map(streamed, "ab"))
        ended = await worker.end(awaits=[{"toolCallId": "a"}, {"toolCallId": "b"}])
        assert (ended.json["state"], (ended.json["status"], ended.json["reason"])) == ("over", REASON)
        assert await pending(rig) == []
