"""A pydantic-ai agent with a tool, whose replies survive a reload.

strandline serve app:app
"""

import os

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from strandline import Run, Strandline, open_on_loopback
from strandline.agents.sources.pydantic_ai import history, pydantic_ai_events

chat = Strandline("chat.db", auth=open_on_loopback("you"))
agent = Agent(
    os.environ.get("MODEL") or TestModel(),  # which needs no key: it calls every tool and says what came back
    instructions="You answer questions about the tide. Look before you answer.",
)


@agent.tool_plain
def tide(place: str) -> dict[str, object]:
    """The tide at a place just now."""
    return {"place": place, "metres": round(2 + len(place) % 5 * 0.7, 1), "rising": len(place) % 2 == 0}


@chat.agent
async def reply(run: Run):
    yield pydantic_ai_events(run, agent.run_stream_events(message_history=history(run.messages)))


@chat.on_end
async def count(ended):
    print(ended.session, ended.status, ended.usage)


app = chat.app(title="Strandline, pydantic-ai example")
