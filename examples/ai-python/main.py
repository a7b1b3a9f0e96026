"""An agent of Vercel's `ai` package for Python, with a durable conversation around it. Needs Python 3.12.

strandline serve main:app     and talk to it from any client: ../README.md
"""

from collections.abc import AsyncIterator
from typing import Any

import ai
from ai.ui.ai_sdk import UIMessage, to_messages, to_stream

from strandline import Run, Strandline, open_on_loopback, ui_stream


@ai.tool
async def weather(city: str) -> dict[str, Any]:
    """The weather in a city."""
    return {"city": city, "celsius": 7}


agent = ai.Agent(tools=[weather])


def model(messages: list[ai.messages.Message]) -> ai.Model:
    """The package's own fake, so that this needs no key. Yours: `ai.get_model("anthropic:claude-sonnet-4-5")`."""
    look = ai.assistant_message("Let me look. ", ai.testing.tool_call(weather, city="Oslo"))
    return ai.testing.FakeModel([*messages, look, ai.assistant_message("It is 7 °C in Oslo.")])


chat = Strandline("chat.db", auth=open_on_loopback("you"))


@chat.agent
async def reply(run: Run) -> AsyncIterator[Any]:
    messages, _ = to_messages([UIMessage.model_validate(message) for message in run.messages])
    async with agent.run(model(messages), messages) as stream:
        yield ui_stream(to_stream(stream))
        used = [message.usage for message in stream.messages if message.usage]
        if used:
            run.usage(**sum(used[1:], used[0]).model_dump(exclude_none=True, exclude={"raw"}))


app = chat.app(title="Strandline, ai for Python")
