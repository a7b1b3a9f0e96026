"""LangGraph, really installed, with LangChain's own fake models: what is stored says what the graph's state says."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph, add_messages
from langgraph.prebuilt import ToolNode, tools_condition

from rig import Rig, running
from strandline import Run
from strandline.agents.sources.langgraph import history, langgraph_events
from strandline.testing import until

STEP = {"type": "step-start"}
MODES = ["messages", "updates", "custom"]


class Scripted(BaseChatModel):
    """LangChain's chat model with answers of chunks. An event in them is waited for, an exception raised."""

    answers: list[list[Any]]
    closed: Any = None
    seen: Any = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, *args: Any, **more: Any) -> ChatResult:
        (whole,) = self.answers.pop(0)
        return ChatResult(generations=[ChatGeneration(message=whole)])

    async def _astream(self, messages: list[Any], *args: Any, **more: Any) -> AsyncIterator[ChatGenerationChunk]:
        if self.seen is not None:
            self.seen.append(messages)
        try:
            for piece in self.answers.pop(0):
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    yield ChatGenerationChunk(message=piece)
        finally:
            if self.closed is not None:
                self.closed.set()


def says(*pieces: str) -> list[AIMessageChunk]:
    return [AIMessageChunk(content=piece) for piece in pieces]


def calls(*each: tuple[str, str, str]) -> list[AIMessageChunk]:
    """Parallel calls (id, name, JSON), the JSON in two pieces and in turns."""
    begun = [tool_call_chunk(name=name, args=text[:3], id=id, index=at) for at, (id, name, text) in enumerate(each)]
    ended = [tool_call_chunk(args=text[3:], index=at) for at, (_, _, text) in enumerate(each)]
    return [AIMessageChunk(content="", tool_call_chunks=[chunk]) for chunk in [*begun, *ended]]


def claude(*blocks: dict[str, Any], id: str | None = None) -> list[AIMessageChunk]:
    """Chunks as the integration for Anthropic makes them: only the first one has the provider's id."""
    own = {"model_provider": "anthropic"}
    chunks = [AIMessageChunk(content=[block], response_metadata=own) for block in blocks]  # type: ignore[list-item]
    chunks[0].id = id
    return chunks


def graph_of(model: BaseChatModel, *tools: Callable[..., Any], **more: Any) -> Any:
    """The usual loop: the model, its tools, the model."""

    async def ask(state: MessagesState) -> Any:
        return {"messages": await model.ainvoke(state["messages"])}

    graph = StateGraph(MessagesState)
    graph.add_node("model", ask)
    graph.add_edge(START, "model")
    if tools:
        graph.add_node("tools", ToolNode(list(tools), **more))
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
    return graph.compile()


class Kept:
    """What the graph itself says at the end."""

    def __init__(self) -> None:
        self.messages: list[AnyMessage] = []


