"""Cursors that cannot be continued get the full state or a resync, never silence and never "finished" (PROTOCOL §3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rig import Answer, Rig, running
from strandline.core.offset import Cursor, parse

GARBAGE = [
    "0", "garbage", "-1", "null", "undefined", "..", "a.1.1", "ABCD1234.1.1", "abcd1234.1", "abcd1234.01.1",
    "x" * 10_000, "abcd1234.1.1.1", "abcd1234.1.1;", "[object Object]", "'", "1.1", "ä",
]  # fmt: skip


def unresumable(cursor: str) -> list[str]:
    """Everything that is not this session's, or not yet. ``cursor`` is a good one."""
    good = parse(cursor)
    return [
        *GARBAGE,
        str(Cursor("abcd1234", good.seq, good.frame)),
        str(Cursor(good.epoch, 999_999_999_999_999, 0)),
        str(Cursor(good.epoch, good.seq + 100, 1)),
        str(Cursor(good.epoch, good.seq, 999_999)),
        f"{good.epoch}.{'9' * 16}.1",
        f"{good.epoch}.1.{'9' * 7}",
        f"{good.epoch}.0.1",
        f"{good.epoch}.1.1",  # the user's message: no frame of a run
    ]


async def reply(rig: Rig, *, finish: bool) -> tuple[Answer, Any]:
    answer, call = await rig.begun()
    for number in range(5):
        call.say(f"{number} ")
        await answer.until_text(f"{number} ")
    if finish:
        call.finish()
        await answer.end()
    return answer, call


async def ask(rig: Rig, cursor: str, way: str, *, shim: bool, query: str = "") -> Answer:
    if way == "header":
        return await rig.resume("c", cursor, shim=shim, query=f"?{query}")
    return await rig.resume("c", shim=shim, query=f"?after={quote(cursor)}&{query}")


@pytest.mark.parametrize("way", ["header", "query"])
@pytest.mark.parametrize("finish", [True, False])
async def test_a_cursor_that_cannot_be_continued_gets_the_full_state(rig: Rig, finish: bool, way: str) -> None:
    answer, call = await reply(rig, finish=finish)
    assert answer.cursor
    readers = []
    for cursor in unresumable(answer.cursor):
        full = await ask(rig, cursor, way, shim=False)
        assert (full.status, full.headers["strandline-replay"]) == (200, "full"), cursor
        assert full.headers["strandline-run"] == call.run.id
        readers.append(full)
        resync = await (await ask(rig, cursor, way, shim=True)).end()
        assert resync.status == 200
        [frame] = resync.frames
        assert (frame.chunk["type"], frame.chunk["code"], frame.cursor) == ("error", "resync", None)
    call.finish()
    for full in readers:
        await full.end()
        assert full.types[0] == "start"
        assert full.types[-2:] == ["finish", "[DONE]"]
        assert full.text == "0 1 2 3 4 "


async def test_an_empty_cursor_is_none(rig: Rig) -> None:
    answer, call = await reply(rig, finish=False)
    for query in ("", "?after="):
        resumed = await rig.resume("c", "", query=query)
        assert resumed.headers["strandline-replay"] == "full"
    call.finish()
    await answer.end()
    for query in ("", "?after="):
        assert (await rig.resume("c", "", query=query)).status == 204


async def test_the_header_wins_over_the_query(rig: Rig) -> None:
    answer, _ = await reply(rig, finish=True)
    first, last = answer.frames[0].cursor, answer.cursor
    assert first
    assert last
    tail = await (await rig.resume("c", first, query=f"?after={last}")).end()
    assert tail.frames == answer.frames[1:]
    assert (await rig.resume("c", last, query=f"?after={first}")).status == 204
    full = await (await rig.resume("c", "garbage", query=f"?after={last}")).end()
    assert full.text == answer.text
    # An empty header is none: then the query counts.
    assert (await rig.resume("c", "", query=f"?after={last}")).status == 204


