"""AG-UI as a source: a real producer (pydantic-ai's), and every event of ag-ui-protocol 1.0. That it is the inverse of
our own codec is tested in ``property/test_ag_ui_source_laws.py``."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from fnmatch import fnmatch
from typing import Any

import orjson
import pytest
from ag_ui.core import CustomEvent, EventType, RunAgentInput, RunFinishedEvent, TextMessageContentEvent, UserMessage
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ThinkingPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.ui.ag_ui import AGUIAdapter

from rig import Answer, Rig, running
from strandline import ChunkRefused, Ended, Run
from strandline.agents.sources import ag_ui
from strandline.agents.sources.ag_ui import Receiver, ag_ui_stream
from strandline.codecs.ag_ui_input import ag_ui_messages
from strandline.core.message import fold
from strandline.errors import ProducerFailed
from strandline.testing import fold_frames, until

STARTED: dict[str, Any] = {"type": "RUN_STARTED", "threadId": "t", "runId": "r"}
FINISHED: dict[str, Any] = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}


def text(*deltas: str, id: str = "m") -> list[dict[str, Any]]:
    return [
        {"type": "TEXT_MESSAGE_START", "messageId": id, "role": "assistant"},
        *({"type": "TEXT_MESSAGE_CONTENT", "messageId": id, "delta": delta} for delta in deltas),
        {"type": "TEXT_MESSAGE_END", "messageId": id},
    ]


def call(arguments: str = "{}", id: str = "c") -> list[dict[str, Any]]:
    return [
        {"type": "TOOL_CALL_START", "toolCallId": id, "toolCallName": "look"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": id, "delta": arguments},
        {"type": "TOOL_CALL_END", "toolCallId": id},
    ]


def result(content: Any, id: str = "c", **more: Any) -> dict[str, Any]:
    return {"type": "TOOL_CALL_RESULT", "messageId": "r", "toolCallId": id, "content": content, **more}


async def chunks_of(*events: Any, end: Any = FINISHED) -> list[dict[str, Any]]:
    return [chunk async for chunk in ag_ui_stream([STARTED, *events, end])]


async def parts_of(*events: Any, end: Any = FINISHED) -> list[dict[str, Any]]:
    """The parts of the message, without steps."""
    return [part for part in fold(await chunks_of(*events, end=end)).parts() if part["type"] != "step-start"]


async def answered(agent: Any) -> Answer:
    async with running(agent=agent) as rig:
        return await (await rig.post("c")).end()


# ---------------------------------------------------------------------- a real producer


async def weather_model(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
    if isinstance(messages[-1].parts[0], ToolReturnPart):
        yield "It is "
        yield "7 °C. 🦩"
        return
    yield {0: DeltaThinkingPart(content="the weather")}
    yield {0: DeltaThinkingPart(content=" in Oslo")}
    yield "Looking it "
    yield "up."
    yield {1: DeltaToolCall(name="weather", json_args='{"ci', tool_call_id="c1")}
    yield {1: DeltaToolCall(json_args='ty": "Oslo"}')}
    yield {2: DeltaToolCall(name="today", json_args="{}", tool_call_id="c2")}


def weather_agent() -> Agent[None, str]:
    agent = Agent(FunctionModel(stream_function=weather_model))

    @agent.tool_plain
    def weather(city: str) -> dict[str, Any]:
        return {"city": city, "degrees": 7, "wind": [1.5, None]}

    @agent.tool_plain
    def today() -> str:
        return "a Saturday"

    return agent


def run_input(messages: Any = None) -> RunAgentInput:
    return RunAgentInput(
        thread_id="t", run_id="r", messages=messages or [UserMessage(id="u", content="weather?")], state={}, tools=[],
        context=[], forwarded_props={}, protocol_version="1.0",
    )  # fmt: skip


@pytest.mark.parametrize("form", ["objects", "sse", 1, 7])
@pytest.mark.parametrize("version", ["1.0", "0.1.10"])
async def test_what_is_stored_is_what_pydantic_ai_returns(form: Any, version: str) -> None:
    """``0.1.10``: THINKING_* events instead of REASONING_*."""
    results: list[Any] = []
    adapter = AGUIAdapter(agent=weather_agent(), run_input=run_input(), include_usage=True, ag_ui_version=version)

    async def produced() -> AsyncIterator[Any]:
        events = adapter.run_stream(on_complete=results.append)
        if form == "objects":
            async for event in events:
                yield event
            return
        async for frame in adapter.encode_stream(events):
            for start in range(0, len(frame.encode()), size := form if isinstance(form, int) else 100_000):
                yield frame.encode()[start : start + size]

    runs: list[Run] = []

    async def agent(run: Run) -> Any:
        runs.append(run)
        return ag_ui_stream(produced(), run=run)

    answer = await answered(agent)
    assert answer.frames[-2].chunk == {"type": "finish", "finishReason": "stop"}
    (theirs,) = results
    parts = fold_frames(answer.frames).parts()
    kinds = ["step-start", "reasoning", "text", "tool-weather", "tool-today", "step-start", "text"]
    assert [part["type"] for part in parts] == kinds
    assert parts[3]["output"] == {"city": "Oslo", "degrees": 7, "wind": [1.5, None]}
    expected: list[Any] = []
    for message in theirs.new_messages():
        if isinstance(message, ModelResponse):
            expected.append({"type": "step-start"})
        for part in message.parts:
            match part:
                case TextPart() | ThinkingPart():
                    kind = "text" if isinstance(part, TextPart) else "reasoning"
                    expected.append({"type": kind, "text": part.content, "state": "done"})
                case ToolCallPart():
                    about = {"toolCallId": part.tool_call_id, "input": part.args_as_dict()}
                    expected.append({"type": f"tool-{part.tool_name}", **about, "state": "output-available"})
                case ToolReturnPart():
                    asked = next(each for each in expected if each.get("toolCallId") == part.tool_call_id)
                    asked["output"] = part.content
    assert [{k: v for k, v in part.items() if (k, part["type"]) != ("id", "reasoning")} for part in parts] == expected
    if version == "1.0":
        used = theirs.usage
        assert runs[0].used == {
            "inputTokens": used.input_tokens, "outputTokens": used.output_tokens, "totalTokens": used.total_tokens,
        }  # fmt: skip

    # And pydantic-ai reads it back as its own messages.
    body = RunAgentInput.model_validate({**run_input().model_dump(), "messages": ag_ui_messages([reply_of(parts)])})
    assert said(AGUIAdapter.load_messages(body.messages)) == said(theirs.new_messages())


def reply_of(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "a", "role": "assistant", "parts": parts}


def said(messages: list[ModelMessage]) -> list[tuple[Any, ...]]:
    """What pydantic-ai's messages say, by message. A result is an object or the text of it: on the wire it is text."""
    found: list[tuple[Any, ...]] = []
    for number, message in enumerate(messages):
        for part in message.parts:
            match part:
                case TextPart() | ThinkingPart():
                    found.append((number, type(part), part.content))
                case ToolCallPart():
                    found.append((number, part.tool_name, part.args_as_dict(), part.tool_call_id))
                case ToolReturnPart():
                    content = part.content if isinstance(part.content, str) else orjson.dumps(part.content).decode()
                    found.append((number, part.tool_name, content, part.tool_call_id))
    return found


