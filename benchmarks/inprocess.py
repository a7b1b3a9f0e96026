"""What a token costs in Python, without sockets: for work on the hot path. ``python benchmarks/inprocess.py``

Every reply gets its tokens at the same moment (a tick), and the next tick begins when every reader has been sent all of
them. The application is called as a server would call it, with all its layers; what is missing is the server, its event
loop's I/O and the agents' own waiting. Seconds instead of minutes, and steady where `make bench` is not: on a busy
machine compare the lowest values of two trees (``PYTHONPATH=other/python``).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from strandline import Run, Settings, Strandline, open_on_loopback

TOKEN = "@1234567890.12345"


class Gate:
    """Agents wait here for the next tick."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        await waiter

    def open(self) -> None:
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.set_result(None)


class Collector:
    """CPU seconds spent in the garbage collector."""

    def __init__(self) -> None:
        self.spent = self._since = 0.0
        gc.callbacks.append(self._called)

    def _called(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._since = time.process_time()
        else:
            self.spent += time.process_time() - self._since


async def measure(store: str, replies: int, ticks: int, tokens: int) -> None:
    """Print CPU microseconds per reply and tick."""
    gate, sent = Gate(), 0
    chat = Strandline(store, auth=open_on_loopback(), settings=Settings(first_window=0.0, max_window=0.0))

    @chat.agent
    async def reply(run: Run) -> AsyncIterator[str]:
        for _ in range(ticks):
            await gate.wait()
            for _ in range(tokens):
                yield TOKEN

    app = chat.app()

    async def request(number: int) -> None:
        message = {"id": f"u{number}", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
        body = json.dumps({"id": f"c{number}", "messages": [message]}).encode()
        incoming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")

        async def send(message: Any) -> None:
            nonlocal sent
            sent += message.get("body", b"").count(b"@")

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
        scope |= {"path": "/api/chat", "raw_path": b"/api/chat", "query_string": b"", "root_path": "", "state": {}}
        scope |= {"headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
        await app(scope, receive, send)

    async with chat.lifespan():
        requests = [asyncio.create_task(request(number)) for number in range(replies)]
        while len(gate.waiting) < replies:
            await asyncio.sleep(0.01)
        collector, costs = Collector(), []
        for tick in range(1, ticks + 1):
            while len(gate.waiting) < replies:
                await asyncio.sleep(0)
            begun = time.process_time()
            gate.open()
            while sent < replies * tokens * tick:
                await asyncio.sleep(0)
            costs.append((time.process_time() - begun) / replies * 1e6)
        await asyncio.gather(*requests)
    costs.sort()
    found = {"lowest": costs[0], "median": statistics.median(costs), "mean": statistics.mean(costs)}
    found |= {"of it collector": collector.spent / ticks / replies * 1e6, "longest tick, ms": costs[-1] * replies / 1e3}
    print(f"{replies} replies x {tokens} tokens:", ", ".join(f"{name} {value:.1f}" for name, value in found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", action="store_true", help="over a SQLite file instead of memory")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, (replies, ticks, tokens) in enumerate(((100, 400, 1), (100, 200, 20), (1000, 80, 3))):
            store = str(Path(folder) / f"{number}.db") if asked.file else "memory:"
            asyncio.run(measure(store, replies, ticks, tokens))


if __name__ == "__main__":
    main()