async def test_a_bad_cursor_with_a_named_run_gets_that_run(rig: Rig) -> None:
    first, call = await reply(rig, finish=True)
    second, other = await rig.begun(id="u2")
    other.say("second").finish()
    await second.end()
    full = await (await rig.resume("c", "garbage", query=f"?run={call.run.id}")).end()
    assert (full.headers["strandline-run"], full.text) == (call.run.id, first.text)
    full = await (await rig.resume("c", "garbage")).end()
    assert (full.headers["strandline-run"], full.text) == (other.run.id, "second")
    assert (await rig.resume("c", query="?run=unknown")).status == 204


async def test_a_cursor_of_an_earlier_run_goes_on_in_that_run(rig: Rig) -> None:
    first, _ = await reply(rig, finish=True)
    second, other = await rig.begun(id="u2")
    other.say("second")
    await second.until_text("second")
    for index, frame in enumerate(first.frames[:-2], 1):
        assert frame.cursor
        tail = await (await rig.resume("c", frame.cursor)).end()
        assert tail.frames == first.frames[index:]
    assert first.cursor
    assert (await rig.resume("c", first.cursor)).status == 204, "it has seen the end of its run"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_after_the_log_has_expired_a_cursor_gets_the_full_state(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path / "chat.db" if kind == "sqlite" else None, tail_limit=0) as rig:
        answer, _ = await reply(rig, finish=True)
        await rig.go_cold()
        assert answer.cursor
        middle = answer.frames[3].cursor
        assert middle
        tail = await (await rig.resume("c", middle)).end()
        assert tail.headers["strandline-replay"] == "tail"
        assert tail.frames == answer.frames[4:]
        await rig.go_cold()
        await rig.clock.jump(rig.chat.settings.log_retention + 100)
        await rig.store.expire(rig.clock.now() - int(rig.chat.settings.log_retention * 1000))
        assert await rig.store.events("c", 1, 10**6) == []
        full = await (await rig.resume("c", middle)).end()
        assert full.headers["strandline-replay"] == "full"
        assert full.text == answer.text
        assert full.types[-2:] == ["finish", "[DONE]"]
        resync = await (await rig.resume("c", middle, shim=True)).end()
        assert [frame.chunk["code"] for frame in resync.frames] == ["resync"]
        for shim in (True, False):
            assert (await rig.resume("c", answer.cursor, shim=shim)).status == 204, "it has seen the end"
        feed = await rig.open("GET", "/api/sessions/c/events", headers={"Last-Event-ID": middle})
        await feed.until(lambda: len(feed.frames) >= 2)
        assert feed.frames[0].chunk["type"] == "snapshot"
        # The session goes on, and its new cursors are good.
        more, call = await rig.begun(id="u2")
        call.say("more")
        await more.until_text("more")
        assert more.cursor
        tail = await rig.resume("c", more.frames[0].cursor)
        assert tail.headers["strandline-replay"] == "tail"
        call.finish()
        await more.end()
        await tail.end()
        assert tail.frames == more.frames[1:]


@pytest.mark.parametrize("after", ["", "header", "query"])
async def test_a_feed_whose_cursor_cannot_be_continued_begins_with_a_snapshot(rig: Rig, after: str) -> None:
    answer, _ = await reply(rig, finish=True)
    assert answer.cursor
    bad = [cursor for cursor in unresumable(answer.cursor) if not cursor.endswith(".1.1") or "abcd" in cursor]
    for cursor in bad if after else [""]:
        query = f"?after={quote(cursor)}" if after == "query" else ""
        headers = {"Last-Event-ID": cursor} if after == "header" else {}
        feed = await rig.open("GET", f"/api/sessions/c/events{query}", headers=headers)
        await feed.until(lambda feed=feed: feed.frames)
        first = feed.frames[0]
        assert first.chunk["type"] == "snapshot", cursor
        assert first.cursor == first.chunk["cursor"]
        assert [message["role"] for message in first.chunk["messages"]] == ["user", "assistant"]
        await feed.drop()
