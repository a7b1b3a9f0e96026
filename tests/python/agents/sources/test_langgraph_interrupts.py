"""Interrupts of real graphs: somebody decides, and the graph goes on from its checkpoint, also in another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send, interrupt

from asking import answering, ask, decide, decided, last_run, pending, post_back, reply, tools
from rig import running
from strandline import Run
from strandline.agents.sources.langgraph import history, langgraph_events, resume_values
from strandline.testing import ManualClock, until

CHOICES = ["approve", "edit", "reject"]
SCHEMA = {"oneOf": [{"properties": {"type": {"const": each}}} for each in CHOICES]}


class Model(BaseChatModel):
    """Gives one of the answers after the other. An event in them is waited for."""

    answers: list[list[Any]]
    seen: Any = None
    closed: Any = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, *args: Any, **more: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(self, messages: list[Any], *args: Any, **more: Any) -> AsyncIterator[ChatGenerationChunk]:
        if self.seen is not None:
            self.seen.append([(type(each), each.content) for each in messages])
        try:
            for piece in self.answers.pop(0):
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    yield ChatGenerationChunk(message=piece)
        finally:
            if self.closed is not None:
                self.closed.set()


def says(text: str) -> list[Any]:
    return [AIMessageChunk(content=text)]


def calls(*each: tuple[str, str, str]) -> list[Any]:
    return [
        AIMessageChunk(content="", tool_call_chunks=[tool_call_chunk(name=name, args=args, id=id, index=at)])
        for at, (id, name, args) in enumerate(each)
    ]


class Paid:
    """A tool, and what it has done."""

    def __init__(self) -> None:
        self.sums: list[int] = []

    def tool(self) -> Callable[..., str]:
        def pay(sum: int) -> str:
            """Pay."""
            self.sums.append(sum)
            return f"paid {sum}"

        return pay


def shop(model: Model, paid: Paid, *, per_call: bool = False) -> StateGraph[Any]:
    """A model and its tools, with what LangChain's ``HumanInTheLoopMiddleware`` does between them, in either mode."""

    async def ask(state: MessagesState) -> Any:
        return {"messages": await model.ainvoke(state["messages"])}

    def batched(state: MessagesState) -> Any:
        last = state["messages"][-1]
        assert isinstance(last, AIMessage)
        actions = [{"name": each["name"], "args": each["args"], "description": "Pay?"} for each in last.tool_calls]
        configs = [{"action_name": each["name"], "allowed_decisions": CHOICES} for each in last.tool_calls]
        answers = interrupt({"action_requests": actions, "review_configs": configs})["decisions"]
        return {"messages": [last, *_refused(last.tool_calls, answers)]}

    async def one_by_one(request: Any, handler: Any) -> Any:
        call = request.tool_call
        about = {"tool_call_id": call["id"], "name": call["name"], "args": call["args"], "description": "Pay?"}
        answer = interrupt({"type": "tool_approval", **about}, response_schema=SCHEMA)
        refused = _refused([call], [answer])
        return refused[0] if refused else await handler(request)

    def left(state: MessagesState) -> Any:
        """The calls that have no result, each in a task of its own."""
        answered = {getattr(each, "tool_call_id", None) for each in state["messages"]}
        last = next(each for each in reversed(state["messages"]) if isinstance(each, AIMessage))
        return [Send("tools", [call]) for call in last.tool_calls if call["id"] not in answered] or "ask"

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([paid.tool()], awrap_tool_call=one_by_one if per_call else None))
    graph.add_edge(START, "ask")
    if not per_call:
        graph.add_node("review", batched)
        graph.add_conditional_edges("review", left)

    def calling(state: MessagesState) -> Any:
        if not getattr(state["messages"][-1], "tool_calls", ()):
            return "__end__"
        return left(state) if per_call else "review"

    graph.add_conditional_edges("ask", calling)
    graph.add_edge("tools", "ask")
    return graph


def _refused(called: Any, answers: list[Any]) -> list[ToolMessage]:
    return [
        ToolMessage(answer.get("message", "No."), tool_call_id=call["id"], name=call["name"], status="error")
        for call, answer in zip(called, answers, strict=True)
        if answer["type"] == "reject"
    ]


