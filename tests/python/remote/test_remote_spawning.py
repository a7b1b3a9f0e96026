"""``run.spawn`` of ``strandline.remote``: agents beside a remote one, each once, whatever the network does."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from bad_proxy import FATES, BadProxy
from remote_chat import REMOTE_APP, Chat, Serve, serving

from strandline.errors import TooMany
from strandline.remote import Refused, RemoteRun
from strandline.runtime.spawning import MOST_BESIDE


async def beside(chat: Chat, name: str) -> list[tuple[str, str]]:
    """What was spawned: the run, and what it says."""
    found = (await chat.client.get(f"/sessions/{name}")).json()["spawned"]
    return [(each["run"], said(each["message"]["parts"])) for each in found]


def said(parts: list[Any]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text")


async def test_each_is_there_once_whatever_the_network_does(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    done: Counter[str] = Counter()
    expected: dict[str, list[tuple[str, str]]] = {}

    async def agent(run: RemoteRun) -> None:
        if "echo" in run.body:
            await run.text(f"{run.prompt()[-1]['content']}!")
            return
        mine = expected.setdefault(run.session_id, [])
        for number in range(4):
            await run.text(f"{number} ")
            spawned = await run.spawn("far" if number % 2 else "echo", prompt=f"say {number}", echo=True)
            mine.append((spawned.id, f"say {number}!"))
            assert [each.id for each in run.spawned] == [each for each, _ in mine]
            await run.text(f"({number}) ")

    for seed in range(5):
        async with BadProxy(server.port, seed) as proxy, serving(proxy.port, agent), Chat(server) as chat:
            chats = [f"c{seed}-{number}" for number in range(3)]
            for name in chats:
                await chat.send(name)
            for name in chats:
                parts, how = await chat.ended(name)
                assert (said(parts), how["status"]) == ("0 (0) 1 (1) 2 (2) 3 (3) ", "completed")
                await chat.shows(name, "say 3!")
            await proxy.emptied()
            for name in chats:
                for _ in range(1000):
                    if await beside(chat, name) == expected[name]:
                        break
                    await asyncio.sleep(0.02)
                assert await beside(chat, name) == expected[name]
        done += proxy.done
    assert set(FATES) <= set(done)


async def test_a_server_that_is_killed_right_after_it(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    spawned: asyncio.Queue[str] = asyncio.Queue()
    go = asyncio.Event()

    async def agent(run: RemoteRun) -> None:
        if "echo" in run.body:
            await run.text("begun ")
            await go.wait()
            await run.text(f"{run.prompt()[-1]['content']}!")
            return
        spawned.put_nowait((await run.spawn("far", prompt="one", echo=True)).id)
        await go.wait()
        spawned.put_nowait((await run.spawn("far", prompt="two", echo=True)).id)
        await run.text("done")

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        async with asyncio.timeout(20):
            first = await spawned.get()
        await asyncio.to_thread(server.kill)
        go.set()
        await asyncio.to_thread(server.start)
        parts, how = await chat.ended("c")
        assert (said(parts), how["status"]) == ("done", "completed")
        await chat.shows("c", "one!")
        await chat.shows("c", "two!")
        assert await beside(chat, "c") == [(first, "begun one!"), (spawned.get_nowait(), "begun two!")]


async def test_what_cannot_be_spawned_is_refused_in_the_agent_which_goes_on(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)

    async def agent(run: RemoteRun) -> None:
        if "wait" in run.body:
            await asyncio.Event().wait()
        with pytest.raises(Refused) as refused:
            await run.spawn("nobody")
        assert refused.value.code == "unknown-agent"
        with pytest.raises(Refused) as refused:
            await run.spawn("echo", prompt="x" * 2_000_000)
        assert refused.value.code == "prompt-too-long"
        with pytest.raises(TypeError):
            await run.spawn("echo", thing=object())
        for _ in range(MOST_BESIDE):
            await run.spawn("far", wait=True)
        with pytest.raises(TooMany):
            await run.spawn("far", wait=True)
        await run.text("goes on")

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        parts, how = await chat.ended("c")
        assert (said(parts), how["status"]) == ("goes on", "completed")
        assert len(await beside(chat, "c")) == MOST_BESIDE
