"""A stream of OpenAI's Responses API becomes the message that OpenAI's own library would have returned for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_server import HOLD, Outcome, cut, outcome, sse, whole
from openai_provider import CUSTOM, CUTS, JSON, SAID, SEARCH, URL, USED, Provider, library_says, often, serving, we_say
from openai_recordings import function_call, message, reasoning, refusal, responses, text

from rig import Answer, running
from strandline import Run
from strandline.agents.sources.model_stream import INVALID_INPUT
from strandline.agents.sources.openai import openai_responses
from strandline.testing import fold_frames


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as made:
        yield made


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


@pytest.mark.parametrize("arguments", ['{"__proto__": 1}', '{"n": "\\ud83d"}', "[" * 120 + "]" * 120, "Kiel"])
async def test_arguments_that_no_client_could_read_are_no_call(provider: Provider, arguments: str) -> None:
    provider.server.play(sse(responses(function_call("tide", arguments))))
    stored = await outcome(provider.answer)
    assert (stored.status, stored.parts[0]["errorText"]) == ("completed", INVALID_INPUT)


@pytest.mark.parametrize("arguments", ["", '{"port": "Ki', "{}"])
async def test_a_tool_call_that_was_cut_off_is_no_call(provider: Provider, arguments: str) -> None:
    item = function_call("tide", arguments, status="incomplete")
    provider.server.play(sse(responses(item, end="incomplete", incomplete_details={"reason": "max_output_tokens"})))
    stored = await outcome(provider.answer)
    assert (stored.parts[0]["errorText"], stored.finish) == (INVALID_INPUT, "length")


@often
@given(summary=st.lists(SAID, max_size=2), said=SAID, arguments=JSON, deltas=CUTS, pieces=CUTS)
async def test_the_message_is_the_same_wherever_the_stream_is_cut(
    summary: list[str], said: str, arguments: Any, deltas: list[int], pieces: list[int]
) -> None:
    items = [reasoning(*summary), message(text(said, URL)), function_call("tide", json.dumps(arguments))]
    events = responses(*items, cutting=lambda whole: cut(whole, deltas))
    wire = sse(events, done=True)
    places = sorted({0, len(wire), *(each % len(wire) for each in pieces)})
    async with serving() as provider:
        provider.server.play([wire[a:b] for a, b in pairwise(places)], wire)
        stored = await outcome(provider.answer)
        async with provider.client.responses.stream(model="m", input="hello") as stream:
            final = await stream.get_final_response()
    assert we_say(stored.parts) == library_says(final.output)
