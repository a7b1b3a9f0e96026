"""Anthropic's streams become the message that Anthropic's own library would have returned for them, and go back.

The library is the real one, over HTTP; the streams are ours (``anthropic_recordings.py``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam
from anthropic_recordings import message, text, thinking, tool_use
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_server import BREAK, HOLD, ModelServer, Outcome, ask, cut, model_server, outcome, sse, typed, whole

from rig import running
from strandline import Run
from strandline.agents.invoke import PUBLIC_ERROR
from strandline.agents.sources.anthropic import anthropic_messages, anthropic_stream
from strandline.agents.sources.model_stream import BUSY, INVALID_INPUT
from strandline.testing import fold_frames, until

USED = {"input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool-calls",
    "refusal": "content-filter",
    "pause_turn": "other",
}


class Provider:
    """The fake server, the library's client for it, and an agent that asks it."""

    def __init__(self, server: ModelServer, client: anthropic.AsyncAnthropic) -> None:
        self.server = server
        self.client = client

    async def answer(self, run: Run) -> AsyncIterator[Any]:
        asked = anthropic_messages(run.messages)
        yield anthropic_stream(run, self.client.messages.create(model="m", max_tokens=9, messages=asked, stream=True))


class Serving:
    """``async with``: a Provider. Not a fixture, so that hypothesis can begin one per example."""

    async def __aenter__(self) -> Provider:
        self._server = model_server()
        server = await self._server.__aenter__()
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        self._client = anthropic.AsyncAnthropic(api_key="k", base_url=server.url, max_retries=0, http_client=http)
        return Provider(server, self._client)

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._server.__aexit__(None, None, None)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Serving() as made:
        yield made
    for request in made.server.requests:
        assert typed(request["messages"], MessageParam) == request["messages"]


# ---------------------------------------------------------------------- what the library says, and what we stored


def library_says(blocks: list[Any]) -> list[Any]:
    found: list[Any] = []
    for block in blocks:
        if block.type == "text":
            found.append(("text", block.text, [each.to_dict(exclude_none=True) for each in block.citations or ()]))
        elif block.type == "thinking":
            found.append(("thinking", block.thinking, block.signature))
        elif block.type == "redacted_thinking":
            found.append(("redacted", block.data))
        elif block.type in ("tool_use", "server_tool_use", "mcp_tool_use"):
            found.append((block.type, block.id, block.name, block.input))
        else:
            found.append((block.type, block.to_dict(mode="json", exclude_none=True)))
    return found


