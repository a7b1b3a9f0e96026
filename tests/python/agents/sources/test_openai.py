"""OpenAI's streams become the message that OpenAI's own library would have returned for them, and go back as input.

The library is the real one, over HTTP; the streams are ours (``openai_recordings.py``).
"""

from __future__ import annotations

import json
import logging
import types
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_server import BREAK, HOLD, ModelServer, Outcome, ask, cut, model_server, outcome, sse, typed, whole
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseInputItemParam
from openai_recordings import chunk, completion, function_call, message, reasoning, refusal, responses, text

from rig import Answer, running
from strandline import Run
from strandline.agents.invoke import PUBLIC_ERROR
from strandline.agents.sources.model_stream import BUSY, INVALID_INPUT
from strandline.agents.sources.openai import chat_messages, openai_chat, openai_responses, responses_input
from strandline.testing import fold_frames, until

USED = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18, "cached_tokens": 4, "reasoning_tokens": 3}


class Provider:
    """The fake server, the library's client for it, and agents that ask it."""

    def __init__(self, server: ModelServer, client: openai.AsyncOpenAI) -> None:
        self.server = server
        self.client = client

    async def answer(self, run: Run) -> AsyncIterator[Any]:
        """An agent over the Responses API."""
        asked = responses_input(run.messages)
        yield openai_responses(run, self.client.responses.create(model="m", input=asked, stream=True))

    async def chat(self, run: Run) -> AsyncIterator[Any]:
        """An agent over Chat Completions."""
        asked = chat_messages(run.messages)
        yield openai_chat(run, self.client.chat.completions.create(model="m", messages=asked, stream=True))


class Serving:
    """``async with``: a Provider. Not a fixture, so that hypothesis can begin one per example."""

    async def __aenter__(self) -> Provider:
        self._server = model_server()
        server = await self._server.__aenter__()
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        self._client = openai.AsyncOpenAI(api_key="k", base_url=server.url, max_retries=0, http_client=http)
        return Provider(server, self._client)

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._server.__aexit__(None, None, None)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Serving() as made:
        yield made
    for request in made.server.requests:
        name, kind = (
            ("input", ResponseInputItemParam) if "input" in request else ("messages", ChatCompletionMessageParam)
        )
        if not isinstance(request[name], str):
            assert typed(request[name], kind) == request[name]


# ---------------------------------------------------------------------- what the library says, and what we stored


