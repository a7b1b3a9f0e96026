"""A chat over Chat Completions, which many servers speak (vLLM, DeepSeek, OpenRouter): OPENAI_BASE_URL leads to yours.

strandline serve completions:app     with OPENAI_API_KEY set
"""

import os

from openai import AsyncOpenAI

from strandline import Run, Strandline, open_on_loopback
from strandline.agents.sources.openai import chat_messages, openai_chat

MODEL = os.environ.get("MODEL", "gpt-5.4")

client = AsyncOpenAI()
chat = Strandline("chat.db", auth=open_on_loopback("you"))


@chat.agent
async def reply(run: Run):
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=chat_messages(run.messages),
        stream=True,
        stream_options={"include_usage": True},
    )
    yield openai_chat(run, stream)


app = chat.app(title="Strandline, Chat Completions example")