async def test_a_producer_that_fails_fails_the_run_with_its_message() -> None:
    async def broken(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield "so far"
        raise ValueError("the model is out of order")

    adapter = AGUIAdapter(agent=Agent(FunctionModel(stream_function=broken)), run_input=run_input())
    answer = await answered(lambda run: ag_ui_stream(adapter.run_stream()))
    assert answer.text == "so far"
    assert answer.frames[-2].chunk["errorText"] == "the model is out of order"


async def test_a_stop_closes_the_producer(rig: Rig) -> None:
    closed: list[str] = []

    async def endless(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        try:
            while True:
                yield "on and on "
                await asyncio.sleep(0)
        finally:
            closed.append("model")

    adapter = AGUIAdapter(agent=Agent(FunctionModel(stream_function=endless)), run_input=run_input())
    async with running(agent=lambda run: ag_ui_stream(adapter.run_stream())) as rig:
        answer = await rig.post("c")
        await answer.until_text("on and on on")
        await rig.stop("c")
        await until(lambda: closed == ["model"])
        assert (await answer.end()).types[-2] == "abort"


# ---------------------------------------------------------------------- every event


def test_every_event_of_the_protocol_has_its_place_in_the_documentation() -> None:
    named = re.findall(r"[A-Z]{3,}(?:_[A-Z]+)*(?:_\*)?", ag_ui.__doc__ or "")
    for kind in EventType:
        assert any(fnmatch(kind.value, name) for name in [*named, "RUN_STARTED"]), kind


async def test_text_is_a_part_and_an_empty_message_is_none() -> None:
    assert await parts_of(*text("a", "", "b"), *text(id="n"), *text("c", id="m")) == [
        {"type": "text", "text": "ab", "state": "done"},
        {"type": "text", "text": "c", "state": "done"},
    ]


async def test_messages_of_others_are_left_out() -> None:
    other = [{**event, "role": "user"} if "role" in event else event for event in text("mine", id="u")]
    assert await parts_of(*other, *text("yours"), *text("again", id="u")) == [
        {"type": "text", "text": "yours", "state": "done"},
        {"type": "text", "text": "again", "state": "done"},
    ]


async def test_forms_without_start_and_end() -> None:
    events: list[Any] = [
        {"type": "REASONING_MESSAGE_CHUNK", "messageId": "r", "delta": "h"},
        {"type": "RAW", "event": {}},
        {"type": "REASONING_MESSAGE_CHUNK", "delta": "m"},
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "delta": "a", "metadata": {"n": 1}},
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "delta": "b"},
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "n"},
        {"type": "TEXT_MESSAGE_CHUNK", "delta": "c"},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "toolCallName": "look", "delta": '{"a"'},
        {"type": "TOOL_CALL_CHUNK", "delta": ":1}"},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "d", "toolCallName": "look"},
        result("done"), result("done", "d"),
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "u", "role": "user", "delta": "not this"},
    ]  # fmt: skip
    chunks = await chunks_of(*events)
    assert [chunk["type"] for chunk in chunks].count("message-metadata") == 1
    state = fold(chunks)
    done = {"toolCallId": "c", "state": "output-available", "input": {"a": 1}, "output": "done"}
    assert [part for part in state.parts() if part["type"] != "step-start"] == [
        {"type": "reasoning", "id": "r", "text": "hm", "state": "done"},
        {"type": "text", "text": "ab", "state": "done"},
        {"type": "text", "text": "c", "state": "done"},
        {"type": "tool-look", **done},
        {"type": "tool-look", **done, "toolCallId": "d", "input": {}},
    ]
    assert state.metadata == {"n": 1}
    with pytest.raises(ChunkRefused, match="messageId"):
        await chunks_of({"type": "TEXT_MESSAGE_CHUNK", "delta": "whose?"})


