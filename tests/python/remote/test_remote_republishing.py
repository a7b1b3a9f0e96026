"""``run.replace`` and ``run.restart`` of ``strandline.remote``: as in the server, whatever the network does."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from bad_proxy import FATES, BadProxy
from remote_chat import REMOTE_APP, Chat, Serve, serving

from strandline import ChunkRefused
from strandline.remote import RemoteRun
from strandline.remote.republishing import LONGEST
from strandline.saying.republishing import MOST_PARTS
from strandline.testing import FrameReader, until

PLAIN = {"type": "text", "text": "plain", "state": "done"}


def words(parts: list[Any]) -> list[str]:
    return [part["text"] for part in parts if part["type"] == "text"]


@asynccontextmanager
async def feed(chat: Chat, name: str) -> AsyncIterator[FrameReader]:
    """All that happens in a session that is there, as a device reads it."""
    reader = FrameReader()

    async def read() -> None:
        async with chat.client.stream("GET", f"/sessions/{name}/events", timeout=60) as response:
            async for data in response.aiter_bytes():
                reader.feed(data)

    reading = asyncio.create_task(read())
    await until(lambda: reader.frames)
    try:
        yield reader
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


def kinds(reader: FrameReader) -> Counter[str]:
    return Counter(frame.chunk["type"] for frame in reader.frames)


async def test_what_it_says_anew_is_said_once_whatever_the_network_does(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    done: Counter[str] = Counter()
    expected: dict[str, tuple[list[Any], int]] = {}

    async def agent(run: RemoteRun) -> None:
        chance, resets = random.Random(run.session_id), 0
        for number in range(25):
            await run.text(f"{number} ")
            if number % 6 == 5:
                await run.tool_result(await run.tool_call("look", {"n": number}), number)
            if chance.random() < 0.4:
                await asyncio.sleep(0.05)
            if chance.random() < 0.25:
                resets += 1
                content: Any = chance.choice([None, f"anew {number}. ", [PLAIN, {"type": "data-at", "data": number}]])
                await (run.restart() if content is None else run.replace(content))
        expected[run.session_id] = run.message["parts"], resets

    for seed in range(6):
        async with BadProxy(server.port, seed) as proxy, serving(proxy.port, agent), Chat(server) as chat:
            chats = [f"c{seed}-{number}" for number in range(3)]
            for name in chats:
                assert (await chat.client.post("/sessions", json={"id": name})).status_code == 201
            async with feed(chat, chats[0]) as one, feed(chat, chats[1]) as two, feed(chat, chats[2]) as three:
                for name in chats:
                    await chat.send(name)
                for name in chats:
                    parts, how = await chat.ended(name)
                    assert how["status"] == "completed"
                    assert [*map(shown, parts)] == [*map(shown, expected[name][0])]
                before = [await chat.ended(name) for name in chats]
                await proxy.emptied()
                assert [await chat.ended(name) for name in chats] == before
                for name, read in zip(chats, (one, two, three), strict=True):
                    await until(lambda read=read: kinds(read)["run-ended"])
                    assert kinds(read)["message-reset"] == expected[name][1]
        done += proxy.done
    assert sum(resets for _, resets in expected.values()) > 60
    assert set(FATES) <= set(done)


def shown(part: Any) -> Any:
    """A part without the ids that the server has made, and without what its end has closed."""
    return {name: value for name, value in part.items() if name not in ("id", "state")}


async def test_a_server_that_is_killed_right_after_it(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    steps: asyncio.Queue[str] = asyncio.Queue()
    go = asyncio.Semaphore(0)

    async def agent(run: RemoteRun) -> None:
        await run.text("a draft")
        for content in ([PLAIN], None, "last"):
            await (run.restart() if content is None else run.replace(content))
            await run.text(" more")
            steps.put_nowait(str(content))
            await go.acquire()

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        for _ in range(3):
            async with asyncio.timeout(20):
                await steps.get()
            # What it says after that is on its way.
            await asyncio.to_thread(server.kill)
            go.release()
            await asyncio.to_thread(server.start)
        parts, how = await chat.ended("c")
        assert (words(parts), how["status"]) == (["last", " more"], "completed")


async def test_what_other_tasks_say_meanwhile_comes_after_it(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    seen: list[str] = []

    async def agent(run: RemoteRun) -> None:
        await run.text("a draft")
        replacing = asyncio.create_task(run.replace("anew"))
        await asyncio.sleep(0)
        await run.text(" after")
        await replacing
        seen.extend(words(run.message["parts"]))
        left = asyncio.create_task(run.replace("once more"))
        await asyncio.sleep(0)
        left.cancel()  # it is done all the same

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        parts, how = await chat.ended("c")
        assert (words(parts), how["status"], seen) == (["once more"], "completed", ["anew", " after"])


async def test_what_cannot_be_said_is_refused_in_the_agent_which_goes_on(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    bad: list[Any] = [
        [{"type": "text"}],
        [{"type": "nothing-known", "x": 1}],
        [{"type": "text", "text": object()}],
        [PLAIN] * (MOST_PARTS + 1),
        "\ud800",
        "x" * LONGEST,
    ]

    async def agent(run: RemoteRun) -> None:
        await run.text("a draft")
        for content in bad:
            with pytest.raises(ChunkRefused):
                await run.replace(content)
        await run.text(" goes on")

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        parts, how = await chat.ended("c")
        assert (words(parts), how["status"]) == (["a draft goes on"], "completed")


async def test_a_reply_that_goes_on_begins_again_where_it_was_asked(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    seen: list[Any] = []

    async def agent(run: RemoteRun) -> None:
        if not run.decisions:
            await run.text("May I? ")
            await run.request_approval("refund", {"order": 42})
            return
        (decision,) = run.decisions
        await run.tool_result(decision.tool_call, "too early")
        await run.text("a draft")
        await run.restart()
        seen.append(run.message["parts"])
        await run.tool_result(decision.tool_call, "done")
        await run.text("Settled.")

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        wanted = await chat.pending("c")
        await chat.decide("c", wanted["id"], approved=True)
        parts, how = await chat.ended("c")
        assert (words(parts), how["status"]) == (["May I? ", "Settled."], "completed")
        assert [part.get("state") for part in seen[0][1:]] == ["done", "approval-responded"]
        (tool,) = [part for part in parts if part["type"] == "tool-refund"]
        assert tool["output"] == "done"
