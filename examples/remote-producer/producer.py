"""An agent on another server, in whatever language: all that it has to do is to stream AG-UI events, or the chunks that
``useChat`` reads. Here it does both.

uvicorn producer:app --port 9000
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()


async def events(asked: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    run = {"threadId": asked["threadId"], "runId": asked["runId"]}
    yield {"type": "RUN_STARTED", **run}
    yield {"type": "TEXT_MESSAGE_START", "messageId": "reply", "role": "assistant"}
    for word in f"You said: {asked['messages'][-1]['content']}".split():
        yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": "reply", "delta": f"{word} "}
        await asyncio.sleep(0.1)
    yield {"type": "TEXT_MESSAGE_END", "messageId": "reply"}
    yield {"type": "RUN_FINISHED", **run}


@app.post("/")
async def answer(asked: dict[str, Any]) -> StreamingResponse:
    frames = (f"data: {json.dumps(event)}\n\n" async for event in events(asked))
    return StreamingResponse(frames, media_type="text/event-stream")


async def chunks(asked: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    said = "".join(part["text"] for part in asked["messages"][-1]["parts"] if part["type"] == "text")
    yield {"type": "start"}
    yield {"type": "text-start", "id": "1"}
    for word in f"You typed: {said}".split():
        yield {"type": "text-delta", "id": "1", "delta": f"{word} "}
        await asyncio.sleep(0.1)
    yield {"type": "text-end", "id": "1"}
    yield {"type": "finish"}


@app.post("/chat")
async def chat(asked: dict[str, Any]) -> StreamingResponse:
    async def frames() -> AsyncIterator[str]:
        async for chunk in chunks(asked):
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"

    headers = {"x-vercel-ai-ui-message-stream": "v1"}
    return StreamingResponse(frames(), media_type="text/event-stream", headers=headers)
