"""Producers by URL that wait for somebody: real servers of pydantic-ai (both protocols) and of Strandline, and the rest
of what AG-UI can ask for. What was decided is in the next request, and the reply goes on, also after a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from ag_ui.core import RunAgentInput
from fastapi import FastAPI, Request, Response
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
from pydantic_ai.ui import UIAdapter
from pydantic_ai.ui.ag_ui import AGUIAdapter
from pydantic_ai.ui.vercel_ai import VercelAIAdapter
from starlette.responses import StreamingResponse

from asking import answering, ask, decide, decided, last_run, pending, post_back, reply, tools
from rig import running, user_of
from strandline import Run, Strandline
from strandline.agents.sources.ag_ui import ag_ui_stream
from strandline.agents.sources.sse import Protocol, ag_ui_body, stream_from, ui_message_body
from strandline.http.auth import Auth
from strandline.testing import ManualClock, until

PROTOCOLS: list[Protocol] = ["ui-message", "ag-ui"]


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def relaying(url: str, protocol: Protocol) -> Any:
    async def agent(run: Run) -> AsyncIterator[Any]:
        body = ag_ui_body(run) if protocol == "ag-ui" else ui_message_body(run)
        yield stream_from(url, protocol=protocol, json=body, run=run)

    return agent


class Shop:
    """A server of pydantic-ai's own, whose model calls ``pay`` twice and then says ``Done.``. It remembers nothing."""

    def __init__(self, adapter: type[UIAdapter[Any, Any, Any, Any, Any]], **more: Any) -> None:
        self.paid: list[int] = []
        self.told: list[list[tuple[Any, ...]]] = []
        self.asked: list[Any] = []
        self.app = FastAPI()
        shop = Agent(FunctionModel(stream_function=self._model), output_type=[str, DeferredToolRequests])

        @shop.tool_plain(requires_approval=True)
        def pay(sum: int) -> str:
            self.paid.append(sum)
            return f"paid {sum}"

        @self.app.post("/")
        async def answer(request: Request) -> Response:
            self.asked.append(json.loads(await request.body()))
            return await adapter.dispatch_request(request, agent=shop, **more)

    async def _model(self, messages: list[Any], info: Any) -> AsyncIterator[Any]:
        parts = [part for message in messages for part in message.parts]
        self.told.append([(part.part_kind, getattr(part, "tool_call_id", None)) for part in parts])
        if any(part.part_kind == "tool-return" for part in parts):
            yield "Done."
        else:
            yield {
                at: DeltaToolCall("pay", f'{{"sum": {sum}}}', tool_call_id=f"c{at}") for at, sum in enumerate((5, 900))
            }


def shop_of(protocol: Protocol) -> Shop:
    if protocol == "ag-ui":
        return Shop(AGUIAdapter, manage_message_history="client")
    return Shop(VercelAIAdapter, sdk_version=6, manage_message_history="client")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_another_server_asks_for_is_decided_here(protocol: Protocol, tmp_path: Path) -> None:
    shop, path = shop_of(protocol), tmp_path / "chat.db"
    async with serving(shop.app) as url:
        async with running(path, agent=relaying(url, protocol)) as rig:
            await ask(rig)
            asked = await pending(rig)
            assert [(each["kind"], each["input"]) for each in asked] == [
                ("approval", {"sum": 5}),
                ("approval", {"sum": 900}),
            ]
            before = await reply(rig)
        async with running(path, agent=relaying(url, protocol)) as rig:
            await decided(rig, {"approved": True}, {"approved": False, "reason": "Too much."})
            after, ended = await reply(rig), await last_run(rig)
    assert shop.paid == [5]
    assert [part["state"] for part in tools(after)] == ["output-available", "output-denied"]
    assert tools(after)[0]["output"] == "paid 5"
    assert (after["id"], after["parts"][-1]["text"], ended["status"]) == (before["id"], "Done.", "completed")
    assert shop.told[1] == [
        ("user-prompt", None), ("tool-call", "c0"), ("tool-call", "c1"), ("tool-return", "c0"), ("tool-return", "c1")
    ]  # fmt: skip
    if protocol == "ag-ui":
        assert RunAgentInput.model_validate(shop.asked[1])
        assert shop.asked[1]["resume"] == [
            {"interruptId": "int-c0", "status": "resolved", "payload": {"approved": True}},
            {"interruptId": "int-c1", "status": "resolved", "payload": {"approved": False, "reason": "Too much."}},
        ]
    else:
        last = shop.asked[1]["messages"][-1]
        assert (shop.asked[1]["messageId"], last["id"]) == (after["id"], after["id"])
        assert [part["state"] for part in tools(last)] == ["approval-responded"] * 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_forged_copy_is_refused_and_a_new_message_leaves_a_whole_history(protocol: Protocol) -> None:
    shop = shop_of(protocol)
    async with serving(shop.app) as url, running(agent=relaying(url, protocol)) as rig:
        await ask(rig)
        copy = answering(await reply(rig), {"approved": True}, {"approved": True})
        forged = {**copy, "parts": [{**p, "input": {"sum": 9}} if "input" in p else p for p in copy["parts"]]}
        assert (await (await post_back(rig, forged)).end()).code == "input-changed"
        await ask(rig, "never mind", "u2")
        assert (await last_run(rig))["status"] == "completed"
    assert shop.paid == []
    assert shop.told[1] == [
        ("user-prompt", None), ("tool-call", "c0"), ("tool-call", "c1"), ("tool-return", "c0"), ("tool-return", "c1"),
        ("user-prompt", None),
    ]  # fmt: skip
    assert "resume" not in shop.asked[1] and "messageId" not in shop.asked[1]


