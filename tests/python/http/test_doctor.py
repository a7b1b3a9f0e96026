"""The diagnosis routes (PROTOCOL §12), with the time held still. Through real proxies: ``tests/python/proxies``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Request

from rig import Answer, Rig, running
from strandline.http.auth import Auth
from strandline.http.doctor import MAX_PROBES, PROBED_HEADERS

DOCTOR = "/api/doctor"


async def nobody(request: Request) -> str | None:
    return request.headers.get("x-user")


async def whole(rig: Rig, query: str = "", **headers: str) -> Answer:
    answer = await rig.open("GET", f"{DOCTOR}{query}", headers=headers)
    await rig.passing(lambda: answer.over)
    return answer


def numbers(answer: Answer) -> list[int]:
    return [frame.chunk["n"] for frame in answer.frames if frame.chunk["type"] == "probe"]


async def test_frames_come_one_by_one_with_a_cursor_each(rig: Rig) -> None:
    answer = await rig.open("GET", f"{DOCTOR}?frames=3&interval=100")
    await answer.until(lambda: numbers(answer) == [1])
    assert answer.body.startswith(b": strandline\ndata: ")
    for expected in ([1, 2], [1, 2, 3]):
        await rig.clock.advance(0.05)
        assert len(numbers(answer)) == len(expected) - 1
        await rig.clock.advance(0.05)
        await answer.until(lambda expected=expected: numbers(answer) == expected)
    await answer.end()
    assert [frame.cursor for frame in answer.frames] == ["probe.1", "probe.2", "probe.3", None]
    assert answer.frames[-1].chunk == {"type": "end"}
    at = [frame.chunk["at"] for frame in answer.frames[:3]]
    assert [each - at[0] for each in at] == [0, 100, 200]
    assert {frame.chunk["of"] for frame in answer.frames[:3]} == {3}


async def test_without_a_query_there_are_twenty_a_tenth_of_a_second_apart(rig: Rig) -> None:
    answer = await whole(rig)
    assert numbers(answer) == list(range(1, 21))
    assert answer.frames[19].chunk["at"] - answer.frames[0].chunk["at"] == 1900


async def test_the_head_is_that_of_a_chat(rig: Rig) -> None:
    chat, call = await rig.begun()
    call.finish()
    await chat.end()
    probe = await whole(rig, "?frames=1")
    assert probe.headers.keys() == chat.headers.keys()
    same = {name for name in chat.headers if name not in ("strandline-run", "strandline-message", "date")}
    assert {name: probe.headers[name] for name in same} == {name: chat.headers[name] for name in same}


@pytest.mark.parametrize("header", [True, False])
async def test_a_cursor_goes_on_after_its_frame(rig: Rig, header: bool) -> None:
    async def after(cursor: str) -> Answer:
        query = "?frames=5&interval=10"
        return await (
            whole(rig, query, **{"last-event-id": cursor}) if header else whole(rig, f"{query}&after={cursor}")
        )

    tail = await after("probe.3")
    assert numbers(tail) == [4, 5]
    assert tail.headers["strandline-replay"] == "tail"
    assert numbers(await after("probe.5")) == []
    garbage = await after("nonsense")
    assert (numbers(garbage), garbage.headers["strandline-replay"]) == ([1, 2, 3, 4, 5], "full")


async def test_it_is_silent_as_long_as_it_was_asked_to_or_sends_heartbeats() -> None:
    async with running(heartbeat=0.01) as rig:
        answer = await rig.open("GET", f"{DOCTOR}?frames=1&quiet=7")
        await answer.until(lambda: answer.frames)
        said = answer.body
        other = await rig.open("GET", f"{DOCTOR}?frames=1&quiet=300&heartbeats=true")
        await other.until(lambda: other.body.count(b": hb\n") >= 3)
        for _ in range(13):
            await rig.clock.advance(0.5)
        assert answer.body == said, "not one heartbeat"
        assert not answer.over
        await rig.clock.advance(0.5)
        await answer.end()
        assert answer.frames[-1].chunk == {"type": "end"}
        assert not other.over
        await other.drop()


@pytest.mark.parametrize(
    "query",
    ["frames=0", "frames=101", "frames=x", "interval=9", "interval=5001", "quiet=-1", "quiet=nan", "heartbeats=maybe"],
)
async def test_what_is_out_of_bounds_is_refused(rig: Rig, query: str) -> None:
    answer = await rig.ask("GET", f"{DOCTOR}?{query}")
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert query.partition("=")[0] in answer.json["detail"]


async def test_so_many_at_a_time_and_who_leaves_makes_room(rig: Rig) -> None:
    open_ones = [await rig.open("GET", f"{DOCTOR}?quiet=300") for _ in range(MAX_PROBES)]
    assert {each.status for each in open_ones} == {200}
    refused = await rig.ask("GET", DOCTOR)
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "too-many-readers", "5")
    await open_ones[0].drop()
    again = await rig.open("GET", DOCTOR)
    assert again.status == 200
    for each in (*open_ones[1:], again):
        await each.drop()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_strangers_are_not_measured(method: str) -> None:
    async with running(auth=Auth(nobody)) as rig:
        answer = await rig.ask(method, DOCTOR, {} if method == "POST" else None)
        assert (answer.status, answer.code) == (401, "unauthorized")
        known = await rig.open(method, DOCTOR, {} if method == "POST" else None, {"x-user": "ann"})
        assert known.status == 200


async def test_shutting_down_ends_it_at_once(rig: Rig) -> None:
    answer = await rig.open("GET", f"{DOCTOR}?frames=1&quiet=300")
    await answer.until(lambda: answer.frames)
    draining = rig.chat.service.drain()
    await rig.clock.advance(1)
    await answer.end()
    last = answer.frames[-1]
    assert (last.chunk["type"], last.chunk["code"], last.cursor) == ("error", "shutting-down", None)
    await draining
    refused = await rig.ask("GET", DOCTOR)
    assert (refused.status, refused.code) == (503, "shutting-down")


async def test_a_post_tells_what_arrived(rig: Rig) -> None:
    sent = {name.lower(): f"value-{number}" for number, name in enumerate(PROBED_HEADERS)}
    answer = await rig.open("POST", DOCTOR, b'{"a": "x"}', {**sent, "authorization": "Bearer secret"}, raw=True)
    await answer.end()
    assert answer.status == 200
    assert answer.json == {
        "bytes": 10,
        "headers": {name: f"value-{number}" for number, name in enumerate(PROBED_HEADERS)},
        "http": "1.1",
        "heartbeat": 15.0,
        "maxBody": 4194304,
    }
    assert b"secret" not in answer.body
    assert answer.headers["cache-control"] == "no-store"
    assert {"Last-Event-ID", "Idempotency-Key", "Strandline-Client"} <= set(PROBED_HEADERS)


async def test_a_post_takes_as_much_as_any_other() -> None:
    async with running(max_body=100) as rig:
        fits = await rig.open("POST", DOCTOR, b"x" * 100, raw=True)
        assert (await fits.end()).json["bytes"] == 100
        larger = await rig.open("POST", DOCTOR, b"x" * 101, raw=True)
        assert (await larger.end()).code == "body-too-large"


@pytest.mark.parametrize(
    "ask",
    [
        lambda rig: rig.ask("PUT", DOCTOR, {}),
        lambda rig: rig.ask("HEAD", DOCTOR),
        lambda rig: rig.ask("GET", f"{DOCTOR}/"),
        lambda rig: rig.ask("POST", f"{DOCTOR}/x", {}),
    ],
)
async def test_there_is_nothing_else(rig: Rig, ask: Callable[[Rig], Any]) -> None:
    answer = await ask(rig)
    assert (answer.status, answer.code) == (404, "not-found")


async def test_it_leaves_no_trace(rig: Rig) -> None:
    await whole(rig, "?frames=2")
    await rig.ask("POST", DOCTOR, {"id": "c"})
    assert rig.store.committed == []
    assert not rig.sessions.in_memory()
