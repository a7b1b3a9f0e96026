"""Notes and decisions with ``strandline.remote``: over a network that does its worst, and when workers are killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from bad_proxy import FATES, BadProxy
from remote_chat import REMOTE_APP, Chat, Serve, serving

from server_process import APP
from strandline.remote import RemoteRun

WORKER = APP.with_name("remote_worker.py")


def taken(parts: list[Any]) -> list[str]:
    return [part["id"] for part in parts if part["type"] == "steering-message"]


def tool(parts: list[Any]) -> Any:
    (found,) = [part for part in parts if part["type"] == "tool-refund"]
    return found


# ---------------------------------------------------------------------- notes


async def test_an_agent_hears_of_a_note_at_once_and_goes_on_after_it(serve: Serve) -> None:
    server = serve(script=REMOTE_APP, env={"LEASE": "3600"})  # a heartbeat would take twenty minutes
    seen: list[Any] = []

    async def agent(run: RemoteRun) -> None:
        await run.text("before ")
        async for note in run.steering():
            seen.append((note.id, note.text, note.by, note.device, await run.take_steering()))
            await run.text("after")
            return

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        await chat.shows("c", "before ")
        assert await chat.steer("c", "n1") == 202
        parts, how = await chat.ended("c")
        assert (how["status"], seen) == ("completed", [("n1", "shorter", "user:ann", None, [])])
        assert [part.get("text") or part.get("id") for part in parts] == [None, "before ", "n1", "after"]
        assert await chat.users("c") == ["u-c"]


async def test_a_note_is_taken_once_or_is_a_message_whatever_the_network_does(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    done: Counter[str] = Counter()
    seen: dict[str, list[str]] = {}

    async def loop(run: RemoteRun) -> None:
        async for note in run.steering():
            seen[run.session_id].append(note.id)
            await run.text(f"({note.id})")

    async def agent(run: RemoteRun) -> None:
        seen.setdefault(run.session_id, [])
        listening = asyncio.create_task(loop(run)) if run.body.get("loop") else None
        for number in range(40):
            await run.text(f"{number} ")
            await asyncio.sleep(0.01)
            for note in [] if listening is not None else await run.take_steering():
                seen[run.session_id].append(note.id)
                await run.text(f"({note.id})")
        if listening is not None:
            listening.cancel()

    for seed in range(5):
        async with BadProxy(server.port, seed) as proxy, serving(proxy.port, agent), Chat(server) as chat:
            chats = [f"c{seed}-{number}" for number in range(4)]
            for number, name in enumerate(chats):
                await chat.send(name, loop=number % 2 == 1)
            told = {name: [f"n{number}" for number in range(6)] for name in chats}
            for number in range(6):
                for name in chats:
                    assert await chat.steer(name, f"n{number}") in (202, 409)
                await asyncio.sleep(0.05)
            for name in chats:
                await chat.ended(name)
            await proxy.emptied()
            for name in chats:
                await chat.ended(name)
                messages = await chat.messages(name)
                parts = [part for message in messages if message["role"] == "assistant" for part in message["parts"]]
                became = [each for each in await chat.users(name) if each != f"u-{name}"]
                assert seen[name] == [each for each in told[name] if each in seen[name]], "in order, and once"
                assert taken(parts) == seen[name] + [each for each in taken(parts) if each not in seen[name]]
                assert len({*taken(parts), *became}) == len(taken(parts)) + len(became), "taken, and a message as well"
                said = "".join(part["text"] for part in parts if part["type"] == "text")
                numbers = said
                for note in seen[name]:
                    assert said.count(f"({note})") <= 1
                    numbers = numbers.replace(f"({note})", "")
                runs = sum(message["role"] == "assistant" for message in messages)
                assert numbers == "".join(f"{number} " for number in range(40)) * runs
        done += proxy.done
    assert set(FATES) <= set(done)
    assert sum(map(len, seen.values())) > 60


async def test_notes_over_a_server_that_is_killed(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    seen: list[str] = []

    async def agent(run: RemoteRun) -> None:
        await run.text("begun ")
        async for note in run.steering():
            seen.append(note.id)
            await run.text(f"({note.id})")
            if note.id == "n3":
                return

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        await chat.shows("c", "begun ")
        for number in range(4):
            assert await chat.steer("c", f"n{number}") == 202
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        parts, how = await chat.ended("c")
        assert how["status"] == "completed"
        assert seen == taken(parts) == ["n0", "n1", "n2", "n3"]
        assert "".join(part.get("text", "") for part in parts) == "begun (n0)(n1)(n2)(n3)"


async def test_a_task_that_is_cancelled_while_it_takes_loses_no_note(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    seen: list[str] = []

    async def agent(run: RemoteRun) -> None:
        await run.text("begun ")
        await run._outbox.told()
        taking = asyncio.create_task(run.take_steering())
        await asyncio.sleep(0)
        taking.cancel()
        await run.text("said meanwhile")
        seen.extend(note.id for note in await run.take_steering())

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("c")
        await chat.shows("c", "begun ")
        await chat.steer("c", "n1")
        parts, _ = await chat.ended("c")
        assert (seen, taken(parts)) == (["n1"], ["n1"])
        assert [part.get("text") or part.get("id") for part in parts] == [None, "begun ", "n1", "said meanwhile"]


# ---------------------------------------------------------------------- decisions


async def asking(run: RemoteRun) -> AsyncIterator[Any]:
    """What the tests of decisions have in common."""
    if not run.decisions:
        yield "May I? "
        await run.request_approval("refund", {"order": 42}, reason="It costs.")
        return
    for decision in run.decisions:
        assert run.decided(decision.tool_call) == decision
        assert (decision.kind, decision.tool, decision.input) == ("approval", "refund", {"order": 42})
        if decision.approved:
            await run.tool_result(decision.tool_call, f"by {decision.decided_by}")
        yield decision.outcome


async def test_a_decision_is_seen_once_whatever_the_network_does(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    done: Counter[str] = Counter()
    seen: Counter[str] = Counter()

    async def agent(run: RemoteRun) -> AsyncIterator[Any]:
        seen.update(f"{run.session_id} {decision.outcome}" for decision in run.decisions)
        async for each in asking(run):
            yield each

    expected: dict[str, int] = {}
    for seed in range(4):
        async with BadProxy(server.port, seed) as proxy, serving(proxy.port, agent), Chat(server) as chat:
            chats = [f"c{seed}-{number}" for number in range(4)]
            for name in chats:
                await chat.send(name)
            for number, name in enumerate(chats):
                wanted = await chat.pending(name)
                await chat.decide(name, wanted["id"], approved=number % 2 == 0)
            for number, name in enumerate(chats):
                parts, how = await chat.ended(name)
                outcome = "approved" if number % 2 == 0 else "denied"
                expected[f"{name} {outcome}"] = 1
                assert (how["status"], parts[-1]["text"]) == ("completed", outcome)
                assert tool(parts)["state"] == ("output-available" if number % 2 == 0 else "output-denied")
            before = [await chat.ended(name) for name in chats]
            await proxy.emptied()
            assert [await chat.ended(name) for name in chats] == before
        done += proxy.done
    assert seen == expected
    assert set(FATES) <= set(done)


async def test_a_tool_of_the_client_and_one_of_a_librarys_stream(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)

    async def agent(run: RemoteRun) -> AsyncIterator[Any]:
        if run.decisions:
            yield f"{[(each.tool_call, each.outcome, each.output) for each in run.decisions]}"
            return
        run.client_tools("locate", roles=["nobody"], expires_in=3600)
        run.approvals("pay", roles=["boss"], expires_in=60)
        if run.body["own"]:
            await run.call_client_tool("refund", {}, id="own")
            return
        yield {"type": "tool-input-start", "toolCallId": "lib", "toolName": "locate"}
        yield {"type": "tool-input-available", "toolCallId": "lib", "toolName": "locate", "input": {}}
        if run.body.get("pays"):
            yield {"type": "tool-output-available", "toolCallId": "lib", "output": 1}
            yield {"type": "tool-input-available", "toolCallId": "c1", "toolName": "pay", "input": {}}
            yield {"type": "tool-approval-request", "approvalId": "a1", "toolCallId": "c1"}

    async with serving(server.port, agent), Chat(server) as chat:
        await chat.send("own", own=True)
        await chat.send("library", own=False)
        wanted = await chat.pending("library")
        assert (wanted["id"], wanted["roles"]) == ("lib", ["nobody"])
        assert 3_590_000 < wanted["expiresAt"] - wanted["createdAt"] <= 3_601_000
        await chat.send("paid", own=False, pays=True)
        wanted = await chat.pending("paid")
        assert (wanted["id"], wanted["roles"]) == ("a1", ["boss"])
        assert 50_000 < wanted["expiresAt"] - wanted["createdAt"] <= 61_000
        assert (await chat.pending("own"))["id"] == "own"
        await chat.decide("own", "own", output={"at": 7})
        parts, _ = await chat.ended("own")
        assert parts[-1]["text"] == "[('own', 'output', {'at': 7})]"


# ---------------------------------------------------------------------- kill -9


@contextmanager
def worker(port: int) -> Iterator[Any]:
    """A worker in a process of its own, which is killed in the end."""
    url = f"http://127.0.0.1:{port}/api/agents"
    process = subprocess.Popen([sys.executable, WORKER, url, "pod-7"], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def line(process: Any) -> str:
    """The next thing that the worker says it has done."""
    return (await asyncio.to_thread(process.stdout.readline)).decode().strip()


async def test_a_worker_that_is_killed_with_a_note_in_its_hands_leaves_it_to_the_next(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    async with Chat(server) as chat:
        with worker(server.port) as first:
            await chat.send("c")
            await chat.shows("c", "begun ")
            await chat.steer("c", "n1")
            assert await line(first) == "took n1"
        assert await chat.steer("c", "n2") == 202
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        with worker(server.port):
            parts, how = await chat.ended("c")
        assert (how["status"], taken(parts)) == ("completed", ["n1", "n2"])
        assert parts[-1]["text"] == "again, after ['n1'] and ['n2']"
        assert await chat.users("c") == ["u-c"]


async def test_workers_that_are_killed_around_a_decision_lose_nothing_of_it(serve: Serve) -> None:
    server = serve(script=REMOTE_APP)
    async with Chat(server) as chat:
        with worker(server.port):
            message = {"id": "u-c", "role": "user", "parts": [{"type": "text", "text": "ask"}]}
            await chat.client.post("/sessions/c/messages", json={"message": message})
            wanted = await chat.pending("c")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        run = (await chat.decide("c", wanted["id"], approved=True))["run"]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        with worker(server.port) as second:
            assert await line(second) == "decided approved"
        with worker(server.port) as third:
            assert await line(third) == "decided approved"
            parts, how = await chat.ended("c")
        assert (how["run"], how["status"], tool(parts)["output"]) == (run, "completed", "done")
        assert [part["text"] for part in parts if part["type"] == "text"] == ["please", "settled"]