def we_say(parts: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = []
    for part in parts:
        kept = part.get("providerMetadata", {}).get("anthropic", {})
        kind = part["type"]
        if kind == "text":
            assert part["state"] == "done"
            found.append(("text", part["text"], kept.get("citations", [])))
        elif "redactedData" in kept:
            found.append(("redacted", kept["redactedData"]))
        elif kind == "reasoning":
            found.append(("thinking", part["text"], kept["signature"]))
        elif kind == "custom":
            found.append((kept["block"]["type"], kept["block"]))
        elif kind.startswith(("tool-", "dynamic-")):
            name = part.get("toolName") or kind.removeprefix("tool-")
            found.append((part["callProviderMetadata"]["anthropic"]["type"], part["toolCallId"], name, part["input"]))
            if "output" in part:
                found.append((part["output"]["type"], part["output"]))
    return found


async def both(provider: Provider, *blocks: Any, stop: str = "end_turn", cutting: Any = whole) -> tuple[Outcome, Any]:
    """What was stored for a message, and the library's message for the same stream."""
    recording = sse(message(*blocks, stop=stop, cutting=cutting))
    provider.server.play(recording, recording)
    stored = await outcome(provider.answer)
    async with provider.client.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
        final = await stream.get_final_message()
    assert we_say(stored.parts) == library_says(final.content)
    assert (stored.status, stored.finish) == ("completed", FINISH[str(final.stop_reason)])
    assert stored.usage == {name: getattr(final.usage, name) for name in USED} == USED
    return stored, final


async def test_plain_text(provider: Provider) -> None:
    stored, _ = await both(provider, text("Good day, 世界 🌊"))
    assert stored.texts() == ["Good day, 世界 🌊"]


async def test_thinking_and_text(provider: Provider) -> None:
    stored, _ = await both(provider, thinking("Hm, yes."), text("So."), cutting=lambda said: cut(said, [2, 5]))
    assert stored.texts("reasoning") == ["Hm, yes."]


async def test_thinking_of_which_nothing_may_be_seen(provider: Provider) -> None:
    await both(provider, {"type": "redacted_thinking", "data": "sealed"}, thinking(""), text("So."))


async def test_parallel_tool_calls_with_streaming_input(provider: Provider) -> None:
    calls = [tool_use("tide", {"port": "Kiel", "n": [1, None]}), tool_use("moon", {"day": "x"}, "toolu_2")]
    stored, _ = await both(provider, text("I look."), *calls, stop="tool_use", cutting=lambda said: cut(said, [3, 9]))
    assert [part["type"] for part in stored.parts] == ["text", "tool-tide", "tool-moon"]


async def test_input_is_shown_as_it_comes(provider: Provider) -> None:
    recording = sse(message(tool_use("tide", '{"port": "Kiel"}'), cutting=lambda said: cut(said, [12])))
    half = recording.rindex(b"event:", 0, recording.index(b'"el'))
    provider.server.play([recording[:half], HOLD, recording[half:]])
    async with running(agent=provider.answer) as rig:
        answer = await rig.post("c")
        await answer.until(lambda: any(part.get("input") for part in fold_frames(answer.frames).parts()))
        assert fold_frames(answer.frames).parts()[-1]["input"] == {"port": "Ki"}
        provider.server.release()
        await answer.end()
        assert fold_frames(answer.frames).parts()[-1]["input"] == {"port": "Kiel"}


@pytest.mark.parametrize("given", ["", "{}"])
async def test_a_tool_call_without_input(provider: Provider, given: str) -> None:
    calls = [tool_use("now", given), tool_use("now", given, "toolu_2")]
    stored, _ = await both(provider, *calls, stop="tool_use")
    assert [part["input"] for part in stored.parts] == [{}, {}]


@pytest.mark.parametrize("stop", sorted(FINISH))
async def test_the_reason_of_the_end(provider: Provider, stop: str) -> None:
    stored, _ = await both(provider, text("Good d"), stop=stop)
    assert stored.finish == FINISH[stop]


@pytest.mark.parametrize("given", ["", '{"port": "Ki'])
async def test_a_tool_call_that_was_cut_off_is_no_call(provider: Provider, given: str) -> None:
    provider.server.play(sse(message(text("I look."), tool_use("tide", given), stop="max_tokens")))
    stored = await outcome(provider.answer)
    assert (stored.parts[1]["errorText"], stored.finish) == (INVALID_INPUT, "length")


PAGE = {
    "type": "web_search_result_location",
    "url": "https://a.example/",
    "title": "A",
    "cited_text": "a",
    "encrypted_index": "e",
}
CHARS = {"type": "char_location", "cited_text": "a", "document_index": 0, "start_char_index": 0, "end_char_index": 1}
PAGES = {"type": "page_location", "cited_text": "a", "document_index": 1, "document_title": "Tides",
         "start_page_number": 1, "end_page_number": 2}  # fmt: skip


async def test_citations_are_sources(provider: Provider) -> None:
    stored, _ = await both(provider, text("As A says.", PAGE, CHARS, PAGES))
    told = [(part["type"], part.get("mediaType") or part["url"], part["title"]) for part in stored.parts[1:]]
    assert told == [
        ("source-url", "https://a.example/", "A"),
        ("source-document", "text/plain", "Document 1"),
        ("source-document", "application/pdf", "Tides"),
    ]


SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "tides"}}
HIT = {
    "type": "web_search_result",
    "url": "https://a.example/",
    "title": "A",
    "encrypted_content": "x",
    "page_age": "1 day",
}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [HIT]}


async def test_what_anthropic_runs_itself_is_a_tool_with_its_output(provider: Provider) -> None:
    stored, _ = await both(provider, text("I search."), SEARCH, FOUND, text("So.", PAGE))
    tool = stored.parts[1]
    assert (tool["type"], tool["state"], tool["providerExecuted"]) == ("tool-web_search", "output-available", True)


ASKED = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "look", "server_name": "sea", "input": {"at": 1}}
TOLD = {
    "type": "mcp_tool_result",
    "tool_use_id": "mcptoolu_1",
    "is_error": False,
    "content": [{"type": "text", "text": "high"}],
}
COMPACTION = {"type": "compaction", "content": "In short.", "encrypted_content": "sealed"}