def answering(graph: Any, kept: Kept, modes: Any = MODES, **more: Any) -> Callable[[Run], AsyncIterator[Any]]:
    """A Strandline agent as the docs show it, which also keeps the graph's state."""

    async def reply(run: Run) -> AsyncIterator[Any]:
        async def watched(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
            try:
                async for item in stream:
                    if item[-2] == "values":
                        kept.messages = item[-1]["messages"]
                    yield item
            finally:
                await stream.aclose()  # type: ignore[attr-defined]

        asked = {"messages": history(run.messages)}
        yield langgraph_events(run, watched(graph.astream(asked, stream_mode=[*modes, "values"], **more)))

    return reply


async def told(rig: Rig, text: str = "hello", id: str = "u1") -> list[dict[str, Any]]:
    """The parts of the reply as they are stored, without what says whose they are."""
    await (await rig.post("c", text, id)).end()
    await rig.ended()
    await rig.go_cold()
    return bare((await stored(rig))[-1]["parts"])


def bare(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("id", "providerMetadata", "callProviderMetadata", "resultProviderMetadata")
    return [{key: value for key, value in part.items() if key not in names} for part in parts]


async def stored(rig: Rig) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = (await rig.history("c"))["messages"]
    return messages


async def last_run(rig: Rig) -> dict[str, Any]:
    return [event for event in await rig.log() if event["type"] == "run-ended"][-1]


def gist(messages: list[AnyMessage]) -> list[Any]:
    """What was said, in LangChain's own common terms, whatever the provider's."""
    found: list[Any] = []
    for message in messages:
        blocks = [
            {name: value for name, value in block.items() if name not in ("index", "extras_index")}
            for block in message.content_blocks
            if block["type"] not in ("tool_call", "invalid_tool_call")
        ]
        more: tuple[Any, ...] = ()
        if isinstance(message, AIMessage):
            more = (message.id, [(call["id"], call["name"], call["args"]) for call in message.tool_calls])
        elif isinstance(message, ToolMessage):
            more = (message.tool_call_id, message.name, message.status)
        found.append((message.type, blocks, *more))
    return found


async def test_text_of_its_own_fake_is_stored_as_it_was_said() -> None:
    kept = Kept()
    model = GenericFakeChatModel(messages=iter(["The tide is high."]))
    async with running(agent=answering(graph_of(model), kept)) as rig:
        parts, messages, run = await told(rig), await stored(rig), await last_run(rig)
    assert parts == [STEP, {"type": "text", "text": "The tide is high.", "state": "done"}]
    assert kept.messages[-1].content == "The tide is high."
    assert gist(history(messages)) == gist(kept.messages)
    assert (run["status"], run["finish_reason"]) == ("completed", "stop")
    own = messages[-1]["parts"][1]["providerMetadata"]["langgraph"]
    assert own == {"message": kept.messages[-1].id, "node": "model"}


async def test_reasoning_and_text_and_a_call_in_a_provider_s_own_terms() -> None:
    kept, seen = Kept(), []

    def height(place: str) -> int:
        """How high the tide is."""
        return len(place)

    called = AIMessageChunk(
        content=[{"type": "tool_use", "id": "c1", "name": "height", "input": {}, "index": 2}],
        tool_call_chunks=[tool_call_chunk(name="height", args='{"place": "Dover"}', id="c1", index=2)],
        response_metadata={"model_provider": "anthropic"},
    )
    model = Scripted(
        answers=[
            [
                *claude(
                    {"type": "thinking", "thinking": "Moon, ", "index": 0},
                    {"type": "thinking", "thinking": "sun.", "index": 0},
                    {"type": "thinking", "signature": "sig", "index": 0},
                    {"type": "text", "text": "Let me ", "index": 1},
                    {"type": "text", "text": "see.", "index": 1},
                    id="msg_1",
                ),
                called,
            ],
            says("Five."),
            says("You are welcome."),
        ],
        seen=seen,
    )
    async with running(agent=answering(graph_of(model, height), kept)) as rig:
        parts, first, messages = await told(rig), kept.messages, await stored(rig)
        await told(rig, "thanks", "u2")
    assert parts == [
        STEP,
        {"type": "reasoning", "text": "Moon, sun.", "state": "done"},
        {"type": "text", "text": "Let me see.", "state": "done"},
        {"type": "tool-height", "toolCallId": "c1", "state": "output-available", "input": {"place": "Dover"},
         "output": "5"},
        STEP,
        {"type": "text", "text": "Five.", "state": "done"},
    ]  # fmt: skip
    assert first[1].id == "msg_1"
    assert gist(history(messages)) == gist(first)
    (reasoning, *_) = history(messages)[1].content_blocks
    assert reasoning == {"type": "reasoning", "reasoning": "Moon, sun.", "extras": {"signature": "sig"}}
    # What the model is asked in the next turn is what the state of the graph would have been.
    assert gist(seen[-1]) == [*gist(first), ("human", [{"type": "text", "text": "thanks"}])]


@pytest.mark.parametrize(
    "form", [{}, {"version": "v2"}, {"subgraphs": True}, {"subgraphs": True, "version": "v2"}], ids=str
)
async def test_parallel_tools_over_several_steps_in_every_form_of_the_stream(form: dict[str, Any]) -> None:
    kept = Kept()

    def height(place: str) -> dict[str, Any]:
        """How high the tide is."""
        get_stream_writer()({"type": "data-place", "id": place, "data": {"place": place}})
        return {"place": place, "metres": len(place), "wind": None}

    def nothing() -> None:
        """Nothing."""
        get_stream_writer()({"progress": 1.0})

    model = Scripted(
        answers=[
            [
                *says("Let me see."),
                *calls(("c1", "height", '{"place": "Dover"}'), ("c2", "height", '{"place": "Calais"}')),
            ],
            calls(("c3", "nothing", "{}")),
            says("Dover is ", "higher."),
        ]
    )
    graph = graph_of(model, height, nothing)

    async def reply(run: Run) -> AsyncIterator[Any]:
        if "version" in form:
            asked = {"messages": history(run.messages)}
            yield langgraph_events(run, graph.astream(asked, stream_mode=MODES, **form))
            kept.messages = []
        else:
            yield answering(graph, kept, **form)(run)

    async with running(agent=reply) as rig:
        parts, messages = await told(rig), await stored(rig)
    spoken = [part for part in parts if not part["type"].startswith("data-")]
    assert [part["type"] for part in spoken] == [
        "step-start", "text", "tool-height", "tool-height", "step-start", "tool-nothing", "step-start", "text",
    ]  # fmt: skip
    assert spoken[2]["input"] == {"place": "Dover"}
    assert json.loads(spoken[3]["output"]) == {"place": "Calais", "metres": 6, "wind": None}
    assert spoken[-1]["text"] == "Dover is higher."
    data = [part for part in parts if part["type"].startswith("data-")]
    assert {"type": "data-place", "data": {"place": "Dover"}} in data
    assert {"type": "data-custom", "data": {"progress": 1.0}} in data
    if kept.messages:
        assert gist(history(messages)) == gist(kept.messages)
    assert len(history(messages)) == 7


async def test_a_failing_tool_and_arguments_that_are_no_json() -> None:
    kept, seen = Kept(), []

    def height(place: str) -> int:
        """How high the tide is."""
        raise ValueError(f"{place} is not by the sea")

    answers = [
        calls(("c1", "height", '{"place": "Bern"}')),
        calls(("c2", "height", '{"town": "Bern"}')),
        [*calls(("c3", "height", "no, thanks")), *says("No idea.")],
        says("None."),
    ]
    model = Scripted(answers=answers, seen=seen)
    async with running(agent=answering(graph_of(model, height, handle_tool_errors=True), kept)) as rig:
        parts, messages, first = await told(rig), await stored(rig), kept.messages
        await told(rig, "really?", "u2")
    tools = [part for part in parts if part["type"] == "tool-height"]
    assert [tool["state"] for tool in tools] == ["output-error"] * 3
    assert tools[0]["errorText"] == first[2].text and "not by the sea" in tools[0]["errorText"]
    assert tools[1]["input"] == {"town": "Bern"}
    assert tools[2]["errorText"] == "The arguments of this call are not a JSON object."
    assert first[5].invalid_tool_calls[0]["id"] == "c3"  # type: ignore[union-attr]
    # The graph's own state has no result for that call, which providers refuse; the history has.
    again = history(messages)
    assert gist(again[:5]) == gist(first[:5])
    assert [call["id"] for call in again[5].tool_calls] == ["c3"]  # type: ignore[union-attr]
    assert isinstance(again[6], ToolMessage) and again[6].status == "error"
    assert gist(seen[-1][:-1]) == gist(again)


async def test_usage_is_the_sum_and_the_finish_reason_the_last() -> None:
    kept = Kept()

    def look() -> str:
        """Look."""
        return "sea"

    def used(input: int, output: int, **more: Any) -> AIMessageChunk:
        usage = {"input_tokens": input, "output_tokens": output, "total_tokens": input + output, **more}
        return AIMessageChunk(content="", usage_metadata=usage)  # type: ignore[arg-type]

    cut = AIMessageChunk(content="", response_metadata={"finish_reason": "length"})
    answers = [
        [*calls(("c1", "look", "{}")), used(10, 2, input_token_details={"cache_read": 4})],
        [*says("The se"), cut, used(20, 3, input_token_details={"cache_read": 5})],
    ]
    async with running(agent=answering(graph_of(Scripted(answers=answers), look), kept)) as rig:
        parts, run = await told(rig), await last_run(rig)
    assert run["usage"] == {
        "input_tokens": 30, "output_tokens": 5, "total_tokens": 35, "input_token_details": {"cache_read": 9}
    }  # fmt: skip
    assert sum(m.usage_metadata["input_tokens"] for m in kept.messages if getattr(m, "usage_metadata", None)) == 30
    assert run["finish_reason"] == "length"
    assert [part["type"] for part in parts].count("step-start") == 2


async def test_what_several_graphs_used_is_added_up() -> None:
    used: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "input_token_details": {"cache_read": 1}}

    async def twice(run: Run) -> AsyncIterator[Any]:
        for _ in range(2):
            model = Scripted(answers=[[AIMessageChunk(content="x", usage_metadata=used)]])
            yield langgraph_events(run, model.astream("hi"))

    async with running(agent=twice) as rig:
        await told(rig)
        assert (await last_run(rig))["usage"] == {
            "input_tokens": 2, "output_tokens": 4, "total_tokens": 6, "input_token_details": {"cache_read": 2}
        }  # fmt: skip


async def test_a_model_that_does_not_stream_and_messages_that_a_node_makes() -> None:
    kept = Kept()

    def look() -> str:
        """Look."""
        return "sea"

    whole = AIMessage("Looking.", id="a1", tool_calls=[{"id": "c1", "name": "look", "args": {"far": True}}])
    model = Scripted(answers=[[whole], [AIMessage("The sea.", id="a2")]], disable_streaming=True)
    graph = graph_of(model, look)
    async with running(agent=answering(graph, kept)) as rig:
        parts, messages = await told(rig), await stored(rig)
    assert [part["type"] for part in parts] == ["step-start", "text", "tool-look", "step-start", "text"]
    assert parts[2]["input"] == {"far": True} and parts[2]["output"] == "sea"
    assert gist(history(messages)) == gist(kept.messages)


async def test_nodes_that_speak_at_the_same_time_keep_their_words_apart() -> None:
    kept, turns = Kept(), [asyncio.Event() for _ in range(4)]

    class Taking(Scripted):
        """Says a word when it is its turn, and gives the turn on."""

        order: list[int]

        async def _astream(self, messages: list[Any], *args: Any, **more: Any) -> AsyncIterator[ChatGenerationChunk]:
            for turn, word in zip(self.order, self.answers.pop(0), strict=True):
                await turns[turn].wait()
                yield ChatGenerationChunk(message=word)
                if turn + 1 < len(turns):
                    turns[turn + 1].set()

    one = Taking(answers=[says("ebb ", "and")], order=[0, 2])
    two = Taking(answers=[says("neap ", "tide")], order=[1, 3])
    turns[0].set()
    graph = StateGraph(MessagesState)
    for name, model in (("one", one), ("two", two)):

        async def ask(state: MessagesState, model: Taking = model) -> Any:
            return {"messages": await model.ainvoke(state["messages"])}

        graph.add_node(name, ask)
        graph.add_edge(START, name)
    async with running(agent=answering(graph.compile(), kept)) as rig:
        parts, messages = await told(rig), await stored(rig)
    assert parts == [STEP] + [{"type": "text", "text": text, "state": "done"} for text in ("ebb and", "neap tide")]
    nodes = [part["providerMetadata"]["langgraph"]["node"] for part in messages[-1]["parts"][1:]]
    assert nodes == ["one", "two"]
    assert gist(history(messages)) == gist(kept.messages)


async def test_a_subgraph_s_messages_come_with_subgraphs() -> None:
    kept, inner = Kept(), graph_of(Scripted(answers=[says("from ", "below")]))
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner)
    outer.add_edge(START, "inner")
    async with running(agent=answering(outer.compile(), kept, subgraphs=True)) as rig:
        parts = await told(rig)
    assert parts == [STEP, {"type": "text", "text": "from below", "state": "done"}]
    assert kept.messages[-1].text == "from below"


