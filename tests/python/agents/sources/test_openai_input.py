"""What OpenAI's models said goes back to them as it came; what OpenAI would refuse does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from model_server import ask, outcome, sse
from openai_provider import CUSTOM, SEARCH, URL, USED, Provider, serving
from openai_recordings import completion, function_call, message, reasoning, responses, text

from rig import running
from strandline import Run
from strandline.agents.sources.openai import chat_messages, openai_chat, openai_responses, responses_input


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as made:
        yield made


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
