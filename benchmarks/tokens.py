"""What a durable token costs beside one that is only kept in memory: server CPU per token, and latency.

One run starts the real server once per store, on loopback, bounded in time. Latency is from the agent's clock at
``yield`` to the reader's at ``read``, both on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

SERVER = """
import asyncio, sys, time, uvicorn
from strandline import Strandline, open_on_loopback
chat = Strandline(sys.argv[1], auth=open_on_loopback())
rate, seconds = float(sys.argv[3]), float(sys.argv[4])
@chat.agent
async def tokens(run):
    start, count = time.monotonic(), 0
    while (due := start + count / rate) < start + seconds:
        await asyncio.sleep(max(0, due - time.monotonic()))
        yield f"{time.monotonic():.5f} "
        count += 1
app = chat.app()
@app.get("/cpu")
def cpu(): return time.process_time()
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""
STAMP = re.compile(rb"(\d+\.\d{5}) ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def read(port: int, session: int, late: list[float]) -> int:
    """One reader on a plain socket; returns how many tokens it got."""
    body = b'{"id":"s%d","messages":[{"id":"u","role":"user","parts":[{"type":"text","text":"go"}]}]}' % session
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
    )
    tokens = 0
    while data := await reader.read(65536):
        now = time.monotonic()
        for stamp in STAMP.findall(data):
            tokens += 1
            late.append(now - float(stamp))
    writer.close()
    return tokens


async def measure(store: str, sessions: int, rate: float, seconds: float) -> tuple[float, list[float], int]:
    port = free_port()
    arguments = ("-c", SERVER, store, str(port), str(rate), str(seconds))
    server = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(200):
                try:
                    if (await client.get("/api/health")).status_code == 200:
                        break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            before = (await client.get("/cpu")).json()
            late: list[float] = []
            counts = await asyncio.gather(*(read(port, session, late) for session in range(sessions)))
            after = (await client.get("/cpu")).json()
        return after - before, late, sum(counts)
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 20)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50.0, help="tokens per second and session")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    offered = asked.sessions * asked.rate * asked.seconds
    print(f"{asked.sessions} sessions x {asked.rate:g} tokens/s for {asked.seconds:g} s, {os.cpu_count()} cores")
    print(f"{'store':<10}{'tokens':>9}{'offered':>9}{'CPU us/token':>14}{'p50 ms':>9}{'p99 ms':>9}")
    for _ in range(asked.rounds):
        for name in ("sqlite", "memory"):
            with tempfile.TemporaryDirectory() as folder:
                store = str(Path(folder) / "bench.db") if name == "sqlite" else "memory:"
                cpu, late, tokens = await measure(store, asked.sessions, asked.rate, asked.seconds)
            cuts = statistics.quantiles(late, n=100)
            print(
                f"{name:<10}{tokens:>9}{offered:>9.0f}{cpu / tokens * 1e6:>14.1f}"
                f"{cuts[49] * 1000:>9.1f}{cuts[98] * 1000:>9.1f}"
            )


if __name__ == "__main__":
    asyncio.run(main())