async def test_metadata_of_messages_is_kept_but_not_that_of_the_protocol() -> None:
    start = {**text()[0], "metadata": {"model": {"name": "x"}, "ag-ui": 1, "tanstack": 2}}
    more = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "a", "metadata": {"model": {"size": 3}}}
    assert fold(await chunks_of(start, more)).metadata == {"model": {"name": "x", "size": 3}}


@pytest.mark.parametrize(
    "content, output",
    [
        ("plain", "plain"), ('{"a": null}', {"a": None}), ("[1]", [1]), ('"quoted"', "quoted"), ("42", 42), ("", ""),
        ("true", True), ("1.50", "1.50"), ("12345678901234567890123", "12345678901234567890123"), ("007", "007"),
        ('{"__proto__": 1}', '{"__proto__": 1}'), ("{broken", "{broken"),
        ([{"type": "text", "text": "x"}], [{"type": "text", "text": "x"}]),
    ],
)  # fmt: skip
async def test_results_are_json_where_they_are_json(content: Any, output: Any) -> None:
    (part,) = await parts_of(*call('{"a": 1}'), result(content))
    assert (part["input"], part["output"], part["state"]) == ({"a": 1}, output, "output-available")


async def test_calls_that_go_wrong_or_are_left_open() -> None:
    broken, empty, late = await parts_of(
        *call("{broken", "broken"), result("try again", "broken"), *call("", "empty"), *call('{"a":', "late")[:2],
        result(json.dumps({"error": "no luck"}), "late", metadata={"tanstack": {"state": "output-error"}}),
        result("of an earlier run", "unknown"),
    )  # fmt: skip
    assert (broken["state"], broken["output"]) == ("output-available", "try again")
    assert (empty["state"], empty["input"]) == ("input-available", {})
    assert (late["state"], late["errorText"], late["input"]) == ("output-error", "no luck", '{"a":')
    start, arguments, end = call('{"a":')
    (twice,) = await parts_of(start, arguments, start, {**arguments, "delta": "1}"}, end)
    assert twice["input"] == {"a": 1}
    with pytest.raises(ChunkRefused, match="not open"):
        await chunks_of({"type": "TOOL_CALL_ARGS", "toolCallId": "x", "delta": "{}"})


