"""A chat over OpenAI's Responses API: reasoning, a tool of OpenAI's and one of yours.

strandline serve app:app     with OPENAI_API_KEY set
"""

import os
from typing import Any

from openai import AsyncOpenAI

from strandline import Run, Strandline, open_on_loopback
from strandline.agents.sources.openai import openai_responses, responses_input

MODEL = os.environ.get("MODEL", "gpt-5.4")
PORT = {
    "type": "object",
    "properties": {"port": {"type": "string"}},
    "required": ["port"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "web_search"},
    {"type": "function", "name": "tide", "description": "The tide in a port.", "strict": True, "parameters": PORT},
]

client = AsyncOpenAI()
chat = Strandline("chat.db", auth=open_on_loopback("you"))


async def tide(port: str) -> dict[str, Any]:
    """Your tool. It knows nothing about the sea."""
    return {"port": port, "height": len(port) / 2, "unit": "m"}


@chat.agent
async def reply(run: Run):
    for _ in range(8):  # so often the model may ask for tools
        stream = await client.responses.create(
            model=MODEL,
            instructions="You help people at the sea. Be brief.",
            input=responses_input([*run.messages, run.message]),
            tools=TOOLS,
            reasoning={"summary": "auto"},
            stream=True,
        )
        yield openai_responses(run, stream)
        calls = [part for part in run.message["parts"] if part.get("state") == "input-available"]
        if not calls:
            return
        for call in calls:
            await run.tool_result(call["toolCallId"], await tide(**call["input"]))


app = chat.app(title="Strandline, OpenAI example")
