"""SIGTERM with runs active, readers attached and messages still coming (DESIGN §7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable

from wires import LOAD_APP, Wire, ask, head, history, resume

from replies import SHIM, asking, numbers, text_of
from server_process import ServerProcess
from strandline.testing import until

Serve = Callable[..., ServerProcess]
Scale = Callable[[int, int], int]

GRACE = 2
ENV = {"STRANDLINE_SHUTDOWN_GRACE": str(GRACE), "STRANDLINE_LOCK_WAIT": "0"}


async def half_a_submit(server: ServerProcess, chat: str) -> tuple[Wire, bytes]:
    """A request that the server has begun to read, and the rest of it."""
    whole = head("POST", "/api/chat", asking(chat, "count to 3 every 0 ms"))
    begun, rest = whole[:-20], whole[-20:]
    return await (await Wire.connect(server, chat)).send(begun), rest


async def keep_submitting(server: ServerProcess, taken: dict[str, Wire]) -> None:
    """New messages on new connections, for as long as somebody listens."""
    number = 0
    with contextlib.suppress(OSError):
        while True:
            number += 1
            wire = await ask(server, f"late{number}", "count to 3 every 0 ms")
            await wire.end()
            if wire.status == 200:
                taken[wire.chat] = wire
            elif wire.status:
                assert (wire.status, wire.json["code"]) == (503, "shutting-down")


async def test_sigterm_under_load_ends_everything_as_documented(serve: Serve, scale: Scale) -> None:
    active = scale(20, 200)
    server = serve(script=LOAD_APP, env=ENV)
    process = server.process
    assert process is not None
    long = {f"long{n}": (await ask(server, f"long{n}", "count to 100000 every 50 ms")).follow() for n in range(active)}
    await until(lambda: all(wire.cursor for wire in long.values()), 30)
    shims = {chat: (await resume(server, chat, headers=SHIM)).follow() for chat in long}
    feeds = {}
    for chat in list(long)[:10]:
        feeds[chat] = (await (await Wire.connect(server)).request("GET", f"/api/sessions/{chat}/events")).follow()
    short = {f"short{n}": (await ask(server, f"short{n}", "count to 20 every 10 ms")).follow() for n in range(5)}
    await until(lambda: all(wire.cursor for wire in (*short.values(), *shims.values(), *feeds.values())), 30)
    halves = [await half_a_submit(server, f"half{n}") for n in range(10)]
    taken: dict[str, Wire] = {}
    submitting = asyncio.create_task(keep_submitting(server, taken))
    await until(lambda: taken)

    process.send_signal(signal.SIGTERM)
    await submitting  # it no longer listens
    for wire, rest in halves:
        await (await wire.send(rest)).end()
        assert (wire.status, wire.json["code"]) == (503, "shutting-down")
        assert int(wire.headers["retry-after"]) >= 1
    await until(lambda: process.poll() is not None, GRACE + 8)
    assert process.returncode in (0, -signal.SIGTERM), server.said()
    assert "Traceback" not in server.said()

    for wire in (*long.values(), *shims.values(), *short.values(), *feeds.values()):
        await wire.end()
        assert wire.over, "a response was torn off"
    for wire in (*long.values(), *shims.values()):
        terminal, done = wire.frames[-2:]
        assert (terminal.chunk["type"], terminal.chunk["code"], done.done) == ("error", "lost", True)
    for wire in feeds.values():
        assert next(frame for frame in reversed(wire.frames) if frame.cursor).chunk["type"] == "run-ended"
    for wire in (*short.values(), *taken.values()):
        assert [frame.chunk.get("type") for frame in wire.frames[-2:]] == ["finish", None]

    await asyncio.to_thread(server.start)
    for chat, wire in {**short, **taken}.items():
        found = await history(server, chat)
        assert [run["status"] for run in found["runs"].values()] == ["completed"]
        assert text_of(found["messages"][-1]) == wire.text == numbers(3 if chat in taken else 20)
    for chat, wire in long.items():
        found = await history(server, chat)
        assert [(run["status"], run["reason"]) for run in found["runs"].values()] == [("lost", "shutdown")]
        text = text_of(found["messages"][-1])
        assert text == wire.text == shims[chat].text == numbers(len(text.split()))
        assert (await (await resume(server, chat, wire.cursor)).end()).status == 204
    for wire, _ in halves:
        gone = await (await (await Wire.connect(server)).request("GET", f"/api/sessions/{wire.chat}")).end()
        assert gone.status == 404, json.dumps(gone.json)
