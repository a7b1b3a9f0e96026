"""Tools of a pydantic-ai agent that wait for somebody: what was decided is in the next request of its model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, CallDeferred, DeferredToolRequests, RunContext
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from asking import answering, ask, decide, decided, pending, post_back, reply, tools
from rig import running
from strandline import Run
from strandline.agents.sources.pydantic_ai import deferred_results, history, pydantic_ai_events
from strandline.testing import until

PAY = ("pay", '{"sum": 5}')


class Model:
    """Gives one of the answers after the other; ``asked`` is what each request ended with. An event is waited for."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.asked: list[list[tuple[Any, ...]]] = []
        self.closed = asyncio.Event()

    async def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        self.asked.append([_gist(part) for message in messages for part in message.parts])
        try:
            for piece in self.answers.pop(0):
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    yield piece
        finally:
            self.closed.set()


def _gist(part: Any) -> tuple[Any, ...]:
    if part.part_kind == "tool-call":
        return (part.part_kind, part.tool_call_id, part.args_as_dict())
    return (part.part_kind, getattr(part, "tool_call_id", None), part.content, getattr(part, "outcome", None))


def calls(**each: tuple[str, str]) -> list[Any]:
    return [{at: DeltaToolCall(*call, tool_call_id=id)} for at, (id, call) in enumerate(each.items())]


class Till:
    """The tools, and what they have done."""

    def __init__(self) -> None:
        self.paid: list[Any] = []
        self.begun, self.hold = asyncio.Event(), asyncio.Event()
        self.hold.set()

    def agent(self, model: Model, *, roles: Any = None, terms: Any = ()) -> Callable[[Run], AsyncIterator[Any]]:
        shop = Agent(FunctionModel(stream_function=model), output_type=[str, DeferredToolRequests])

        @shop.tool(requires_approval=True)
        async def pay(ctx: RunContext[None], sum: int) -> str:
            assert ctx.tool_call_approved
            self.begun.set()
            await self.hold.wait()
            self.paid.append(sum)
            return f"paid {sum}"

        @shop.tool_plain
        def look(at: str) -> str:
            return f"{at}: 5"

        @shop.tool_plain
        def locate() -> str:
            raise CallDeferred

        async def answer(run: Run) -> AsyncIterator[Any]:
            if roles is not None:
                run.client_tools("locate", roles=roles)
            for names, more in terms:
                run.approvals(*names, **more)
            deferred = deferred_results(run)
            asked = history(run.messages, deferred)
            yield pydantic_ai_events(run, shop.run_stream_events(message_history=asked, deferred_tool_results=deferred))

        return answer


async def test_what_was_approved_denied_and_run_elsewhere_is_gone_on_from_after_a_restart(tmp_path: Path) -> None:
    till, path = Till(), tmp_path / "chat.db"
    first = Model(calls(c1=PAY, c2=("look", '{"at": "till"}'), c3=("pay", '{"sum": 900}'), c4=("locate", "{}")))
    async with running(path, agent=till.agent(first)) as rig:
        await ask(rig)
        shown = tools(await reply(rig))
        assert [part["state"] for part in shown] == [
            "approval-requested", "output-available", "approval-requested", "input-available"
        ]  # fmt: skip
        assert [(each["kind"], each["tool"], each["input"]) for each in await pending(rig)] == [
            ("approval", "pay", {"sum": 5}),
            ("approval", "pay", {"sum": 900}),
            ("tool", "locate", {}),
        ]
        before = await reply(rig)
    second = Model(["Paid, ", "in part."])
    async with running(path, agent=till.agent(second)) as rig:
        await decided(rig, {"approved": True}, {"approved": False, "reason": "Too much."}, {"output": {"x": 1}})
        after = await reply(rig)
    assert till.paid == [5]
    assert second.asked == [
        [
            ("user-prompt", None, "pay it", None),
            ("tool-call", "c1", {"sum": 5}),
            ("tool-call", "c2", {"at": "till"}),
            ("tool-call", "c3", {"sum": 900}),
            ("tool-call", "c4", {}),
            ("tool-return", "c1", "paid 5", "success"),
            ("tool-return", "c2", "till: 5", "success"),
            ("tool-return", "c3", "Too much.", "denied"),
            ("tool-return", "c4", {"x": 1}, "success"),
        ]
    ]
    assert after["id"] == before["id"]
    assert [part["state"] for part in tools(after)] == [
        "output-available", "output-available", "output-denied", "output-available"
    ]  # fmt: skip
    assert tools(after)[0]["approval"]["approved"] is True
    assert after["parts"][-1]["text"] == "Paid, in part."
    assert len(tools(after)) == 4


async def test_a_call_that_nobody_approved_is_told_to_the_model_without_running_anything() -> None:
    till, model = Till(), Model(calls(c1=PAY), ["Then not."])
    async with running(agent=till.agent(model)) as rig:
        await ask(rig)
        await decided(rig, {"approved": False})
        parts = (await reply(rig))["parts"]
    assert (till.paid, parts[-1]["text"]) == ([], "Then not.")
    assert model.asked[1][-1][::3] == ("tool-return", "denied")


