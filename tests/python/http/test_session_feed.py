"""The session wire: lists, one session, and its feed (PROTOCOL §8)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline.testing import until


def events(answer: Answer) -> list[dict[str, Any]]:
    return [dict(frame.chunk) for frame in answer.frames if "seq" in frame.chunk]


async def conversation(rig: Rig, turns: int = 2) -> None:
    for number in range(turns):
        answer, call = await rig.begun(id=f"u{number}", text=f"question {number}")
        call.say("one ", "two").finish()
        await answer.end()


async def test_a_feed_begins_with_a_snapshot_and_goes_on_with_every_event(rig: Rig) -> None:
    await conversation(rig, 1)
    answer, call = await rig.begun(id="u9")
    call.say("so far ")
    await answer.until_text("so far ")
    feed = await rig.open("GET", "/api/sessions/c/events")
    await feed.until(lambda: len(feed.frames) >= 2)
    snapshot = feed.frames[0].chunk
    assert snapshot["type"] == "snapshot"
    assert [message["role"] for message in snapshot["messages"]] == ["user", "assistant"] * 2
    assert snapshot["messages"][-1]["parts"][-1]["text"] == "so far "
    assert snapshot["session"]["activeRun"] == call.run.id
    assert snapshot["cursor"] == feed.frames[0].cursor
    call.say("more").finish()
    await feed.until(lambda: events(feed) and events(feed)[-1]["type"] == "run-ended")
    log = await rig.log()
    first = events(feed)[0]["seq"]
    assert events(feed) == [{**event, "seq": seq} for seq, event in enumerate(log, 1) if seq >= first]
    assert all((frame.cursor is None) == (frame.chunk["type"] == "readers") for frame in feed.frames)


@pytest.mark.parametrize("cold", [False, True])
async def test_every_cursor_of_a_feed_continues_without_gap_or_repetition(rig: Rig, cold: bool) -> None:
    await conversation(rig)
    log = await rig.log()
    session = await rig.sessions.find("c")
    epoch = session.state.record.epoch
    if cold:
        del session
        await rig.go_cold()
    for seq in range(1, len(log) + 1):
        frames = len(log[seq - 1].get("chunks", [None]))
        for frame in range(frames + 1):
            feed = await rig.open("GET", "/api/sessions/c/events", headers={"Last-Event-ID": f"{epoch}.{seq}.{frame}"})
            await feed.until(lambda feed=feed: any(each.chunk["type"] == "readers" for each in feed.frames))
            rest = [{**event, "seq": number} for number, event in enumerate(log, 1) if number >= seq]
            if frame == frames:
                rest = rest[1:]
            elif frame:
                rest[0] = {**rest[0], "chunks": rest[0]["chunks"][frame:]}
            assert events(feed) == rest
            await feed.drop()


@pytest.mark.parametrize("cursor", ["garbage", "zzzz1234.1.1", "{epoch}.9999.1", "{epoch}.1.2", "{epoch}.4.99"])
async def test_a_cursor_that_cannot_be_continued_gets_the_snapshot(rig: Rig, cursor: str) -> None:
    await conversation(rig, 1)
    epoch = (await rig.sessions.find("c")).state.record.epoch
    feed = await rig.open("GET", f"/api/sessions/c/events?after={cursor.format(epoch=epoch)}")
    await feed.until(lambda: feed.frames)
    assert feed.frames[0].chunk["type"] == "snapshot"


async def test_readers_are_announced_as_they_come_and_go(rig: Rig) -> None:
    answer, call = await rig.begun(headers={"strandline-device": "phone"})
    feed = await rig.open("GET", "/api/sessions/c/events")

    def shown() -> list[str]:
        last = [frame.chunk for frame in feed.frames if frame.chunk["type"] == "readers"][-1:]
        return sorted(reader["wire"] for chunk in last for reader in chunk["readers"])

    await until(lambda: shown() == ["ai-sdk", "session"])
    reader = next(each for each in feed.frames[-1].chunk["readers"] if each["wire"] == "ai-sdk")
    assert (reader["user"], reader["device"], reader["run"]) == ("ann", "phone", call.run.id)
    await answer.drop()
    await until(lambda: shown() == ["session"])
    assert not call.closed, "a connection is only a reader"
    assert (await rig.ask("GET", "/api/sessions/c")).json["readers"][0]["wire"] == "session"


async def test_sessions_are_listed_newest_first_with_their_active_run(rig: Rig) -> None:
    for number in range(3):
        await rig.clock.advance(1)
        answer, call = await rig.begun(f"c{number}", f"title {number}")
        if number < 2:
            call.finish()
            await answer.end()
    listed = (await rig.ask("GET", "/api/sessions")).json["sessions"]
    assert [(each["id"], each["title"]) for each in listed] == [(f"c{n}", f"title {n}") for n in (2, 1, 0)]
    assert [each["activeRun"] for each in listed] == [call.run.id, None, None]
    assert len((await rig.ask("GET", "/api/sessions?limit=2")).json["sessions"]) == 2


async def test_a_snapshot_and_what_follows_it_are_never_apart(rig: Rig) -> None:
    answer, call = await rig.begun()
    feeds: list[Answer] = []
    for number in range(40):
        call.say(f"{number} ")
        feeds.append(await rig.open("GET", "/api/sessions/c/events"))
        for _ in range(number % 5):
            await asyncio.sleep(0)
    call.finish()
    await answer.end()
    for feed in feeds:
        await feed.until(lambda feed=feed: feed.frames and (events(feed) or [{}])[-1].get("type") == "run-ended")
        text = "".join(part.get("text", "") for part in feed.frames[0].chunk["messages"][-1]["parts"])
        for event in events(feed):
            for chunk in event.get("chunks", ()):
                text += chunk.get("delta", "")
        assert text == answer.text


async def test_a_feed_that_fell_behind_what_the_log_still_has_is_not_left_with_a_hole() -> None:
    async with running(log_retention=60.0) as rig:
        await conversation(rig)
        epoch = (await rig.sessions.find("c")).state.record.epoch
        await rig.go_cold()
        await rig.clock.jump(61)
        await rig.passing(lambda: not rig.store.inner._log.get("c"))
        feed = await rig.open("GET", f"/api/sessions/c/events?after={epoch}.2.1")
        await feed.until(lambda: feed.frames)
        assert feed.frames[0].chunk["type"] == "snapshot"