async def test_what_strandlines_own_wire_says_beyond_the_protocol() -> None:
    def custom(name: str, **value: Any) -> dict[str, Any]:
        return {"type": "CUSTOM", "name": name, "value": value}

    end = {**call()[-1], "metadata": {"tanstack": {"input": {"whole": True}}}}
    events = [
        *call("{broken")[:-1], call()[0], end, custom("tool-approval-request", approvalId="a", toolCallId="c"),
        custom("tool-approval-response", approvalId="a", approved=True),
        custom("tool-approval-response", approvalId="b", approved=True),
        custom("tool-output-preliminary", toolCallId="c", output=1),
    ]  # fmt: skip
    part, data = await parts_of(*events)
    assert part == {
        "type": "tool-look", "toolCallId": "c", "state": "output-available", "input": {"whole": True}, "output": 1,
        "preliminary": True, "approval": {"id": "a", "approved": True},
    }  # fmt: skip
    assert data == {"type": "data-tool-approval-response", "data": {"approvalId": "b", "approved": True}}
    final, _ = await parts_of(*events, result("2"))
    assert final["output"] == 2 and "preliminary" not in final
    early = custom("tool-output-preliminary", toolCallId="c", output=1)
    assert (await parts_of(*call()[:-1], early, call()[-1]))[1]["type"] == "data-tool-output-preliminary"


async def test_an_approval_is_asked_for_when_the_input_is_complete() -> None:
    start, *end = call()
    asked = [
        {"type": "CUSTOM", "name": "tool-approval-request", "value": {"approvalId": "a", "toolCallId": "c"}},
        {"type": "CUSTOM", "name": "tool-approval-response", "value": {"approvalId": "a", "approved": True}},
    ]
    for count, state in ((1, "approval-requested"), (2, "approval-responded")):
        (part,) = await parts_of(start, *asked[:count], *end)
        assert (part["input"], part["state"]) == ({}, state)
        (cut,) = await parts_of(start, *asked[:count])
        assert (cut["input"], cut["state"]) == ({}, state)
    (broken,) = await parts_of(start, *asked, {**end[0], "delta": "{"}, end[1])
    assert broken["state"] == "output-error" and "approval" not in broken


async def kinds_of(*events: Any) -> list[str]:
    return [chunk["type"].removesuffix("-available") for chunk in await chunks_of(*events)]


