"""A stream of Chat Completions becomes the message that OpenAI's own library would have returned for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_server import Outcome, cut, outcome, sse
from openai_provider import CUTS, JSON, SAID, USED, Provider, often, serving, we_say
from openai_recordings import chunk, completion

from strandline import Run
from strandline.agents.sources.model_stream import INVALID_INPUT
from strandline.agents.sources.openai import openai_chat


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as made:
        yield made


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


@often
@given(content=SAID, arguments=st.lists(JSON, max_size=2), deltas=CUTS)
async def test_the_chat_is_the_same_wherever_its_deltas_are_cut(
    content: str, arguments: list[Any], deltas: list[int]
) -> None:
    calls = [(f"call_{place}", "tide", json.dumps(each)) for place, each in enumerate(arguments)]
    finish = "tool_calls" if calls else "stop"
    async with serving() as provider:
        await both_chats(provider, completion(content, *calls, finish=finish, cutting=lambda whole: cut(whole, deltas)))
