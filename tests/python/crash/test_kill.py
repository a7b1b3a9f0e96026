"""``kill -9`` at random moments, then a start on the same file: nothing that anybody was shown is lost or contradicted,
what was acknowledged is there, and nobody waits for the dead (DESIGN §1.2, §1.5)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from crash_readers import Reading, Visitor

from replies import SHIM, counted, numbers, text_in, text_of
from server_process import ServerProcess
from strandline.testing import Frame, until

Serve = Callable[..., ServerProcess]

FAST = {"STRANDLINE_LOCK_WAIT": "5"}


async def stored_as_lost(visitor: Visitor, chat: str) -> str:
    """The text of the reply that the crash has cut, checked: it is kept, counted without a hole, and marked."""
    history = await visitor.history(chat)
    assert (history["activeRun"], history["cursor"]) == (None, None)
    user, reply = history["messages"]
    assert user["id"] == "u1"
    [run] = history["runs"].values()
    assert list(history["runs"]) == [reply["id"]]
    assert (run["status"], run["reason"]) == ("lost", "process-lost")
    text = text_of(reply)
    counted(text)
    for part in reply["parts"]:
        assert part.get("state") != "streaming"
    return text


async def resumed_exactly(visitor: Visitor, chat: str, cut: Reading, text: str) -> None:
    """The reader of a cut stream goes on with its last cursor and ends with the stored text and a clear end."""
    assert text.startswith(cut.text), "something was shown that is not in the stored message"
    if cut.cursor is None:
        return
    for headers in ({}, SHIM):
        rest = await visitor.go_on(cut, headers).end()
        assert (rest.status, rest.headers["strandline-replay"]) == (200, "tail")
        assert text_in(rest.frames) == text
        terminal, done = rest.frames[-2:]
        assert (terminal.chunk["type"], terminal.chunk["code"]) == ("error", "lost")
        assert terminal.cursor
        assert done.done
        assert [frame.chunk.get("type") for frame in rest.frames].count("start") == 1
        assert (await visitor.resume(chat, terminal.cursor, headers).end()).status == 204


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_kill_at_a_random_moment_loses_nothing_that_was_shown(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)
    server = serve(env=FAST)
    chats = [f"c{number}" for number in range(5)]
    async with Visitor(server) as visitor:
        readings: list[tuple[str, Reading]] = []
        for chat in chats:
            readings.append((chat, visitor.ask(chat, f"count to 100000 every {chance.choice([0, 1, 5, 20])} ms")))
        for chat, reading in list(readings):
            await reading.until_text(1)
            readings += [(chat, visitor.resume(chat)), (chat, visitor.go_on(reading, SHIM))]
        await asyncio.sleep(chance.uniform(0, 0.5))  # the random moment
        await visitor.kill()
        for _, reading in readings:
            assert (await reading.end()).cut
        if chance.random() < 0.7:
            # A second crash, before or while it recovers.
            server.start(wait=False)
            await asyncio.sleep(chance.uniform(0, 1.0))
            await visitor.kill()
        await visitor.start()
        stored = {chat: await stored_as_lost(visitor, chat) for chat in chats}
        for chat, reading in readings:
            await resumed_exactly(visitor, chat, reading, stored[chat])
        for chat in chats:
            assert (await visitor.resume(chat).end()).status == 204
            again = await visitor.ask(chat, "count to 3 every 0 ms", "u2").end()
            assert again.text == numbers(3)
            assert again.frames[-1].done
        if seed > 1:
            return
        await visitor.restart()
        for chat in chats:
            texts = [text_of(message) for message in (await visitor.history(chat))["messages"]]
            assert texts[1::2] == [stored[chat], numbers(3)], "a second start changes nothing"


async def test_a_kill_under_heavy_load_keeps_what_fifty_runs_have_shown(serve: Serve) -> None:
    server = serve(env=FAST)
    chats = [f"c{number}" for number in range(50)]
    async with Visitor(server) as visitor:
        readings = {chat: visitor.ask(chat, "count to 100000 every 1 ms") for chat in chats}
        for reading in readings.values():
            await reading.until_text(20)
        await visitor.restart()
        for chat, reading in readings.items():
            assert (await reading.end()).cut
            text = await stored_as_lost(visitor, chat)
            assert counted(text) >= counted(reading.text) >= 20
            rest = await visitor.go_on(reading).end()
            assert text_in(rest.frames) == text
        listed = (await visitor._client.get("/api/sessions?limit=100")).json()["sessions"]
        assert {session["id"] for session in listed} == set(chats)
        assert not [session for session in listed if session["activeRun"]]


@pytest.mark.parametrize("acknowledged", [1, 6])
async def test_what_was_acknowledged_just_before_a_kill_is_there(serve: Serve, acknowledged: int) -> None:
    """Messages, stops and interruptions race with the kill: each that was answered has happened, for good."""
    server = serve(env=FAST)
    chats = [f"c{number}" for number in range(4)]
    async with Visitor(server) as visitor:
        first = {chat: visitor.ask(chat, "count to 100000 every 1 ms") for chat in chats}
        for reading in first.values():
            await reading.until_text(3)
        stops = {chat: asyncio.ensure_future(visitor.post(f"/api/chat/{chat}/stop", {})) for chat in chats[:2]}
        interrupted = {chat: visitor.ask(chat, "count to 100000 every 1 ms", "u2") for chat in chats[2:]}
        asked = {f"n{number}": visitor.ask(f"n{number}", "count to 100000 every 1 ms") for number in range(6)}

        def answered() -> int:
            return sum(stop.done() for stop in stops.values()) + sum(
                reading.status == 200 for reading in (*interrupted.values(), *asked.values())
            )

        await until(lambda: answered() >= acknowledged)
        await visitor.kill()
        outcomes = dict(zip(stops, await asyncio.gather(*stops.values(), return_exceptions=True), strict=True))
        for reading in (*first.values(), *interrupted.values(), *asked.values()):
            await reading.end()
        await visitor.start()
        for chat, outcome in outcomes.items():
            [run] = (await visitor.session(chat))["runs"]
            if isinstance(outcome, BaseException):
                assert run["status"] in ("stopped", "lost")
                continue
            answer = outcome.json()
            assert (answer["status"], answer["stopped"], answer["run"]) == ("stopped", True, run["id"])
            assert (run["status"], run["reason"]) == ("stopped", "user")
            assert text_of((await visitor.history(chat))["messages"][-1]).startswith(first[chat].text)
            assert (await visitor.resume(chat, answer["cursor"]).end()).status == 204
            rest = await visitor.resume(chat, first[chat].cursor).end()
            assert rest.status == 204 or rest.frames[-2].chunk["type"] == "abort"
            again = await visitor.post(f"/api/chat/{chat}/stop", {"run": run["id"]})
            assert again.json() == {**answer, "stopped": False}
        for chat, reading in interrupted.items():
            runs = (await visitor.session(chat))["runs"]
            messages = (await visitor.history(chat))["messages"]
            if reading.status == 200:
                assert [(run["status"], run["reason"]) for run in runs] == [
                    ("stopped", "superseded"),
                    ("lost", "process-lost"),
                ]
                assert runs[1]["id"] == reading.headers["strandline-run"]
                assert [message["role"] for message in messages] == ["user", "assistant"] * 2
                assert text_of(messages[1]).startswith(first[chat].text)
                assert text_of(messages[3]).startswith(reading.text)
            else:
                assert len(runs) in (1, 2)
        for chat, reading in asked.items():
            if reading.status == 200:
                assert text_of((await visitor.history(chat))["messages"][0]) == "count to 100000 every 1 ms"
                [run] = (await visitor.session(chat))["runs"]
                assert (run["id"], run["messageId"], run["status"]) == (
                    reading.headers["strandline-run"],
                    reading.headers["strandline-message"],
                    "lost",
                )
                # The same message again is the same run, which has ended: nothing runs twice.
                again = await visitor.ask(chat, "count to 100000 every 1 ms").end()
                assert again.headers["strandline-run"] == run["id"]
                assert again.frames[-2].chunk["code"] == "lost"
                assert again.text.startswith(reading.text)


class Persistent:
    """A reader that comes back with its last cursor, as EventSource does, until its stream says it is over."""

    def __init__(self, visitor: Visitor, chat: str, *, feed: bool) -> None:
        self.frames: list[Frame] = []
        self.connections = 0
        self._visitor, self._chat, self._feed = visitor, chat, feed
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while not (self.frames and self.frames[-1].done):
            cursor = next((frame.cursor for frame in reversed(self.frames) if frame.cursor), None)
            if self._feed:
                reading = self._visitor.watch(self._chat, cursor)
            else:
                reading = self._visitor.resume(self._chat, cursor)
            before = list(self.frames)
            while not reading.over:
                await asyncio.sleep(0.002)
                self.frames = [*before, *reading.frames]
            await reading.end()
            self.frames = [*before, *reading.shown] if reading.cut else [*before, *reading.frames]
            self.connections += reading.status == 200

    @property
    def over(self) -> bool:
        return self._task.done()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [dict(frame.chunk) for frame in self.frames if "seq" in frame.chunk]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


async def test_readers_that_stay_over_the_restart_go_on_exactly_once(serve: Serve) -> None:
    server = serve(env=FAST)
    async with Visitor(server) as visitor:
        asked = await visitor.ask("c", "count to 100000 every 2 ms").until_text(5)
        streams = [Persistent(visitor, "c", feed=False) for _ in range(4)]
        feeds = [Persistent(visitor, "c", feed=True) for _ in range(4)]
        await until(lambda: all(len(text_in(each.frames).split()) > 30 for each in streams))
        await until(lambda: all(len(each.events) > 10 for each in feeds))
        await visitor.restart()
        await asked.end()
        text = await stored_as_lost(visitor, "c")
        await until(lambda: all(each.over for each in streams))
        for each in streams:
            assert each.connections == 2
            assert text_in(each.frames) == text
            types = ["[DONE]" if frame.done else frame.chunk["type"] for frame in each.frames]
            assert types.count("start") == 1
            assert types[-2:] == ["error", "[DONE]"]
            cursors = [frame.cursor for frame in each.frames if frame.cursor]
            assert len(cursors) == len(set(cursors)), "a frame came twice"
        again = await visitor.ask("c", "count to 3 every 0 ms", "u2").end()
        assert again.text == numbers(3)
        await until(lambda: all(each.events[-1]["type"] == "run-ended" for each in feeds))
        await until(lambda: all([event["type"] for event in each.events].count("run-ended") == 2 for each in feeds))
        for each in feeds:
            seqs = [event["seq"] for event in each.events]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "a hole or a repetition in the feed"
            assert [frame.chunk["type"] for frame in each.frames].count("snapshot") == 1
            ends = [event for event in each.events if event["type"] == "run-ended"]
            assert [(end["status"], end["reason"]) for end in ends] == [
                ("lost", "process-lost"),
                ("completed", "completed"),
            ]
            await each.close()
        assert feeds[0].events[-5:] == feeds[1].events[-5:]


async def test_a_process_that_is_killed_again_and_again_at_its_start_recovers_once(serve: Serve) -> None:
    server = serve(env=FAST)
    chance = random.Random(7)
    async with Visitor(server) as visitor:
        asked = await visitor.ask("c", "count to 100000 every 1 ms").until_text(20)
        await visitor.kill()
        for _ in range(3):
            server.start(wait=False)
            await asyncio.sleep(chance.uniform(0.3, 0.9))
            await visitor.kill()
        await visitor.start()
        await asked.end()
        text = await stored_as_lost(visitor, "c")
        await resumed_exactly(visitor, "c", asked, text)
        feed = visitor.watch("c", f"{str(asked.cursor).partition('.')[0]}.1.1")
        await until(lambda: [frame.chunk["type"] for frame in feed.frames].count("run-ended") == 1)
        seqs = [frame.chunk["seq"] for frame in feed.frames if "seq" in frame.chunk]
        assert seqs == list(range(2, len(seqs) + 2))
