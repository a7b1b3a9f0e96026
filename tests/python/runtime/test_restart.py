"""``run.restart()`` at bad moments, and a log that does not fold: it costs one run at most (R15)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from rig import Rig, running
from strandline import Run
from strandline.codecs import native
from strandline.core.events import Appended, Event, MessageCreated, RunQueued, RunStarted
from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.core.run import Status
from strandline.stores import SqliteStore
from strandline.stores.port import Batch, Entry

NOT_FOLDING = {"type": "text-delta", "id": "nobody-began-this", "delta": "x"}


async def run_of(rig: Rig, chat: str) -> Any:
    return list((await rig.history(chat))["runs"].values())[-1]


async def texts(rig: Rig, chat: str) -> list[str]:
    shown = (await rig.history(chat))["messages"]
    return ["".join(part.get("text", "") for part in message["parts"]) for message in shown]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13])
async def test_a_restart_that_is_cancelled_while_it_waits_counts_and_the_agent_goes_on(rig: Rig, turns: int) -> None:
    answer, call = await rig.begun()
    other_answer, other = await rig.begun("d")
    call.say("old ")
    other.say("un")
    await answer.until_text("old ")
    await other_answer.until_text("un")
    cancelled: list[bool] = []

    async def impatient(run: Run) -> None:
        rig.store.hang()
        restarting = asyncio.create_task(run.restart())
        for _ in range(turns):
            await asyncio.sleep(0)
        restarting.cancel()
        await asyncio.wait({restarting})
        cancelled.append(restarting.cancelled())
        asyncio.get_running_loop().call_later(0.005, rig.store.mend)

    call.do(impatient).say("new ", "words").finish()
    await answer.end()
    await rig.ended()
    assert cancelled == [True]
    reset = turns > 0  # a task that never began has asked for nothing
    assert (await texts(rig, "c"))[-1] == ("new words" if reset else "old new words")
    assert (await run_of(rig, "c"))["status"] == "completed"
    log = [event["type"] for batch in rig.store.committed for entry in batch.entries if entry.session == "c"
           for event in map(json.loads, entry.events)]  # fmt: skip
    assert log.count("message-reset") == int(reset)
    other.say("harmed").finish()
    await other_answer.end()
    assert other_answer.text == "unharmed"
    assert (await rig.ask("GET", "/api/readyz")).status == 200
    _, third = await rig.begun("e")
    third.finish()


async def test_a_timeout_around_a_restart_is_survived(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("old ")
    await answer.until_text("old ")

    async def within_a_moment(run: Run) -> None:
        rig.store.hang()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await run.restart()
        rig.store.mend()
        await run.text("new ")
        await run.restart()
        await run.text("newest")

    call.do(within_a_moment).finish()
    await answer.end()
    await rig.ended()
    assert (await texts(rig, "c"))[-1] == "newest"


async def test_two_restarts_at_once_and_words_beside_them(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("old ")
    await answer.until_text("old ")

    async def both(run: Run) -> None:
        await asyncio.gather(run.restart(), run.restart(), run.restart())
        await asyncio.gather(run.text("lost "), run.restart(), run.restart(), run.text("kept "))
        await run.text("after")

    call.do(both).finish()
    await answer.end()
    await rig.ended()
    assert (await run_of(rig, "c"))["status"] == "completed"
    assert (await texts(rig, "c"))[-1] == "kept after"
    assert [event["type"] for event in await rig.log()].count("message-reset") == 5


async def test_restarts_beside_a_task_that_never_stops_talking() -> None:
    async def agent(run: Run) -> None:
        async def chatter() -> None:
            while True:
                await run.text("x")
                await asyncio.sleep(0)

        talking = asyncio.create_task(chatter())
        restarting = []
        for _ in range(5):
            restarting.append(asyncio.create_task(run.restart()))
            await asyncio.sleep(0.001)  # long enough for the talker to wait for this one, too short for its commit
        await asyncio.gather(*restarting)
        talking.cancel()
        await asyncio.wait({talking})
        await run.text(" the end")

    async with running(agent=agent, first_window=0.005, max_window=0.005) as rig:
        answer = await rig.post("c")
        await answer.end()
        await rig.ended()
        run = await run_of(rig, "c")
        assert (run["status"], run["reason"]) == ("completed", "completed")
        (text,) = [part for part in (await rig.history("c"))["messages"][-1]["parts"] if part["type"] == "text"]
        assert (text["text"].lstrip("x"), text["state"]) == (" the end", "done")


async def test_a_restart_of_a_run_that_is_stopped_meanwhile_comes_to_an_end(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("old ")
    await answer.until_text("old ")
    rig.store.hang()
    stopping = asyncio.create_task(rig.stop("c"))
    await asyncio.sleep(0.002)
    call.do(lambda run: run.restart())
    await asyncio.sleep(0.002)
    rig.store.mend()
    assert (await stopping).json["stopped"] is True
    await answer.end()
    assert (await texts(rig, "c"))[-1] == "old "


# ---------------------------------------------------------------------- events that do not fold


async def test_an_event_that_does_not_fold_ends_its_run_and_no_other(rig: Rig) -> None:
    answer, call = await rig.begun()
    other_answer, other = await rig.begun("d")
    call.say("good ")
    await answer.until_text("good ")
    session = await rig.sessions.find("c")
    # What every check of ours would have to miss for this to happen.
    session.live[call.run.id].pending.add(NOT_FOLDING, 10, 1000)
    rig.sessions.journal.mark(session)
    await rig.ended()
    run = await run_of(rig, "c")
    assert (run["status"], run["reason"]) == ("failed", "chunk-refused")
    assert (await texts(rig, "c"))[-1] == "good "
    other.say("unharmed").finish()
    await other_answer.end()
    assert other_answer.text == "unharmed"
    _, again = await rig.begun(id="u2")
    again.finish()


async def test_a_stored_log_that_does_not_fold_does_not_keep_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    store = SqliteStore(path, lock_wait=0)
    number = await store.open()
    good: list[Any] = [
        {"type": "start-step"}, {"type": "text-start", "id": "t"}, {"type": "text-delta", "id": "t", "delta": "good "},
    ]  # fmt: skip
    await store.commit(unfinished("bad", number + 1, [*good, NOT_FOLDING]))
    await store.commit(unfinished("fine", number + 2, good))
    await store.close()
    async with running(path) as rig:
        for chat in ("bad", "fine"):
            run = await run_of(rig, chat)
            assert (run["status"], run["reason"]) == ("lost", "process-lost")
            assert (await texts(rig, chat))[-1] == "good "
            assert (await rig.resume(chat)).status == 204
            joined = await (await rig.open("GET", f"/api/tanstack?offset=-1&runId=r-{chat}")).end()
            assert (joined.status, "good " in joined.body.decode()) == (200, True)
            answer, call = await rig.begun(chat, id="u2")
            call.say("on").finish()
            await answer.end()
            assert answer.text == "on"
    async with running(path) as rig:
        assert await texts(rig, "bad") == ["question", "good ", "hello", "on"]


def unfinished(chat: str, number: int, chunks: list[Any]) -> Batch:
    """The commit of a session with a run that a process left behind."""
    question, message, run = f"q-{chat}", f"m-{chat}", f"r-{chat}"
    parts = ({"type": "text", "text": "question"},)
    events: list[Event] = [
        MessageCreated(1, "user:ann", question, "u1", None, "user", parts),
        RunQueued(1, "user:ann", run, message, message, question, "scripted"),
        RunStarted(1, run, message, message),
        *(Appended(1, run, message, (chunk,)) for chunk in chunks),
    ]
    return Batch(
        number,
        (Entry(chat, 1, tuple(native.encode(event) for event in events)),),
        (SessionRecord(chat, "abcd1234", "ann", 1, 1, len(events), leaf=message),),
        (
            MessageRecord(chat, question, "u1", None, "user", "user:ann", 1, None, parts),
            MessageRecord(chat, message, message, question, "assistant", "agent:scripted", 1, run, ()),
        ),
        (RunRecord(run, chat, message, message, question, "scripted", "user:ann", Status.RUNNING, 1, 2),),
    )


async def test_an_agent_that_does_not_wait_for_its_restart_closes_nothing_of_what_was_before(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("old ")
    await answer.until_text("old ")

    async def impatient(run: Run) -> None:
        rig.store.hang()
        restarting = asyncio.create_task(run.restart())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        restarting.cancel()
        await asyncio.wait({restarting})
        asyncio.get_running_loop().call_later(0.005, rig.store.mend)

    call.do(impatient).finish()
    await answer.end()
    await rig.ended()
    log = await rig.log()
    after = log[[event["type"] for event in log].index("message-reset") + 1 :]
    assert [event["type"] for event in after] == ["run-ended"]
    run = (await run_of(rig, "c"))["run"]
    joined = await rig.ask("GET", f"/api/tanstack?offset=-1&runId={run}")
    assert (joined.status, (await rig.resume("c", query=f"?run={run}")).status) == (200, 200)
