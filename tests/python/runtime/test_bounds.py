"""What one session, one reply or one reader may take, so that the others do not notice (DESIGN §11)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline import Run
from strandline.codecs import native
from strandline.core import intake
from strandline.runtime import reading
from strandline.runtime.live_run import Caller
from strandline.stores import MemoryStore
from strandline.stores.port import Store
from strandline.testing import FailingStore, ScriptedAgent, until

# ---------------------------------------------------------------------- a reply


@pytest.mark.parametrize("way", ["text", "chunks", "yields", "swallowed", "task"])
async def test_a_reply_over_the_limit_fails_and_nothing_else_does(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def agent(run: Run) -> AsyncIterator[Any]:
        if run.session_id != "long":
            yield "short"
            return
        if way == "yields":
            while True:
                yield "x" * 500
        elif way == "chunks":
            number = 0
            while True:
                number += 1
                yield {"type": f"data-{number}", "data": "x" * 500}
        elif way == "task":
            await asyncio.gather(*(run.text("x" * 500) for _ in range(100)))
        for _ in range(100):
            try:
                await run.text("x" * 500)
            except ValueError:
                if way != "swallowed":
                    raise

    async with running(agent=agent, message_limit=10_000) as rig:
        answer = await (await rig.post("long")).end()
        assert answer.frames[-2].chunk["type"] == "error"
        assert answer.frames[-2].chunk["errorText"] == "The reply failed. Please try again."
        assert len(answer.body) < 40_000
        (run,) = (await rig.history("long"))["runs"].values()
        assert (run["status"], run["reason"]) == ("failed", "reply-too-long")
        assert "10000" not in str(run), "the limit is nobody's business but ours"
        stored = (await rig.history("long"))["messages"][-1]
        assert 5_000 < len(str(stored["parts"])) < 20_000
        # The end is stored, and everybody goes on: this session, others, and the writer.
        assert [event["type"] for event in await rig.log("long")][-1] == "run-ended"
        assert (await (await rig.post("short")).end()).text == "short"
        assert (await rig.ask("GET", "/api/readyz")).status == 200
        await rig.go_cold("long")
        assert (await rig.history("long"))["messages"][-1] == stored


async def test_a_reply_just_under_the_limit_is_whole() -> None:
    async with running(agent=ScriptedAgent(*["x" * 100] * 50), message_limit=10_000) as rig:
        assert (await (await rig.post("c")).end()).text == "x" * 5_000


# ---------------------------------------------------------------------- runs


async def test_the_limit_of_runs_holds_for_requests_that_are_decided_together() -> None:
    async with running(max_active_runs=3) as rig:
        await rig.begun("first")
        rig.store.hang()
        posting = [asyncio.create_task(rig.post(f"c{number}")) for number in range(12)]
        await until(lambda: rig.store.attempts > len(rig.store.committed))
        await asyncio.sleep(0.005)
        rig.store.mend()
        answers = await asyncio.gather(*posting)
        assert Counter(answer.status for answer in answers) == {200: 2, 429: 10}
        assert {answer.code for answer in answers if answer.status == 429} == {"too-many"}
        await rig.agent.called(3)
        for call in rig.agent.calls:
            call.finish()
        for answer in answers:
            await answer.end()
        assert len(rig.agent.calls) == 3
        for number in range(3):
            await rig.begun(f"later{number}")
        assert (await rig.post("one-more")).status == 429


async def test_an_interrupt_that_is_decided_with_others_does_not_count_twice() -> None:
    async with running(max_active_runs=2) as rig:
        _, call = await rig.begun("c")
        rig.store.hang()
        before = rig.store.attempts
        call.say("x")
        await until(lambda: rig.store.attempts > before)
        posting = [asyncio.create_task(rig.post(chat, id="u2")) for chat in ("c", "d", "e")]
        await asyncio.sleep(0.005)
        rig.store.mend()
        assert [(await each).status for each in posting] == [200, 200, 429]


async def test_requests_that_could_not_be_stored_take_no_place() -> None:
    async with running(max_active_runs=2, commit_patience=0.0) as rig:
        rig.store.fail()
        refused = await asyncio.gather(*(rig.post(f"c{number}") for number in range(2)))
        assert {answer.code for answer in refused} == {"store-unavailable"}
        rig.store.mend()
        await rig.passing(lambda: rig.chat.service.ready)
        for number in range(2):
            await rig.begun(f"c{number}")
        assert (await rig.post("d")).status == 429


# ---------------------------------------------------------------------- threads


async def test_agents_in_threads_are_no_more_than_there_may_be_runs() -> None:
    hold = threading.Event()
    inside = most = 0
    counting = threading.Lock()

    def agent(run: Run) -> str:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        hold.wait(30)
        with counting:
            inside -= 1
        return "late"

    async with running(agent=agent, max_active_runs=3) as rig:
        # Each message interrupts the one before, whose thread does not listen.
        answers = [await rig.post("c", id=f"u{number}") for number in range(9)]
        for answer in answers:
            await answer.end()
        reasons = [run["reason"] for run in (await rig.history("c"))["runs"].values()]
        assert Counter(reasons) == {"superseded": 3, "agent-error": 6}
        assert answers[-1].frames[-2].chunk["errorText"] == "Too many replies are being written at the moment."
        assert (inside, most) == (3, 3)
        hold.set()
        await until(lambda: inside == 0)
        assert (await (await rig.post("c", id="after")).end()).text == "late"


@pytest.mark.parametrize("kind", ["iterator", "generator", "value"])
async def test_a_thread_that_has_ended_takes_no_place(kind: str) -> None:
    def value(run: Run) -> str:
        return "word"

    def generator(run: Run) -> Iterator[str]:
        yield "word"

    def iterator(run: Run) -> Iterator[str]:
        return iter(["word"])

    agent = {"value": value, "generator": generator, "iterator": iterator}[kind]
    async with running(agent=agent, max_active_runs=1) as rig:
        for number in range(30):
            answer = await (await rig.post("c", id=f"u{number}")).end()
            assert answer.text == "word", answer.body


# ---------------------------------------------------------------------- requests that wait


async def test_requests_that_wait_for_the_store_are_bounded_per_session() -> None:
    async with running(max_waiting=3) as rig:
        answer, call = await rig.begun()
        call.say("words ")
        await answer.until_text("words ")
        session = await rig.sessions.find("c")
        rig.store.hang()
        posting = [asyncio.create_task(rig.post("c", id="in-flight"))]
        await until(lambda: rig.store.attempts > len(rig.store.committed))
        posting += [asyncio.create_task(rig.post("c", id=f"waits-{number}")) for number in range(3)]
        await until(lambda: len(session.commands) == 3)
        for refused in (await rig.post("c", id="too-many"), await rig.stop("c")):
            assert (refused.status, refused.code) == (503, "too-many-waiting")
            assert int(refused.headers["retry-after"]) >= 1
        # A run's own end, a deadline and what a shutdown ends are never refused.
        call.finish()
        await until(lambda: len(session.commands) == 4)
        elsewhere = asyncio.create_task(rig.post("d"))
        await asyncio.sleep(0.002)
        assert not elsewhere.done()
        rig.store.mend()
        assert [(await each).status for each in [*posting, elsewhere]] == [200] * 5
        assert (await rig.post("c", id="again")).status == 200


# ---------------------------------------------------------------------- cold reads


class Watched(FailingStore):
    """Counts what is read from the log, and can be told how often the loop has turned."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.reads: list[int] = []

    async def events(
        self, session_id: str, first_seq: int, last_seq: int, run: str | None = None
    ) -> list[tuple[int, bytes]]:
        found = await super().events(session_id, first_seq, last_seq, run)
        self.reads.append(len(found))
        return found