async def test_steps_are_made_where_the_producer_has_none() -> None:
    assert await kinds_of(*text("a"), *call(), *call(id="d"), result("x"), *call(id="e"), result("x", "d"),
                          result("x", "e"), *text("b"), *text("c", id="n")) == [
        "start-step", "text-start", "text-delta", "text-end", "tool-input-start", "tool-input-delta", "tool-input",
        "tool-input-start", "tool-input-delta", "tool-input", "tool-output", "tool-input-start", "tool-input-delta",
        "tool-input", "tool-output", "tool-output", "finish-step", "start-step", "text-start", "text-delta", "text-end",
        "text-start", "text-delta", "text-end", "finish-step", "finish",
    ]  # fmt: skip


async def test_steps_of_the_producer_are_taken_over() -> None:
    def step(name: str, kind: str = "STARTED", **more: Any) -> dict[str, Any]:
        return {"type": f"STEP_{kind}", "stepName": name, **more}

    inner = [*text("a"), step("inner"), *call(), result("x"), step("inner", "FINISHED"), *text("b")]
    assert await kinds_of(step("outer"), *inner, step("outer", "FINISHED"), *text("c")) == [
        "start-step", "text-start", "text-delta", "text-end", "finish-step", "start-step", "tool-input-start",
        "tool-input-delta", "tool-input", "tool-output", "text-start", "text-delta", "text-end", "finish-step",
        "text-start", "text-delta", "text-end", "finish",
    ]  # fmt: skip
    # Neither TanStack's steps around thinking nor one in the middle of an input.
    thinking = {"type": "REASONING_MESSAGE_START", "messageId": "r"}
    events = [thinking, step("r"), step("t", stepType="thinking"), *call()[:2], step("x"), *call()[2:]]
    assert "finish-step" not in (await kinds_of(*events))[:-2]


async def test_a_custom_event_is_the_chunk_of_its_name_or_a_data_part() -> None:
    def custom(name: str, value: Any) -> dict[str, Any]:
        return {"type": "CUSTOM", "name": name, "value": value}

    assert await parts_of(
        custom("file", {"url": "https://example.org/a.png", "mediaType": "image/png"}),
        custom("file", {"url": 3}),
        custom("source-url", {"sourceId": "s", "url": "https://example.org/"}),
        custom("data-mark", {"data": 1, "id": "x"}),
        custom("data-mark", {"data": 2, "id": "x"}),
        custom("data-mark", "bare"),
        custom("progress", {"percent": 3}),
        custom("error", {"errorText": "not an error of the run"}),
        custom("tool-approval-request", {"approvalId": "a", "toolCallId": "unknown"}),
        CustomEvent(name="nothing", value=None),
    ) == [
        {"type": "file", "url": "https://example.org/a.png", "mediaType": "image/png"},
        {"type": "data-file", "data": {"url": 3}},
        {"type": "source-url", "sourceId": "s", "url": "https://example.org/"},
        {"type": "data-mark", "data": 2, "id": "x"},
        {"type": "data-mark", "data": "bare"},
        {"type": "data-progress", "data": {"percent": 3}},
        {"type": "data-error", "data": {"errorText": "not an error of the run"}},
        {"type": "data-tool-approval-request", "data": {"approvalId": "a", "toolCallId": "unknown"}},
        {"type": "data-nothing", "data": None},
    ]