def library_says(items: list[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item.type == "message":
            for content in item.content:
                found.append(("text", content.text if content.type == "output_text" else content.refusal))
                found += [("source", each.to_dict()) for each in getattr(content, "annotations", ())]
        elif item.type == "reasoning":
            pieces = [piece.text for piece in [*item.summary, *(item.content or ())]] or [""]
            found += [("reasoning", piece) for piece in pieces]
        elif item.type == "function_call":
            found.append(("call", item.call_id, item.name, json.loads(item.arguments or "{}")))
        else:
            found.append((item.type, item.to_dict(mode="json", exclude_none=True)))
    return found


def we_say(parts: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = []
    for part in parts:
        kind = part["type"]
        if kind in ("text", "reasoning"):
            assert part["state"] == "done"
            found.append((kind, part["text"]))
        elif kind.startswith("source-"):
            found.append(("source", part["providerMetadata"]["openai"]))
        elif part.get("providerExecuted"):
            found.append((part["output"]["type"], part["output"]))
        elif kind == "custom":
            found.append(
                (part["providerMetadata"]["openai"]["item"]["type"], part["providerMetadata"]["openai"]["item"])
            )
        elif kind != "file":
            found.append(("call", part["toolCallId"], kind.removeprefix("tool-"), part["input"]))
    return found


async def both(provider: Provider, *items: Any, cutting: Any = whole) -> tuple[Outcome, Any]:
    """What was stored for a response, and the library's response to the same stream."""
    recording = sse(responses(*items, cutting=cutting), done=True)
    provider.server.play(recording, recording)
    stored = await outcome(provider.answer)
    async with provider.client.responses.stream(model="m", input="hello") as stream:
        final = await stream.get_final_response()
    assert we_say(stored.parts) == library_says(final.output)
    assert stored.status == "completed"
    usage = final.usage
    details = {
        "cached_tokens": usage.input_tokens_details.cached_tokens,
        "reasoning_tokens": usage.output_tokens_details.reasoning_tokens,
    }
    counts = {name: getattr(usage, name) for name in ("input_tokens", "output_tokens", "total_tokens")}
    assert stored.usage == {**counts, **details} == USED
    return stored, final


URL = {"type": "url_citation", "url": "https://a.example/", "title": "A", "start_index": 0, "end_index": 4}
FILE = {"type": "file_citation", "file_id": "file_1", "filename": "notes.pdf", "index": 3}
PATH = {"type": "file_path", "file_id": "file_2", "index": 0}


async def test_plain_text(provider: Provider) -> None:
    stored, _ = await both(provider, message(text("Good day, 世界 🌊")))
    assert stored.texts() == ["Good day, 世界 🌊"] and stored.finish == "stop"


async def test_reasoning_and_text(provider: Provider) -> None:
    stored, _ = await both(provider, reasoning("First.", "Then."), message(text("So.")))
    assert stored.texts("reasoning") == ["First.", "Then."]


async def test_reasoning_of_which_nothing_may_be_seen(provider: Provider) -> None:
    stored, _ = await both(provider, reasoning(), message(text("So.")))
    assert stored.texts("reasoning") == [""]


async def test_reasoning_in_full(provider: Provider) -> None:
    full = [{"type": "reasoning_text", "text": "Hm."}, {"type": "reasoning_text", "text": "Yes."}]
    await both(provider, reasoning(content=full, encrypted=None), message(text("So.")))


async def test_parallel_tool_calls_with_streaming_arguments(provider: Provider) -> None:
    first = function_call("tide", '{"port": "Kiel", "n": [1, 2]}', "call_1", "fc_1")
    second = function_call("moon", '{"day": null}', "call_2", "fc_2")
    stored, _ = await both(provider, first, second)
    assert stored.finish == "tool-calls"


async def test_arguments_are_shown_as_they_come(provider: Provider) -> None:
    call = function_call("tide", '{"port": "Kiel"}')
    recording = sse(responses(call, cutting=lambda said: cut(said, [12])))
    half = recording.rindex(b"event:", 0, recording.index(b'"delta": "el'))
    provider.server.play([recording[:half], HOLD, recording[half:]])
    async with running(agent=provider.answer) as rig:
        answer = await rig.post("c")
        await answer.until(lambda: any(part.get("input") == {"port": "Ki"} for part in parts_of(answer)))
        provider.server.release()
        await answer.end()
        assert parts_of(answer)[-1]["input"] == {"port": "Kiel"}


def parts_of(answer: Answer) -> list[dict[str, Any]]:
    return fold_frames(answer.frames).parts()


@pytest.mark.parametrize("arguments", ["", "{}"])
async def test_a_tool_call_without_arguments(provider: Provider, arguments: str) -> None:
    stored, _ = await both(provider, function_call("now", arguments))
    assert stored.parts[0]["input"] == {}


async def test_a_refusal_is_text(provider: Provider) -> None:
    stored, _ = await both(provider, message(refusal("I can't help with that.")))
    assert stored.texts() == ["I can't help with that."]


async def test_citations_are_sources(provider: Provider) -> None:
    stored, _ = await both(provider, message(text("As A says.", URL, FILE)))
    kinds = [(part["type"], part.get("url") or part["filename"], part["title"]) for part in stored.parts[1:]]
    assert kinds == [("source-url", "https://a.example/", "A"), ("source-document", "notes.pdf", "notes.pdf")]
    assert stored.parts[2]["mediaType"] == "application/pdf"


async def test_what_is_neither_a_page_nor_a_named_file_is_kept_with_the_text_only(provider: Provider) -> None:
    provider.server.play(sse(responses(message(text("Here.", PATH)))))
    stored = await outcome(provider.answer)
    assert [part["type"] for part in stored.parts] == ["text"]
    assert stored.parts[0]["providerMetadata"]["openai"]["annotations"] == [PATH]


SEARCH = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "tides", "queries": ["tides"]},
}
MCP = {
    "type": "mcp_call",
    "id": "mcp_1",
    "name": "look",
    "server_label": "sea",
    "arguments": '{"at": 1}',
    "output": "high",
    "status": "completed",
}
CODE = {
    "type": "code_interpreter_call",
    "id": "ci_1",
    "code": "1 + 1",
    "container_id": "cntr_1",
    "status": "completed",
    "outputs": [{"type": "logs", "logs": "2"}],
}


async def test_what_openai_runs_itself_is_a_tool_with_its_output(provider: Provider) -> None:
    stored, _ = await both(provider, SEARCH, CODE, MCP, message(text("So.")))
    search, code, mcp, _ = stored.parts
    assert (search["type"], search["input"]) == ("tool-web_search", {"action": SEARCH["action"]})
    assert (code["type"], code["input"]) == ("tool-code_interpreter", {"code": "1 + 1"})
    assert (mcp["type"], mcp["toolName"], mcp["input"]) == ("dynamic-tool", "look", {"at": 1})
    assert stored.finish == "stop"


IMAGE = {
    "type": "image_generation_call",
    "id": "ig_1",
    "status": "completed",
    "result": "aGVsbG8=",
    "output_format": "webp",
}


async def test_a_generated_image_is_a_file(provider: Provider) -> None:
    provider.server.play(sse(responses(IMAGE)))
    stored = await outcome(provider.answer)
    tool, file = stored.parts
    assert file == {"type": "file", "mediaType": "image/webp", "url": "data:image/webp;base64,aGVsbG8="}
    assert tool["output"] == {name: value for name, value in IMAGE.items() if name != "result"}


async def test_a_generated_image_can_be_kept_elsewhere(provider: Provider) -> None:
    kept: list[tuple[bytes, str]] = []

    async def save(data: bytes, media_type: str) -> str:
        kept.append((data, media_type))
        return "https://files.example/1.webp"

    async def agent(run: Run) -> AsyncIterator[Any]:
        asked = provider.client.responses.create(model="m", input="draw", stream=True)
        yield openai_responses(run, asked, save_file=save)

    provider.server.play(sse(responses(IMAGE)))
    stored = await outcome(agent)
    assert kept == [(b"hello", "image/webp")]
    assert stored.parts[-1]["url"] == "https://files.example/1.webp"


CUSTOM = {
    "type": "custom_tool_call",
    "id": "ctc_1",
    "call_id": "call_9",
    "name": "sql",
    "input": "select 1",
    "status": "completed",
}


async def test_a_custom_tool_has_text_for_input(provider: Provider) -> None:
    provider.server.play(sse(responses(CUSTOM, cutting=lambda said: cut(said, [2, 5]))))
    stored = await outcome(provider.answer)
    assert stored.parts[0]["input"] == "select 1" and stored.finish == "tool-calls"


COMPACTION = {"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"}


async def test_items_that_nobody_sees_are_kept(provider: Provider) -> None:
    await both(provider, COMPACTION, message(text("So.")))


async def test_events_and_items_of_the_future_change_nothing(provider: Provider) -> None:
    events = responses(message(text("So.")))
    new = {"type": "response.mood.delta", "delta": "!", "output_index": 0, "sequence_number": 99}
    item = {"type": "response.output_item.added", "item": {"type": "mood", "id": "md_1"}, "output_index": 1}
    done = {
        "type": "response.output_item.done",
        "item": {"type": "mood", "id": "md_1", "how": "good"},
        "output_index": 1,
    }
    provider.server.play(sse([*events[:4], new, item, done, *events[4:]]))
    stored = await outcome(provider.answer)
    assert (stored.status, stored.texts()) == ("completed", ["So."])
    assert stored.parts[0]["kind"] == "openai.mood"


async def test_a_server_that_sends_no_deltas_is_understood(provider: Provider) -> None:
    items = [reasoning("First.", "Then."), message(text("So.", URL)), function_call("now", "{}")]
    events = [event for event in responses(*items) if not event["type"].endswith((".delta", "annotation.added"))]
    provider.server.play(sse([event for event in events if event["type"] != "response.output_item.added"]))
    provider.server.play(sse(responses(*items)))
    assert we_say((await outcome(provider.answer)).parts) == we_say((await outcome(provider.answer)).parts)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content-filter"), ("max_messages", "other")],
)
async def test_a_response_that_was_cut_short_says_why(provider: Provider, reason: str, finish: str) -> None:
    events = responses(
        reasoning("Hm."), message(text("Good d")), end="incomplete", incomplete_details={"reason": reason}
    )
    # It stops in the middle of its item.
    provider.server.play(sse([event for event in events if not event["type"].endswith(".done")]))
    states: list[str | None] = []

    async def agent(run: Run) -> AsyncIterator[Any]:
        async for item in provider.answer(run):
            yield item
        states.extend(part.get("state") for part in run.message["parts"])

    stored = await outcome(agent)
    assert (stored.texts(), stored.finish, stored.status) == (["Good d"], finish, "completed")
    assert stored.usage == USED
    assert states == [None, "done", "done"]


