"""FastAPI and Redis Streams as people write it by hand: the agent XADDs every token, every reader XREADs and relays.

Environment: ``BENCH_REDIS`` (a redis:// URL). A reply outlives its reader; a reader resumes with Last-Event-ID.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator

import redis.asyncio as redis
from agent import tokens
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

store = redis.from_url(os.environ["BENCH_REDIS"], max_connections=4000)
app = FastAPI()
writing: set[asyncio.Task[None]] = set()


async def write(key: str, asked: str) -> None:
    async for token in tokens(asked):
        chunk = {"type": "text-delta", "id": "0", "delta": token}
        await store.xadd(key, {"data": json.dumps(chunk)})
    await store.xadd(key, {"data": "[DONE]"})
    await store.expire(key, 3600)


async def relay(key: str, after: str) -> AsyncIterator[bytes]:
    while True:
        found = await store.xread({key: after}, block=15_000)
        for _, entries in found or ():
            for identifier, fields in entries:
                after = identifier.decode()
                yield b"id: %b\ndata: %b\n\n" % (identifier, fields[b"data"])
                if fields[b"data"] == b"[DONE]":
                    return


@app.post("/chat/{chat}")
async def send(chat: str, request: Request) -> StreamingResponse:
    task = asyncio.create_task(write(chat, (await request.body()).decode()))
    writing.add(task)
    task.add_done_callback(writing.discard)
    return StreamingResponse(relay(chat, "0"), media_type="text/event-stream")


@app.get("/chat/{chat}/stream")
async def resume(chat: str, request: Request) -> StreamingResponse:
    after = request.headers.get("last-event-id", "0")
    return StreamingResponse(relay(chat, after), media_type="text/event-stream")
