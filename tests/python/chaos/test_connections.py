"""Connections that come and go by the thousand, whole or torn: the server is afterwards as it was before."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

from wires import LOAD_APP, Wire, ask, descriptors, head, inside, resident, resume

from replies import asking, numbers
from server_process import ServerProcess
from strandline.testing import until

Serve = Callable[..., ServerProcess]
Scale = Callable[[int, int], int]

MB = 1_000_000
CHATS = 5
AT_ONCE = 20


async def come_and_go(server: ServerProcess, chance: random.Random) -> None:
    """One connection, in one of the ways that there are."""
    chat = f"c{chance.randrange(CHATS)}"
    wire = await Wire.connect(server)
    stream = head("GET", f"/api/chat/{chat}/stream")
    feed = head("GET", f"/api/sessions/{chat}/events")
    submit = head("POST", "/api/chat", asking(chat, "never read", "never"))
    match chance.randrange(8):
        case 0:  # says nothing
            pass
        case 1:  # goes in the middle of the head
            await wire.send(stream[: chance.randrange(1, len(stream) - 2)])
        case 2:  # goes in the middle of the body
            await wire.send(submit[: -chance.randrange(1, 40)])
        case 3:  # goes without waiting for the answer
            await wire.send(stream)
        case 4:  # goes in the middle of the answer
            await wire.send(chance.choice((stream, feed)))
            await wire.take(chance.randrange(1, 400))
        case 5:  # goes when it has something
            await wire.send(chance.choice((stream, feed)))
            await wire.begin()
        case 6:  # is no HTTP at all
            await wire.send(chance.randbytes(200))
        case 7:  # a whole request and its answer
            await (await wire.request("GET", f"/api/chat/{chat}/messages")).end()
            assert wire.status == 200
    if chance.random() < 0.5:
        wire.close()
    else:
        wire.reset()


async def settled(server: ServerProcess, tasks: float = math.inf) -> tuple[dict[str, int], int]:
    """What the server has when everybody has gone, with at most so many ``tasks`` if it comes to that, and how many
    files it has open."""
    found: dict[str, int] = {}
    for _ in range(500):
        found = await inside(server)
        if found["tasks"] <= tasks and not any(found[what] for what in ("readers", "waiters", "left")):
            break
        await asyncio.sleep(0.02)
    return found, descriptors(server)


async def test_connections_that_come_and_go_leave_nothing_behind(
    serve: Serve, scale: Scale, seed: int, record_testsuite_property: Callable[[str, object], None]
) -> None:
    many = scale(300, 10_000)
    warm = max(many // 4, 300)
    server = serve(script=LOAD_APP, env={"STRANDLINE_READER_MEMORY": "0.5"})
    for number in range(CHATS):
        (await (await ask(server, f"c{number}", "hold 100")).begin()).close()

    async def crowd(total: int, chance: random.Random) -> None:
        for at in range(0, total, AT_ONCE):
            await asyncio.gather(*(come_and_go(server, chance) for _ in range(min(AT_ONCE, total - at))))

    await crowd(warm, random.Random(seed))
    before, files = await settled(server)
    memory = resident(server)
    await crowd(many, random.Random(seed + 1))
    after, _ = await settled(server, before["tasks"])
    grown = resident(server) - memory
    record_testsuite_property(
        "connections",
        f"{many} after {warm}: memory {grown / MB:+.1f} MB, objects {after['objects'] - before['objects']:+d}, "
        f"blocks {after['blocks'] - before['blocks']:+d}",
    )
    assert (after["readers"], after["waiters"]) == (0, 0)
    assert after["tasks"] <= before["tasks"]
    await until(lambda: descriptors(server) <= files, 30)
    # One object for each connection, or in the long run for each of one of the ways to go, would be more.
    assert after["objects"] - before["objects"] < 200 + many / 20, (before, after)
    assert grown < 8 * MB, f"{grown / MB:.1f} MB seed {seed}"
    for number in range(CHATS):
        wire = await (await resume(server, f"c{number}")).begin()
        assert wire.text == numbers(100)
        wire.close()
    assert "Traceback" not in server.said()