@pytest.mark.parametrize("arguments", ["", '{"port": "Ki', "{}"])
async def test_a_tool_call_that_was_cut_off_is_no_call(provider: Provider, arguments: str) -> None:
    item = function_call("tide", arguments, status="incomplete")
    provider.server.play(sse(responses(item, end="incomplete", incomplete_details={"reason": "max_output_tokens"})))
    stored = await outcome(provider.answer)
    assert (stored.parts[0]["errorText"], stored.finish) == (INVALID_INPUT, "length")


# ---------------------------------------------------------------------- Chat Completions


async def both_chats(provider: Provider, events: list[Any], *sources: str) -> tuple[Outcome, Any]:
    recording = sse(events, named=False, done=True)
    provider.server.play(recording, recording)
    stored = await outcome(provider.chat)
    async with provider.client.chat.completions.stream(model="m", messages=[]) as stream:
        try:
            final = (await stream.get_final_completion()).choices[0]
        except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError) as exc:
            final = exc.completion.choices[0]  # as far as it came
    said = final.message
    expected = [("text", each) for each in (said.content, said.refusal) if each]
    expected += [("call", each.id, each.function.name, json.loads(each.function.arguments or "{}"))
                 for each in said.tool_calls or ()]  # fmt: skip
    told = [each for each in we_say(stored.parts) if each[0] != "reasoning"]
    assert told == expected
    assert stored.texts("reasoning") == [each for each in [getattr(said, "reasoning_content", None)] if each]
    assert (stored.status, stored.usage) == ("completed", USED)
    assert stored.finish == {"tool_calls": "tool-calls", "content_filter": "content-filter"}.get(
        final.finish_reason, final.finish_reason
    )
    return stored, final


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
async def test_chat_text(provider: Provider, finish: str) -> None:
    await both_chats(provider, completion("Good day, 世界 🌊", finish=finish, cutting=lambda said: cut(said, [3, 7])))