async def test_it_asks_again_and_again() -> None:
    till, model = Till(), Model(calls(c1=PAY), calls(c2=PAY), calls(c3=PAY), ["Thrice."])
    async with running(agent=till.agent(model)) as rig:
        await ask(rig)
        for _ in range(3):
            await decided(rig, {"approved": True})
        message = await reply(rig)
        (*_, ended) = [each for each in await rig.log() if each["type"] == "run-ended"]
    assert till.paid == [5, 5, 5]
    assert [part["state"] for part in tools(message)] == ["output-available"] * 3
    assert (message["parts"][-1]["text"], ended["status"]) == ("Thrice.", "completed")


async def test_a_chat_s_copy_answers_but_its_input_is_not_taken() -> None:
    till, model = Till(), Model(calls(c1=PAY), ["Done."])
    async with running(agent=till.agent(model)) as rig:
        await ask(rig)
        copy = answering(await reply(rig), {"approved": True})
        forged = {**copy, "parts": [{**p, "input": {"sum": 9}} if "input" in p else p for p in copy["parts"]]}
        refused = await (await post_back(rig, forged)).end()
        assert (refused.status, refused.code, till.paid) == (409, "input-changed", [])
        went_on = await (await post_back(rig, copy)).end()
        await rig.ended()
    assert till.paid == [5]
    assert "tool-input-available" not in went_on.types, "the message has it"


async def test_a_new_message_leaves_a_history_that_providers_take() -> None:
    till, model = Till(), Model(calls(c1=PAY, c2=("locate", "{}")), ["As you like."])
    async with running(agent=till.agent(model)) as rig:
        await ask(rig)
        await ask(rig, "never mind", "u2")
        assert await pending(rig) == []
    assert till.paid == []
    said = model.asked[1]
    assert [part[:2] for part in said] == [
        ("user-prompt", None), ("tool-call", "c1"), ("tool-call", "c2"), ("tool-return", "c1"), ("tool-return", "c2"),
        ("user-prompt", None),
    ]  # fmt: skip
    assert said[3][3] == "denied" and said[4][3] == "failed"


async def test_who_may_run_a_client_s_tool_is_what_the_agent_has_said() -> None:
    till = Till()
    async with running(agent=till.agent(Model(calls(c1=("locate", "{}"))), roles=["driver"])) as rig:
        await ask(rig)
        (waiting,) = await pending(rig)
        assert (await decide(rig, waiting["id"], {"output": 1})).code == "not-yours-to-decide"


@pytest.mark.parametrize("names", [("pay",), ()])
async def test_who_may_approve_and_until_when_is_what_the_agent_has_said(names: tuple[str, ...]) -> None:
    till, model = Till(), Model(calls(c1=PAY))
    terms = [(names, {"roles": ["boss"], "expires_in": 60}), (("look",), {"roles": ["nobody"]})]
    async with running(agent=till.agent(model, terms=terms)) as rig:
        await ask(rig)
        (waiting,) = await pending(rig)
        assert (waiting["roles"], waiting["expiresAt"] - waiting["createdAt"]) == (["boss"], 60_000)
        assert (await decide(rig, waiting["id"], {"approved": True})).code == "not-yours-to-decide"
        await rig.clock.advance(61)
        await rig.passing(lambda: not rig.sessions._live["c"].state.waiting())
        (part,) = tools(await reply(rig))
    assert (till.paid, part["state"], part["approval"]["reason"]) == ([], "output-denied", "Nobody decided in time.")


async def test_a_tool_that_is_named_has_its_own_terms() -> None:
    till, model = Till(), Model(calls(c1=PAY))
    terms = [(("pay",), {"expires_in": 60}), ((), {"roles": ["boss"], "expires_in": 5})]
    async with running(agent=till.agent(model, terms=terms)) as rig:
        await ask(rig)
        (waiting,) = await pending(rig)
        assert (waiting["roles"], waiting["expiresAt"] - waiting["createdAt"]) == (None, 60_000)


@pytest.mark.parametrize("where", ["tool", "model"])
async def test_a_stop_ends_what_goes_on(where: str) -> None:
    till, forever = Till(), asyncio.Event()
    model = Model(calls(c1=PAY), ["One ", forever])
    if where == "tool":
        till.hold.clear()
    async with running(agent=till.agent(model)) as rig:
        await ask(rig)
        model.closed.clear()
        (waiting,) = await pending(rig)
        await decide(rig, waiting["id"], {"approved": True})
        await until(till.begun.is_set)
        if where == "model":
            await until(lambda: len(model.asked) == 2)
        await rig.stop("c")
        await rig.ended()
        (part,) = tools(await reply(rig))
        if where == "model":
            assert model.closed.is_set()
    assert (till.paid, part["state"]) == (([5], "output-available") if where == "model" else ([], "output-error"))