class Turns:
    """How often the loop has turned."""

    def __init__(self) -> None:
        self.count = 0
        self.going = True
        self._again()

    def _again(self) -> None:
        self.count += 1
        if self.going:
            asyncio.get_running_loop().call_soon(self._again)


LONG = 2100
PAGE = 512
"""What one reader may take of one turn of the loop."""


async def _turned(condition: Callable[[], bool]) -> None:
    """Like ``until``, but at the pace of the loop: it is waited for two thousand times."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise TimeoutError("what the test waits for did not happen")


async def long_reply(rig: Rig) -> Answer:
    """A reply of more than 2000 events, all of which one reader has seen as they came."""
    answer, call = await rig.begun()
    for number in range(LONG):
        before = len(rig.store.committed)
        call.say({"type": "data-tick", "data": number, "transient": number % 2 == 0})
        await _turned(lambda before=before: len(rig.store.committed) > before)
    call.say("the end").finish()
    await answer.end()
    return answer


async def test_a_reader_with_an_old_cursor_is_served_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Watched(MemoryStore())
    async with running(store=store) as rig:
        answer = await long_reply(rig)
        assert len(await rig.log()) > LONG
        feed = await rig.open("GET", f"/api/sessions/c/events?after={answer.frames[0].cursor}")
        await feed.until(lambda: feed.frames and feed.frames[-1].chunk["type"] == "readers")
        warm_feed = [frame for frame in feed.frames if frame.cursor is not None]
        await feed.drop()
        assert store.reads == [], "warm"

        decoded: Counter[int] = Counter()
        turns = Turns()

        def decode(line: bytes) -> Any:
            decoded[turns.count] += 1
            return native.decode(line)

        monkeypatch.setattr(reading, "native", _With(native, decode=decode))
        for index in (0, 1, 700, LONG - 3):
            for shim in (True, False):
                await rig.go_cold()
                store.reads.clear()
                resumed = await (await rig.resume("c", answer.frames[index].cursor, shim=shim)).end()
                assert resumed.headers["strandline-replay"] == "tail"
                assert resumed.frames == answer.frames[index + 1 :], "what an uninterrupted reader got"
                assert max(store.reads) <= PAGE
        await rig.go_cold()
        store.reads.clear()
        feed = await rig.open("GET", f"/api/sessions/c/events?after={answer.frames[0].cursor}")
        await feed.until(lambda: feed.frames and feed.frames[-1].chunk["type"] == "readers")
        assert [frame for frame in feed.frames if frame.cursor is not None] == warm_feed
        assert max(store.reads) <= PAGE
        await feed.drop()
        turns.going = False
        assert sum(decoded.values()) > 8 * LONG
        assert max(decoded.values()) <= PAGE + 1, "no turn of the loop belongs to one reader"


class _With:
    """A module, with some of its names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