async def test_chat_reasoning_as_other_servers_send_it(provider: Provider) -> None:
    stored, _ = await both_chats(provider, completion("So.", reasoning_content="Hm, yes."))
    assert [part["type"] for part in stored.parts] == ["reasoning", "text"]


async def test_chat_refusal(provider: Provider) -> None:
    await both_chats(provider, completion(refusal="I can't help with that."))


async def test_chat_parallel_tool_calls(provider: Provider) -> None:
    calls = [("call_1", "tide", '{"port": "Kiel"}'), ("call_2", "moon", ""), ("call_3", "now", "{}")]
    await both_chats(
        provider, completion("Let me look.", *calls, finish="tool_calls", cutting=lambda s: cut(s, [2, 5]))
    )


async def test_chat_tool_calls_that_are_told_at_the_same_time(provider: Provider) -> None:
    events = completion("", ("call_1", "tide", '{"a": 1}'), ("call_2", "moon", '{"b": 2}'), finish="tool_calls",
                        cutting=lambda said: cut(said, [3]))  # fmt: skip
    calls = events[1:7]
    mixed = [events[0], calls[0], calls[3], calls[1], calls[4], calls[2], calls[5], *events[7:]]
    await both_chats(provider, mixed)


async def test_chat_calls_without_an_id_get_one(provider: Provider) -> None:
    piece = {"index": 0, "type": "function", "function": {"name": "now", "arguments": "{}"}}
    provider.server.play(sse([chunk({"tool_calls": [piece]}), chunk({}, "tool_calls")], named=False))
    assert (await outcome(provider.chat)).parts[0]["toolCallId"] == "chatcmpl-1-0"


