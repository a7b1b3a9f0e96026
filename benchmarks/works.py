"""The work that every side is given. Each function measures one running server and returns named figures.

CPU is that of the server's processes, Redis included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time

from load import Figures, load
from machine import spent
from sides import Server, http

STAMPED = 50
"""Of prose, every how manieth token is a time (``sides/agent.py``)."""

ONE = "single"
"""The number of a reply that every request is about."""

Numbers = dict[str, float]


def asked(rate: int, tokens: int, hold: int = 0) -> str:
    """What the agents understand."""
    return f"rate={rate} tokens={tokens} hold={hold}"


async def replies(server: Server, count: int, rate: int = 50, seconds: float = 6.0, *, prose: bool = False) -> Numbers:
    """W1: ``count`` replies at once, ``rate`` tokens a second each, one reader each. Latencies and the rate are those
    of the time in which all run: the second in which they are started, and another one, are left out."""
    tokens = int(rate * seconds)
    request = server.side.send(asked(rate, tokens) + (" prose" if prose else ""))
    before = spent(server.pids)
    running = (2.0, seconds)
    found = await load(
        server.port, request, count, seconds=seconds * 5 + 10, ramp=min(1.0, count / 200), steady=running
    )
    after = spent(server.pids)
    # The load generator counts times; of prose, only every 50th token is one.
    _complete(found, count * (-(-tokens // STAMPED) if prose else tokens))
    said = count * tokens if prose else found["tokens"]
    cpu = after.cpu - before.cpu
    return {
        "us CPU per token": cpu / said * 1e6,
        "tokens per second and core": said / cpu,
        "tokens per second": found["steady"] * said / found["tokens"] / (running[1] - running[0]),
        "p50 ms": found["latency"]["p50"],
        "p99 ms": found["latency"]["p99"],
        "bytes written per token": (after.written - before.written) / said,
        "load generator's core in use": found["cpu"] / found["wall"],
    }


async def saturated(server: Server, count: int = 50, tokens: int = 1000) -> Numbers:
    """W1, as fast as it goes: agents that are never waited for, one reader each. A latency says nothing here."""
    before = spent(server.pids)
    found = await load(server.port, server.side.send(asked(0, tokens)), count, seconds=120)
    after = spent(server.pids)
    _complete(found, count * tokens)
    return {
        "tokens per second and core": found["tokens"] / (after.cpu - before.cpu),
        "tokens per second": found["tokens"] / found["wall"],
        "bytes written per token": (after.written - before.written) / found["tokens"],
        "load generator's core in use": found["cpu"] / found["wall"],
    }


async def fan_out(server: Server, readers: int, rate: int = 50, seconds: float = 4.0) -> Numbers:
    """W2: one reply, many readers."""
    tokens = int(rate * (seconds + 3))
    writing = asyncio.create_task(load(server.port, server.side.send(asked(rate, tokens), ONE), 1))
    await asyncio.sleep(1.0)
    before = spent(server.pids)
    found = await load(server.port, server.side.resume(ONE), readers, ramp=0.5, seconds=seconds + 30)
    after = spent(server.pids)
    await writing
    return {
        "us CPU per delivered token": (after.cpu - before.cpu) / max(1, found["tokens"]) * 1e6,
        "p50 ms": found["latency"].get("p50", 0.0),
        "refused": found["bad"],
    }


async def resumes(server: Server, tokens: int = 2000, one_by_one: int = 300, herd: int = 500) -> Numbers:
    """W3: readers come back to a reply of ``tokens`` tokens whose agent still runs, but is silent."""
    writing = asyncio.create_task(load(server.port, server.side.send(asked(2000, tokens, 60), ONE), 1, seconds=90))
    await asyncio.sleep(tokens / 2000 + 2.0)
    request = server.side.resume(ONE)
    before = spent(server.pids)
    single = await load(server.port, request, one_by_one, at_once=1, enough=tokens, seconds=20)
    after = spent(server.pids)
    together = await load(server.port, request, herd, herd=True, enough=tokens, seconds=20)
    writing.cancel()
    done = max(1, single["whole"]["n"])
    return {
        "first byte p50 ms": single["first_byte"].get("p50", 0.0),
        "first byte p99 ms": single["first_byte"].get("p99", 0.0),
        "whole reply p50 ms": single["whole"].get("p50", 0.0),
        "whole reply p99 ms": single["whole"].get("p99", 0.0),
        "per second and core": done / max(1e-6, after.cpu - before.cpu),
        "herd: whole reply p50 ms": together["whole"].get("p50", 0.0),
        "herd: last whole reply ms": together["whole"].get("max", 0.0),
        "not served": float(one_by_one + herd - single["over"] - together["over"] + single["bad"] + together["bad"]),
    }


async def stops(server: Server, count: int = 100, rate: int = 50) -> Numbers:
    """W7: every reply is stopped while it runs; how long after the request its reader still gets a token."""
    request = server.side.send(asked(rate, rate * 30))
    streaming = asyncio.create_task(load(server.port, request, count, seconds=40, lasts=True, ramp=0.5))
    await asyncio.sleep(3.0)
    begun: list[float] = []
    for number in range(count):
        begun.append(time.monotonic())
        await _answer(server, http("POST", f"/api/chat/c{number:06d}/stop", "{}"))
    found = await streaming
    late = sorted((last - at) * 1000 for last, at in zip(found["last"], begun, strict=True))
    return {"p50 ms": late[len(late) // 2], "p99 ms": late[int((len(late) - 1) * 0.99)], "max ms": late[-1]}


async def idle(server: Server, readers: int = 1000) -> Numbers:
    """W6: readers of a reply in which nothing happens."""
    writing = asyncio.create_task(load(server.port, server.side.send(asked(1, 1, 60), ONE), 1, seconds=90))
    await asyncio.sleep(1.0)
    before = spent(server.pids)
    waiting = asyncio.create_task(load(server.port, server.side.resume(ONE), readers, seconds=8, ramp=3.0))
    await asyncio.sleep(6.0)
    after = spent(server.pids)
    found = await waiting
    writing.cancel()
    return {"kB per idle reader": (after.memory - before.memory) / readers / 1000, "refused": float(found["bad"])}


async def catch_up(server: Server) -> Numbers:
    """W4: a reader of the session feed that was away for 5,000 and for 50,000 chunks which could not be joined, and a
    conversation of 20 turns that is loaded."""
    numbers: Numbers = {}
    for chunks in (5_000, 50_000):
        name = f"{chunks:06d}"
        await load(server.port, server.side.send(asked(0, chunks) + " apart", name), 1, seconds=120)
        cursor = json.loads((await _answer(server, http("GET", f"/api/sessions/c{name}?last=0", None)))[1])["cursor"]
        first = {"Last-Event-ID": f"{cursor.split('.')[0]}.1.1"}
        before = spent(server.pids)
        found = await load(server.port, http("GET", f"/api/sessions/c{name}/events", None, first), enough=chunks)
        after = spent(server.pids)
        numbers[f"{chunks} chunks: first byte ms"] = found["first_byte"]["p50"]
        numbers[f"{chunks} chunks: all ms"] = found["whole"].get("p50", 0.0)
        numbers[f"{chunks} chunks: us CPU per chunk"] = (after.cpu - before.cpu) / chunks * 1e6
    for turn in range(20):
        body = server.side.send(asked(0, 600), "000001").replace(b"u000001", b"u%06d" % turn)
        await load(server.port, body, 1)
    found = await load(server.port, http("GET", "/api/chat/c000001/messages", None), 100, at_once=1)
    numbers["20 exchanges: load p50 ms"] = found["whole"]["p50"]
    return numbers


async def kept(server: Server, count: int = 300, rate: int = 50, seconds: float = 8.0) -> Numbers:
    """W5: bytes written while 15,000 tokens a second are stored, and until the journal is in segments and wiped;
    and what is kept of them when all is finished."""
    assert server.store is not None
    before = spent(server.pids)
    numbers = await replies(server, count, rate, seconds, prose=True)
    tokens = count * rate * seconds
    await asyncio.sleep(15.0)  # until the journal is in segments
    written = spent(server.pids).written - before.written
    with sqlite3.connect(f"file:{server.store}?mode=ro", uri=True) as file:
        used = sum(
            file.execute(f"SELECT coalesce(sum(length({column})), 0) FROM {table}").fetchone()[0]
            for table, column in (("messages", "parts"), ("log", "blob"), ("journal", "entries"))
        )
        pages = file.execute("SELECT (SELECT * FROM pragma_page_count()) - (SELECT * FROM pragma_freelist_count())")
        size = pages.fetchone()[0] * file.execute("PRAGMA page_size").fetchone()[0]
    return {
        "bytes written per token": numbers["bytes written per token"],
        "bytes written per token, with what follows": written / tokens,
        "us CPU per token": numbers["us CPU per token"],
        "tokens per second": numbers["tokens per second"],
        "p99 ms": numbers["p99 ms"],
        "content kept, bytes per token": used / tokens,
        "file pages in use, bytes per token": size / tokens,
    }


async def deaths(server: Server, count: int = 5) -> Numbers:
    """W8: the process that produces the replies is killed in the middle; how many replies can still be read."""
    streaming = asyncio.create_task(load(server.port, server.side.send(asked(50, 3000)), count, seconds=20))
    await asyncio.sleep(3.0)
    server.kill()
    await streaming
    read = 0
    for number in range(count):
        _, body = await _answer(server, server.side.read_again(f"{number:06d}"), patience=1.0)
        read += body.count(b"@") >= 50
    return {"replies whose words can be read": read / count}


async def _answer(server: Server, request: bytes, patience: float = 20.0) -> tuple[bytes, bytes]:
    """Head and body of an answer, as far as they have come after ``patience`` seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    answer = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while data := await reader.read(65536):
                answer += data
    writer.close()
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    return head, body


def _complete(found: Figures, expected: int) -> None:
    if found["bad"] or found["over"] != found["requests"] or found["tokens"] < expected * 0.999:
        shown = {name: found[name] for name in ("requests", "over", "bad", "tokens")}
        raise RuntimeError(f"not everything arrived: {shown}, expected {expected} tokens")