async def test_the_beta_api_with_mcp_and_compaction(provider: Provider) -> None:
    recording = sse(message(COMPACTION, ASKED, TOLD, text("So.")))
    provider.server.play(recording, recording)

    async def agent(run: Run) -> AsyncIterator[Any]:
        yield anthropic_stream(run, provider.client.beta.messages.stream(model="m", max_tokens=9, messages=[]))

    stored = await outcome(agent)
    async with provider.client.beta.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
        final = await stream.get_final_message()
    assert we_say(stored.parts) == library_says(final.content)
    assert stored.parts[1]["type"] == "dynamic-tool"
    [reply] = anthropic_messages([stored.message])
    assert reply == {"role": "assistant", "content": [COMPACTION, ASKED, TOLD, {"type": "text", "text": "So."}]}


async def test_events_blocks_and_deltas_of_the_future_change_nothing(provider: Provider) -> None:
    mood = {"type": "content_block_start", "index": 9, "content_block": {"type": "mood", "how": "good"}}
    events = message(text("So."))
    new = [
        {"type": "message_mood", "how": "good"},
        mood,
        {"type": "content_block_delta", "index": 9, "delta": {"type": "mood_delta", "how": "better"}},
        {"type": "content_block_stop", "index": 9},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "mood_delta", "how": "better"}},
    ]
    provider.server.play(sse([*events[:3], *new, *events[3:]]))
    stored = await outcome(provider.answer)
    assert (stored.status, stored.texts()) == ("completed", ["So."])


SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
JSON = st.dictionaries(
    SAID.filter("__proto__".__ne__),
    st.one_of(SAID, st.integers(-5, 5), st.none(), st.lists(SAID, max_size=2)),
    max_size=3,
)
CUTS = st.lists(st.integers(0, 1000), max_size=6)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(thought=SAID, said=SAID, given=JSON, deltas=CUTS, pieces=CUTS)
async def test_the_message_is_the_same_wherever_the_stream_is_cut(
    thought: str, said: str, given: Any, deltas: list[int], pieces: list[int]
) -> None:
    events = message(
        thinking(thought),
        text(said, PAGE),
        tool_use("tide", given),
        stop="tool_use",
        cutting=lambda each: cut(each, deltas),
    )
    wire = sse(events)
    places = sorted({0, len(wire), *(each % len(wire) for each in pieces)})
    async with Serving() as provider:
        provider.server.play([wire[a:b] for a, b in pairwise(places)], wire)
        stored = await outcome(provider.answer)
        async with provider.client.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
            final = await stream.get_final_message()
    assert we_say(stored.parts) == library_says(final.content)


# ---------------------------------------------------------------------- failures and stops


HALF = sse(message(text("Good day"))[:4])


def error(kind: str) -> bytes:
    return sse([{"type": "error", "error": {"type": kind, "message": "secret"}}])