async def test_pictures_citations_and_tools_that_the_provider_runs() -> None:
    kept = Kept()
    search = {"type": "server_tool_call", "id": "s1", "name": "web_search", "args": {"query": "tides"}, "index": 0}
    found = {"type": "server_tool_result", "tool_call_id": "s1", "status": "success", "output": ["hit"], "index": 1}
    cited = {
        "type": "text", "text": "High.", "index": 2,
        "annotations": [{"type": "citation", "url": "https://example.com/t", "title": "Tides"}],
    }  # fmt: skip
    drawn = {"type": "image", "base64": "iVBORw==", "mime_type": "image/png", "index": 3}
    own = {"output_version": "v1", "model_provider": "openai"}
    chunks = [AIMessageChunk(content=[each], response_metadata=own) for each in (search, found, cited, drawn)]
    async with running(agent=answering(graph_of(Scripted(answers=[chunks])), kept)) as rig:
        parts, messages = await told(rig), await stored(rig)
    assert parts == [
        STEP,
        {"type": "tool-web_search", "toolCallId": "s1", "state": "output-available", "providerExecuted": True,
         "input": {"query": "tides"}, "output": ["hit"]},
        {"type": "text", "text": "High.", "state": "done"},
        {"type": "source-url", "sourceId": "https://example.com/t", "url": "https://example.com/t", "title": "Tides"},
        {"type": "file", "url": "data:image/png;base64,iVBORw==", "mediaType": "image/png"},
    ]  # fmt: skip
    blocks = history(messages)[-1].content_blocks
    assert [block["type"] for block in blocks] == [block["type"] for block in kept.messages[-1].content_blocks]
    assert blocks[-1] == {"type": "image", "base64": "iVBORw==", "mime_type": "image/png"}


