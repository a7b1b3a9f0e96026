"""``strandline.remote`` against a real server, over a network that does its worst (PROTOCOL §18)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bad_proxy import FATES, BadProxy
from remote_chat import REMOTE_APP, Chat, Serve, serving

from strandline import PublicError
from strandline.remote import Refused, RemoteRun, serve_agent
from strandline.testing import fold_frames, until


def words(seed: int) -> list[str]:
    chance = random.Random(seed)
    return [f"{number}{chance.choice(['', 'é', '😀', 'x' * 50])} " for number in range(60)]


async def rich(run: RemoteRun) -> None:
    """Everything that a reply can hold."""
    for word in words(1)[:5]:
        await run.reasoning(word)
    for word in words(1)[:10]:
        await run.text(word)
    call = await run.tool_call("look", {"at": 1})
    await run.tool_result(call, {"seen": [1, 2]})
    wrong = await run.tool_call("look", {"at": 2})
    await run.tool_result(wrong, error="too dark")
    await run.text("after")
    await run.data("chart", {"x": 1}, id="c")
    await run.data("chart", {"x": 2}, id="c")
    await run.data("blink", 1, transient=True)
    await run.source("https://example.com", "Example")
    await run.file("https://example.com/a.png", "image/png")
    await run.metadata({"model": "m"})
    run.usage(tokens=3)
    run.finish("length")


def shape(parts: list[Any]) -> list[Any]:
    return [part.get("text") or part["type"] for part in parts]


RICH = [
    "step-start", "".join(words(1)[:5]), "".join(words(1)[:10]), "tool-look", "step-start", "tool-look",
    "step-start", "after", "data-chart", "source-url", "file",
]  # fmt: skip


async def test_a_remote_agent_says_what_a_local_one_can_and_stock_readers_see_a_normal_stream(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    async with serving(server.port, rich), Chat(server) as chat:
        frames = await chat.ask("c")
        parts, how = await chat.ended("c")
        assert how["status"] == "completed"
        assert shape(parts) == RICH
        assert parts[8]["data"] == {"x": 2}
        assert fold_frames(frames).parts() == parts
        assert [frames[0].chunk["type"], frames[-2].chunk["type"], frames[-1].done] == ["start", "finish", True]
        assert frames[-2].chunk["finishReason"] == "length"
        assert "data-blink" in [frame.chunk.get("type") for frame in frames]


async def test_generators_chunks_and_what_the_agent_is_told(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    seen: list[Any] = []

    async def agent(run: RemoteRun) -> AsyncIterator[Any]:
        seen.append((run.user, run.prompt(), run.messages[0]["parts"], run.partial, run.cancelled))
        yield {"type": "start", "messageMetadata": {"from": "start"}}
        yield {"type": "start-step"}
        for part in ("0", "0"):  # an id that is used again, as some providers do
            yield {"type": "text-start", "id": part}
            yield {"type": "text-delta", "id": part, "delta": "twice "}
            yield {"type": "text-end", "id": part}
        yield {"type": "finish-step"}
        yield {"type": "finish", "finishReason": "content-filter"}

    async with serving(server.port, agent), Chat(server) as chat:
        frames = await chat.ask("c", "what?")
        assert shape((await chat.ended("c"))[0]) == ["step-start", "twice ", "twice "]
        assert frames[-2].chunk["finishReason"] == "content-filter"
        assert seen == [
            ("ann", [{"role": "user", "content": "what?"}], [{"type": "text", "text": "what?"}], None, False)
        ]


@pytest.mark.parametrize(
    ("error", "shown"), [(PublicError("Out of credit."), "Out of credit."), (OSError("secret"), "")]
)
async def test_an_agent_that_raises_fails_its_run(serve: Serve, error: Exception, shown: str) -> None:
    server = serve(script=REMOTE_APP)

    async def agent(run: RemoteRun) -> None:
        await run.text("so far")
        raise error

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        parts, how = await chat.ended("c")
        assert shape(parts) == ["step-start", "so far"]
        assert (how["status"], how["reason"]) == ("failed", "agent-error")
        assert how["error"] == (shown or "The reply failed. Please try again.")


async def test_a_stop_from_a_browser_ends_the_agent_at_once(serve: Serve) -> None:
    server = serve(script=REMOTE_APP, env={"LEASE": "3600"})  # a heartbeat would take twenty minutes
    cancelled = asyncio.Event()

    async def agent(run: RemoteRun) -> None:
        try:
            await run.text("begun")
            await asyncio.Event().wait()
        finally:
            assert run.cancelled
            cancelled.set()

    async with serving(server.port, agent), Chat(server) as chat:
        asking = asyncio.create_task(chat.ask("c"))
        await until(lambda: any(frame.chunk.get("delta") for frame in chat.frames))
        assert (await chat.client.post("/chat/c/stop", json={})).json()["stopped"] is True
        async with asyncio.timeout(10):
            await cancelled.wait()
        await asking
        assert (await chat.ended("c"))[1]["status"] == "stopped"


async def test_the_message_is_right_whatever_the_network_does(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    done: Counter[str] = Counter()

    async def agent(run: RemoteRun) -> None:
        for number, word in enumerate(words(run.body["seed"])):
            await run.text(word)
            if number % 3 == 0:
                await asyncio.sleep(0.01)
            if number % 20 == 10:
                await run.tool_result(await run.tool_call("look", {"n": number}), number)

    for seed in range(8):
        async with BadProxy(server.port, seed) as proxy, serving(proxy.port, agent), Chat(server) as chat:
            chats = [f"c{seed}-{number}" for number in range(4)]
            for name in chats:
                await chat.send(name, seed=seed)
            for name in chats:
                parts, how = await chat.ended(name)
                assert how["status"] == "completed"
                said = "".join(part["text"] for part in parts if part["type"] == "text")
                assert said == "".join(words(seed))
                assert [part["output"] for part in parts if part["type"] == "tool-look"] == [10, 30, 50]
            before = [await chat.ended(name) for name in chats]
            await proxy.emptied()
            assert [await chat.ended(name) for name in chats] == before
        done += proxy.done
    assert set(FATES) <= set(done)


async def test_a_server_that_is_restarted_in_the_middle_costs_nothing(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    said = [f"{number} " for number in range(120)]
    halfway = asyncio.Event()

    async def agent(run: RemoteRun) -> None:
        for number, word in enumerate(said):
            await run.text(word)
            await asyncio.sleep(0.01)
            if number == 40:
                halfway.set()

    async with serving(server.port, agent), Chat(server) as chat:
        chats = ["c0", "c1", "c2"]
        for name in chats:
            await chat.send(name)
        await halfway.wait()
        for end in (server.kill, server.terminate, server.kill):
            await asyncio.to_thread(end)
            await asyncio.to_thread(server.start)
        for name in chats:
            parts, how = await chat.ended(name)
            assert how["status"] == "completed"
            assert shape(parts) == ["step-start", "".join(said)]


async def test_a_worker_that_dies_leaves_a_lost_run_within_its_lease(serve: Serve) -> None:
    server = serve(script=REMOTE_APP, env={"LEASE": "1"})
    begun = asyncio.Event()

    async def agent(run: RemoteRun) -> None:
        await run.text("so far")
        begun.set()
        await asyncio.Event().wait()

    async with Chat(server) as chat:
        async with BadProxy(server.port, 0, badness=0) as proxy, serving(proxy.port, agent):
            await chat.send("c")
            await begun.wait()
            # As many as take longer than the lease lasts.
            await until(lambda: sum("heartbeat" in path for path, _ in proxy.posts) >= 5)
            assert await chat.reply("c") is None
        parts, how = await chat.ended("c")
        assert (shape(parts), how["status"], how["reason"]) == (["step-start", "so far"], "lost", "lease-expired")


async def test_a_worker_that_comes_back_under_its_name_goes_on(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    begun = asyncio.Event()

    async def first(run: RemoteRun) -> None:
        await run.text("one ")
        begun.set()
        await asyncio.Event().wait()

    async def second(run: RemoteRun) -> None:
        assert run.partial is not None
        await run.text(f"two, after {run.partial['parts'][-1]['text']}")

    async with Chat(server) as chat:
        async with serving(server.port, first, holder="pod-7"):
            asking = asyncio.create_task(chat.ask("c"))
            await begun.wait()
            await until(lambda: any(frame.chunk.get("delta") for frame in chat.frames))
        async with serving(server.port, second, holder="pod-7"):
            parts, how = await chat.ended("c")
            assert (shape(parts)[1::2], how["status"]) == (["one ", "two, after one "], "completed")
            assert fold_frames(await asking).parts() == parts


async def test_a_zombie_is_refused_and_its_agent_cancelled(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def zombie(run: RemoteRun) -> None:
        try:
            while True:
                await run.text("zombie ")
                begun.set()
                await asyncio.sleep(0.005)
        finally:
            cancelled.set()

    async def newer(run: RemoteRun) -> None:
        async with asyncio.timeout(20):
            await cancelled.wait()  # it has tried to write meanwhile, and learned that it may not
        await run.text("newer")

    async with Chat(server) as chat, serving(server.port, zombie, holder="twin"):
        await chat.send("c")
        await begun.wait()
        await chat.shows("c", "zombie")
        async with serving(server.port, newer, holder="twin"):
            parts, how = await chat.ended("c")
    assert how["status"] == "completed"
    first, last = (part["text"] for part in parts if part["type"] == "text")
    assert first == "zombie " * (len(first) // 7)
    assert last == "newer"


async def test_a_server_that_does_not_come_back_costs_the_agent_its_run(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def agent(run: RemoteRun) -> None:
        try:
            while True:
                await run.text("word ")
                begun.set()
                await asyncio.sleep(0.01)
        finally:
            cancelled.set()

    async with Chat(server) as chat, serving(server.port, agent, patience=0.3) as task:
        await chat.send("c")
        await begun.wait()
        await asyncio.to_thread(server.kill)
        async with asyncio.timeout(20):
            await cancelled.wait()
        assert not task.done()  # it still listens


async def test_more_than_the_server_takes_at_once_arrives_whole(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    line = "é" * 9_999 + "\n"

    async def agent(run: RemoteRun) -> None:
        await run.text(line * 60)
        for number in range(3000):
            await run.data("tick", number, id=f"{number % 2}")
        for _ in range(60):
            await run.text(line)

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        parts, how = await chat.ended("c")
        assert how["status"] == "completed"
        texts = [part["text"] for part in parts if part["type"] == "text"]
        assert texts == [line * 60, line * 60]
        assert [part["data"] for part in parts if part["type"] == "data-tick"] == [2998, 2999]


async def test_a_worker_that_may_not_is_told_so(serve: Serve, tmp_path: Path) -> None:
    server = serve(script=REMOTE_APP)

    async def agent(run: RemoteRun) -> None: ...

    with pytest.raises(Refused, match="403"):
        await serve_agent(f"{server.url}/api/agents", "far", agent, headers={"x-agent": "near"})
    with pytest.raises(Refused, match="404"):
        await serve_agent(f"{server.url}/api/agents", "near", agent, headers={"x-agent": "near"})
