"""What an agent may say, in every way it can say it; and what is refused in the agent, before any client (§14.8)."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field

from rig import Answer, Rig, running
from strandline import ChunkRefused, Run, ui_stream
from strandline.testing import ScriptedAgent, fold_frames, until


async def answered(agent: Any, **settings: Any) -> Answer:
    async with running(agent=agent, **settings) as rig:
        return await (await rig.post("c")).end()


def parts(answer: Answer) -> list[dict[str, Any]]:
    return fold_frames(answer.frames).parts()


# ---------------------------------------------------------------------- every kind of callable


async def an_async_function(run: Run) -> None:
    await run.text("hel")
    await run.text("lo")


async def an_async_function_that_returns(run: Run) -> str:
    return "hello"


async def an_async_generator(run: Run) -> AsyncIterator[Any]:
    yield "hel"
    yield None
    yield {"type": "message-metadata", "messageMetadata": {"a": 1}}
    yield "lo"


async def an_async_function_that_returns_a_stream(run: Run) -> Any:
    return an_async_generator(run)


async def an_async_function_that_returns_a_plain_stream(run: Run) -> Any:
    return iter(["hel", "lo"])


async def a_nested_stream(run: Run) -> AsyncIterator[Any]:
    yield an_async_generator(run)


def a_plain_function(run: Run) -> str:
    time.sleep(0.001)
    return "hello"


def a_plain_generator(run: Run) -> Iterator[str]:
    yield "hel"
    yield "lo"


def a_plain_function_that_returns_a_stream(run: Run) -> Any:
    return a_plain_generator(run)


def a_plain_function_that_returns_an_async_stream(run: Run) -> Any:
    return an_async_generator(run)


def with_more(more: int, run: Run) -> str:
    return "hello" * more


class Callable:
    def __call__(self, run: Run) -> str:
        return "hello"


class AsyncCallable:
    async def __call__(self, run: Run) -> AsyncIterator[str]:
        yield "hello"


AGENTS = [
    an_async_function, an_async_function_that_returns, an_async_generator, an_async_function_that_returns_a_stream,
    an_async_function_that_returns_a_plain_stream, a_nested_stream, a_plain_function, a_plain_generator,
    a_plain_function_that_returns_a_stream, a_plain_function_that_returns_an_async_stream, partial(with_more, 1),
    Callable(), AsyncCallable(), lambda run: "hello",
]  # fmt: skip


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: getattr(agent, "__name__", type(agent).__name__))
async def test_every_kind_of_callable_answers(agent: Any) -> None:
    answer = await answered(agent)
    assert answer.text == "hello"
    assert answer.types[-2:] == ["finish", "[DONE]"]


async def test_returning_nothing_or_a_chunk_is_fine() -> None:
    assert (await answered(lambda run: None)).types == ["start", "finish", "[DONE]"]
    answer = await answered(lambda run: {"type": "data-x", "data": [1]})
    assert parts(answer) == [{"type": "data-x", "data": [1]}]


async def test_plain_agents_do_not_wait_for_one_another() -> None:
    def slow(run: Run) -> str:
        while not run.cancelled:
            time.sleep(0.005)
        return "over"

    async with running(agent=slow) as rig:
        for number in range(40):
            await rig.post(f"c{number}", id="u1")
        session = await rig.sessions.find("c39")
        assert session.live
        began = time.monotonic()
        assert (await rig.ask("GET", "/api/readyz")).status == 200
        assert time.monotonic() - began < 1
        for number in range(40):
            assert (await rig.stop(f"c{number}")).json["stopped"] is True


@pytest.mark.parametrize("item", [3, 3.5, b"bytes", ["list"], object(), ("a",), {1, 2}])
async def test_other_things_are_refused_with_advice(item: Any, caplog: Any) -> None:
    answer = await answered(ScriptedAgent("before ", item))
    assert answer.text == "before "
    assert answer.frames[-2].chunk["code"] == "chunk-refused"
    assert "ui_stream" in caplog.text


async def test_what_the_agent_is_asked() -> None:
    async with running() as rig:
        parts = [
            {"type": "text", "text": "look "},
            {"type": "file", "url": "data:image/png;base64,AA", "mediaType": "image/png"},
            {"type": "text", "text": "here"},
            {"type": "data-x", "data": 1},
        ]
        body = {"id": "c", "messages": [{"id": "u1", "role": "user", "parts": parts}], "model": "big", "n": [1, None]}
        await rig.open("POST", "/api/chat", body, {"strandline-device": "phone"})
        run = (await rig.agent.called()).run
        assert run.body == {"model": "big", "n": [1, None]}
        assert (run.user.user, run.user.device) == ("ann", "phone")
        assert run.session_id == "c"
        assert run.messages == [{"id": "u1", "role": "user", "parts": parts}]
        assert run.prompt() == [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look "},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                    {"type": "text", "text": "here"},
                ],
            }
        ]
        assert not run.cancelled
        await rig.stop("c")
        assert run.cancelled


async def test_what_the_reply_says_so_far() -> None:
    seen: list[dict[str, Any]] = []

    async def agent(run: Run) -> None:
        seen.append(run.message)
        await run.text("hel")
        await run.tool_call("look", {"at": 1}, id="t1")
        seen.append(run.message)

    async with running(agent=agent) as rig:
        answer = await (await rig.post("c")).end()
        stored = (await rig.history("c"))["messages"][-1]
    assert [seen[0]["id"], seen[0]["role"], seen[0]["parts"]] == [stored["id"], "assistant", []]
    assert [part.get("state") for part in seen[1]["parts"]] == [None, "done", "input-available"]
    assert answer.types[-1] == "[DONE]"


# ---------------------------------------------------------------------- what is refused

REFUSED: list[tuple[str, Any]] = [
    ("an unknown type", {"type": "text-dleta", "id": "1", "delta": "x"}),
    ("no type", {"id": "1"}),
    ("an unopened text", {"type": "text-delta", "id": "nobody", "delta": "x"}),
    ("an unopened end", {"type": "text-end", "id": "nobody"}),
    ("an unopened reasoning", {"type": "reasoning-delta", "id": "nobody", "delta": "x"}),
    ("an unknown tool", {"type": "tool-output-available", "toolCallId": "nobody", "output": 1}),
    ("an input delta without start", {"type": "tool-input-delta", "toolCallId": "nobody", "inputTextDelta": "x"}),
    ("null for an optional field", {"type": "text-start", "id": "1", "providerMetadata": None}),
    ("null for text", {"type": "text-start", "id": None}),
    ("a missing field", {"type": "file", "url": "x"}),
    ("__proto__", {"type": "data-x", "data": {"__proto__": {}}}),
    ("a deep __proto__", {"type": "data-x", "data": [{"a": {"__proto__": 1}}]}),
    ("a constructor's prototype", {"type": "data-x", "data": {"constructor": {"prototype": 1}}}),
    ("not JSON", {"type": "data-x", "data": object()}),
    ("NaN", {"type": "data-x", "data": float("nan")}),
    ("half a surrogate pair", {"type": "data-x", "data": "\ud83e"}),
    ("a key that is no string", {"type": "data-x", "data": {1: 2}}),
    ("an integer beyond 64 bits", {"type": "data-x", "data": 2**70}),
    ("too deep", {"type": "data-x", "data": __import__("functools").reduce(lambda a, _: [a], range(200), 1)}),
    ("too big", {"type": "data-x", "data": "x" * 1_100_000}),
    ("a bad finish reason", {"type": "finish", "finishReason": "because"}),
    ("surrogates in text", "\ud83e"),
]


@pytest.mark.parametrize("chunk", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_a_chunk_that_would_kill_clients_raises_in_the_agent_and_leaves_no_trace(chunk: Any) -> None:
    raised: list[Exception] = []

    async def agent(run: Run) -> None:
        await run.text("before ")
        try:
            await (run.text(chunk) if isinstance(chunk, str) else run.append(chunk))
        except ChunkRefused as exc:
            raised.append(exc)
        await run.text("after")

    answer = await answered(agent)
    assert len(raised) == 1
    assert "before" in answer.text
    assert answer.text == "before after"
    assert answer.types[-2:] == ["finish", "[DONE]"]


@pytest.mark.parametrize("chunk", [REFUSED[0][1], REFUSED[2][1], REFUSED[10][1], REFUSED[-1][1]])
async def test_an_agent_that_does_not_catch_it_fails_with_what_it_said_before(chunk: Any, caplog: Any) -> None:
    answer = await answered(ScriptedAgent("before", chunk, "after"))
    assert answer.text == "before"
    assert answer.frames[-2].chunk["code"] == "chunk-refused"
    assert answer.frames[-2].chunk["errorText"] == "The reply failed. Please try again."
    assert "clients cannot read" in caplog.text


async def test_bad_values_beside_the_chunks_are_refused_too() -> None:
    refused: list[str] = []

    async def agent(run: Run) -> None:
        for act in (
            lambda: run.usage(tokens=object()),
            lambda: run.usage(tokens=2**80),
            lambda: run.finish("because"),
        ):
            try:
                act()
            except ChunkRefused as exc:
                refused.append(str(exc))
        try:
            await run.text(3)  # type: ignore[arg-type]
        except ChunkRefused as exc:
            refused.append(str(exc))
        run.finish("length")

    answer = await answered(agent)
    assert len(refused) == 4
    assert answer.frames[-2].chunk == {"type": "finish", "finishReason": "length"}


async def test_long_deltas_are_split_and_are_whole_again_in_the_message() -> None:
    text = "x" * 200_001 + "🦩" * 30_000
    raw = orjson.dumps({"text": "y" * 150_000}).decode()

    async def agent(run: Run) -> AsyncIterator[Any]:
        yield text
        yield {"type": "tool-input-start", "toolCallId": "1", "toolName": "a"}
        yield {"type": "tool-input-delta", "toolCallId": "1", "inputTextDelta": raw}
        yield {"type": "tool-input-available", "toolCallId": "1", "toolName": "a", "input": {}}
        yield {"type": "tool-output-available", "toolCallId": "1", "output": 1}

    answer = await answered(agent)
    assert answer.text == text
    sizes = [
        len((frame.chunk.get("delta") or frame.chunk.get("inputTextDelta") or "").encode()) for frame in answer.frames
    ]
    assert max(sizes) <= 65_536
    assert "".join(frame.chunk.get("inputTextDelta", "") for frame in answer.frames) == raw


async def test_part_ids_that_come_again_are_renamed_with_everything_that_means_them() -> None:
    def one(kind: str, text: str, id: str = "1") -> list[Any]:
        return [
            {"type": f"{kind}-start", "id": id},
            {"type": f"{kind}-delta", "id": id, "delta": text},
            {"type": f"{kind}-end", "id": id},
        ]

    pieces = [*one("text", "a"), *one("text", "b"), *one("reasoning", "c"), *one("text", "d"), *one("text", "e", "1-1")]
    answer = await answered(ScriptedAgent(*pieces, "f"))
    starts = [
        frame.chunk["id"]
        for frame in answer.frames
        if frame.chunk.get("type", "").endswith("-start") and "id" in frame.chunk
    ]
    assert len(set(starts)) == len(starts) == 6
    assert starts[0] == "1"
    assert [part["text"] for part in parts(answer) if "text" in part] == list("abcdef")
    assert all(part["state"] == "done" for part in parts(answer) if "text" in part)


async def test_starts_finishes_errors_and_aborts_belong_to_the_run() -> None:
    answer = await answered(
        ScriptedAgent(
            {"type": "start", "messageId": "mine", "messageMetadata": {"a": 1}},
            "words",
            {"type": "finish", "finishReason": "length", "messageMetadata": {"b": 2}},
        )
    )
    assert answer.types.count("start") == answer.types.count("finish") == 1
    assert answer.frames[0].chunk["messageId"] != "mine"
    state = fold_frames(answer.frames)
    assert (state.metadata, state.finish_reason) == ({"a": 1, "b": 2}, "length")
    answer = await answered(ScriptedAgent("a", {"type": "abort", "reason": "tired"}))
    assert answer.frames[-2].chunk == {"type": "abort", "reason": "tired"}


async def test_a_yielded_error_fails_the_run_with_its_text_also_when_the_producer_tidies_up_after_it() -> None:
    answer = await answered(
        ScriptedAgent(
            {"type": "start-step"},
            {"type": "text-start", "id": "1"},
            {"type": "text-delta", "id": "1", "delta": "said"},
            {"type": "error", "errorText": "The provider is down."},
            {"type": "text-end", "id": "1"},
            {"type": "finish-step"},
            {"type": "finish"},
        )
    )
    assert answer.frames[-2].chunk == {
        "type": "error", "errorText": "The provider is down.", "code": "agent-error",
    }  # fmt: skip
    assert answer.text == "said"
    answer = await answered(ScriptedAgent({"type": "error", "errorText": "No."}, "more"))
    assert answer.frames[-2].chunk["code"] == "chunk-refused"


async def test_steps_are_marked_by_themselves_and_left_to_those_who_mark_their_own() -> None:
    async def agent(run: Run) -> None:
        await run.reasoning("hm")
        await run.text("I look. ")
        call = await run.tool_call("weather", {"city": "Köln"})
        other = await run.tool_call("weather", {"city": "Bonn"}, dynamic=True)
        await run.tool_result(call, {"c": 3})
        await run.tool_result(other, error="No data.")
        await run.text("It is 3 °C.")

    answer = await answered(agent)
    shown = [kind for kind in answer.types if "step" in kind]
    assert shown == ["start-step", "finish-step", "start-step", "finish-step"]
    kinds = [part["type"] for part in parts(answer)]
    assert kinds == [
        "step-start", "reasoning", "text", "tool-weather", "dynamic-tool", "step-start", "text",
    ]  # fmt: skip
    assert parts(answer)[4]["errorText"] == "No data."

    own = await answered(
        ScriptedAgent({"type": "start-step"}, "a", {"type": "finish-step"}, {"type": "start-step"}, "b")
    )
    assert [kind for kind in own.types if "step" in kind] == ["start-step", "finish-step", "start-step", "finish-step"]


async def test_every_method_of_the_run() -> None:
    closed: list[str] = []

    async def pieces() -> AsyncIterator[str]:
        try:
            for piece in ('{"ci', 'ty": "K', 'öln"}'):
                yield piece
        finally:
            closed.append("pieces")

    async def agent(run: Run) -> None:
        await run.text("")
        call = await run.tool_call("weather", pieces())
        await run.tool_result(call, None)
        await run.data("status", 1, id="s")
        await run.data("status", 2, id="s")
        await run.data("ping", 0, transient=True)
        await run.source("https://example.org", "Example")
        await run.file("https://example.org/a.png", "image/png")
        await run.metadata({"a": {"b": 1}})
        await run.metadata({"a": {"c": 2}})

    answer = await answered(agent)
    assert closed == ["pieces"]
    tool, status, source, file = parts(answer)[1:]
    assert (tool["input"], tool["output"], tool["state"]) == ({"city": "Köln"}, None, "output-available")
    assert status == {"type": "data-status", "data": 2, "id": "s"}
    assert (source["url"], source["title"]) == ("https://example.org", "Example")
    assert file["mediaType"] == "image/png"
    assert fold_frames(answer.frames).metadata == {"a": {"b": 1, "c": 2}}


async def test_a_streamed_input_that_is_not_json_is_shown_as_an_error_and_raises() -> None:
    async def broken() -> AsyncIterator[str]:
        yield '{"half'

    async def agent(run: Run) -> None:
        with pytest.raises(ChunkRefused, match="not JSON"):
            await run.tool_call("a", broken())
        await run.text("on")

    answer = await answered(agent)
    assert parts(answer)[1]["state"] == "output-error"
    assert answer.text == "on"


async def test_an_object_that_the_agent_goes_on_changing_is_logged_as_it_was() -> None:
    async with running() as rig:
        answer, call = await rig.begun()
        status: dict[str, Any] = {"done": 0, "names": []}

        async def work(run: Run) -> None:
            for number in range(3):
                status["done"] = number
                status["names"].append(str(number))
                await run.data("status", status, id="s" if number else "t")
            status["done"] = 99

        call.do(work).finish()
        await answer.end()
        sent = [frame.chunk["data"] for frame in answer.frames if frame.chunk.get("type") == "data-status"]
        assert [each["done"] for each in sent] == [0, 1, 2]
        stored = (await rig.history("c"))["messages"][-1]["parts"]
        assert stored == parts(answer)
        assert [part["data"]["done"] for part in stored] == [0, 2]


async def test_several_tasks_of_one_agent_may_add_at_the_same_time() -> None:
    async def agent(run: Run) -> None:
        async def worker(number: int) -> None:
            for turn in range(60):
                await run.text(f"{number}")
                await run.data("x", turn)
                call = await run.tool_call("t", {"n": turn})
                await run.tool_result(call, turn)

        await asyncio.gather(*(worker(number) for number in range(5)))

    answer = await answered(agent, yield_every=1, pending_limit=500)
    assert answer.types[-2:] == ["finish", "[DONE]"]
    assert sorted(answer.text) == sorted("01234" * 60)


async def test_older_clients_are_told_which_tools_are_dynamic_and_when_steps_end() -> None:
    pieces = [
        {"type": "start-step"},
        {"type": "text-start", "id": "1"},
        {"type": "tool-input-available", "toolCallId": "d", "toolName": "x", "input": {}, "dynamic": True},
        {"type": "tool-output-available", "toolCallId": "d", "output": 1},
        {"type": "finish-step"},
        {"type": "text-delta", "id": "1", "delta": "after the step"},
    ]
    answer = await answered(ScriptedAgent(*pieces), ai_sdk_version=5)
    outputs = [frame.chunk for frame in answer.frames if frame.chunk.get("type") == "tool-output-available"]
    assert outputs[0]["dynamic"] is True
    last_delta = max(index for index, kind in enumerate(answer.types) if kind == "text-delta")
    assert "finish-step" not in answer.types[:last_delta]


# ---------------------------------------------------------------------- ui_stream


class TextDelta(BaseModel):
    type: str = "text-delta"
    id: str = "1"
    delta: str = "lo 🦩"
    provider_metadata: dict[str, Any] | None = Field(default=None, serialization_alias="providerMetadata")


@dataclasses.dataclass
class Start:
    type: str = "text-start"
    id: str = "1"
    provider_metadata: dict[str, Any] | None = None


CHUNKS: list[Any] = [
    {"type": "start", "messageId": "theirs"},
    Start(),
    {"type": "text-delta", "id": "1", "delta": "hel"},
    TextDelta(),
    {"type": "text-end", "id": "1"},
    {"type": "finish", "finishReason": "stop"},
]


def plain_chunk(chunk: Any) -> Any:
    if isinstance(chunk, BaseModel):
        return chunk.model_dump(by_alias=True, exclude_none=True)
    return {"type": "text-start", "id": "1"} if isinstance(chunk, Start) else chunk


def plain_chunks() -> list[Any]:
    return [plain_chunk(chunk) for chunk in CHUNKS]


async def test_ui_stream_takes_dicts_models_and_dataclasses() -> None:
    for source in (CHUNKS, iter(CHUNKS)):
        answer = await answered(lambda run, source=source: ui_stream(source))
        assert answer.text == "hello 🦩"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("binary", [True, False])
async def test_ui_stream_takes_sse_cut_anywhere(size: int, end: str, binary: bool) -> None:
    text = ": hello" + end + "".join(
        f"data: {orjson.dumps(chunk).decode()}{end}id: 3{end}{end}" for chunk in plain_chunks()
    ) + f"data: [DONE]{end}{end}"  # fmt: skip
    whole: Any = text.encode() if binary else text

    async def source() -> AsyncIterator[Any]:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    assert [chunk async for chunk in ui_stream(source())] == plain_chunks()


async def test_ui_stream_closes_its_source_whatever_happens() -> None:
    closed: list[str] = []

    class Opened:
        """Iterable, not an iterator, as provider SDKs have them."""

        async def __aiter__(self) -> AsyncIterator[Any]:
            try:
                while True:
                    yield {"type": "data-x", "data": 1}
                    await asyncio.sleep(0)
            finally:
                closed.append("iterator")

    async with running(agent=lambda run: ui_stream(Opened())) as rig:
        answer = await rig.post("c")
        await answer.until(lambda: len(answer.frames) > 3)
        await rig.stop("c")
        await until(lambda: closed == ["iterator"])


@pytest.mark.parametrize("bad", [3, "data: {broken\n", "data: [1]\n", b"data: \xff\n", object()])
async def test_ui_stream_refuses_what_is_neither_chunk_nor_sse(bad: Any) -> None:
    answer = await answered(lambda run: ui_stream([bad]))
    assert answer.frames[-2].chunk["type"] == "error"


async def test_a_stop_while_the_agent_waits_for_its_turn(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.do(lambda run: asyncio.sleep(3600))
    await rig.stop("c")
    await answer.end()
    await until(lambda: call.closed)