async def test_chat_citations_are_sources(provider: Provider) -> None:
    cited = {
        "type": "url_citation",
        "url_citation": {"url": "https://a.example/", "title": "A", "start_index": 0, "end_index": 2},
    }
    provider.server.play(
        sse([chunk({"content": "So."}), chunk({"annotations": [cited]}), chunk({}, "stop")], named=False)
    )
    stored = await outcome(provider.chat)
    assert stored.parts[1] == {"type": "source-url", "sourceId": "source-1", "url": "https://a.example/", "title": "A"}


async def test_chat_takes_the_first_choice_and_reads_the_managed_stream(provider: Provider) -> None:
    other = chunk({"content": "Not me."})
    other["choices"][0]["index"] = 1
    events = completion("So.")
    provider.server.play(sse([*events[:2], other, *events[2:]], named=False))

    async def agent(run: Run) -> AsyncIterator[Any]:
        yield openai_chat(run, provider.client.chat.completions.stream(model="m", messages=[]))

    assert (await outcome(agent)).texts() == ["So."]


@pytest.mark.parametrize("arguments", ["", '{"port": "Ki'])
async def test_chat_a_tool_call_that_was_cut_off_is_no_call(provider: Provider, arguments: str) -> None:
    provider.server.play(sse(completion("", ("call_1", "tide", arguments), finish="length"), named=False))
    stored = await outcome(provider.chat)
    assert (stored.parts[0]["errorText"], stored.finish) == (INVALID_INPUT, "length")


# ---------------------------------------------------------------------- cut anywhere


SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
JSON = st.dictionaries(SAID, st.one_of(SAID, st.integers(-5, 5), st.none(), st.lists(SAID, max_size=2)), max_size=3)
CUTS = st.lists(st.integers(0, 1000), max_size=6)
often = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@often
@given(summary=st.lists(SAID, max_size=2), said=SAID, arguments=JSON, deltas=CUTS, pieces=CUTS)
async def test_the_message_is_the_same_wherever_the_stream_is_cut(
    summary: list[str], said: str, arguments: Any, deltas: list[int], pieces: list[int]
) -> None:
    items = [reasoning(*summary), message(text(said, URL)), function_call("tide", json.dumps(arguments))]
    events = responses(*items, cutting=lambda whole: cut(whole, deltas))
    wire = sse(events, done=True)
    places = sorted({0, len(wire), *(each % len(wire) for each in pieces)})
    async with Serving() as provider:
        provider.server.play([wire[a:b] for a, b in pairwise(places)], wire)
        stored = await outcome(provider.answer)
        async with provider.client.responses.stream(model="m", input="hello") as stream:
            final = await stream.get_final_response()
    assert we_say(stored.parts) == library_says(final.output)


@often
@given(content=SAID, arguments=st.lists(JSON, max_size=2), deltas=CUTS)
async def test_the_chat_is_the_same_wherever_its_deltas_are_cut(
    content: str, arguments: list[Any], deltas: list[int]
) -> None:
    calls = [(f"call_{place}", "tide", json.dumps(each)) for place, each in enumerate(arguments)]
    finish = "tool_calls" if calls else "stop"
    async with Serving() as provider:
        await both_chats(provider, completion(content, *calls, finish=finish, cutting=lambda whole: cut(whole, deltas)))


# ---------------------------------------------------------------------- failures and stops


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


# ---------------------------------------------------------------------- and back again


async def loop(provider: Provider, run: Run, api: str) -> AsyncIterator[Any]:
    """An agent with a tool."""
    while True:
        conversation = [*run.messages, run.message]
        if api == "responses":
            asked = provider.client.responses.create(model="m", input=responses_input(conversation), stream=True)
            yield openai_responses(run, asked)
        else:
            chat = provider.client.chat.completions.create(model="m", messages=chat_messages(conversation), stream=True)
            yield openai_chat(run, chat)
        calls = [part for part in run.message["parts"] if part.get("state") == "input-available"]
        for call in calls:
            await run.tool_result(call["toolCallId"], {"height": 3})
        if not calls:
            return


