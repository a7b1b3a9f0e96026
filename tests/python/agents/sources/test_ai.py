"""The ``ai`` package for Python, really installed: a server that runs its agents, with its own fake model.

It needs Python 3.12, so the server may run in an environment of its own (``second_python.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rig import running
from second_python import interpreter
from server_process import ServerProcess
from strandline import Run
from strandline.agents.sources.sse import stream_from, ui_message_body
from strandline.testing import fold_frames, read_frames

Serve = Callable[..., ServerProcess]

APP = Path(__file__).parents[2] / "apps" / "ai_app.py"


@pytest.fixture
async def server(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    process = serve(script=APP, python=interpreter())
    fresh = httpx.Limits(max_keepalive_connections=0)  # the server closes idle ones, and could while one is taken again
    async with httpx.AsyncClient(base_url=process.url, timeout=20, limits=fresh) as client:
        yield client


async def asked(server: httpx.AsyncClient, text: str, id: str = "u1", **body: Any) -> list[Any]:
    """Send a message; the parts of the reply as a client folds them."""
    message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
    answer = await server.post("/api/chat", json={"id": "c", "messages": [message], **body})
    frames = read_frames(answer.content)
    assert frames[-2].chunk == {"type": "finish", "finishReason": "stop"}, answer.text
    return fold_frames(frames).parts()


async def stored(server: httpx.AsyncClient) -> Any:
    return (await server.get("/api/chat/c/messages")).json()["messages"][-1]


async def theirs(server: httpx.AsyncClient) -> Any:
    """The reply as the package's own ``to_ui_messages`` returns it."""
    (message,) = (await server.get("/oracle/c")).json()["messages"]
    return message


def content(parts: list[Any]) -> list[Any]:
    """Without what says only how the parts came: steps, the state of text, ids of reasoning, the text of an input."""
    kept = [part for part in parts if part["type"] != "step-start"]
    aside = {True: ("state", "id"), False: ("rawInput",)}
    return [{name: value for name, value in part.items() if name not in aside["text" in part]} for part in kept]


@pytest.mark.parametrize("sse", [False, True])
async def test_what_is_stored_is_what_the_package_returns(server: httpx.AsyncClient, sse: bool) -> None:
    parts = await asked(server, "weather?", sse=sse)
    kinds = ["reasoning", "text", "tool-weather", "tool-broken", "tool-count"]
    assert [part["type"] for part in parts] == ["step-start", *kinds, "step-start", "text", "text"]
    assert [part["text"] for part in parts if part["type"] == "text"] == ["Looking.", "It is ", "clear. 🦩"]
    message, oracle = await stored(server), await theirs(server)
    assert message["parts"] == parts
    ours = content(parts)
    # Its own dump leaves out nulls and forgets aliases; its stream, which is what a client sees, does not.
    assert ours[2].pop("output") == {"wind_speed": None, "skyNow": "clear over Oslo"}
    oracle["parts"][2].pop("output")
    assert ours == content(oracle["parts"])
    assert ours[4]["output"] == "0 1 2 "
    sources = message["metadata"]["aiPython"]["sourceMessages"]
    assert sources[0]["id"] == oracle["metadata"]["aiPython"]["sourceMessages"][0]["id"]


async def test_the_package_goes_on_from_what_is_stored(server: httpx.AsyncClient) -> None:
    """The fake model answers only if its history is, word for word, the conversation that it was scripted with."""
    await asked(server, "weather?")
    assert content(await asked(server, "and now?", "u2")) == [{"type": "text", "text": "Still clear."}]


async def test_files_and_data_are_kept(server: httpx.AsyncClient) -> None:
    picture = {"type": "file", "url": "data:image/png;base64,iVBORw==", "mediaType": "image/png"}
    assert content(await asked(server, "a picture?")) == [{"type": "text", "text": "Here."}, picture]
    assert await asked(server, "objects", "u2") == [
        {"type": "data-mark", "id": "x", "data": {"n": None}},
        {"type": "data-mark", "id": "y", "data": [{"wind_speed": 1.0, "skyNow": "s"}]},
    ]