async def test_a_strandline_that_asks(tmp_path: Path) -> None:
    """As the producer: an approval, and a tool that a client runs."""

    async def upstream(run: Run) -> AsyncIterator[Any]:
        if not run.decisions:
            yield "Let me see. "
            await run.request_approval("pay", {"sum": 5}, id="c0")
            await run.call_client_tool("locate", {"of": "you"}, id="c1")
            return
        for each in run.decisions:
            if each.approved:
                await run.tool_result(each.tool_call, "paid")
        yield f"{[(each.tool, each.outcome, each.output) for each in run.decisions]}"

    far = Strandline(tmp_path / "far.db", auth=Auth(user_of))
    far.agent(upstream)
    async with serving(far.app()) as url, running(agent=relaying(f"{url}/api/tanstack", "ag-ui")) as rig:
        await ask(rig)
        assert [(each["kind"], each["tool"]) for each in await pending(rig)] == [
            ("approval", "pay"),
            ("tool", "locate"),
        ]
        await decided(rig, {"approved": True}, {"output": {"x": 1}})
        message, ended = await reply(rig), await last_run(rig)
    assert ended["status"] == "completed", ended
    assert [part["state"] for part in tools(message)] == ["output-available", "output-available"]
    assert message["parts"][-1]["text"] == "[('pay', 'approved', None), ('locate', 'output', {'x': 1})]"


# ---------------------------------------------------------------------- the rest of what AG-UI can ask for


