"""A chat over Anthropic's Messages API: thinking, a tool of Anthropic's and one of yours.

strandline serve app:app     with ANTHROPIC_API_KEY set
"""

import os
from typing import Any

from anthropic import AsyncAnthropic

from strandline import Run, Strandline, open_on_loopback
from strandline.agents.sources.anthropic import anthropic_messages, anthropic_stream

MODEL = os.environ.get("MODEL", "claude-sonnet-5-5")
PORT = {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]}
TOOLS: list[Any] = [
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    {"name": "tide", "description": "The tide in a port.", "input_schema": PORT},
]

client = AsyncAnthropic()
chat = Strandline("chat.db", auth=open_on_loopback("you"))


async def tide(port: str) -> dict[str, Any]:
    """Your tool. It knows nothing about the sea."""
    return {"port": port, "height": len(port) / 2, "unit": "m"}


@chat.agent
async def reply(run: Run):
    for _ in range(8):  # so often the model may ask for tools
        stream = await client.messages.create(
            model=MODEL,
            max_tokens=16_000,
            system="You help people at the sea. Be brief.",
            messages=anthropic_messages([*run.messages, run.message]),
            tools=TOOLS,
            thinking={"type": "adaptive", "display": "summarized"},
            stream=True,
        )
        yield anthropic_stream(run, stream)
        calls = [part for part in run.message["parts"] if part.get("state") == "input-available"]
        if not calls:
            return
        for call in calls:
            await run.tool_result(call["toolCallId"], await tide(**call["input"]))


app = chat.app(title="Strandline, Anthropic example")