async def test_a_file_may_be_kept_elsewhere() -> None:
    async def save(data: bytes, media_type: str) -> str:
        assert (data, media_type) == (b"\x89PNG", "image/png")
        return "https://example.com/1.png"

    async def reply(run: Run) -> AsyncIterator[Any]:
        async def drawn() -> AsyncIterator[Any]:
            yield piece([{"type": "image", "base64": "iVBORw==", "mime_type": "image/png"}])
            yield piece([{"type": "image", "url": "https://example.com/2.png", "mime_type": "image/png"}])

        yield langgraph_events(run, drawn(), save_file=save)

    async with running(agent=reply) as rig:
        parts = await told(rig)
        shown = history(await stored(rig))[-1].content_blocks
    assert [part["url"] for part in parts[1:]] == ["https://example.com/1.png", "https://example.com/2.png"]
    assert [block["url"] for block in shown] == ["https://example.com/1.png", "https://example.com/2.png"]  # type: ignore[typeddict-item]


@pytest.mark.parametrize("where", ["text", "arguments", "tool"])
async def test_an_error_fails_the_run_with_a_neutral_text(where: str, caplog: Any) -> None:
    def breaks() -> None:
        """Break."""
        raise RuntimeError("secret-1")

    begun = calls(("c1", "breaks", "{}"))
    answer: list[Any] = {
        "text": [*says("Half a sen"), RuntimeError("secret-1")],
        "arguments": [begun[0], RuntimeError("secret-1")],
        "tool": begun,
    }[where]
    async with running(agent=answering(graph_of(Scripted(answers=[answer]), breaks), Kept())) as rig:
        answered = await (await rig.post("c")).end()
        parts, run, messages = await told(rig), await last_run(rig), await stored(rig)
    assert (run["status"], run["reason"]) == ("failed", "agent-error")
    assert run["error"] == "The reply failed. Please try again."
    assert b"secret-1" not in answered.body and "secret-1" not in str(messages)
    assert "RuntimeError: secret-1" in caplog.text
    if where == "text":
        assert parts == [STEP, {"type": "text", "text": "Half a sen", "state": "done"}]
    else:
        assert parts[-1]["state"] == "output-error"
        assert [type(message) for message in history(messages)] == [HumanMessage, AIMessage, ToolMessage]


