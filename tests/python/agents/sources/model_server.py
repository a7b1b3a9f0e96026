"""A model provider on this machine: answers each request with the next of the recordings that it was given.

Recordings are written by hand after the libraries' own event types; the requests that came in are kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, TypeAdapter

from rig import Rig, running
from strandline import Ended
from strandline.testing import until

Event = dict[str, Any]

HOLD = b"hold"
"""In a recording: say nothing more until the client has gone or the test says ``release``."""
BREAK = b"break"
"""In a recording: the connection dies here."""


def sse(events: Iterable[Event], *, named: bool = True, done: bool = False) -> bytes:
    """A whole stream as it is on the wire."""
    lines = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in events
    ]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def cut(text: str, cuts: Sequence[int]) -> list[str]:
    """The text in pieces that end at these places (taken modulo its length); never an empty one."""
    places = sorted({0, len(text), *(each % (len(text) + 1) for each in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


class ModelServer:
    """What the tests hold of it."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Any] = []
        self.recordings: list[Sequence[bytes] | int] = []
        self.closed = asyncio.Event()
        """Set when a client has closed a connection on which an answer was held."""
        self.holding = asyncio.Event()
        self._release = asyncio.Event()

    def play(self, *recordings: bytes | Sequence[bytes] | int) -> None:
        """What the next requests are answered with: a stream, a stream in pieces, or a status of refusal."""
        self.recordings += [[each] if isinstance(each, bytes) else each for each in recordings]

    def release(self) -> None:
        self._release.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length"))
        self.requests.append(json.loads(await reader.readexactly(length)))
        recording = self.recordings.pop(0)
        if isinstance(recording, int):
            body = b'{"error": {"message": "secret", "type": "secret"}}'
            writer.write(b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\n" % recording)
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            return True
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in recording:
            if piece is BREAK:
                return False
            if piece is HOLD:
                self.holding.set()
                gone = asyncio.ensure_future(reader.read(1))
                released = asyncio.ensure_future(self._release.wait())
                await asyncio.wait({gone, released}, return_when=asyncio.FIRST_COMPLETED)
                released.cancel()
                if gone.done():
                    self.closed.set()
                    return False
                gone.cancel()
                continue
            writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return True


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    model = ModelServer()
    connections: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(model.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield model
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


Cutting = Callable[[str], list[str]]


def whole(text: str) -> list[str]:
    """Everything in one delta."""
    return [text] if text else []


@dataclass(frozen=True)
class Outcome:
    """What became of a run: what is stored, and what its client was told of the end."""

    message: dict[str, Any]
    status: str
    error: str | None
    usage: dict[str, Any] | None
    finish: str | None

    @property
    def parts(self) -> list[dict[str, Any]]:
        return [part for part in self.message["parts"] if part["type"] != "step-start"]

    def texts(self, kind: str = "text") -> list[str]:
        return [part["text"] for part in self.parts if part["type"] == kind]


async def outcome(agent: Any, asked: Any = "hello") -> Outcome:
    """Run the agent in a Strandline of its own and read back what was stored."""
    async with running(agent=agent) as rig:
        return await ask(rig, asked)


async def ask(rig: Rig, asked: Any = "hello", id: str = "u1") -> Outcome:
    """One turn of the conversation ``c``. ``asked`` is text or the parts of the user's message."""
    ends: list[Ended] = []
    rig.chat.on_end(ends.append)
    parts = [{"type": "text", "text": asked}] if isinstance(asked, str) else asked
    message = {"id": id, "role": "user", "parts": parts}
    answer = await rig.open("POST", "/api/chat", {"id": "c", "messages": [message], "trigger": "submit-message"})
    assert answer.status == 200, answer.body
    await answer.end()
    await until(lambda: ends)
    finish = next(
        (
            frame.chunk.get("finishReason")
            for frame in answer.frames
            if not frame.done and frame.chunk["type"] == "finish"
        ),
        None,
    )
    stored = (await rig.history("c"))["messages"][-1]
    return Outcome(stored, ends[0].status, ends[0].error, ends[0].usage, finish)


def typed(value: Any, kind: Any) -> Any:
    """The value as the library's own parameter types understand it: equal to it, unless they know of no such thing."""
    return _all(_adapter(kind).validate_python(value))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(list[kind])


def _all(value: Any) -> Any:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return {name: _all(item) for name, item in value.items()}
    # Iterables are validated when somebody looks.
    return value if isinstance(value, str | int | float | None) else [_all(item) for item in value]
