"""A reply that does not seem to end: everybody has the same of it, whenever they came, and it is not kept in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from wires import LOAD_APP, ask, get, history, inside, resident, resume

from replies import numbers, text_in, text_of
from server_process import ServerProcess
from strandline.testing import until

Serve = Callable[..., ServerProcess]
Scale = Callable[[int, int], int]

MB = 1_000_000
TAIL = 16_384
ENV = {"STRANDLINE_TAIL_LIMIT": str(TAIL)}


async def test_a_reply_of_very_many_tokens_is_the_same_for_everybody(
    serve: Serve, scale: Scale, record_testsuite_property: Callable[[str, object], None]
) -> None:
    tokens = scale(20_000, 1_000_000)
    half, whole = numbers(tokens // 2), numbers(tokens)
    server = serve(script=LOAD_APP, env=ENV)
    before = resident(server)
    live = (await (await ask(server, "c", f"tokens {tokens}")).begin()).follow()
    await until(lambda: (live.frames[-1].chunk.get("delta") or "").endswith(f" {tokens // 2} "), 300)
    assert live.text == half
    joined = await (await resume(server, "c")).begin()
    assert joined.text == half
    middle, snapshot = joined.cursor, list(joined.frames)
    joined.follow()
    assert (await inside(server))["tail"] <= TAIL + MB, "what is in segments has left memory"
    await get(server, "/go")
    await live.end(300)
    await joined.end(300)
    grown = resident(server) - before
    assert live.text == whole
    assert joined.text == whole
    assert (live.over, joined.over) == (True, True)
    async with asyncio.timeout(30):
        while (await inside(server))["tail"] > TAIL:
            pass  # the last segment is being written

    late = await (await resume(server, "c", run=live.headers["strandline-run"])).end()
    assert late.text == whole
    assert text_of((await history(server, "c"))["messages"][-1]) == whole
    rest = await (await resume(server, "c", middle)).end()
    assert rest.frames == joined.frames[-len(rest.frames) :]
    assert text_in([*snapshot, *rest.frames]) == whole
    for at in range(0, len(live.frames) - 2, len(live.frames) // 10):
        if live.frames[at].cursor is not None:
            rest = await (await resume(server, "c", live.frames[at].cursor)).end()
            assert rest.frames == live.frames[at + 1 :], "what an uninterrupted reader got"

    size = sum(path.stat().st_size for path in Path(server.db).parent.glob("chat.db*"))
    record_testsuite_property(
        "long-reply",
        f"{tokens} tokens, {len(whole) / MB:.1f} MB: memory +{grown / MB:.0f} MB, on disk {size / MB:.1f} MB",
    )
    assert grown < 60 * MB + 15 * len(whole)
