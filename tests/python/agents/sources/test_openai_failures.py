"""Failures of OpenAI fail the run and tell nobody why but the log; a stop closes the connection to it."""

from __future__ import annotations

import json
import logging
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest
from model_server import BREAK, HOLD, outcome, sse
from openai_provider import Provider, serving
from openai_recordings import completion, message, responses, text

from rig import running
from strandline import Run
from strandline.agents.invoke import PUBLIC_ERROR
from strandline.agents.sources.model_stream import BUSY
from strandline.agents.sources.openai import openai_responses
from strandline.testing import until


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as made:
        yield made


TOLD = sse(responses(message(text("Good day"))))
HALF = TOLD[: TOLD.index(b"event: response.output_text.done")]
HALF_CHAT = sse(completion("Good day")[:2], named=False)

FAILURES: list[tuple[str, list[Any], str]] = [
    ("an error event", [HALF + sse([{"type": "error", "code": "server_error", "message": "secret"}])], PUBLIC_ERROR),
    ("a busy model", [HALF + sse([{"type": "error", "code": "rate_limit_exceeded", "message": "secret"}])], BUSY),
    ("an error object", [HALF + b'data: {"error": {"message": "secret", "type": "server_error"}}\n\n'], PUBLIC_ERROR),
    (
        "a failed response",
        [HALF + sse(responses(end="failed", error={"code": "server_error", "message": "secret"})[-1:])],
        PUBLIC_ERROR,
    ),
    ("a connection that dies", [HALF, BREAK], PUBLIC_ERROR),
    ("a stream that ends too early", [HALF], PUBLIC_ERROR),
]


@pytest.mark.parametrize(("recording", "told"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
async def test_a_failure_in_the_middle_fails_the_run_and_tells_nobody_why_but_the_log(
    provider: Provider, recording: list[Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "strandline")
    provider.server.play(recording)
    stored = await outcome(provider.answer)
    assert (stored.status, stored.error, stored.texts()) == ("failed", told, ["Good day"])
    [logged] = [line for line in caplog.records if getattr(line, "action", "") == "agent-failed"]
    assert logged.exc_info is not None and logged.exc_info[1] is not None
    assert "secret" not in json.dumps(stored.message) + told


@pytest.mark.parametrize(
    "recording",
    [[HALF_CHAT], [HALF_CHAT, BREAK], [HALF_CHAT + b'data: {"error": {"message": "secret"}}\n\n']],
    ids=["too early", "dies", "error"],
)
async def test_chat_a_failure_in_the_middle_fails_the_run(provider: Provider, recording: list[Any]) -> None:
    provider.server.play(recording)
    stored = await outcome(provider.chat)
    assert (stored.status, stored.error, stored.texts()) == ("failed", PUBLIC_ERROR, ["Good day"])


@pytest.mark.parametrize(("status", "told"), [(401, PUBLIC_ERROR), (429, BUSY), (503, BUSY), (500, PUBLIC_ERROR)])
async def test_a_request_that_is_refused_fails_the_run(provider: Provider, status: int, told: str) -> None:
    provider.server.play(status)
    stored = await outcome(provider.answer)
    assert (stored.status, stored.error) == ("failed", told)


async def test_a_stream_of_the_sync_client_is_refused_with_a_hint(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    async def agent(run: Run) -> AsyncIterator[Any]:
        yield openai_responses(run, iter(()))

    assert (await outcome(agent)).status == "failed"
    assert "use the library's async client" in caplog.text


@pytest.mark.parametrize("kind", ["answer", "chat"])
async def test_a_stop_closes_the_connection_to_the_provider(provider: Provider, kind: str) -> None:
    provider.server.play([HALF if kind == "answer" else HALF_CHAT, HOLD])
    async with running(agent=getattr(provider, kind)) as rig:
        answer = await rig.post("c")
        await answer.until_text("Good day")
        await provider.server.holding.wait()
        await rig.stop("c")
        await until(provider.server.closed.is_set)
        await answer.end()
        stored = (await rig.history("c"))["messages"][-1]
    assert [part["text"] for part in stored["parts"] if part["type"] == "text"] == ["Good day"]


async def test_leaving_the_adapter_closes_the_librarys_stream(provider: Provider) -> None:
    provider.server.play([HALF, HOLD])
    stream = await provider.client.responses.create(model="m", input="a", stream=True)

    async def agent(run: Run) -> None:
        chunks = openai_responses(run, stream)
        assert (await anext(chunks))["type"] == "start-step"
        await chunks.aclose()
        assert stream.response.is_closed

    assert (await outcome(agent)).status == "completed"


async def test_a_stream_that_is_no_librarys_is_closed_as_well(provider: Provider) -> None:
    closed: list[bool] = []

    async def events() -> AsyncIterator[Any]:
        try:
            yield types.SimpleNamespace(type="response.mood.delta")
            yield types.SimpleNamespace(type="error", code=None, message="secret")
        finally:
            closed.append(True)

    stream = events()

    async def agent(run: Run) -> AsyncIterator[Any]:
        yield openai_responses(run, stream)

    assert (await outcome(agent)).error == PUBLIC_ERROR
    assert closed == [True]


async def test_an_agent_that_fails_while_the_stream_is_open_closes_it(provider: Provider) -> None:
    provider.server.play([HALF, HOLD])

    async def agent(run: Run) -> None:
        async for item in openai_responses(run, provider.client.responses.create(model="m", input="a", stream=True)):
            if item["type"] == "text-delta":
                raise ValueError("enough")

    assert (await outcome(agent)).status == "failed"
    await until(provider.server.closed.is_set)
