"""The session wire: lists, one session, and its feed (PROTOCOL §8)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import httpx_sse
import pytest

from rig import Answer, Rig, running


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


async def test_a_plain_client_is_told_to_come_back_in_a_second_by_nothing_that_looks_like_an_event(rig: Rig) -> None:
    await conversation(rig, 1)
    fresh = await rig.open("GET", "/api/sessions/c/events")
    await fresh.until(lambda: len(fresh.frames) >= 2)
    resumed = await rig.open("GET", f"/api/sessions/c/events?after={fresh.frames[0].cursor}")
    thread = await rig.open("GET", f"/api/tanstack/events?threadId=c&after={fresh.frames[0].cursor}")
    answer, _ = await rig.begun(id="u9")
    for feed in (fresh, resumed):
        await feed.until(lambda feed=feed: events(feed))
        assert feed.reader.retry == 1000
        source = httpx_sse.EventSource(httpx.Response(200, headers=feed.headers, content=bytes(feed.body)))
        assert [event.json() for event in source.iter_sse()] == [frame.chunk for frame in feed.frames]
    await thread.until(lambda: thread.frames)
    await answer.until(lambda: answer.frames)
    assert (thread.reader.retry, answer.reader.retry) == (None, None)


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


@pytest.mark.parametrize("query", ["", "?only=state"])
async def test_a_feed_ends_with_a_frame_of_its_own_when_the_session_is_deleted(rig: Rig, query: str) -> None:
    answer, call = await rig.begun()
    call.say("said ")
    await answer.until_text("said ")
    feed = await rig.open("GET", f"/api/sessions/c/events{query}")
    await feed.until(lambda: len(feed.frames) >= 2)
    assert (await rig.ask("DELETE", "/api/sessions/c")).status == 204
    await feed.end()
    assert (feed.frames[-1].chunk, feed.frames[-1].cursor) == ({"type": "session-deleted"}, None)
    assert events(feed)[-1]["reason"] == "deleted"
    await answer.end()
    assert answer.types[-2:] == ["abort", "[DONE]"]
    assert (await rig.ask("GET", "/api/sessions/c/readers")).status == 404


async def test_a_reader_that_is_up_to_date_goes_on_also_when_the_log_has_been_let_go() -> None:
    async with running(log_retention=60.0) as rig:
        await conversation(rig, 1)
        session = await rig.sessions.find("c")
        cursor = str(session.feed.cursor(session.state.record.epoch))
        del session
        await rig.go_cold()
        await rig.clock.jump(61)
        await rig.passing(lambda: not rig.store.inner._log.get("c"))
        feed = await rig.open("GET", f"/api/sessions/c/events?after={cursor}")
        await feed.until(lambda: feed.frames)
        assert feed.frames[0].chunk["type"] == "readers"
        await rig.begun(id="u5")
        await feed.until(lambda: events(feed))
        assert events(feed)[0]["seq"] == int(cursor.split(".")[1]) + 1