@pytest.mark.parametrize(
    ("recording", "told"),
    [
        ([HALF + error("api_error")], PUBLIC_ERROR),
        ([HALF + error("overloaded_error")], BUSY),
        ([HALF, BREAK], PUBLIC_ERROR),
        ([HALF], PUBLIC_ERROR),
    ],
    ids=["an error event", "an overloaded model", "a connection that dies", "a stream that ends too early"],
)
async def test_a_failure_in_the_middle_fails_the_run_and_tells_nobody_why_but_the_log(
    provider: Provider, recording: list[Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "strandline")
    provider.server.play(recording)
    stored = await outcome(provider.answer)
    assert (stored.status, stored.error, stored.texts()) == ("failed", told, ["Good day"])
    assert stored.usage == {**USED, "output_tokens": 1}
    [logged] = [line for line in caplog.records if getattr(line, "action", "") == "agent-failed"]
    assert logged.exc_info is not None and logged.exc_info[1] is not None
    assert "secret" not in json.dumps(stored.message) + told


@pytest.mark.parametrize(("status", "told"), [(401, PUBLIC_ERROR), (429, BUSY), (529, BUSY), (500, PUBLIC_ERROR)])
async def test_a_request_that_is_refused_fails_the_run(provider: Provider, status: int, told: str) -> None:
    provider.server.play(status)
    stored = await outcome(provider.answer)
    assert (stored.status, stored.error) == ("failed", told)


async def test_a_stop_closes_the_connection_to_the_provider(provider: Provider) -> None:
    provider.server.play([HALF, HOLD])
    async with running(agent=provider.answer) as rig:
        answer = await rig.post("c")
        await answer.until_text("Good day")
        await provider.server.holding.wait()
        await rig.stop("c")
        await until(provider.server.closed.is_set)
        await answer.end()


# ---------------------------------------------------------------------- and back again


async def test_a_tool_loop_gives_the_model_back_exactly_what_it_said(provider: Provider) -> None:
    sealed = {"type": "redacted_thinking", "data": "sealed"}
    calls = [tool_use("tide", {"port": "Kiel"}), tool_use("now", {}, "toolu_2", caller={"type": "direct"})]
    second = [text("I search."), SEARCH, FOUND, text("3 m.", PAGE)]
    provider.server.play(
        sse(message(thinking("I look."), sealed, *calls, stop="tool_use")),
        sse(message(*second)),
        sse(message(text("Bye."))),
    )

    async def agent(run: Run) -> AsyncIterator[Any]:
        while True:
            asked = anthropic_messages([*run.messages, run.message])
            yield anthropic_stream(
                run, provider.client.messages.create(model="m", max_tokens=9, messages=asked, stream=True)
            )
            calls = [part for part in run.message["parts"] if part.get("state") == "input-available"]
            for call in calls:
                await run.tool_result(call["toolCallId"], {"height": 3})
            if not calls:
                return

    async with running(agent=agent) as rig:
        stored = await ask(rig, "How high?")
        assert stored.usage == {name: 2 * count for name, count in USED.items()}
        assert stored.finish == "stop"
        await ask(rig, "Thanks.", "u2")
    results = [
        {"type": "tool_result", "tool_use_id": call, "content": '{"height":3}'} for call in ("toolu_1", "toolu_2")
    ]
    turn = [
        {"role": "user", "content": [{"type": "text", "text": "How high?"}]},
        {"role": "assistant", "content": [thinking("I look."), sealed, *calls]},
        {"role": "user", "content": results},
    ]
    assert provider.server.requests[1]["messages"] == turn
    said = [{name: value for name, value in block.items() if value is not None} for block in second]
    assert provider.server.requests[2]["messages"] == [
        *turn,
        {"role": "assistant", "content": said},
        {"role": "user", "content": [{"type": "text", "text": "Thanks."}]},
    ]


STEP = {"type": "step-start"}
SEARCHED = {"type": "tool-web_search", "toolCallId": "t", "state": "output-available", "input": {}}


def test_results_come_before_what_the_user_says_next() -> None:
    failed = {"type": "tool-tide", "toolCallId": "t", "state": "output-error", "input": "{", "errorText": "No tide."}
    again = {"role": "user", "parts": [{"type": "text", "text": "Again."}]}
    call, results = anthropic_messages([{"role": "assistant", "parts": [STEP, failed]}, again])
    assert call["content"] == [{"type": "tool_use", "id": "t", "name": "tide", "input": {"input": "{"}}]
    assert results == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "No tide.", "is_error": True},
            {"type": "text", "text": "Again."},
        ],
    }


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool-tide", "toolCallId": "t", "state": "approval-requested", "input": {}},
        {**SEARCHED, "output": {"type": "x"}, "providerExecuted": True},
        {"type": "reasoning", "text": "Unsigned.", "state": "done"},
        {"type": "text", "text": "", "state": "done"},
        {"type": "data-x", "data": 1},
    ],
    ids=["a call without a result", "another provider's tool", "unsigned thinking", "no text", "data"],
)
def test_what_anthropic_would_refuse_is_left_out(part: Any) -> None:
    assert anthropic_messages([{"role": "assistant", "parts": [STEP, part]}]) == []


def test_images_and_documents_of_the_user_are_content() -> None:
    def file(media: str, url: str, **more: Any) -> dict[str, Any]:
        return {"type": "file", "mediaType": media, "url": url, **more}

    asked = [
        {"type": "text", "text": "Look."},
        file("image/png", "data:image/png;base64,aGk="),
        file("image/png", "https://a.example/a.png"),
        file("application/pdf", "https://a.example/a.pdf", filename="a.pdf"),
        file("text/csv", "data:text/csv;base64,aGk=", filename="a.csv"),
        file("audio/wav", "data:audio/wav;base64,aGk=", filename="a.wav"),
    ]
    assert anthropic_messages([{"role": "user", "parts": asked}])[0]["content"] == [
        {"type": "text", "text": "Look."},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}},
        {"type": "document", "source": {"type": "url", "url": "https://a.example/a.pdf"}, "title": "a.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}, "title": "a.csv"},
        {"type": "text", "text": "[File a.wav (audio/wav): attached]"},
    ]


def test_system_messages_are_not_messages() -> None:
    assert anthropic_messages([{"role": "system", "parts": [{"type": "text", "text": "Be brief."}]}]) == []
