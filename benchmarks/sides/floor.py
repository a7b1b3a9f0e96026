"""Bare ASGI without any durability: the agent writes into the response of whoever asked. The floor."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from agent import tokens

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if body:
        number = 0
        async for token in tokens(body.decode()):
            number += 1
            data = json.dumps({"type": "text-delta", "id": "0", "delta": token})
            frame = f"id: {number}\ndata: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": frame, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
