"""An agent that blocks the event loop: it is named in the log, and nobody else pays for it with more than the wait."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable

from wires import LOAD_APP, Wire, ask, flood, get, resume

from replies import numbers
from server_process import ServerProcess
from strandline.testing import until

Serve = Callable[..., ServerProcess]
Scale = Callable[[int, int], int]

ENV = {"STRANDLINE_SEND_TIMEOUT": "2", "STRANDLINE_HEARTBEAT": "0.2"}


async def in_a_write(server: ServerProcess, lines: int) -> Wire:
    """A reader of a finished reply whose server waits for it to read."""
    await get(server, "/go")
    run = (await (await ask(server, "c", f"flood {lines}")).end()).headers["strandline-run"]
    wire = await resume(server, "c", run=run, room=65_536)
    await wire.take(100)
    return wire


async def test_an_agent_that_blocks_is_named_and_the_others_go_on(serve: Serve, scale: Scale) -> None:
    seconds, lines = scale(3, 20), 600
    server = serve(script=LOAD_APP, env=ENV)
    idle = (await (await ask(server, "idle", "hold 2")).begin()).follow()
    counting = (await (await ask(server, "counts", "count to 300 every 10 ms")).begin()).follow()
    reader = await in_a_write(server, lines)
    blocking = await (await ask(server, "blocks", f"block {seconds}")).begin()
    run = blocking.headers["strandline-run"]
    await asyncio.sleep(1)
    reader.follow()  # reads while everything stands still
    assert (await blocking.end()).text == numbers(2)
    assert (await counting.end()).text == numbers(300)
    await reader.end()
    assert (reader.over, reader.text == flood(lines)) == (True, True), server.said()
    beats = len(idle.comments)
    await until(lambda: len(idle.comments) > beats + 1, 30)

    # In a task that the agent has begun itself, it is the line that names it.
    assert (await (await ask(server, "spins", f"spin {seconds}")).end()).text == numbers(2)
    # Each is blamed once, and no longer than it took; a machine that is busy may make the loop stand still besides.
    spinning = re.compile(r"because of (\S+?)\. Something.*(?:\n .*)*in spinning")
    await until(lambda: spinning.search(server.said()))
    (spinner,) = spinning.findall(server.said())
    for culprit in (f"run {run} of session blocks", spinner):
        went_on = re.compile(rf"it stood still for ([\d.]+) s, in {re.escape(culprit)}$", re.MULTILINE)
        await until(lambda went_on=went_on: went_on.search(server.said()))
        (stood,) = went_on.findall(server.said())
        assert seconds <= float(stood) < seconds + 5
        assert server.said().count(f"because of {culprit}.") == 1
    log = server.said()
    assert "time.sleep(float(many))" in log
    assert "reader-dropped" not in log
    assert not (idle.over or idle.cut)
    idle.close()


async def test_a_process_that_was_stopped_blames_no_agent_and_drops_no_reader(serve: Serve, scale: Scale) -> None:
    """A machine that was asleep, a container that was frozen: everything stands still, and goes on."""
    seconds, lines = scale(3, 20), 600
    server = serve(script=LOAD_APP, env=ENV)
    reader = await in_a_write(server, lines)
    counting = (await (await ask(server, "counts", "count to 100 every 10 ms")).begin()).follow()
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    server.process.send_signal(signal.SIGCONT)
    reader.follow()
    assert (await counting.end()).text == numbers(100)
    await reader.end()
    assert (reader.over, reader.text == flood(lines)) == (True, True)
    assert (await (await ask(server, "d", "count to 100 every 10 ms")).end()).text == numbers(100)
    assert "loop-" not in server.said()
    assert "reader-dropped" not in server.said()
