"""Notes for remote agents (PROTOCOL §18.10): taken or not, none is lost and none counts twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from far import FAR, Worker, asked, reply, served
from rig import Answer, Rig
from strandline.testing import until


async def steer(rig: Rig, words: str, id: str, **more: Any) -> None:
    message = {"id": id, "role": "user", "parts": [{"type": "text", "text": words}], **more}
    answer = await rig.ask("POST", "/api/sessions/c/steer", {"message": message}, {"Strandline-Device": "phone"})
    assert answer.status == 202, answer.body


async def take(worker: Worker, taken: int = 0, sequence: int | None = None, **more: Any) -> Answer:
    number = sequence or worker.sent + 1
    answer = await worker.about("steering", sequence=number, taken=taken, **more)
    if answer.status == 200:
        worker.sent = max(worker.sent, number)
    return answer


def ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [note["id"] for note in answer.json["told"]]


async def said(rig: Rig) -> list[str]:
    """What the newest reply says, part by part."""
    parts, _ = await reply(rig)
    return [part.get("text") or part.get("id") or part["type"] for part in parts]


async def users(rig: Rig) -> list[str]:
    """The user messages of the conversation."""
    return [each["id"] for each in (await rig.ask("GET", "/api/sessions/c")).json["messages"] if each["role"] == "user"]


async def test_a_note_is_heard_of_at_once_taken_and_acknowledged_in_the_reply(far: Rig) -> None:
    answer, worker = await asked(far)
    listening = await worker.work()
    await worker.append("before ")
    listening.frames.clear()
    await steer(far, "Shorter.", "n1", metadata={"from": "phone"})
    await listening.until(lambda: listening.frames)
    assert [frame.chunk for frame in listening.frames] == [{"type": "note", "run": worker.run}]
    assert (await worker.beat()).json == {"state": "running", "notes": 1}
    assert (await worker.append("still ")).json["notes"] == 1
    given = (await take(worker)).json
    note = given["told"][0]
    assert (given["state"], given["notes"], given["sequence"]) == ("running", 0, 3)
    assert (note.pop("at") > 0, note) == (
        True,
        {
            "id": "n1",
            "parts": [{"type": "text", "text": "Shorter."}],
            "by": "user:ann",
            "device": "phone",
            "metadata": {"from": "phone"},
        },
    )
    await worker.append("after")
    await worker.end()
    await answer.end()
    assert await said(far) == ["step-start", "before still ", "n1", "after"]
    assert await users(far) == ["u1"]
    await listening.drop()


@pytest.mark.parametrize("unfriendly", [True, False])
async def test_a_take_that_is_repeated_gives_the_same_notes_also_by_the_next_server(
    tmp_path: Path, unfriendly: bool
) -> None:
    path = tmp_path / "chat.db"
    async with served(path) as rig:
        _, worker = await asked(rig)
        await steer(rig, "one", "n1")
        assert ids(await take(worker, sequence=1)) == ["n1"]
        await steer(rig, "two", "n2")
        await steer(rig, "three", "n3")
        for _ in range(2):
            assert ids(await take(worker, 1, sequence=2)) == ["n2", "n3"]
        await steer(rig, "four", "n4")
        assert ids(await take(worker, 1, sequence=2)) == ["n2", "n3"]
        if unfriendly:
            rig.chat.service.stop = rig.chat.service._close  # type: ignore[method-assign]
    async with served(path) as rig:
        worker.app = rig.app
        again = await take(worker, 1, sequence=2)
        assert (ids(again), again.json["notes"]) == (["n2", "n3"], 1)
        assert ids(await take(worker, 3, sequence=3)) == ["n4"]
        await worker.end()
        assert await said(rig) == ["n1", "n2", "n3", "n4"]
        assert await users(rig) == ["u1"]


async def test_a_take_is_answered_when_it_is_on_the_disk(far: Rig) -> None:
    _, worker = await asked(far)
    await steer(far, "one", "n1")
    far.store.hang()
    twins = [asyncio.create_task(take(worker, sequence=1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(twin.done() for twin in twins)
    far.store.mend()
    assert [ids(await twin) for twin in twins] == [["n1"]] * 3
    await worker.end()
    assert await said(far) == ["n1"]


async def test_a_zombie_takes_nothing(far: Rig) -> None:
    _, zombie = await asked(far)
    await steer(far, "one", "n1")
    await take(zombie)
    await steer(far, "two", "n2")
    newer = Worker(far.app)
    claimed = (await newer.claim(zombie.run, "again")).json
    assert (claimed["taken"], claimed["notes"], claimed["partial"]["parts"][-1]["id"]) == (1, 1, "n1")
    refused = await take(zombie, 1)
    assert (refused.status, refused.code) == (409, "fenced")
    assert ids(await take(newer, 1)) == ["n2"]
    await newer.end()
    assert await said(far) == ["n1", "n2"]


async def test_a_note_that_is_not_taken_is_a_message_that_the_agent_answers_next(far: Rig) -> None:
    _, worker = await asked(far)
    told = await far.post("c", "and this", "n1", headers={**FAR, "Strandline-Submit": "steer"})
    await told.end()
    assert told.frames[0].chunk["data"]["steered"]["run"] == worker.run
    await worker.end()
    assert await users(far) == ["u1", "n1"]
    session = await far.sessions.find("c")
    (next_run,) = session.live
    claimed = (await worker.claim(next_run, "next")).json
    assert claimed["prompt"][-1] == {"role": "user", "content": "and this"}
    assert (claimed["taken"], claimed["notes"]) == (0, 0)


async def test_a_stop_that_comes_first_makes_a_message_of_the_note(far: Rig) -> None:
    _, worker = await asked(far)
    await steer(far, "one", "n1")
    await far.stop("c")
    late = await take(worker)
    assert (late.json["state"], late.json["status"]) == ("over", "stopped")
    assert await users(far) == ["u1", "n1"]


async def test_a_take_is_bounded_in_number_and_in_size() -> None:
    async with served(chunk_limit=65_536) as far:
        _, worker = await asked(far)
        for number in range(4):
            await steer(far, "x" * (30_000 if number > 1 else 1), f"n{number}")
        first = await take(worker, most=1)
        assert (ids(first), first.json["notes"]) == (["n0"], 3)
        for number in (4, 5):
            await steer(far, "x" * 60_000, f"n{number}")
        assert ids(await take(worker, 1)) == ["n1", "n2", "n3"]
        assert ids(await take(worker, 4)) == ["n4"]
        assert ids(await take(worker, 5)) == ["n5"]
        assert ids(await take(worker, 6)) == []
        for body in ({"most": 0}, {"most": "all"}, {"taken": -1}, {"taken": None}):
            assert (await worker.about("steering", **{"sequence": worker.sent + 1, "taken": 0, **body})).status == 422
        assert (await take(worker, sequence=worker.sent + 2)).json["expected"] == worker.sent + 1
        await worker.end()
        assert await said(far) == [f"n{number}" for number in range(6)]


async def test_who_comes_back_hears_of_notes_that_wait(far: Rig) -> None:
    _, worker = await asked(far)
    listening = await worker.work()
    await until(lambda: listening.frames)
    listening.frames.clear()
    for number in range(20):
        await steer(far, "more", f"n{number}")
        await listening.until(lambda: listening.frames)
    assert {frame.chunk["type"] for frame in listening.frames} == {"note"}
    again = await worker.work()
    await until(lambda: len(again.frames) > 1)
    assert [frame.chunk["type"] for frame in again.frames] == ["run", "note"], "who comes back is told what waits"
    await again.drop()
    assert ids(await take(worker)) == [f"n{number}" for number in range(20)]
    await listening.drop()
