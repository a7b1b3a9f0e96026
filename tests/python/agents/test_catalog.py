"""Several agents in one application: the first answers unless a request names another (PROTOCOL §7.7)."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from strandline import Run, Strandline, open_on_loopback
from strandline.errors import Misconfigured


def application() -> Strandline:
    chat = Strandline("memory:", auth=open_on_loopback())

    @chat.agent
    async def writer(run: Run) -> str:
        return "written"

    @chat.agent(name="critic")
    async def other(run: Run) -> str:
        return "criticised"

    return chat


def message(text: str) -> dict[str, Any]:
    return {"id": text, "role": "user", "parts": [{"type": "text", "text": text}]}


async def asked(chat: Strandline, agent: str | None) -> list[tuple[int, str]]:
    """What the three wires answer."""
    app = chat.app()
    headers = {} if agent is None else {"Strandline-Agent": agent}
    transport = ASGITransport(app, client=("127.0.0.1", 1))
    async with (
        chat.lifespan(),
        AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client,
    ):
        sdk = await client.post("/api/chat", json={"id": "a", "messages": [message("m")]})
        tanstack = await client.post(
            "/api/tanstack",
            json={"threadId": "b", "runId": "r", "messages": [{"id": "m", "role": "user", "content": "m"}]},
        )
        sent = await client.post("/api/sessions/c/messages", json={"message": message("m")})
        if sent.status_code == 202:
            await client.get(f"/api/chat/c/stream?run={sent.json()['run']}")
        said = (await client.get("/api/chat/c/messages")).text
        authors = [run.agent for run in (await chat.service.store.outline("a")).runs]
        assert authors == ([agent or "writer"] if sdk.status_code == 200 else [])
    return [(sdk.status_code, sdk.text), (tanstack.status_code, tanstack.text), (sent.status_code, said or sent.text)]


@pytest.mark.parametrize(("agent", "says"), [(None, "written"), ("writer", "written"), ("critic", "criticised")])
async def test_the_named_agent_answers_and_else_the_first(agent: str | None, says: str) -> None:
    for status, text in await asked(application(), agent):
        assert status in (200, 202)
        assert says in text


async def test_an_agent_that_there_is_not_is_refused_on_every_wire() -> None:
    for status, text in (await asked(application(), "nobody"))[:2]:
        assert status == 422
        assert "unknown-agent" in text


def test_names_are_unique_and_can_stand_in_a_header() -> None:
    chat = application()
    with pytest.raises(Misconfigured, match="writer already"):
        chat.agent(name="writer")(lambda run: None)
    with pytest.raises(Misconfigured, match="agent's name"):
        chat.agent(name="a critic")(lambda run: None)