def answering_with(graph: StateGraph[Any], saver: Any, *, got: list[Any] | None = None) -> Any:
    """The agent of the docs."""
    compiled = graph.compile(checkpointer=saver)

    async def answer(run: Run) -> AsyncIterator[Any]:
        values = resume_values(run)
        if got is not None:
            got.append(values)
        asked: Any = Command(resume=values) if values else {"messages": history(run.messages)}
        thread: Any = {"configurable": {"thread_id": run.message_id}}
        stream = compiled.astream(asked, thread, stream_mode=["messages", "updates", "custom"], subgraphs=True)
        yield langgraph_events(run, stream)

    return answer


@pytest.mark.parametrize("per_call", [False, True])
async def test_calls_that_are_reviewed_are_approvals_also_after_a_restart(per_call: bool, tmp_path: Path) -> None:
    saver, paid, seen, got = InMemorySaver(), Paid(), [], []  # type: ignore[var-annotated]
    two = calls(("c1", "pay", '{"sum": 5}'), ("c2", "pay", '{"sum": 900}'))
    path, first = tmp_path / "chat.db", shop(Model(answers=[two]), paid, per_call=per_call)
    async with running(path, agent=answering_with(first, saver)) as rig:
        await ask(rig)
        assert [(each["kind"], each["toolCallId"], each["input"]) for each in await pending(rig)] == [
            ("approval", "c1", {"sum": 5}),
            ("approval", "c2", {"sum": 900}),
        ]
        assert [part["approval"]["requestReason"] for part in tools(await reply(rig))] == ["Pay?", "Pay?"]
        assert (await last_run(rig))["status"] == "suspended"
        before = await reply(rig)
    second = shop(Model(answers=[says("Paid, in part.")], seen=seen), paid, per_call=per_call)
    async with running(path, agent=answering_with(second, saver, got=got)) as rig:
        await decided(rig, {"approved": True}, {"approved": False, "reason": "Too much."})
        after, ended = await reply(rig), await last_run(rig)
    (values,) = got[0].values() if not per_call else (got[0],)
    answers = values["decisions"] if not per_call else list(values.values())
    assert answers == [{"type": "approve"}, {"type": "reject", "message": "Too much."}]
    assert paid.sums == [5]
    (asked,) = seen
    assert [content for kind, content in asked if kind is ToolMessage] in (
        [["Too much.", "paid 5"], ["paid 5", "Too much."]]
    )
    assert (after["id"], ended["status"]) == (before["id"], "completed")
    assert [part["state"] for part in tools(after)] == ["output-available", "output-denied"]
    assert [part["input"] for part in tools(after)] == [{"sum": 5}, {"sum": 900}]
    assert after["parts"][-1]["text"] == "Paid, in part."


class Asking(MessagesState):
    answers: Annotated[list[Any], lambda one, other: [*one, *other]]


def asking(*questions: Any, then: Any = None) -> StateGraph[Any]:
    """Nodes side by side that each ask something, and one that says what the answers were."""
    graph = StateGraph(Asking)

    def node(question: Any) -> Callable[[Asking], Any]:
        return lambda state: {"answers": [interrupt(question)]}

    async def sum_up(state: Asking) -> Any:
        return {"messages": [AIMessage(f"Said: {sorted(map(str, state['answers']))}.")]}

    graph.add_node("sum_up", then or sum_up)
    for at, question in enumerate(questions):
        graph.add_node(f"ask{at}", node(question))
        graph.add_edge(START, f"ask{at}")
    graph.add_edge([f"ask{at}" for at in range(len(questions))], "sum_up")
    return graph


