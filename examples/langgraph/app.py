"""A LangGraph graph of two nodes, whose replies survive a reload.

strandline serve app:app
"""

import itertools
import os

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph

from strandline import Run, Strandline, open_on_loopback
from strandline.agents.sources.langgraph import history, langgraph_events

chat = Strandline("chat.db", auth=open_on_loopback("you"))


def model() -> BaseChatModel:
    if "OPENAI_API_KEY" in os.environ:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=os.environ.get("MODEL", "gpt-5-mini"))
    return GenericFakeChatModel(messages=itertools.repeat("The tide is rising, and will be high at noon."))


async def look(state: MessagesState):
    """What a node writes is a data part of the message."""
    get_stream_writer()({"type": "data-progress", "id": "look", "data": {"looking": "at the gauge"}})
    return {}


async def answer(state: MessagesState):
    return {"messages": [await llm.ainvoke(state["messages"])]}


llm = model()
graph = StateGraph(MessagesState).add_sequence([look, answer]).add_edge(START, "look").compile()


@chat.agent
async def reply(run: Run):
    asked = {"messages": history(run.messages)}
    yield langgraph_events(run, graph.astream(asked, stream_mode=["messages", "updates", "custom"]))


app = chat.app(title="Strandline, LangGraph example")