async def test_a_tool_loop_gives_the_model_back_exactly_what_it_said(provider: Provider) -> None:
    first = [
        reasoning("I look.", "Twice."),
        function_call("tide", '{"port":"Kiel"}'),
        function_call("now", "{}", "call_2", "fc_2"),
    ]
    second = [SEARCH, reasoning("Good.", id="rs_2"), message(text("3 m.", URL), id="msg_2", phase="final_answer")]
    provider.server.play(
        sse(responses(*first)), sse(responses(*second)), sse(responses(message(text("Bye."), id="msg_3")))
    )

    async def agent(run: Run) -> AsyncIterator[Any]:
        async for item in loop(provider, run, "responses"):
            yield item

    async with running(agent=agent) as rig:
        stored = await ask(rig, "How high?")
        assert stored.usage == {name: 2 * count for name, count in USED.items()}
        assert stored.finish == "stop"
        await ask(rig, "Thanks.", "u2")
    question = {"role": "user", "content": [{"type": "input_text", "text": "How high?"}]}
    results = [
        {"type": "function_call_output", "call_id": call, "output": '{"height":3}'} for call in ("call_1", "call_2")
    ]
    thanks = {"role": "user", "content": [{"type": "input_text", "text": "Thanks."}]}
    said = [_given(item) for item in first]
    assert provider.server.requests[1]["input"] == [question, *said, *results]
    assert provider.server.requests[2]["input"] == [
        question,
        *said,
        *results,
        *[_given(item) for item in second],
        thanks,
    ]


def _given(item: dict[str, Any]) -> dict[str, Any]:
    """An output item as input: without what only tells how it came about."""
    given = {name: value for name, value in item.items() if value is not None}
    if item["type"] == "function_call":
        del given["status"]
    if item["type"] == "message":
        given["content"] = [{k: v for k, v in each.items() if k != "logprobs"} for each in item["content"]]
    return given


STEP = {"type": "step-start"}
SEALED = {
    "type": "reasoning",
    "text": "Hm.",
    "state": "done",
    "providerMetadata": {"openai": {"itemId": "rs_1", "piece": "summary", "reasoningEncryptedContent": "x"}},
}
OTHER = {**SEALED, "providerMetadata": {"openai": {"itemId": "rs_2", "reasoningEncryptedContent": "x"}}}
OPEN = {"type": "reasoning", "text": "Hm.", "state": "done", "providerMetadata": {"openai": {"itemId": "rs_1"}}}
WORDS = {"type": "text", "text": "So.", "state": "done", "providerMetadata": {"openai": {"itemId": "msg_1"}}}
CUT = {"type": "text", "text": "So.", "state": "done"}
CALLED = {"type": "tool-tide", "toolCallId": "call_1", "state": "output-available", "input": {}, "output": "3 m",
          "callProviderMetadata": {"openai": {"itemId": "fc_1"}}}  # fmt: skip


@pytest.mark.parametrize(
    "parts",
    [[SEALED, CUT], [OPEN, WORDS], [SEALED, OTHER, WORDS], [CUT, SEALED]],
    ids=["cut short", "reasoning that cannot be read", "reasoning twice", "reasoning and then nothing"],
)
def test_a_step_that_is_not_whole_goes_back_as_words(parts: list[Any]) -> None:
    assert responses_input([{"role": "assistant", "parts": [STEP, *parts]}]) == [
        {"role": "assistant", "content": "So."}
    ]


def test_a_call_of_a_step_that_is_not_whole_has_no_id() -> None:
    call, result = responses_input([{"role": "assistant", "parts": [STEP, OPEN, CALLED]}])
    assert call == {"type": "function_call", "call_id": "call_1", "name": "tide", "arguments": "{}"}
    assert result == {"type": "function_call_output", "call_id": "call_1", "output": "3 m"}


def test_a_computer_that_was_not_answered_is_left_out_with_what_led_to_it() -> None:
    item = {"type": "computer_call", "id": "cu_1", "call_id": "call_5", "action": {"type": "screenshot"}}
    asked = {"type": "custom", "kind": "openai.computer_call", "providerMetadata": {"openai": {"item": item}}}
    assert responses_input([{"role": "assistant", "parts": [STEP, SEALED, asked]}]) == []


