"""Requests that are broken in their bytes, their headers or their method: a problem document each time, the session is
what it was before, and the server goes on. (What every field may hold: ``test_bad_input.py``.)"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from rig import EMPTY, Answer, Rig, running
from strandline.testing import ScriptedAgent

USER = {"id": "u9", "role": "user", "parts": [{"type": "text", "text": "hello 🦩"}]}
BODY: dict[str, Any] = {"id": "c", "trigger": "submit-message", "messages": [USER], "extra": {"a": [1, 2.5, None]}}
REFUSALS = (
    "bad-request", "invalid-id", "invalid-message", "invalid-request", "message-exists", "unknown-message",
)  # fmt: skip
ROUTES = [
    ("POST", "/api/chat"),
    ("GET", "/api/chat/c/stream"),
    ("POST", "/api/chat/c/stop"),
    ("GET", "/api/chat/c/messages"),
    ("GET", "/api/sessions"),
    ("GET", "/api/sessions/c"),
    ("GET", "/api/sessions/c/events"),
    ("GET", "/api/sessions/c/messages"),
    ("POST", "/api/sessions/c/stop"),
]


def check_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer.body[:300]
    assert answer.json["status"] == status
    assert answer.json["type"] == f"urn:strandline:{code}"
    assert answer.headers["cache-control"] == "no-store"


async def settled(rig: Rig) -> tuple[Any, ...]:
    """A session with one reply that is over, and everything that may not change."""
    answer, call = await rig.begun()
    call.say("Hi").finish()
    await answer.end()
    return await everything(rig)


async def everything(rig: Rig) -> tuple[Any, ...]:
    sessions = (await rig.ask("GET", "/api/sessions")).json
    return len(rig.agent.calls), await rig.log(), await rig.history("c"), sessions


async def raw(rig: Rig, content: bytes, headers: dict[str, str] | None = None) -> Answer:
    return await (await rig.open("POST", "/api/chat", content, headers, raw=True)).end()


async def test_a_body_cut_after_any_byte_changes_nothing(rig: Rig) -> None:
    before = await settled(rig)
    whole = json.dumps(BODY, ensure_ascii=False).encode()
    for cut in range(len(whole)):
        check_problem(await raw(rig, whole[:cut]), 400, "bad-request")
    assert await everything(rig) == before


async def test_a_body_with_any_byte_replaced_is_never_a_fault_of_the_server() -> None:
    chance = random.Random(0)
    whole = json.dumps(BODY, ensure_ascii=False).encode()
    async with running(agent=ScriptedAgent("ok")) as rig:
        for _ in range(400):
            broken = bytearray(whole)
            for _ in range(chance.choice([1, 1, 2, 8])):
                broken[chance.randrange(len(broken))] = chance.choice(
                    [*b'"{}[]:,0-\\\x00\xff nte', chance.randrange(256)]
                )
            answer = await raw(rig, bytes(broken))
            if answer.status == 200:
                assert answer.types[-1] == "[DONE]"
            else:
                assert answer.status in (400, 409, 422), answer.body
                assert answer.code in REFUSALS
        answer = await (await rig.post("healthy")).end()
        assert answer.text == "ok"


def nested(depth: int, leaf: str = "1") -> bytes:
    """A body that is ``depth`` levels deep in all, with the depth in what the agent is given."""
    return (
        json.dumps(BODY).encode()[:-1] + b', "deep": ' + b"[" * (depth - 1) + leaf.encode() + b"]" * (depth - 1) + b"}"
    )


async def test_a_body_may_be_deep_but_not_bottomless() -> None:
    async with running(agent=ScriptedAgent("ok")) as rig:
        answer = await raw(rig, nested(100))
        assert (answer.status, answer.text) == (200, "ok")
        for depth in (101, 255, 1025, 200_000):
            check_problem(await raw(rig, nested(depth)), 400, "bad-request")
        # The deepest part that is taken can be stored and read again.
        part = {"type": "data-x", "data": json.loads("[" * 95 + "]" * 95)}
        body = {"id": "deep", "messages": [{"id": "u1", "role": "user", "parts": [part]}]}
        answer = await (await rig.open("POST", "/api/chat", body)).end()
        assert answer.status == 200
        assert (await rig.history("deep"))["messages"][0]["parts"] == [part]


async def test_numbers_and_names_that_json_allows_but_nobody_can_keep(rig: Rig) -> None:
    before = await settled(rig)
    for value in ("1e999", "-1e999", "NaN", "Infinity", "0x10", "01", '"\\ud83e"', '"\\udda9\\ud83e"', "'x'", "1_0"):
        check_problem(await raw(rig, b'{"id": "c", "messages": [], "x": %b}' % value.encode()), 400, "bad-request")
    for data in ('{"__proto__": 1}', '{"constructor": {"prototype": 1}}', '[[{"__proto__": {}}]]'):
        part = b'{"type": "data-x", "data": %b}' % data.encode()
        content = b'{"id": "c", "messages": [{"id": "u9", "role": "user", "parts": [%b]}]}' % part
        check_problem(await raw(rig, content), 422, "invalid-message")
    assert await everything(rig) == before


async def test_a_name_that_is_said_twice_counts_once(rig: Rig) -> None:
    content = json.dumps(BODY).encode()[:-1] + b', "id": "d"}'
    answer = await rig.open("POST", "/api/chat", content, raw=True)
    call = await rig.agent.called()
    assert call.run.session_id == "d"
    call.finish()
    await answer.end()
    assert await rig.history("c") == EMPTY


async def test_messages_that_share_an_id_are_not_confused(rig: Rig) -> None:
    twice = [{**USER, "parts": [{"type": "text", "text": "old"}]}, USER]
    answer = await rig.open("POST", "/api/chat", {**BODY, "messages": twice})
    call = await rig.agent.called()
    assert [message["parts"] for message in call.run.messages] == [USER["parts"]], "only the last one is read"
    call.finish()
    await answer.end()


async def test_only_the_last_message_is_looked_at(rig: Rig) -> None:
    junk = [None, 3, [], {}, {"id": 5}, {"id": "a", "role": "user", "parts": "x"}, {"role": "system", "parts": [{}]}]
    answer = await rig.open("POST", "/api/chat", {**BODY, "messages": [*junk * 100, USER]})
    call = await rig.agent.called()
    assert [message["id"] for message in call.run.messages] == ["u9"]
    call.finish()
    await answer.end()


@pytest.mark.parametrize("chunks", [1, 50])
async def test_a_huge_body_without_a_declared_length_is_refused(chunks: int) -> None:
    async with running(max_body=10_000) as rig:
        read = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal read
            for _ in range(chunks):
                read += 1
                yield b" " * (20_000 // min(chunks, 2))

        async with httpx.AsyncClient(transport=httpx.ASGITransport(rig.app), base_url="http://localhost") as http:
            answer = await http.post("/api/chat", content=pieces(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
        assert read <= 2, "the rest is not read"


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    whole = json.dumps(BODY).encode()
    async with running(agent=ScriptedAgent("ok"), max_body=len(whole)) as rig:
        assert (await raw(rig, whole)).status == 200
        check_problem(await raw(rig, whole + b" "), 413, "body-too-large")


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("APPLICATION/JSON;charset=UTF-8", True),
        ("application/json-patch+json", False),
        ("application/problem+json", False),
        ("text/json", False),
        ("*/*", False),
        ("", False),
        (",application/json", False),
    ],
)
async def test_what_a_body_may_be_called(said: str, taken: bool) -> None:
    async with running(agent=ScriptedAgent("ok")) as rig:
        answer = await raw(rig, json.dumps(BODY).encode(), {"content-type": said})
        if taken:
            assert answer.text == "ok"
        else:
            check_problem(answer, 415, "unsupported-media-type")
            assert not rig.agent.calls


@pytest.mark.parametrize("key", ["", " ", "a b", "a\tb", "ä", "a/b", "%61", "x" * 201, "x" * 10_000, ".", "..", "a,b"])
async def test_an_idempotency_key_is_an_id_or_a_problem(rig: Rig, key: str) -> None:
    answer = await rig.post("c", key=key)
    if key == "a,b":
        assert answer.status == 200
        return
    check_problem(await answer.end(), 422, "invalid-id")
    assert not rig.agent.calls


@pytest.mark.parametrize("device", ["a b", "a/b", "ä", "x" * 201, "..", "%"])
async def test_a_device_is_an_id_or_a_problem(rig: Rig, device: str) -> None:
    await settled(rig)
    for method, route in ROUTES:
        body = BODY if route == "/api/chat" else {} if method == "POST" else None
        check_problem(await rig.ask(method, route, body, {"Strandline-Device": device}), 422, "invalid-id")
    assert len(rig.agent.calls) == 1


@pytest.mark.parametrize(
    "client", ["", ";", "shim", "shim/", ";ai=7", "x; ai=8", "x; ai=", "x; ai=seven", "x" * 10_000, "ä; ai=6", "\t;;;"]
)
async def test_a_client_that_says_nonsense_about_itself_is_served_as_the_setting_says(client: str) -> None:
    async with running(agent=ScriptedAgent("ok")) as rig:
        answer = await (await rig.post("c", headers={"Strandline-Client": client})).end()
        assert answer.text == "ok"
        feed = await rig.open("GET", "/api/sessions/c/events", headers={"Strandline-Client": client})
        await feed.until(lambda: len(feed.frames) >= 2)
        reader = next(each for each in feed.frames[-1].chunk["readers"] if each["wire"] == "session")
        assert len(reader["client"] or "") <= 80


@pytest.mark.parametrize("user", ["", "   ", "a\x01b", "x" * 201])
async def test_a_user_that_is_none_is_told_so_on_every_route(rig: Rig, user: str) -> None:
    for method, route in ROUTES:
        body = BODY if route == "/api/chat" else {} if method == "POST" else None
        check_problem(await rig.as_user(user).ask(method, route, body), 401, "invalid-user")
    assert not rig.agent.calls


@pytest.mark.parametrize(
    ("method", "route"),
    [
        (method, route)
        for method in ("HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE")
        for _, route in ROUTES
        if (method, route) not in (("PATCH", "/api/sessions/c"), ("DELETE", "/api/sessions/c"))
    ],
)
async def test_methods_that_no_route_has(rig: Rig, method: str, route: str) -> None:
    before = await settled(rig)
    check_problem(await rig.ask(method, route), 404, "not-found")
    assert await everything(rig) == before


@pytest.mark.parametrize(
    "path",
    [
        "/api/chat/c",
        "/api/chat/c/",
        "/api/chat/c/streams",
        "/api/chat/c/stream/x",
        "/api/chat/c/messages/",
        "/api/chat//",
        "/api/chat/c/stop",
    ],
)
async def test_paths_next_to_the_routes(rig: Rig, path: str) -> None:
    before = await settled(rig)
    check_problem(await rig.ask("GET", path), 404, "not-found")
    assert await everything(rig) == before


@pytest.mark.parametrize("run", ["", "a%2Fb", "%00", "x" * 10_000])
async def test_a_run_in_the_query_is_an_id_or_a_problem(rig: Rig, run: str) -> None:
    await settled(rig)
    check_problem(await rig.ask("GET", f"/api/chat/c/stream?run={run}"), 422, "invalid-id")


@pytest.mark.parametrize("limit", ["abc", "", "1.5", "0x1", "1e3", "%00", "٣٣٣x", "-1", "0", "0" * 30])
async def test_a_limit_is_a_number_or_a_problem(rig: Rig, limit: str) -> None:
    await settled(rig)
    for path in ("/api/sessions", "/api/sessions/c/messages"):
        check_problem(await rig.ask("GET", f"{path}?limit={limit}"), 422, "invalid-request")
        assert (await rig.ask("GET", f"{path}?limit={'9' * 30}")).status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 200, ""),
        (b"{}", 200, ""),
        (b"null", 400, "bad-request"),
        (b"[]", 400, "bad-request"),
        (b'{"reason": ""}', 422, "invalid-request"),
        (b'{"reason": null}', 422, "invalid-request"),
        (b'{"reason": "a\\nb"}', 422, "invalid-request"),
        (b'{"reason": "' + b"x" * 201 + b'"}', 422, "invalid-request"),
        (b'{"run": ""}', 422, "invalid-id"),
        (b'{"key": ["k"]}', 422, "invalid-id"),
        (b'{"run": "unknown"}', 404, "not-found"),
        (b'{"run": null, "messageId": null, "key": null}', 200, ""),
        (b'{"messageId": "later"}', 202, ""),
    ],
)
async def test_stops_that_are_odd(rig: Rig, body: bytes, status: int, code: str) -> None:
    before = await settled(rig)
    headers = {} if body else {"content-type": ""}
    answer = await (await rig.open("POST", "/api/chat/c/stop", body, headers, raw=True)).end()
    if code:
        check_problem(answer, status, code)
    else:
        assert answer.status == status
    assert await everything(rig) == before