class Asking:
    """Ends its first run with these interrupts, and the next with ``said``; ``asked``: its requests."""

    def __init__(self, *interrupts: dict[str, Any], said: tuple[dict[str, Any], ...] = ()) -> None:
        self.interrupts, self.said = list(interrupts), said
        self.asked: list[Any] = []
        self.hold, self.closed = False, asyncio.Event()
        self.app = FastAPI()
        self.app.post("/")(self._answer)

    async def _answer(self, asked: dict[str, Any]) -> StreamingResponse:
        RunAgentInput.model_validate(asked)
        self.asked.append(asked)
        return StreamingResponse(self._events(asked), media_type="text/event-stream")

    async def _events(self, asked: dict[str, Any]) -> AsyncIterator[str]:
        about = {"threadId": asked["threadId"], "runId": asked["runId"]}
        waiting = len(self.asked) == 1
        said = [] if waiting else self.said
        if waiting:
            for call in ("c0", "c1"):
                said = [
                    *said,
                    {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "look"},
                    {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": '{"at": 1}'},
                    {"type": "TOOL_CALL_END", "toolCallId": call},
                ]
        outcome = {"type": "interrupt", "interrupts": self.interrupts} if waiting else {"type": "success"}
        for event in [{"type": "RUN_STARTED", **about}, *said]:
            yield f"data: {json.dumps(event)}\n\n"
        try:
            if self.hold and not waiting:
                await asyncio.Event().wait()
        finally:
            self.closed.set()
        yield f"data: {json.dumps({'type': 'RUN_FINISHED', **about, 'outcome': outcome})}\n\n"


RESULT = {"type": "TOOL_CALL_RESULT", "messageId": "m", "toolCallId": "c0", "content": "seen"}
TEXT = [
    {"type": "TEXT_MESSAGE_START", "messageId": "t", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "t", "delta": "On we go."},
    {"type": "TEXT_MESSAGE_END", "messageId": "t"},
]


async def test_inputs_and_outputs_are_asked_for_as_well(tmp_path: Path) -> None:
    how_many = {"id": "i0", "reason": "input_required", "message": "How many?", "responseSchema": {"type": "number"}}
    which = {"id": "i1", "reason": "input_required"}
    approval = {"id": "i2", "reason": "tool_call", "toolCallId": "c0"}
    output = {"id": "i3", "reason": "tool_call", "toolCallId": "c1", "metadata": {"kind": "client_tool"}}
    again = {"type": "TOOL_CALL_START", "toolCallId": "c0", "toolCallName": "look"}
    arguments = {"type": "TOOL_CALL_ARGS", "toolCallId": "c0", "delta": "{}"}
    producer = Asking(how_many, which, approval, output, said=(again, arguments, RESULT, *TEXT))
    path, clock = tmp_path / "chat.db", ManualClock()
    async with serving(producer.app) as url:
        async with running(path, clock=clock, agent=relaying(url, "ag-ui")) as rig:
            await ask(rig)
            asked = {each["toolCallId"]: each for each in await pending(rig)}
            assert {call: (each["kind"], each["tool"]) for call, each in asked.items()} == {
                "i0": ("tool", "interrupt"), "i1": ("tool", "interrupt"), "c0": ("approval", "look"),
                "c1": ("tool", "look"),
            }  # fmt: skip
            assert asked["i0"]["input"] == how_many
        async with running(path, clock=clock, agent=relaying(url, "ag-ui")) as rig:
            given = {"i0": {"output": 3}, "i1": {"errorText": "No."}, "c0": {"approved": True}, "c1": {"output": "x"}}
            for call, body in given.items():
                await decide(rig, asked[call]["id"], body)
            await rig.ended()
            message, ended = await reply(rig), await last_run(rig)
            await ask(rig, "and now?", "u2")
    first, second, third = producer.asked
    assert "resume" not in first and "resume" not in third
    assert sorted(second["resume"], key=lambda each: str(each["interruptId"])) == [
        {"interruptId": "i0", "status": "resolved", "payload": 3},
        {"interruptId": "i1", "status": "resolved", "payload": {"error": "No."}},
        {"interruptId": "i2", "status": "resolved", "payload": {"approved": True}},
        {"interruptId": "i3", "status": "resolved", "payload": "x"},
    ]
    assert [each["role"] for each in second["messages"]] == ["user", "assistant"], "no results: they are resumed"
    assert [call["id"] for call in second["messages"][1]["toolCalls"]] == ["c0", "c1"], "interrupts are no calls"
    assert [each["role"] for each in third["messages"]] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    shown = {part["toolCallId"]: part for part in tools(message)}
    assert (shown["c0"]["output"], shown["c0"]["input"], shown["c1"]["output"]) == ("seen", {"at": 1}, "x")
    assert (message["parts"][-1]["text"], ended["status"]) == ("On we go.", "completed")


async def test_what_expired_is_cancelled() -> None:
    producer = Asking({"id": "i0", "reason": "x"}, {"id": "i2", "reason": "tool_call", "toolCallId": "c0"})
    clock = ManualClock()

    async def agent(run: Run) -> AsyncIterator[Any]:
        run.client_tools("interrupt", expires_in=60)
        yield relaying(url, "ag-ui")(run)

    async with serving(producer.app) as url, running(agent=agent, clock=clock) as rig:
        await ask(rig)
        await clock.jump(100)
        await rig.passing(lambda: len(producer.asked) == 1)
        (left,) = [each for each in await pending(rig) if each["kind"] == "approval"]
        await rig.passing(lambda: True)
        while len(await pending(rig)) > 1:
            await clock.advance(1)
        await decide(rig, left["id"], {"approved": True})
        await rig.ended()
    assert {"interruptId": "i0", "status": "cancelled"} in producer.asked[1]["resume"]


async def test_a_stop_hangs_up_on_what_goes_on() -> None:
    producer = Asking({"id": "i2", "reason": "tool_call", "toolCallId": "c0"})
    producer.hold = True
    async with serving(producer.app) as url, running(agent=relaying(url, "ag-ui")) as rig:
        await ask(rig)
        producer.closed.clear()
        (waiting,) = await pending(rig)
        await decide(rig, waiting["id"], {"approved": True})
        await until(lambda: len(producer.asked) == 2)
        await rig.stop("c")
        await until(producer.closed.is_set)
        await rig.ended()
        assert (await last_run(rig))["status"] == "stopped"


async def test_without_a_run_it_is_only_shown() -> None:
    asked = {"type": "interrupt", "interrupts": [{"id": "i0", "reason": "x"}]}
    events = [{"type": "RUN_STARTED"}, {"type": "RUN_FINISHED", "outcome": asked}]
    async with running(agent=lambda run: ag_ui_stream(events)) as rig:
        await ask(rig)
        assert (await last_run(rig))["status"] == "completed"
        assert await pending(rig) == []
