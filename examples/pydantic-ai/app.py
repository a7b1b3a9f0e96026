"""A pydantic-ai agent with two tools, one of which waits for a yes, and whose replies survive a reload.

strandline serve app:app
"""

import os

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.models.test import TestModel

from strandline import Run, Strandline, open_on_loopback
from strandline.agents.sources.pydantic_ai import deferred_results, history, pydantic_ai_events

chat = Strandline("chat.db", auth=open_on_loopback("you"))
agent = Agent(
    os.environ.get("MODEL") or TestModel(),  # which needs no key: it calls every tool once, and says what came back
    instructions="You answer questions about the tide, and open locks. Look before you answer.",
    output_type=[str, DeferredToolRequests],  # an answer, or what it waits for
)


@agent.tool_plain
def tide(place: str) -> dict[str, object]:
    """The tide at a place just now."""
    return {"place": place, "metres": round(2 + len(place) % 5 * 0.7, 1), "rising": len(place) % 2 == 0}


@agent.tool_plain(requires_approval=True)
def open_lock(place: str) -> str:
    """Open the sea lock at a place. It is called when somebody has said yes."""
    return f"The lock at {place} is open."


@chat.agent
async def reply(run: Run):
    deferred = deferred_results(run)  # None, unless this goes on because somebody has approved something
    asked = history(run.messages, deferred)
    yield pydantic_ai_events(run, agent.run_stream_events(message_history=asked, deferred_tool_results=deferred))


@chat.on_end
async def count(ended):
    print(ended.session, ended.status, ended.usage)


app = chat.app(title="Strandline, pydantic-ai example")
