"""A server that dies with everybody attached, and comes back: they all come at once, each with its cursor."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from wires import LOAD_APP, Wire, ask, history, inside, resume

from replies import SHIM, numbers, text_in, text_of
from server_process import ServerProcess
from strandline.testing import until

Serve = Callable[..., ServerProcess]
Scale = Callable[[int, int], int]

ENV = {"STRANDLINE_MAX_READERS_PER_SESSION": "2000", "STRANDLINE_LOCK_WAIT": "10"}


async def come_back(server: ServerProcess, wire: Wire, headers: dict[str, str], refused: Counter[str]) -> Wire:
    """What a client does: try until there is an answer."""
    while True:
        try:
            again = await (await resume(server, wire.chat, wire.cursor, headers=headers)).end()
        except OSError:
            refused["connection"] += 1
        else:
            if again.status == 200 and again.over:
                return again
            assert again.cut or (again.status, again.json["code"]) == (503, "shutting-down"), again.status
            refused[str(again.status)] += 1
        await asyncio.sleep(0.02)


async def test_a_herd_after_a_crash_gets_the_rest_to_the_last_frame(serve: Serve, scale: Scale) -> None:
    many, chats = scale(50, 1_000), scale(3, 20)
    server = serve(script=LOAD_APP, env=ENV)
    readers = []
    for number in range(chats):
        readers.append(await (await ask(server, f"c{number}", "count to 100000 every 10 ms")).begin())
    while len(readers) < many:
        headers = SHIM if len(readers) % 2 else {}
        readers.append(await (await resume(server, f"c{len(readers) % chats}", headers=headers)).begin())
    for wire in readers:
        wire.follow()
    await until(lambda: all(len(wire.frames) > 20 for wire in readers), 60)
    await asyncio.to_thread(server.kill)
    for wire in readers:
        await wire.end()
        assert wire.cut

    refused: Counter[str] = Counter()
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    herd = [come_back(server, wire, SHIM if at % 2 else {}, refused) for at, wire in enumerate(readers)]
    answers = await asyncio.gather(*herd)
    await starting
    assert refused["connection"] > 0, "they did not come while it was away"
    stored = {f"c{number}": await history(server, f"c{number}") for number in range(chats)}
    for wire, again in zip(readers, answers, strict=True):
        text = text_of(stored[wire.chat]["messages"][-1])
        assert text == numbers(len(text.split()))
        assert again.headers["strandline-replay"] == "tail"
        assert text_in([*wire.shown, *again.frames]) == text
        assert [frame.chunk.get("code") for frame in again.frames[-2:]] == ["lost", None]
        assert again.frames[-1].done
    for found in stored.values():
        assert [(run["status"], run["reason"]) for run in found["runs"].values()] == [("lost", "process-lost")]
    assert "Traceback" not in server.said()


async def test_a_herd_without_cursors_is_one_unfold(serve: Serve, scale: Scale) -> None:
    """Everybody reloads the page: what a message says so far is made into a snapshot once, not once for each."""
    many = scale(50, 1_000)
    server = serve(script=LOAD_APP, env=ENV)
    asked = (await (await ask(server, "c", "hold 500")).begin()).follow()
    await until(lambda: asked.text == numbers(500))
    before = (await inside(server))["unfolds"]
    herd = await asyncio.gather(*(resume(server, "c") for _ in range(many)))
    for wire in herd:
        await wire.begin()
        assert wire.text == numbers(500)
    found = await inside(server)
    assert (found["readers"], found["unfolds"] - before) == (many + 1, 1)
    for wire in (asked, *herd):
        wire.close()