# ---------------------------------------------------------------------- sessions in memory


async def test_a_run_is_never_outside_of_what_is_in_memory() -> None:
    """With no idle time at all a sweep lets go of a session while a request in it still fetches what it needs."""
    store = MemoryStore()
    async with running(store=FailingStore(store), session_idle=0.0, segment_age=0.01) as rig:
        answer, call = await rig.begun()
        call.finish()
        await answer.end()
        await rig.passing(lambda: "c" not in rig.sessions._live)
        real, asked, go = store.messages, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any) -> Any:
            asked.set()
            await go.wait()
            return await real(*args)

        store.messages = slow  # type: ignore[method-assign]
        # An edit: the message that it edits is read before anything is decided.
        edited = intake.Incoming("u1", "user", ({"type": "text", "text": "edited"},))
        request = intake.Request("submit-message", "u1", edited, None)
        submitting = asyncio.create_task(
            rig.sessions.submit("c", request, Caller("ann"), "scripted", lambda record: True)
        )
        await asked.wait()
        await rig.passing(lambda: "c" not in rig.sessions._live)
        go.set()
        store.messages = real  # type: ignore[method-assign]
        _, run = await submitting
        await rig.agent.called(2)
        assert [list(session.live) for session in rig.sessions.in_memory()] == [[run.id]]
    assert {each.id: each.reason for each in store._runs.values()}[run.id] == "shutdown"
