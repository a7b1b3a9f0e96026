"""A LangGraph graph whose replies survive a reload, and with a tool that waits for a yes.

strandline serve app:app
"""

import os
from typing import Any

from langchain_core.language_models import FakeMessagesListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

from strandline import Run, Strandline, open_on_loopback
from strandline.agents.sources.langgraph import history, langgraph_events, resume_values

chat = Strandline("chat.db", auth=open_on_loopback("you"))


@tool
def open_lock(place: str) -> str:
    """Open the sea lock at a place."""
    # Asked in the words of LangChain's HumanInTheLoopMiddleware, it is an approval of the model's call.
    asked = {"name": "open_lock", "args": {"place": place}}
    allowed = {"action_name": "open_lock", "allowed_decisions": ["approve", "reject"]}
    (answer,) = interrupt({"action_requests": [asked], "review_configs": [allowed]})["decisions"]
    if answer["type"] != "approve":
        return f"Not approved: {answer.get('message', 'no reason was given.')}"
    return f"The lock at {place} is open."


async def look(state: MessagesState):
    """What a node writes is a data part of the message."""
    get_stream_writer()({"type": "data-progress", "id": "look", "data": {"looking": "at the gauge"}})
    return {}


async def answer(state: MessagesState):
    return {"messages": [await llm.ainvoke(state["messages"])]}


def model() -> Runnable[Any, Any]:
    if "OPENAI_API_KEY" in os.environ:
        from langchain_openai import ChatOpenAI

        openai = ChatOpenAI(model=os.environ.get("MODEL", "gpt-5-mini"))
        return openai.bind_tools([open_lock], parallel_tool_calls=False)
    return RunnableLambda(fake)


def fake(messages: list[Any]) -> Runnable[Any, Any]:
    """LangChain's own fake models: one that asks for the tool where the lock is spoken of, and one that answers."""
    last = messages[-1]
    if last.type == "human" and "lock" in last.text:
        call = {"name": "open_lock", "args": {"place": "Dover"}, "id": "call-1"}
        return FakeMessagesListChatModel(responses=[AIMessage("", tool_calls=[call])])
    said = "The tide is rising, and will be high at noon." if last.type == "human" else last.text
    return GenericFakeChatModel(messages=iter([said]))


llm = model()
graph = StateGraph(MessagesState).add_sequence([look, answer]).add_edge(START, "look")
graph.add_node("tools", ToolNode([open_lock])).add_edge("tools", "answer")
graph.add_conditional_edges("answer", tools_condition)
compiled = graph.compile(checkpointer=InMemorySaver())  # a real one outlives the process: AsyncSqliteSaver


@chat.agent
async def reply(run: Run):
    values = resume_values(run)  # None, unless this goes on because somebody has decided
    asked = Command(resume=values) if values else {"messages": history(run.messages)}
    thread = {"configurable": {"thread_id": run.message_id}}
    yield langgraph_events(run, compiled.astream(asked, thread, stream_mode=["messages", "updates", "custom"]))


app = chat.app(title="Strandline, LangGraph example")
