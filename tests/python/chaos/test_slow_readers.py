"""Readers that are slow, and readers that do not read at all: nobody waits for them, the server does not keep for them
what they do not take, and what they missed is theirs when they come back (DESIGN §1.1, §1.8, §7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wires import LINE, LOAD_APP, ask, flood, get, history, inside, resident, resume

from replies import numbers, text_in, text_of
from server_process import ServerProcess
from strandline.testing import until

Serve = Callable[..., ServerProcess]
Scale = Callable[[int, int], int]

MB = 1_000_000


async def test_nobody_waits_for_readers_that_do_not_read(
    serve: Serve, scale: Scale, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """They are never dropped here: neither the agent, nor a quick reader, nor another session goes at their pace."""
    lines, slow = scale(1_000, 5_000), scale(20, 50)
    server = serve(script=LOAD_APP, env={"STRANDLINE_SEND_TIMEOUT": "3600"})
    before, size = resident(server), lines * LINE
    asked = await ask(server, "c", f"flood {lines}", room=4096)
    await asked.begin()
    stopped = [asked, *[await resume(server, "c", room=4096) for _ in range(slow - 1)]]
    for wire in stopped:
        await wire.begin()
    trickling = await resume(server, "c", room=4096)
    trickle_task = asyncio.create_task(trickling.slowly(1, 0.0005))
    quick = (await resume(server, "c")).follow()
    await get(server, "/go")
    elsewhere = (await ask(server, "d", "count to 100 every 1 ms")).follow()
    assert (await elsewhere.end()).text == numbers(100)
    await quick.end()
    assert (quick.over, quick.text == flood(lines)) == (True, True)
    assert not trickle_task.done()
    assert (await inside(server))["readers"] == slow + 1
    grown = resident(server) - before
    # The reply itself a few times (folds, the journal's batches, the tail), and some pieces for each reader.
    assert grown < 5 * size + slow * 3 * MB, f"{grown / MB:.0f} MB for {slow} readers of {size / MB:.0f} MB"
    record_testsuite_property("memory", f"{grown / MB:.0f} MB for {slow} readers of a reply of {size / MB:.0f} MB")
    assert text_of((await history(server, "c"))["messages"][-1]) == flood(lines)
    trickle_task.cancel()
    await asyncio.wait({trickle_task})
    for wire in (*stopped[:3], trickling):
        await wire.end()
        assert (wire.over, wire.text == flood(lines)) == (True, True), "who reads on gets all of it"
    for wire in stopped:
        wire.close()


async def test_who_does_not_read_is_dropped_in_time_and_goes_on_exactly(serve: Serve, scale: Scale) -> None:
    lines, slow = 1_500, scale(5, 50)
    server = serve(script=LOAD_APP, env={"STRANDLINE_SEND_TIMEOUT": "0.5"})
    quick = await ask(server, "c", f"flood {lines}")
    await quick.begin()
    quick.follow()
    readers = [await resume(server, "c", room=4096) for _ in range(slow)]
    for wire in readers:
        await wire.begin()
    trickle_task = asyncio.create_task(readers[0].slowly(1, 0.0005))
    await get(server, "/go")
    assert (await quick.end()).text == flood(lines)
    await until(lambda: server.said().count("reader-dropped") >= slow, 60)
    assert server.said().count("reader-dropped") == slow
    trickle_task.cancel()
    await asyncio.wait({trickle_task})
    assert (await inside(server))["readers"] == 0

    for wire in readers:
        await wire.end()
        assert wire.cut, "an end that was not the end must not look like one"
        rest = await (await resume(server, "c", wire.cursor)).end()
        assert text_in([*wire.shown, *rest.frames]) == flood(lines)
        assert rest.frames[-1].done
    assert "Traceback" not in server.said()


async def test_who_reads_slowly_gets_a_long_reply_to_its_end(serve: Serve, scale: Scale) -> None:
    """Also one that takes many times as long as a single write may: the whole of it can only come in one stream."""
    lines = scale(2_400, 5_000)
    server = serve(script=LOAD_APP, env={"STRANDLINE_SEND_TIMEOUT": "1.5"})
    await get(server, "/go")
    run = (await (await ask(server, "c", f"flood {lines}")).end()).headers["strandline-run"]
    whole = await resume(server, "c", run=run, room=65_536)
    await whole.slowly(16_384, 0.003)
    assert (whole.over, whole.text == flood(lines)) == (True, True)
    assert "reader-dropped" not in server.said()