async def test_other_interrupts_are_calls_whose_output_is_the_value_of_the_resume(tmp_path: Path) -> None:
    saver, path, clock = InMemorySaver(), tmp_path / "chat.db", ManualClock()
    async with running(path, clock=clock, agent=answering_with(asking({"question": "Where?"}, "When?"), saver)) as rig:
        await ask(rig)
        asked = await pending(rig)
        assert sorted([(each["kind"], each["tool"], str(each["input"])) for each in asked]) == [
            ("tool", "interrupt", "When?"),
            ("tool", "interrupt", "{'question': 'Where?'}"),
        ]
        assert (await last_run(rig))["status"] == "suspended"
    async with running(path, clock=clock, agent=answering_with(asking({"question": "Where?"}, "When?"), saver)) as rig:
        by_input = {str(each["input"]): each["id"] for each in asked}
        await decide(rig, by_input["When?"], {"output": "noon"})
        await decide(rig, by_input["{'question': 'Where?'}"], {"errorText": "Nowhere."})
        await rig.ended()
        message, ended = await reply(rig), await last_run(rig)
        await ask(rig, "again", "u2")  # a new message begins the graph anew, on a thread of its own
        assert len(await pending(rig)) == 2
        messages = (await rig.history("c"))["messages"]
    assert message["parts"][-1]["text"] == "Said: ['noon', \"{'error': 'Nowhere.'}\"]."
    assert ended["status"] == "completed"
    assert [type(each) for each in history(messages)] == [HumanMessage, AIMessage, HumanMessage], (
        "no calls of the model"
    )


async def test_one_node_that_asks_twice_and_a_graph_inside_of_a_graph() -> None:
    def twice(state: MessagesState) -> Any:
        return {"messages": [AIMessage(f"{interrupt('First?')} and {interrupt('Second?')}.")]}

    inner = StateGraph(MessagesState)
    inner.add_node("twice", twice)
    inner.add_edge(START, "twice")
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    async with running(agent=answering_with(outer, InMemorySaver())) as rig:
        await ask(rig)
        await decided(rig, {"output": "one"})
        assert [each["input"] for each in await pending(rig)] == ["Second?"]
        await decided(rig, {"output": {"no": 2}})
        message = await reply(rig)
    assert message["parts"][-1]["text"] == "one and {'no': 2}."


async def test_a_question_without_yes_and_no_is_not_made_an_approval() -> None:
    about = {"name": "pay", "args": {}}
    edit = {"action_requests": [about], "review_configs": [{"action_name": "pay", "allowed_decisions": ["edit"]}]}
    alone = {"type": "tool_approval", "tool_call_id": "c1", **about}
    async with running(agent=answering_with(asking(edit, alone), InMemorySaver())) as rig:
        await ask(rig)
        assert {each["kind"] for each in await pending(rig)} == {"tool"}


async def test_a_copy_with_another_input_is_refused_and_the_graph_does_not_go_on() -> None:
    paid, got = Paid(), []  # type: ignore[var-annotated]
    graph = shop(Model(answers=[calls(("c1", "pay", '{"sum": 5}')), says("Done.")]), paid)
    async with running(agent=answering_with(graph, InMemorySaver(), got=got)) as rig:
        await ask(rig)
        copy = answering(await reply(rig), {"approved": True})
        forged = {**copy, "parts": [{**p, "input": {"sum": 9}} if "input" in p else p for p in copy["parts"]]}
        assert (await (await post_back(rig, forged)).end()).code == "input-changed"
        assert len(got) == 1
        await (await post_back(rig, copy)).end()
        await rig.ended()
    assert paid.sums == [5]


async def test_a_new_message_instead_of_an_answer_leaves_a_whole_history() -> None:
    paid, seen = Paid(), []  # type: ignore[var-annotated]
    graph = shop(Model(answers=[calls(("c1", "pay", '{"sum": 5}')), says("As you like.")], seen=seen), paid)
    async with running(agent=answering_with(graph, InMemorySaver())) as rig:
        await ask(rig)
        await ask(rig, "never mind", "u2")
        assert await pending(rig) == []
        assert (await reply(rig))["parts"][-1]["text"] == "As you like."
    assert [kind for kind, _ in seen[1]] == [HumanMessage, AIMessage, ToolMessage, HumanMessage]
    assert paid.sums == []


async def test_a_stop_closes_the_stream_of_what_goes_on() -> None:
    closed, forever = asyncio.Event(), asyncio.Event()
    model = Model(answers=[calls(("c1", "pay", '{"sum": 5}')), [*says("One "), forever]])
    async with running(agent=answering_with(shop(model, Paid()), InMemorySaver())) as rig:
        await ask(rig)
        model.closed = closed
        (waiting,) = await pending(rig)
        await decide(rig, waiting["id"], {"approved": True})
        await until(lambda: not model.answers)
        await rig.stop("c")
        await until(closed.is_set)
        await rig.ended()
        assert (await last_run(rig))["status"] == "stopped"