async def test_what_the_model_has_no_answer_to_fails_the_run(server: httpx.AsyncClient) -> None:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "unscripted"}]}
    answer = await server.post("/api/chat", json={"id": "c", "messages": [message]})
    assert read_frames(answer.content)[-2].chunk["errorText"] == "The reply failed. Please try again."


@pytest.mark.parametrize("sse", [False, True])
async def test_a_stop_ends_the_agent_and_its_tool(server: httpx.AsyncClient, sse: bool) -> None:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "wait"}]}
    body = {"id": "c", "messages": [message], "sse": sse}
    async with server.stream("POST", "/api/chat", json=body) as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if "tool-input-delta" in line:
                break
        assert (await server.get("/oracle/c")).json()["closed"] == []
        assert (await server.post("/api/chat/c/stop", json={})).json()["stopped"] is True
        assert [line async for line in lines if '"abort"' in line]
    for _ in range(200):
        if (await server.get("/oracle/c")).json()["closed"] == ["tool"]:
            break
    assert (await server.get("/oracle/c")).json()["closed"] == ["tool"]
    waiting = (await stored(server))["parts"][-1]
    assert (waiting["state"], waiting["errorText"]) == ("output-error", "The reply was stopped.")


PAY = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "pay"}]}


@pytest.mark.parametrize("sse", [False, True])
async def test_tools_that_need_approval_are_decided_here_also_after_a_kill(serve: Serve, sse: bool) -> None:
    process = serve(script=APP, python=interpreter())
    body = {"id": "c", "messages": [PAY], "sse": sse}
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=20, limits=limits) as client:
        await client.post(f"{process.url}/api/chat", json=body)
        asked = (await client.get(f"{process.url}/api/sessions/c/decisions")).json()["decisions"]
        assert [(each["toolCallId"], each["input"]) for each in asked] == [("c1", {"sum": 5}), ("c2", {"sum": 900})]
        process.kill()
        process.start()
        for each, answer in zip(asked, [{"approved": True}, {"approved": False, "reason": "Too much."}], strict=True):
            await client.post(f"{process.url}/api/sessions/c/decisions/{each['id']}", json=answer)
        message = await gone_on(client, process.url)
        paid = (await client.get(f"{process.url}/oracle/c")).json()["paid"]
    assert paid == [5]
    first, second = [part for part in message["parts"] if part["type"] == "tool-pay"]
    assert (first["output"], second["errorText"]) == ("paid 5", "Rejected: Too much.")
    assert message["parts"][-1]["text"] == "Paid, in part."


async def gone_on(client: httpx.AsyncClient, url: str) -> Any:
    """The reply once it is whole."""
    await client.get(f"{url}/api/chat/c/stream")
    return (await client.get(f"{url}/api/chat/c/messages")).json()["messages"][-1]


async def test_another_message_instead_of_an_approval_is_answered(server: httpx.AsyncClient) -> None:
    await server.post("/api/chat", json={"id": "c", "messages": [PAY]})
    assert content(await asked(server, "and now?", "u2")) == [{"type": "text", "text": "Nothing paid."}]
    assert (await server.get("/oracle/c")).json()["paid"] == []


async def test_its_own_server_is_a_producer_by_url(server: httpx.AsyncClient) -> None:
    """``to_sse`` behind FastAPI, as the package's documentation writes it, with Strandline in front of it."""

    async def agent(run: Run) -> Any:
        return stream_from(f"{server.base_url}/producer", json=ui_message_body(run))

    async with running(agent=agent) as rig:
        for number, question in enumerate(("weather?", "and now?"), 1):
            answer = await (await rig.post("c", question, f"u{number}")).end()
            assert answer.types[-2:] == ["finish", "[DONE]"], answer.body
            ours, oracle = (await rig.history("c"))["messages"][-1]["parts"], (await theirs(server))["parts"]
            assert without_outputs(ours) == without_outputs(oracle)
    assert content(ours) == [{"type": "text", "text": "Still clear."}]


def without_outputs(parts: list[Any]) -> list[Any]:
    return content([{name: value for name, value in part.items() if name != "output"} for part in parts])
