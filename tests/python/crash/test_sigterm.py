"""SIGTERM and SIGINT under plain uvicorn: what is short finishes, what is long ends as lost, everybody is told, and the
process is gone within its grace (DESIGN §7, §14.6). And the lock: one process per file, the next one waits its turn."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from crash_readers import Visitor

from replies import SHIM, asking, counted, numbers, text_of
from server_process import ServerProcess
from strandline.testing import until

Serve = Callable[..., ServerProcess]

GRACE = 1.0
ENV = {"STRANDLINE_SHUTDOWN_GRACE": str(GRACE), "STRANDLINE_LOCK_WAIT": "0"}


def send(server: ServerProcess, number: signal.Signals) -> float:
    assert server.process is not None
    server.process.send_signal(number)
    return time.monotonic()


async def gone(server: ServerProcess, began: float, within: float) -> int:
    """The exit code; the process has to end by itself, and in time."""
    process = server.process
    assert process is not None
    await until(lambda: process.poll() is not None, within - (time.monotonic() - began))
    return int(process.returncode)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_an_exit_signal_under_load_loses_nothing_and_ends_in_time(serve: Serve, number: signal.Signals) -> None:
    server = serve(env=ENV)
    async with Visitor(server) as visitor:
        await visitor.ask("idle", "count to 2 every 0 ms").end()
        idle = [visitor.watch("idle") for _ in range(3)]
        long = {f"long{i}": visitor.ask(f"long{i}", "count to 100000 every 5 ms") for i in range(10)}
        for reading in long.values():
            await reading.until_text(3)
        shims = {chat: visitor.resume(chat, headers=SHIM) for chat in long}
        feed = visitor.watch("long0")
        for reading in shims.values():
            await reading.until_text(3)
        short = {f"short{i}": visitor.ask(f"short{i}", "count to 30 every 10 ms") for i in range(5)}
        for reading in short.values():
            await reading.until_text(1)
        await until(lambda: all(reading.frames for reading in (feed, *idle)))
        began = send(server, number)
        code = await gone(server, began, GRACE + 2)
        assert code in (0, -number), server.said()
        assert "Traceback" not in server.said()
        for reading in (*long.values(), *shims.values(), *short.values(), feed, *idle):
            await reading.end()
            assert not reading.cut, "a response was torn off"
        for reading in short.values():
            assert reading.text == numbers(30)
            assert [frame.chunk.get("type", "[DONE]") for frame in reading.frames[-2:]] == ["finish", "[DONE]"]
        for reading in (*long.values(), *shims.values()):
            terminal, done = reading.frames[-2:]
            assert (terminal.chunk["type"], terminal.chunk["code"]) == ("error", "lost")
            assert terminal.cursor
            assert done.done
        assert next(frame for frame in reversed(feed.frames) if frame.cursor).chunk["type"] == "run-ended"

        await visitor.start()  # at once: the lock is free
        for chat in short:
            history = await visitor.history(chat)
            assert text_of(history["messages"][1]) == numbers(30)
            assert [run["status"] for run in history["runs"].values()] == ["completed"]
        for chat, reading in long.items():
            history = await visitor.history(chat)
            [run] = history["runs"].values()
            assert (run["status"], run["reason"]) == ("lost", "shutdown")
            assert text_of(history["messages"][1]) == reading.text == shims[chat].text
            assert counted(reading.text) > GRACE / 0.005 / 10, "it was given its grace"
            assert (await visitor.resume(chat, reading.cursor).end()).status == 204
            assert (await visitor.resume(chat).end()).status == 204
        again = await visitor.ask("long0", "count to 2 every 0 ms", "u2").end()
        assert again.text == numbers(2)


async def test_with_nothing_to_wait_for_the_grace_is_not_waited_for(serve: Serve) -> None:
    server = serve(env={**ENV, "STRANDLINE_SHUTDOWN_GRACE": "30"})
    async with Visitor(server) as visitor:
        await visitor.ask("c", "count to 2 every 0 ms").end()
        readers = [visitor.watch("c") for _ in range(5)]
        await until(lambda: all(reading.frames for reading in readers))
        running = await visitor.ask("d", "count to 20 every 10 ms").until_text(1)
        await gone(server, send(server, signal.SIGTERM), 4)
        for reading in (*readers, running):
            await reading.end()
            assert not reading.cut
        assert running.text == numbers(20)


async def test_a_message_during_the_drain_is_refused_with_what_to_do(serve: Serve) -> None:
    """On connections that were open before the signal, until uvicorn closes those (0.1 s)."""
    server = serve(env=ENV)
    async with Visitor(server) as visitor:
        await visitor.ask("c", "count to 2 every 0 ms").end()
        reading = await visitor.ask("long", "count to 100000 every 5 ms").until_text(2)
        async with httpx.AsyncClient(base_url=server.url, timeout=10) as kept:
            assert (await kept.get("/api/readyz")).status_code == 200
            began = send(server, signal.SIGTERM)
            answers: list[httpx.Response] = []
            while time.monotonic() - began < 2:
                try:
                    answers.append(await kept.post("/api/chat", json=asking("c", "count to 9 every 0 ms", "late")))
                except httpx.TransportError:
                    break
        refused = [answer for answer in answers if answer.status_code == 503]
        for answer in refused:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "shutting-down"
            assert int(answer.headers["retry-after"]) >= 1
        # The first may have overtaken the signal; nothing is taken any more once one was refused.
        first = next((index for index, answer in enumerate(answers) if answer.status_code == 503), len(answers))
        assert refused, "no request came in time, or every one was taken"
        assert all(answer.status_code == 503 for answer in answers[first:])
        await gone(server, began, GRACE + 2)
        await reading.end()
        await visitor.start()
        history = await visitor.history("c")
        taken = any(answer.status_code == 200 for answer in answers)
        assert [message["id"] for message in history["messages"]].count("late") == taken


async def test_an_agent_in_a_thread_that_sleeps_on_does_not_keep_the_process(serve: Serve) -> None:
    server = serve(app="threads", env=ENV)
    async with Visitor(server) as visitor:
        sleeping = visitor.ask("sleeps", "sleep")
        counting = await visitor.ask("counts", "count").until_text(5)
        await until(lambda: sleeping.frames)
        await gone(server, send(server, signal.SIGTERM), GRACE + 2)
        for reading in (sleeping, counting):
            await reading.end()
            assert reading.frames[-2].chunk["code"] == "lost"
        await visitor.start()
        text = text_of((await visitor.history("counts"))["messages"][1])
        assert text == counting.text
        counted(text)


async def test_a_second_interrupt_ends_the_process_at_once_and_loses_nothing(serve: Serve) -> None:
    server = serve(env={**ENV, "STRANDLINE_SHUTDOWN_GRACE": "30"})
    async with Visitor(server) as visitor:
        reading = await visitor.ask("c", "count to 100000 every 5 ms").until_text(5)
        send(server, signal.SIGINT)
        await reading.until_text(30)
        await gone(server, send(server, signal.SIGINT), 4)
        await reading.end()
        await visitor.start()
        history = await visitor.history("c")
        [run] = history["runs"].values()
        assert run["status"] == "lost"
        assert text_of(history["messages"][1]).startswith(reading.text)
        counted(text_of(history["messages"][1]))


async def test_a_second_process_on_the_file_is_told_what_to_do_and_changes_nothing(serve: Serve) -> None:
    server = serve(env=ENV)
    async with Visitor(server) as visitor:
        reading = await visitor.ask("c", "count to 100000 every 5 ms").until_text(3)
        second = serve(env=ENV, wait=False)
        assert second.process is not None
        assert await asyncio.to_thread(second.process.wait, 10) not in (0, None)
        assert server.process is not None
        assert f"is in use by process {server.process.pid}" in second.said()
        assert "run one worker" in second.said()
        shown = len(reading.text)
        await until(lambda: len(reading.text) > shown)
        assert (await visitor.history("c"))["activeRun"]["status"] == "running"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_a_successor_waits_for_the_lock_and_takes_over(serve: Serve, tmp_path: Path, how: signal.Signals) -> None:
    """As with ``--reload``, or a rolling restart on one host."""
    first = serve(env=ENV)
    async with Visitor(first) as visitor:
        reading = await visitor.ask("c", "count to 100000 every 5 ms").until_text(3)
        second = serve(env={**ENV, "STRANDLINE_LOCK_WAIT": "20"}, wait=False)
        await until(lambda: "Waiting for application startup" in second.said())
        assert second.process is not None
        assert second.process.poll() is None
        await gone(first, send(first, how), GRACE + 2)
        await asyncio.to_thread(second.wait_ready)
        await reading.end()
    async with Visitor(second) as visitor:
        history = await visitor.history("c")
        [run] = history["runs"].values()
        assert (run["status"], run["reason"]) == (
            "lost",
            "shutdown" if how == signal.SIGTERM else "process-lost",
        )
        assert text_of(history["messages"][1]).startswith(reading.text)
        if how == signal.SIGKILL:
            rest = await visitor.go_on(reading).end()
            assert rest.text == text_of(history["messages"][1])