async def test_state_activities_and_subagents_are_data_parts_that_follow_their_events() -> None:
    state, activity, subagent = await parts_of(
        {"type": "STATE_SNAPSHOT", "snapshot": {"step": 1}},
        {"type": "ACTIVITY_SNAPSHOT", "messageId": "p", "activityType": "PLAN", "content": {"todo": ["a"]}},
        {"type": "SUBAGENT_STARTED", "subagentRunId": "s", "name": "researcher"},
        {"type": "STATE_DELTA", "delta": [{"op": "replace", "path": "/step", "value": 2}]},
        {"type": "ACTIVITY_SNAPSHOT", "messageId": "p", "activityType": "PLAN", "content": {}, "replace": False},
        {"type": "ACTIVITY_DELTA", "messageId": "p", "activityType": "PLAN",
         "patch": [{"op": "add", "path": "/todo/-", "value": "b"}]},
        {"type": "SUBAGENT_FINISHED", "subagentRunId": "s", "outcome": {"type": "success"}, "result": 3},
    )  # fmt: skip
    assert state == {"type": "data-state", "id": "state", "data": {"step": 2}}
    plan = {"activityType": "PLAN", "content": {"todo": ["a", "b"]}}
    assert activity == {"type": "data-activity", "id": "p", "data": plan}
    assert subagent["data"] == {"name": "researcher", "status": "finished", "result": 3}
    failed = {"type": "SUBAGENT_ERROR", "subagentRunId": "s", "message": "lost"}
    assert (await parts_of(failed))[0]["data"] == {"message": "lost", "status": "failed"}
    suspended = {"type": "SUBAGENT_FINISHED", "subagentRunId": "s", "outcome": {"type": "suspended"}}
    assert (await parts_of(suspended))[0]["data"] == {"status": "suspended"}
    with pytest.raises(ChunkRefused, match="STATE_DELTA"):
        await chunks_of({"type": "STATE_DELTA", "delta": [{"op": "remove", "path": "/nothing"}]})


SNAPSHOT: dict[str, Any] = {
    "type": "MESSAGES_SNAPSHOT",
    "messages": [
        {"id": "a0", "role": "assistant", "content": "earlier"},
        {"id": "u", "role": "user", "content": "now?"},
        {"id": "r", "role": "reasoning", "content": "hm"},
        {"id": "a1", "role": "assistant", "content": "look", "toolCalls": [
            {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}},
            {"id": "d", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"id": "t", "role": "tool", "toolCallId": "c", "content": "found"},
        {"id": "t2", "role": "tool", "toolCallId": "d", "content": "", "error": "not found"},
        {"id": "a2", "role": "assistant", "content": "there"},
    ],
}  # fmt: skip


async def test_a_snapshot_is_the_reply_only_where_nothing_else_was_said() -> None:
    assert await parts_of(SNAPSHOT, *text("streamed")) == [{"type": "text", "text": "streamed", "state": "done"}]
    assert await parts_of(*text("streamed"), SNAPSHOT) == [{"type": "text", "text": "streamed", "state": "done"}]
    state = fold(await chunks_of(SNAPSHOT, SNAPSHOT))
    call = {"type": "tool-look", "toolCallId": "c", "state": "output-available", "input": {"a": 1}, "output": "found"}
    assert state.parts() == [
        {"type": "step-start"},
        {"type": "reasoning", "id": "r", "text": "hm", "state": "done"},
        {"type": "text", "text": "look", "state": "done"},
        call,
        {"type": "tool-look", "toolCallId": "d", "state": "output-error", "input": {}, "errorText": "not found"},
        {"type": "step-start"},
        {"type": "text", "text": "there", "state": "done"},
    ]


# ---------------------------------------------------------------------- ends


async def test_a_run_that_was_cancelled_stops_ours() -> None:
    answer = await answered(lambda run: ag_ui_stream([*text("half"), {**FINISHED, "outcome": {"type": "cancelled"}}]))
    assert answer.frames[-2].chunk["type"] == "abort"
    assert answer.text == "half"


async def test_what_a_run_waits_for_is_shown() -> None:
    interrupts = [
        {"id": "i1", "reason": "tool_call", "toolCallId": "c"},
        {"id": "i2", "reason": "input_required", "message": "How many?"},
    ]
    end = {**FINISHED, "outcome": {"type": "interrupt", "interrupts": interrupts}}
    chunks = await chunks_of(*call(), end=end)
    assert chunks[-4:] == [
        {"type": "tool-approval-request", "approvalId": "i1", "toolCallId": "c"},
        {
            "type": "tool-input-available",
            "toolCallId": "i2",
            "toolName": "interrupt",
            "input": interrupts[1],
            "providerMetadata": {"ag-ui": {"interrupt": "i2"}},
        },
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "tool-calls"},
    ]
    asked = {"type": "CUSTOM", "name": "tool-approval-request", "value": {"approvalId": "a", "toolCallId": "c"}}
    repeated = await chunks_of(*call(), asked, end=end)
    assert [chunk["approvalId"] for chunk in repeated if chunk["type"] == "tool-approval-request"] == ["a"]