async def test_the_fake_s_own_error_in_the_middle() -> None:
    model = FakeListChatModel(responses=["High tide"], error_on_chunk_number=4)
    async with running(agent=answering(graph_of(model), Kept())) as rig:
        parts, run = await told(rig), await last_run(rig)
    assert run["status"] == "failed"
    assert parts == [STEP, {"type": "text", "text": "High", "state": "done"}]


@pytest.mark.parametrize("where", ["text", "tool"])
async def test_stop_closes_the_stream_of_the_model(where: str) -> None:
    forever, closed, begun = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        """Wait."""
        begun.set()
        try:
            await forever.wait()
        finally:
            closed.set()

    said = [*says("so ", "far"), *([forever] if where == "text" else calls(("c1", "wait", "{}")))]
    model = Scripted(answers=[said], closed=closed if where == "text" else None)
    async with running(agent=answering(graph_of(model, wait), Kept())) as rig:
        await (await rig.post("c")).until_text("so far")
        if where == "tool":
            await until(begun.is_set)
        assert not closed.is_set()
        assert (await rig.stop("c")).json["stopped"] is True
        await until(closed.is_set)
        run, messages = await last_run(rig), await stored(rig)
    assert (run["status"], run["reason"]) == ("stopped", "user")
    assert bare(messages[-1]["parts"])[1] == {"type": "text", "text": "so far", "state": "done"}
    calls_, results = (sum(isinstance(m, kind) for m in history(messages)[1:]) for kind in (AIMessage, ToolMessage))
    assert (calls_, results) == (1, 0 if where == "text" else 1)


