"""Hosts that vanish: no FIN, no RST, no acknowledgement. The server finds out when it writes, and keeps nothing for
them; a client that comes back under its name does not even have to wait for that (PROTOCOL §8.11)."""

from __future__ import annotations

from collections.abc import Callable

from wires import LOAD_APP, ask, flood, get, held, inside, resume

from replies import SHIM, text_in
from server_process import ServerProcess
from strandline.testing import until

Serve = Callable[..., ServerProcess]
Scale = Callable[[int, int], int]


async def test_readers_whose_host_has_vanished_are_freed_once_something_is_written(serve: Serve, scale: Scale) -> None:
    lines, many = 1_000, scale(8, 100)
    server = serve(script=LOAD_APP, env={"STRANDLINE_SEND_TIMEOUT": "0.5", "STRANDLINE_MAX_READERS_PER_SESSION": "200"})
    quick = await ask(server, "c", f"flood {lines}")
    (await quick.begin()).follow()
    vanished = [await resume(server, "c") for _ in range(many)]
    for wire in vanished:
        await wire.begin()
        wire.vanish()
    assert (await inside(server))["readers"] == many + 1
    assert all(held(server, wire) for wire in vanished)
    await get(server, "/go")
    assert (await quick.end()).text == flood(lines)
    await until(lambda: server.said().count("reader-dropped") >= many, 60)
    assert "ASGI" not in server.said(), "uvicorn complains of a response that it believes to be unfinished"
    left = await inside(server)
    assert (left["readers"], left["waiters"]) == (0, 0)
    await until(lambda: not any(held(server, wire) for wire in vanished), 30)

    for wire in vanished:
        rest = await (await resume(server, "c", wire.cursor)).end()
        assert text_in([*wire.shown, *rest.frames]) == flood(lines)
        wire.close()


async def test_who_comes_back_takes_the_place_of_its_connection_that_has_vanished(serve: Serve) -> None:
    server = serve(script=LOAD_APP, env={"STRANDLINE_SEND_TIMEOUT": "3600", "STRANDLINE_MAX_READERS_PER_SESSION": "2"})
    named = {**SHIM, "Strandline-Reader": "page"}
    quick = (await (await ask(server, "c", "flood 1500")).begin()).follow()
    lost = await resume(server, "c", headers=named)
    await lost.begin()
    lost.vanish()
    await get(server, "/go")
    assert (await quick.end()).text == flood(1_500)
    assert (await inside(server))["readers"] == 1, "the server is in the middle of a write to it"
    again = await (await resume(server, "c", lost.cursor, headers=named)).end()
    assert (again.status, text_in([*lost.shown, *again.frames])) == (200, flood(1_500))
    assert (await inside(server))["readers"] == 0
    await until(lambda: not held(server, lost), 30)
    lost.close()