async def test_the_result_and_the_usage_of_a_run_are_kept() -> None:
    ended: list[Ended] = []
    usage = [{"model": "a", "inputTokens": 3, "outputTokens": 4}, {"model": "b", "inputTokens": 10, "totalTokens": "x"}]
    async with running(
        agent=lambda run: ag_ui_stream([RunFinishedEvent(thread_id="t", run_id="r", result={"n": 1})], run=run)
    ) as rig:
        answer = await (await rig.post("c")).end()
    assert fold_frames(answer.frames).parts() == [{"type": "data-result", "data": {"n": 1}}]
    for end in ({**FINISHED, "usage": usage}, {"type": "RUN_ERROR", "message": "no", "usage": usage}):
        async with running(agent=lambda run, end=end: ag_ui_stream([end], run=run)) as rig:
            rig.chat.on_end(ended.append)
            await (await rig.post("c")).end()
            await until(lambda: ended)
            assert ended.pop().usage == {"inputTokens": 13, "outputTokens": 4}


async def test_what_is_open_at_the_end_is_closed() -> None:
    kinds = [chunk["type"] for chunk in await chunks_of(*text("a")[:-1], *call()[:-1])]
    assert kinds[-4:] == ["text-end", "tool-input-available", "finish-step", "finish"]


async def test_two_runs_in_one_stream_are_one_reply() -> None:
    parts = await parts_of(*text("a"), FINISHED, STARTED, *text("b"))
    assert [part["text"] for part in parts] == ["a", "b"]


@pytest.mark.parametrize("events", [[], [STARTED], [STARTED, *text("a")], [FINISHED, STARTED, *text("a")]])
async def test_a_stream_without_an_end_fails_the_run(events: list[Any], caplog: Any) -> None:
    answer = await answered(lambda run: ag_ui_stream(events))
    assert answer.frames[-2].chunk["errorText"] == "The reply failed. Please try again."
    assert "ended without RUN_FINISHED or RUN_ERROR" in caplog.text


async def test_sse_that_is_cut_in_the_middle_of_an_event_fails_the_run() -> None:
    frame = f"data: {json.dumps(FINISHED)}\n\n"
    with pytest.raises(ProducerFailed, match="in the middle of an event"):
        async for _ in ag_ui_stream([frame[:-1]]):
            pass


@pytest.mark.parametrize(
    "event",
    [
        {}, {"type": 3}, {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m"}, {"type": "TEXT_MESSAGE_START"},
        {"type": "TOOL_CALL_START", "toolCallId": "c"}, {"type": "CUSTOM", "value": 1}, {"type": "RUN_ERROR"}, 3,
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": None}, "data: [1]\n\n", "data: nope\n\n",
    ],
)  # fmt: skip
async def test_what_is_no_event_is_refused(event: Any) -> None:
    with pytest.raises(ChunkRefused):
        await chunks_of(event)


async def test_a_type_of_a_later_version_is_left_out() -> None:
    assert await parts_of({"type": "HOLOGRAM_START"}, {"type": "HOLOGRAM_CHUNK"}, *text("a")) != []
    assert Receiver().take({"type": "REASONING_ENCRYPTED_VALUE", "subtype": "message", "entityId": "m"}) == []


async def test_objects_of_the_protocol_are_taken() -> None:
    content = TextMessageContentEvent(message_id="m", delta="a")
    assert (await parts_of(content))[0]["text"] == "a"