async def test_a_model_alone_and_a_single_mode_will_do() -> None:
    async def alone(run: Run) -> AsyncIterator[Any]:
        model = GenericFakeChatModel(messages=iter(["just me"]))
        yield langgraph_events(run, model.astream(history(run.messages)))

    async def single(run: Run) -> AsyncIterator[Any]:
        graph = graph_of(Scripted(answers=[says("just ", "me")]))
        yield langgraph_events(run, graph.astream({"messages": history(run.messages)}, stream_mode="messages"))

    for agent in (alone, single):
        async with running(agent=agent) as rig:
            assert await told(rig) == [STEP, {"type": "text", "text": "just me", "state": "done"}]


async def test_what_cannot_be_told_apart_is_refused_with_advice(caplog: Any) -> None:
    async def reply(run: Run) -> AsyncIterator[Any]:
        graph = graph_of(Scripted(answers=[says("hm")]))
        yield langgraph_events(run, graph.astream({"messages": history(run.messages)}, stream_mode="updates"))

    async with running(agent=reply) as rig:
        await told(rig)
        assert (await last_run(rig))["reason"] == "chunk-refused"
    assert 'stream_mode=["messages", "updates", "custom"]' in caplog.text


async def test_a_result_whose_call_was_not_to_be_seen_is_shown() -> None:
    async def reply(run: Run) -> AsyncIterator[Any]:
        async def resumed() -> AsyncIterator[Any]:
            yield "messages", (ToolMessage("sea", tool_call_id="c9", name="look"), {})

        yield langgraph_events(run, resumed())

    async with running(agent=reply) as rig:
        (part,) = await told(rig)
    assert part == {
        "type": "tool-look", "toolCallId": "c9", "state": "output-available", "input": {}, "output": "sea"
    }  # fmt: skip


# ---------------------------------------------------------------------- what integrations differ in


