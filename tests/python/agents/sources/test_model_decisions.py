"""The agents of the pages for OpenAI and Anthropic that ask first: what was decided about each call is in the next
request, which the library itself has built and whose types it checks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic_recordings
import openai_recordings
import pytest
from anthropic.types import MessageParam
from fastapi import Request
from model_server import HOLD, ModelServer, model_server, sse, typed
from openai.types.responses import ResponseInputItemParam
from test_model_examples import blocks, run_block

from asking import answering, decide, pending, post_back, reply, tools
from rig import Rig, running, user_of
from strandline.http.auth import Auth, Identity
from strandline.testing import ManualClock, until

PROVIDERS = ["openai", "anthropic"]
CLIENTS: list[Any] = []
"""Of the pages' agents in this test: left open, they end in the middle of another test, whose loop is not theirs."""
MADE = {"c1": ("tide", "Kiel"), "c2": ("tide", "Oslo"), "c3": ("locate", "me"), "c4": ("look", "Bonn")}


@pytest.fixture
async def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[ModelServer]:
    monkeypatch.chdir(tmp_path)
    async with model_server() as server:
        for name in ("OPENAI", "ANTHROPIC"):
            monkeypatch.setenv(f"{name}_API_KEY", "k")
            monkeypatch.setenv(f"{name}_BASE_URL", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        for client in CLIENTS:
            await client.close()
        CLIENTS.clear()


def calling(provider: str, *ids: str) -> bytes:
    """A step that thinks and calls the tools."""
    inputs = {id: json.dumps({"port": MADE[id][1]}) for id in ids}
    if provider == "openai":
        o = openai_recordings
        made = [o.function_call(MADE[id][0], text, call=id, id=f"fc_{id}") for id, text in inputs.items()]
        return sse(o.responses(o.reasoning("Hm."), *made))
    a = anthropic_recordings
    used = [a.tool_use(MADE[id][0], text, id=id) for id, text in inputs.items()]
    return sse(a.message(a.thinking("Hm."), *used, stop="tool_use"))


def saying(provider: str, text: str) -> bytes:
    if provider == "openai":
        return sse(openai_recordings.responses(openai_recordings.message(openai_recordings.text(text))))
    return sse(anthropic_recordings.message(anthropic_recordings.text(text)))


def agent_of(provider: str, ran: list[str]) -> Any:
    """The agent of the page, made anew as a new process makes it."""
    first, _, asking, *_ = blocks(f"{provider}.md")
    module = run_block(first, asking)
    CLIENTS.append(module.client)

    async def tide(port: str) -> str:
        ran.append(port)
        return f"{port}: 2 m"

    module.__dict__["FUNCTIONS"].update(tide=tide, look=tide)
    return module.reply


def results(provider: str, request: dict[str, Any]) -> dict[str, Any]:
    """What a request says of each call; every one has exactly one result, right after it."""
    if provider == "openai":
        items = request["input"]
        assert typed(items, ResponseInputItemParam) == items
        made = [item["call_id"] for item in items if item.get("type") == "function_call"]
        told = [item for item in items if item.get("type") == "function_call_output"]
        assert sorted(made) == sorted(item["call_id"] for item in told)
        return {item["call_id"]: item["output"] for item in told}
    messages = request["messages"]
    assert typed(messages, MessageParam) == messages
    found: dict[str, Any] = {}
    for message, following in zip(messages, [*messages[1:], {"content": []}], strict=True):
        made = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        told = [block for block in following["content"] if block["type"] == "tool_result"]
        assert sorted(made) == sorted(block["tool_use_id"] for block in told)
        found |= {block["tool_use_id"]: block["content"] for block in told}
    return found


def staff() -> Auth:
    async def roles_of(request: Request) -> Identity:
        return Identity(await user_of(request), roles=frozenset({"harbour"}))

    return Auth(roles_of)


async def ask(rig: Rig, text: str = "How high?", id: str = "u1") -> None:
    await (await rig.post("c", text, id)).end()
    await rig.ended()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_next_request_says_what_was_decided(provider: str, model: ModelServer, tmp_path: Path) -> None:
    ran: list[str] = []
    path, clock = tmp_path / "log.db", ManualClock()
    model.play(calling(provider, *MADE), saying(provider, "So it is."), saying(provider, "Bye."))
    async with running(path, agent=agent_of(provider, ran), clock=clock, auth=staff()) as rig:
        await ask(rig)
        asked = await pending(rig)
        assert [(each["kind"], each["toolCallId"], each["input"]) for each in asked] == [
            ("approval", "c1", {"port": "Kiel"}),
            ("approval", "c2", {"port": "Oslo"}),
            ("tool", "c3", {"port": "me"}),
        ]
        assert asked[0]["roles"] == ["harbour"] and ran == ["Bonn"]
        before = await reply(rig)
    async with running(path, agent=agent_of(provider, ran), clock=clock, auth=staff()) as rig:
        bodies = [{"approved": True}, {"approved": False, "reason": "Too far."}, {"output": {"at": "sea"}}]
        for each, body in zip(asked, bodies, strict=True):
            assert (await decide(rig, each["id"], body)).status == 200
        await rig.ended()
        message = await reply(rig)
        await ask(rig, "Thanks.", "u2")
    assert ran == ["Bonn", "Kiel"]
    told = {"c1": "Kiel: 2 m", "c2": "The tool call was denied. Too far.", "c3": '{"at":"sea"}', "c4": "Bonn: 2 m"}
    _, second, third = model.requests
    assert results(provider, second) == results(provider, third) == told
    assert (message["id"], message["parts"][-1]["text"]) == (before["id"], "So it is.")
    states = ["output-available", "output-denied", "output-available", "output-available"]
    assert [part["state"] for part in tools(message)] == states


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_new_message_or_no_answer_at_all_leaves_no_call_open(provider: str, model: ModelServer) -> None:
    ran: list[str] = []
    model.play(calling(provider, "c1", "c3"), calling(provider, "c2"), saying(provider, "Well."))
    async with running(agent=agent_of(provider, ran), auth=staff()) as rig:
        await ask(rig)
        await ask(rig, "Never mind. Oslo?", "u2")
        newer = "A newer message took the place of this."
        assert results(provider, model.requests[1]) == {"c1": f"The tool call was denied. {newer}", "c3": newer}
        await rig.clock.jump(3601)
        await rig.passing(lambda: True)
        while await pending(rig):
            await rig.clock.advance(1)
        await ask(rig, "Still there?", "u3")
    late = "Nobody decided in time."
    assert results(provider, model.requests[2])["c2"] == f"The tool call was denied. {late}"
    assert ran == []


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_another_input_is_refused_and_a_stop_hangs_up(provider: str, model: ModelServer) -> None:
    ran: list[str] = []
    model.play(calling(provider, "c1"), [HOLD])
    async with running(agent=agent_of(provider, ran), auth=staff()) as rig:
        await ask(rig)
        copy = answering(await reply(rig), {"approved": True})
        forged = {**copy, "parts": [{**p, "input": {"port": "Rome"}} if "input" in p else p for p in copy["parts"]]}
        assert (await (await post_back(rig, forged)).end()).code == "input-changed"
        await post_back(rig, copy)
        await until(model.holding.is_set)
        await rig.stop("c")
        await until(model.closed.is_set)
        await rig.ended()
    assert ran == ["Kiel"]


REQUEST = {
    "type": "mcp_approval_request", "id": "mcpr_1", "name": "dig", "server_label": "harbour", "arguments": '{"at":1}'
}  # fmt: skip
CALL = {
    "type": "mcp_call", "id": "mcp_1", "name": "dig", "server_label": "harbour", "arguments": '{"at":1}',
    "approval_request_id": "mcpr_1", "output": "dug", "error": None, "status": "completed",
}  # fmt: skip


async def mcp(model: ModelServer, path: Path, answer: dict[str, Any] | None, *after: bytes) -> list[dict[str, Any]]:
    """OpenAI asks whether it may call a tool of an MCP server; then something is decided, or nothing."""
    o, clock = openai_recordings, ManualClock()
    model.play(sse(o.responses(o.reasoning("Hm."), REQUEST)), *after)
    async with running(path, agent=agent_of("openai", []), clock=clock, auth=staff()) as rig:
        await ask(rig)
        (waiting,) = await pending(rig)
        assert [waiting[name] for name in ("kind", "id", "tool", "input")] == ["approval", "mcpr_1", "dig", {"at": 1}]
    async with running(path, agent=agent_of("openai", []), clock=clock, auth=staff()) as rig:
        if answer is not None:
            await decide(rig, "mcpr_1", answer)
            await rig.ended()
        shown = tools(await reply(rig))
        await ask(rig, "And now?", "u2")
    for request in model.requests:
        assert typed(request["input"], ResponseInputItemParam) == request["input"]
    return shown


async def test_what_openai_may_call_is_decided_here(model: ModelServer, tmp_path: Path) -> None:
    o = openai_recordings
    dug = sse(o.responses(CALL, o.message(o.text("Dug."))))
    shown = await mcp(model, tmp_path / "log.db", {"approved": True}, dug, saying("openai", "Nothing."))
    assert [(part["state"], part["toolCallId"]) for part in shown] == [
        ("output-available", "mcpr_1"),
        ("output-available", "mcp_1"),
    ]
    yes = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    _, second, third = [request["input"] for request in model.requests]
    assert second[1]["type"] == "reasoning" and second[2:] == [REQUEST, yes]
    assert third[: len(second)] == second
    assert third[len(second)] == {name: value for name, value in CALL.items() if value is not None}


@pytest.mark.parametrize("answer", [{"approved": False, "reason": "No."}, None])
async def test_what_openai_may_not_call(answer: Any, model: ModelServer, tmp_path: Path) -> None:
    said = saying("openai", "Well.")
    (part,) = await mcp(model, tmp_path / "log.db", answer, *([said] if answer else []), said)
    reason = "No." if answer else "A newer message took the place of this."
    assert part["state"] == ("output-denied" if answer else "approval-requested")
    no = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False, "reason": reason}
    assert [request["input"][2:4] for request in model.requests[1:]] == [[REQUEST, no]] * len(model.requests[1:])


async def test_a_call_that_was_approved_and_stopped_is_not_made_later(model: ModelServer) -> None:
    o = openai_recordings
    model.play(sse(o.responses(o.reasoning("Hm."), REQUEST)), [HOLD], saying("openai", "Well."))
    async with running(agent=agent_of("openai", []), auth=staff()) as rig:
        await ask(rig)
        await decide(rig, "mcpr_1", {"approved": True})
        await until(model.holding.is_set)
        await rig.stop("c")
        await rig.ended()
        await ask(rig, "And now?", "u2")
    assert model.requests[1]["input"][3]["approve"] is True
    assert model.requests[2]["input"][3]["approve"] is False
