"""``kill -9`` around the deletion of a session: afterwards it is there as a whole, or it is not there at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import httpx
import pytest
from crash_readers import Visitor

from replies import counted, text_of
from server_process import ServerProcess
from strandline.stores.inspect import Inspector

Serve = Callable[..., ServerProcess]


@pytest.mark.parametrize("seed", range(4))
async def test_a_kill_around_a_deletion_leaves_all_of_it_or_nothing(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)
    server = serve(env={"STRANDLINE_LOCK_WAIT": "5"})
    async with Visitor(server) as visitor, httpx.AsyncClient(timeout=30) as http:
        for chat in ("gone", "kept"):
            await visitor.ask(chat, "count to 100000 every 1 ms").until_text(5)
        url = f"{server.url}/api/sessions/gone"
        deleting = asyncio.create_task(http.delete(url))
        # Before the request has come, while its commit is on its way, or after the answer.
        await asyncio.sleep([0, chance.uniform(0.001, 0.006), 0.006, 0.5][seed])
        answered = deleting.done()
        await visitor.kill()
        await asyncio.wait({deleting})
        if not answered:
            deleting.exception()  # the connection was cut, or not even made
        await visitor.start()
        there = await http.get(url)
        assert there.status_code in (200, 404)
        if answered:
            assert deleting.result().status_code == 204
            assert there.status_code == 404
        history = await visitor.history("gone")
        if there.status_code == 200:
            counted(text_of(history["messages"][-1]))
            assert [run["status"] for run in history["runs"].values()] == ["lost"]
            assert (await http.delete(url)).status_code == 204
        assert (await visitor.history("gone"))["messages"] == []
        listed = (await http.get(f"{server.url}/api/sessions")).json()["sessions"]
        assert [each["id"] for each in listed] == ["kept"]
        counted(text_of((await visitor.history("kept"))["messages"][-1]))
        # Its name is free.
        again = visitor.ask("gone", "count to 3 every 1 ms")
        await again.end()
        assert text_of((await visitor.history("gone"))["messages"][-1]).split() == ["1", "2", "3"]


SECRET = "the word is tamarind"


@pytest.mark.parametrize("seed", range(4))
async def test_a_kill_around_the_deletion_of_a_message_leaves_all_of_it_or_nothing(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)
    server = serve(env={"STRANDLINE_LOCK_WAIT": "5"})
    async with Visitor(server) as visitor, httpx.AsyncClient(timeout=30) as http:
        url = f"{server.url}/api/sessions/c"
        parts = [{"type": "text", "text": "count to 3 every 1 ms"}, {"type": "data-note", "data": SECRET}]
        said = {"message": {"id": "u1", "role": "user", "parts": parts}}
        assert (await http.post(f"{url}/messages", json=said)).status_code == 202
        await visitor.ask("c", "count to 100000 every 1 ms", id="u2").until_text(5)
        reply = (await visitor.history("c"))["activeRun"]["messageId"]
        wishes = [
            asyncio.create_task(http.delete(f"{url}/messages/u1")),
            asyncio.create_task(http.delete(f"{url}/messages/{reply}")),
        ]
        # Before the requests have come, while their commits are on their way, or after the answers.
        await asyncio.sleep([0, chance.uniform(0.001, 0.006), 0.006, 0.5][seed])
        answered = [wish.done() for wish in wishes]
        await visitor.kill()
        await asyncio.wait(wishes)
        for wish, was_answered in zip(wishes, answered, strict=True):
            if not was_answered:
                wish.exception()  # the connection was cut, or not even made
        for start in range(2):
            await visitor.start()
            there = {message["id"]: message for message in (await visitor.history("c"))["messages"]}
            for id, wish, was_answered in zip(("u1", reply), wishes, answered, strict=True):
                if was_answered:
                    assert wish.result().status_code == 204
                    assert id not in there
            if reply in there:
                counted(text_of(there[reply]))
            if "u1" not in there:
                feed = (await http.get(url)).text
                with Inspector(server.db) as inspector:
                    log = [line for _, line in inspector.events("c")]
                assert SECRET not in feed
                assert not any(SECRET.encode() in line for line in log)
            if start == 0:
                # Whatever has happened to the first wish, the second one is granted.
                assert (await http.delete(f"{url}/messages/u1")).status_code == 204
                assert (await http.delete(f"{url}/messages/{reply}")).status_code == 204
                answered = [True, True]
                wishes = [asyncio.create_task(http.delete(f"{url}/messages/{id}")) for id in ("u1", reply)]
                await asyncio.wait(wishes)
                await visitor.kill()