async def parts_of(*messages: AIMessage | ToolMessage, task: str = "t") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The parts of the reply and the end of the run, for a stream of these messages."""

    async def reply(run: Run) -> AsyncIterator[Any]:
        async def stream() -> AsyncIterator[Any]:
            for message in messages:
                yield "messages", (message, {"langgraph_node": "n", "langgraph_checkpoint_ns": task})

        yield langgraph_events(run, stream())

    async with running(agent=reply) as rig:
        return await told(rig), await last_run(rig)


def piece(content: Any = "", id: str = "lc_run--1", **more: Any) -> AIMessageChunk:
    own = {"response_metadata": {"output_version": "v1"}} if isinstance(content, list) else {}
    return AIMessageChunk(content=content, id=id, **{**own, **more})


def part_texts(parts: list[dict[str, Any]]) -> list[str]:
    return [part.get("text", part["type"]) for part in parts]


async def test_what_comes_after_the_last_chunk_is_no_new_message() -> None:
    used = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    parts, run = await parts_of(
        piece("cut"),
        piece(chunk_position="last", response_metadata={"finish_reason": "length"}),
        piece(usage_metadata=used),  # type: ignore[arg-type]
    )
    assert part_texts(parts) == ["step-start", "cut"]
    assert (run["finish_reason"], run["usage"]) == ("length", used)


async def test_a_stream_without_a_last_chunk_is_closed_where_it_ends() -> None:
    _, run = await parts_of(piece("cut", response_metadata={"stop_reason": "max_tokens"}))
    assert run["finish_reason"] == "length"
    call = piece(tool_call_chunks=[tool_call_chunk(name="look", args='{"a": 1}', id="c1", index=0)])
    parts, _ = await parts_of(call, ToolMessage("sea", tool_call_id="c1"), piece("Sea.", id="lc_run--2"))
    assert part_texts(parts) == ["step-start", "tool-look", "step-start", "Sea."]
    assert (parts[1]["input"], parts[1]["output"]) == ({"a": 1}, "sea")


async def test_messages_one_after_the_other_are_steps_and_those_of_one_node_at_once_are_not_mixed() -> None:
    last = {"chunk_position": "last"}
    parts, _ = await parts_of(piece("one", **last), piece("two", id="lc_run--2", **last))
    assert part_texts(parts) == ["step-start", "one", "step-start", "two"]
    one, two = {"id": "lc_run--1"}, {"id": "lc_run--2"}
    parts, _ = await parts_of(piece("a", **one), piece("1", **two), piece("b", **one), piece("2", **two))
    assert part_texts(parts) == ["step-start", "ab", "12"]


async def test_blocks_with_an_index_of_their_own_are_parts_of_their_own() -> None:
    parts, _ = await parts_of(
        piece([{"type": "text", "text": "", "index": 0, "extras": {"a": 1}}]),
        piece([{"type": "reasoning", "reasoning": "hm", "index": 0}]),
        piece([{"type": "text", "text": "o", "index": 1}]),
        piece([{"type": "text", "text": "ne", "index": 1}]),
        piece([{"type": "text", "text": "two", "index": 2}]),
        piece([{"type": "reasoning", "index": 3, "extras": {"redacted": "x"}}]),
    )
    assert part_texts(parts) == ["step-start", "hm", "one", "two", ""]


async def test_a_source_is_cited_once_and_an_index_may_be_used_again() -> None:
    cited = [{"type": "citation", "url": "https://example.com"}]
    parts, _ = await parts_of(
        piece([{"type": "text", "text": "a", "index": 0, "annotations": cited}]),
        piece([{"type": "text", "text": "b", "index": 0, "annotations": cited}]),
        piece(tool_call_chunks=[tool_call_chunk(name="look", args='{"a": 1}', id="c1", index=0)]),
        piece(tool_call_chunks=[tool_call_chunk(name="look", args='{"a": 2}', id="c2", index=0)]),
        piece(chunk_position="last"),
        ToolMessage("1", tool_call_id="c1"),
        ToolMessage("2", tool_call_id="c2"),
    )
    assert part_texts(parts) == ["step-start", "ab", "source-url", "tool-look", "tool-look"]
    assert [part["input"] for part in parts[-2:]] == [{"a": 1}, {"a": 2}]


async def test_the_provider_s_tools_may_come_in_pieces_and_may_fail() -> None:
    run: Any = {"type": "server_tool_call_chunk", "index": 0}
    failed = {"type": "server_tool_result", "status": "error", "index": 1}
    own_call = [tool_call_chunk(name="own", args="{}", id="c1", index=0)]
    parts, _ = await parts_of(
        piece([{**run, "id": "s1", "name": "code", "args": '{"co'}], tool_call_chunks=own_call),
        piece([{**run, "args": 'de": "1/0"}'}]),
        piece([{**failed, "tool_call_id": "s1", "output": {"error": "ZeroDivisionError"}}]),
        piece([{**failed, "tool_call_id": "s2", "output": "gone"}]),
    )
    code, own, unknown = parts[1:]
    assert (code["type"], code["input"], code["errorText"]) == ("tool-code", {"code": "1/0"}, "The tool failed.")
    assert code["providerExecuted"] and "providerExecuted" not in own
    assert (unknown["type"], unknown["errorText"], unknown["providerExecuted"]) == ("tool-tool", "gone", True)


async def test_a_whole_message_with_a_call_that_is_no_json() -> None:
    wrong: Any = {"type": "invalid_tool_call", "id": "c1", "name": "look", "args": "no", "error": None}
    own = {"output_version": "v1"}
    parts, _ = await parts_of(AIMessage([wrong], id="a", invalid_tool_calls=[wrong], response_metadata=own))
    assert [(part.get("input"), part.get("state")) for part in parts[1:]] == [("no", "output-error")]


async def test_the_graph_s_stream_is_closed_when_what_it_yields_is_refused() -> None:
    class Stream:
        closed = False

        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> Any:
            return "custom", {"__proto__": 1}

        async def aclose(self) -> None:
            self.closed = True

    stream = Stream()
    async with running(agent=lambda run: langgraph_events(run, stream)) as rig:
        await told(rig)
        assert (await last_run(rig))["reason"] == "chunk-refused"
    assert stream.closed


# ---------------------------------------------------------------------- history


def test_what_users_send() -> None:
    parts = [
        {"type": "text", "text": "look"},
        {"type": "file", "url": "data:image/png;base64,iVBORw==", "mediaType": "image/png"},
        {"type": "file", "url": "https://example.com/a.pdf", "mediaType": "application/pdf"},
        {"type": "file", "url": "file:///etc/passwd", "mediaType": "text/plain"},
        {"type": "data-x", "data": 1},
    ]
    (message,) = history([{"id": "u1", "role": "user", "parts": parts}])
    assert isinstance(message, HumanMessage) and message.id == "u1"
    assert message.content == [
        {"type": "text", "text": "look"},
        {"type": "image", "mime_type": "image/png", "base64": "iVBORw=="},
        {"type": "file", "mime_type": "application/pdf", "url": "https://example.com/a.pdf"},
    ]
    assert history([{"id": "u1", "role": "user", "parts": parts[4:]}]) == []


def test_what_the_user_said_in_the_middle_of_a_reply_is_in_its_place() -> None:
    steering = {"type": "steering-message", "id": "s1", "parts": [{"type": "text", "text": "shorter"}]}
    own = {"langgraph": {"message": "m1"}}
    said = [{"type": "text", "text": text, "providerMetadata": own} for text in ("The tides", "High.")]
    found = history([{"id": "a", "role": "assistant", "parts": [STEP, said[0], steering, said[1]]}])
    assert [(message.type, message.text, message.id) for message in found] == [
        ("ai", "The tides", "m1"), ("human", "shorter", "a"), ("ai", "High.", None)
    ]  # fmt: skip
    assert [message.text for message in add_messages([], found)] == ["The tides", "shorter", "High."]


@pytest.mark.parametrize("state", ["input-streaming", "input-available", "approval-requested", "approval-responded"])
def test_no_call_is_left_without_a_result(state: str) -> None:
    part = {"type": "tool-go", "toolCallId": "c1", "state": state, "input": {"a": 1}}
    call, result = history([{"id": "a", "role": "assistant", "parts": [STEP, part]}])
    assert isinstance(call, AIMessage) and isinstance(result, ToolMessage)
    assert call.tool_calls == [{"type": "tool_call", "id": "c1", "name": "go", "args": {"a": 1}}]
    assert (result.tool_call_id, result.status, result.content) == ("c1", "error", "This call was not finished.")


def test_parts_of_other_agents_are_one_message_per_step() -> None:
    parts = [
        STEP,
        {"type": "reasoning", "id": "r", "text": "hm", "providerMetadata": {"anthropic": {"signature": "x"}}},
        {"type": "text", "text": "see"},
        {"type": "text", "text": "here"},
        {"type": "tool-search", "toolCallId": "s", "state": "output-available", "input": {}, "output": 1,
         "providerExecuted": True},
        {"type": "file", "url": "https://example.com/a.png", "mediaType": "image/png"},
        {"type": "dynamic-tool", "toolName": "list", "toolCallId": "c1", "state": "output-available", "input": [1],
         "output": {"a": "ü"}},
        {"type": "tool-no", "toolCallId": "c2", "state": "output-denied", "input": {},
         "approval": {"id": "p", "approved": False, "reason": "too dear"}},
        STEP,
        {"type": "text", "text": "done"},
        {"type": "source-url", "sourceId": "s", "url": "https://example.com"},
    ]  # fmt: skip
    first, one, two, last = history([{"id": "a", "role": "assistant", "parts": parts}])
    assert first.content == "see\n\nhere" and [call["id"] for call in first.tool_calls] == ["c1", "c2"]
    assert (one.content, two.content) == ('{"a": "ü"}', "too dear")
    assert last.content == "done" and last.id is None


def test_strandline_can_be_imported_without_it() -> None:
    code = "import sys, strandline; sys.exit(any(name.startswith('lang') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