FAILED = {
    "type": "tool-tide",
    "toolCallId": "call_1",
    "state": "output-error",
    "input": {"a": 1},
    "errorText": "No tide.",
}
DENIED = {"type": "tool-tide", "toolCallId": "call_1", "state": "output-denied", "input": {"a": 1}}
WAITING = {"type": "tool-tide", "toolCallId": "call_1", "state": "approval-requested", "input": {"a": 1}}


@pytest.mark.parametrize(("part", "told"), [(FAILED, "No tide."), (DENIED, "The tool call was denied.")])
def test_a_tool_that_failed_or_was_denied_is_answered(part: Any, told: str) -> None:
    reply = {"role": "assistant", "parts": [STEP, part]}
    assert responses_input([reply])[1] == {"type": "function_call_output", "call_id": "call_1", "output": told}
    assert chat_messages([reply])[1] == {"role": "tool", "tool_call_id": "call_1", "content": told}


def test_no_call_goes_back_without_its_result() -> None:
    reply = {"role": "assistant", "parts": [STEP, CUT, WAITING]}
    assert responses_input([reply]) == [{"role": "assistant", "content": "So."}]
    assert chat_messages([reply]) == [{"role": "assistant", "content": "So."}]


def test_what_the_user_says_in_the_middle_of_a_reply_is_told_there() -> None:
    steering = {"type": "steering-message", "id": "s1", "parts": [{"type": "text", "text": "Shorter."}]}
    reply = {"role": "assistant", "parts": [STEP, CUT, steering, STEP, {**CUT, "text": "Ok."}]}
    assert [(each["role"], each["content"]) for each in chat_messages([reply])] == [
        ("assistant", "So."), ("user", "Shorter."), ("assistant", "Ok."),
    ]  # fmt: skip


async def test_a_custom_tool_and_its_result_go_back(provider: Provider) -> None:
    provider.server.play(sse(responses(CUSTOM)), sse(responses(message(text("1.")))))

    async def agent(run: Run) -> AsyncIterator[Any]:
        async for item in loop(provider, run, "responses"):
            yield item

    await outcome(agent)
    call, result = provider.server.requests[1]["input"][1:]
    assert call == {name: value for name, value in CUSTOM.items() if name != "status"}
    assert result == {"type": "custom_tool_call_output", "call_id": "call_9", "output": '{"height":3}'}


async def test_chat_tool_loop(provider: Provider) -> None:
    provider.server.play(
        sse(completion("I look.", ("call_1", "tide", '{"port":"Kiel"}'), finish="tool_calls"), named=False),
        sse(completion("3 m."), named=False),
    )

    async def agent(run: Run) -> AsyncIterator[Any]:
        async for item in loop(provider, run, "chat"):
            yield item

    stored = await outcome(agent)
    assert stored.texts() == ["I look.", "3 m."]
    function = {"name": "tide", "arguments": '{"port":"Kiel"}'}
    assert provider.server.requests[1]["messages"] == [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"height":3}'},
    ]


PNG = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aGk="}
PDF = {"type": "file", "mediaType": "application/pdf", "url": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}
FAR = {"type": "file", "mediaType": "application/pdf", "url": "https://a.example/a.pdf"}
WAV = {"type": "file", "mediaType": "audio/wav", "url": "data:audio/wav;base64,aGk="}
LOOK = {"type": "text", "text": "Look."}


def test_images_and_files_of_the_user_are_input() -> None:
    asked = {"role": "user", "parts": [LOOK, PNG, PDF, FAR]}
    assert responses_input([asked]) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look."},
                {"type": "input_image", "image_url": PNG["url"], "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": PDF["url"]},
                {"type": "input_file", "file_url": FAR["url"]},
            ],
        }
    ]
    assert chat_messages([{"role": "user", "parts": [LOOK, PNG, PDF, FAR, WAV]}])[0]["content"] == [
        LOOK,
        {"type": "image_url", "image_url": {"url": PNG["url"]}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF["url"]}},
        {"type": "text", "text": "[File (application/pdf): https://a.example/a.pdf]"},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    ]


def test_system_messages_are_passed_on() -> None:
    system = {"role": "system", "parts": [{"type": "text", "text": "Be brief."}]}
    assert chat_messages([system]) == [{"role": "system", "content": "Be brief."}]
    assert responses_input([system]) == [{"role": "system", "content": [{"type": "input_text", "text": "Be brief."}]}]
