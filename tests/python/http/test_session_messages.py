"""Messages of a session, page by page, and sending one (PROTOCOL §8.6, §8.7)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import Answer, Rig, running, user_of
from strandline.core.records import SessionRecord
from strandline.http.auth import Action, Auth, Identity
from strandline.testing import ScriptedAgent

C = "/api/sessions/c"


def check_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer.body[:300]


def user_message(text: str, id: str = "u1") -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


async def send(rig: Any, text: str = "hello", id: str = "u1", *, key: str | None = None, **body: Any) -> Answer:
    named = {"Idempotency-Key": key} if key is not None else {}
    answer: Answer = await rig.ask("POST", f"{C}/messages", {"message": user_message(text, id), **body}, named)
    return answer


async def conversation(rig: Rig, turns: int) -> list[Any]:
    """Messages u0, reply, u1, reply, … as history has them."""
    for number in range(turns):
        await send(rig, f"question {number}", f"u{number}")
        (await rig.agent.called(number + 1)).say(f"answer {number}").finish()
        await rig.ended()
    return list((await rig.history("c"))["messages"])


async def page(rig: Any, query: str = "") -> Any:
    answer = await rig.ask("GET", f"{C}/messages{query}")
    assert answer.status == 200, answer.body
    return answer.json


async def kinds_after(rig: Rig, cursor: str) -> list[dict[str, Any]]:
    """What the feed says after a cursor, up to now."""
    feed = await rig.open("GET", f"{C}/events", headers={"Last-Event-ID": cursor})
    last = len(await rig.log())
    await feed.until(lambda: any(frame.chunk["type"] == "readers" for frame in feed.frames))
    found = [dict(frame.chunk) for frame in feed.frames if "seq" in frame.chunk]
    assert not found or found[-1]["seq"] == last
    await feed.drop()
    return found


# ------------------------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8, 9])
@pytest.mark.parametrize("cold", [False, True])
async def test_pages_in_both_directions_are_the_whole_conversation(rig: Rig, limit: int, cold: bool) -> None:
    whole = await conversation(rig, 4)
    if cold:
        await rig.go_cold()
    newest = await page(rig, f"?limit={limit}")
    assert newest["messages"] == whole[-limit:]
    assert newest["page"]["after"] is None
    found, at = newest["messages"], newest
    while at["page"]["before"] is not None:
        at = await page(rig, f"?limit={limit}&before={at['page']['before']}")
        found = at["messages"] + found
        assert set(at["runs"]) == {each["id"] for each in at["messages"] if each["role"] == "assistant"}
    assert found == whole
    found = at["messages"]
    while at["page"]["after"] is not None:
        at = await page(rig, f"?limit={limit}&after={at['page']['after']}")
        found = found + at["messages"]
    assert found == whole


async def test_without_a_limit_it_is_the_newest_fifty() -> None:
    async with running(agent=ScriptedAgent("ok")) as rig:
        for number in range(30):
            assert (await send(rig, "x", f"u{number}")).status == 202
            await rig.ended()
        newest = await page(rig)
        assert len(newest["messages"]) == 50
        assert newest["messages"][0]["id"] == "u5" == newest["page"]["before"]
        assert len((await page(rig, "?limit=5000"))["messages"]) == 60


async def test_a_page_says_how_its_replies_ended_and_what_versions_are_behind_ids(rig: Rig) -> None:
    await send(rig)
    (await rig.agent.called()).fail(ValueError("no"))
    await rig.ended()
    reply = (await rig.history("c"))["messages"][1]["id"]
    answer = await page(rig)
    assert answer["runs"][reply]["status"] == "failed"
    assert answer["runs"] == (await rig.history("c"))["runs"]
    assert answer["activeRun"] is None
    log = await rig.log()
    assert answer["versions"] == {"u1": log[0]["message"]}


async def test_following_the_feed_after_an_idle_page_repeats_nothing(rig: Rig) -> None:
    await conversation(rig, 2)
    cursor = (await page(rig))["cursor"]
    assert await kinds_after(rig, cursor) == []
    await send(rig, "more", "u9")
    assert [event["type"] for event in await kinds_after(rig, cursor)][:2] == ["message-created", "run-queued"]


async def test_what_is_being_written_is_not_on_a_page_but_all_of_it_follows_the_cursor(rig: Rig) -> None:
    whole = await conversation(rig, 1)
    sent = (await send(rig, "again", "u9")).json
    call = await rig.agent.called(2)
    call.say("half ")
    answer = await rig.resume("c")
    await answer.until_text("half ")
    found = await page(rig, "?limit=2")
    assert [message["id"] for message in found["messages"]] == [whole[-1]["id"], "u9"]
    assert found["activeRun"] == {"id": sent["run"], "messageId": sent["messageId"], "status": "running"}
    assert sent["messageId"] not in found["runs"]
    call.say("done").finish()
    await answer.end()
    followed = await kinds_after(rig, found["cursor"])
    assert [event["type"] for event in followed][:2] == ["run-queued", "run-started"]
    said = "".join(chunk.get("delta", "") for event in followed for chunk in event.get("chunks", ()))
    assert (said, followed[-1]["type"]) == ("half done", "run-ended")
    before = await page(rig, f"?before={sent['messageId']}&limit=1")
    assert [message["id"] for message in before["messages"]] == ["u9"]


async def test_a_page_and_its_cursor_are_one_moment(rig: Rig) -> None:
    """Whatever happens while the contents are read: page and feed together have every message exactly once."""
    await conversation(rig, 1)
    for number in range(1, 12):
        asking = asyncio.create_task(page(rig))
        for _ in range(number):
            await asyncio.sleep(0)
        await send(rig, "more", f"v{number}")
        call = await rig.agent.called(number + 1)
        found = await asking
        call.say("x").finish()
        await rig.ended()
        followed = await kinds_after(rig, found["cursor"])
        ids = [message["id"] for message in found["messages"]]
        created = [event["message_id"] for event in followed if event["type"] in ("message-created", "run-queued")]
        assert [*ids, *(id for id in created if id not in ids)] == [
            m["id"] for m in (await rig.history("c"))["messages"]
        ]
        assert not {id for id in ids if not id.startswith(("u", "v"))} & set(created)


async def test_pages_are_of_the_active_path(rig: Rig) -> None:
    await conversation(rig, 2)
    old = (await rig.history("c"))["messages"]
    await send(rig, "edited", "u0", messageId="u0")
    (await rig.agent.called(3)).say("new").finish()
    await rig.ended()
    found = await page(rig)
    assert [message["parts"][-1].get("text") for message in found["messages"]] == ["edited", "new"]
    for named in ("before", "after"):
        check_problem(await rig.ask("GET", f"{C}/messages?{named}={old[2]['id']}"), 422, "unknown-message")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?before=nobody", "unknown-message"),
        ("?after=nobody", "unknown-message"),
        ("?before=u0&after=u1", "invalid-request"),
        ("?before=", "invalid-id"),
        ("?after=a%2Fb", "invalid-id"),
        ("?limit=0", "invalid-request"),
        ("?limit=many", "invalid-request"),
    ],
)
async def test_a_page_that_cannot_be_is_a_problem(rig: Rig, query: str, code: str) -> None:
    await conversation(rig, 2)
    check_problem(await rig.ask("GET", f"{C}/messages{query}"), 422, code)


async def test_a_session_without_messages_has_an_empty_page(rig: Rig) -> None:
    await rig.ask("POST", "/api/sessions", {"id": "c"})
    found = await page(rig)
    assert (found["messages"], found["page"]) == ([], {"before": None, "after": None})
    assert await kinds_after(rig, found["cursor"]) == []


async def test_a_page_owes_nobody_a_replay(rig: Rig) -> None:
    await send(rig)
    call = await rig.agent.called()
    await page(rig)
    call.finish()
    await rig.ended()
    assert (await rig.resume("c")).status == 204


# ------------------------------------------------------------------------------------------------ sending


async def test_a_message_is_sent_and_the_reply_comes_on_the_feed(rig: Rig) -> None:
    answer = await send(rig, body={"model": "small"})
    assert answer.status == 202
    call = await rig.agent.called()
    assert call.run.body == {"model": "small"}
    assert call.run.id == answer.json["run"]
    followed = await kinds_after(rig, answer.json["cursor"])
    assert [event["type"] for event in followed] == ["run-started"]
    assert followed[0]["run"] == answer.json["run"]
    call.say("Hi").finish()
    await rig.ended()
    assert [message["id"] for message in (await rig.history("c"))["messages"]] == ["u1", answer.json["messageId"]]
    log = await rig.log()
    queued = next(seq for seq, event in enumerate(log, 1) if event["type"] == "run-queued")
    assert answer.json["cursor"].split(".")[1:] == [str(queued), "1"]


async def test_the_same_request_is_decided_as_on_the_ai_sdk_wire(rig: Rig) -> None:
    first = (await send(rig)).json
    assert (await send(rig)).json == first, "known message, same parts: attached"
    check_problem(await send(rig, "other"), 409, "message-exists")
    check_problem(await send(rig, messageId="nobody"), 409, "unknown-message")
    check_problem(await send(rig, messageId=first["messageId"]), 422, "invalid-message")
    second = (await send(rig, "next", "u2")).json
    log = await rig.log()
    assert [event["reason"] for event in log if event["type"] == "run-ended"] == ["superseded"]
    edited = (await send(rig, "edited", "u2", messageId="u2")).json
    assert len({first["run"], second["run"], edited["run"]}) == 3
    call = await rig.agent.called(3)
    call.say("so").finish()
    await rig.ended()
    again = await rig.ask("POST", f"{C}/messages", {"trigger": "regenerate-message", "messageId": edited["messageId"]})
    assert again.status == 202
    assert again.json["messageId"] != edited["messageId"]
    assert [each["content"] for each in (await rig.agent.called(4)).run.prompt()] == ["hello", "edited"]


async def test_a_key_makes_a_send_safe_to_repeat_also_at_the_same_moment(rig: Rig) -> None:
    answers = await asyncio.gather(*(send(rig, key="k1") for _ in range(5)))
    assert [answer.status for answer in answers] == [202] * 5
    assert len({answer.body for answer in answers}) == 1
    regenerate = {"trigger": "regenerate-message"}
    headers = {"Idempotency-Key": "k2"}
    again = [(await rig.ask("POST", f"{C}/messages", regenerate, headers)).json for _ in range(3)]
    assert again[0] == again[1] == again[2]
    assert len((await rig.sessions.find("c")).state.runs) == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid-message"),
        ({"trigger": "submit-message"}, "invalid-message"),
        ({"message": None}, "invalid-message"),
        ({"message": "hello"}, "invalid-message"),
        ({"message": {"id": "u1", "role": "user", "parts": []}}, "invalid-message"),
        ({"message": {"id": "u1", "role": "assistant", "parts": [{"type": "text", "text": "x"}]}}, "invalid-message"),
        ({"message": {"id": "u1", "role": "user", "parts": [{"type": "reasoning", "text": "x"}]}}, "invalid-message"),
        ({"message": {"id": "a/b", "role": "user", "parts": [{"type": "text", "text": "x"}]}}, "invalid-id"),
        ({"message": user_message("x"), "messageId": 7}, "invalid-id"),
        ({"message": user_message("x"), "messageId": "a b"}, "invalid-id"),
        ({"message": user_message("x"), "trigger": "run-agent"}, "invalid-request"),
        ({"message": user_message("x"), "trigger": 7}, "invalid-request"),
        ({"message": user_message("x"), "body": "text"}, "invalid-request"),
        ({"message": user_message("x"), "body": [1]}, "invalid-request"),
    ],
)
async def test_what_cannot_be_sent_is_a_problem_and_starts_nothing(rig: Rig, body: Any, code: str) -> None:
    check_problem(await rig.ask("POST", f"{C}/messages", body), 422, code)
    assert (await rig.ask("GET", C)).status == 404
    assert not rig.agent.calls


async def test_a_key_that_is_no_id_and_a_body_that_is_no_object_are_problems(rig: Rig) -> None:
    check_problem(await send(rig, key="a b"), 422, "invalid-id")
    check_problem(await rig.ask("POST", f"{C}/messages", [1]), 400, "bad-request")
    assert not rig.agent.calls


async def test_nothing_can_be_sent_to_somebody_elses_session(rig: Rig) -> None:
    await send(rig, "secret")
    before = await rig.log()
    eve = rig.as_user("eve")
    check_problem(await send(eve, "mine", "e1"), 404, "not-found")
    check_problem(await eve.ask("GET", f"{C}/messages"), 404, "not-found")
    check_problem(await eve.ask("GET", "/api/sessions/nobody/messages"), 404, "not-found")
    assert await rig.log() == before


async def test_a_policy_is_asked_for_messages_and_sending() -> None:
    denied: set[Action] = set()

    def policy(identity: Identity, session: SessionRecord | None, action: Action) -> bool:
        return action not in denied

    async with running(auth=Auth(user_of, policy)) as rig:
        await send(rig)
        denied.add(Action.READ)
        check_problem(await rig.ask("GET", f"{C}/messages"), 404, "not-found")
        denied.add(Action.SUBMIT)
        check_problem(await send(rig, "more", "u2"), 404, "not-found")
        check_problem(
            await rig.ask("POST", "/api/sessions/new/messages", {"message": user_message("x")}), 404, "not-found"
        )
        denied.add(Action.STOP)
        check_problem(await rig.ask("POST", f"{C}/stop"), 404, "not-found")
        assert len(rig.agent.calls) == 1


# ------------------------------------------------------------------------------------------------ stop


async def test_a_stop_ends_the_run_as_on_the_ai_sdk_wire(rig: Rig) -> None:
    sent = (await send(rig)).json
    await rig.agent.called()
    stopped = (await rig.ask("POST", f"{C}/stop", {"reason": "enough"})).json
    assert (stopped["run"], stopped["status"], stopped["reason"], stopped["stopped"]) == (
        sent["run"], "stopped", "enough", True,
    )  # fmt: skip
    again = await rig.ask("POST", f"{C}/stop", {"run": sent["run"]})
    assert (again.status, again.json) == (200, {**stopped, "stopped": False})
    assert (await rig.ask("POST", f"{C}/stop")).json == {"run": None, "status": "idle", "stopped": False}
    assert await kinds_after(rig, stopped["cursor"]) == []


async def test_a_stop_may_overtake_the_message(rig: Rig) -> None:
    for body in ({"key": "k1"}, {"messageId": "u1"}):
        early = await rig.ask("POST", f"{C}/stop", body)
        assert (early.status, early.json["status"]) == (202, "remembered")
    sent = await send(rig, key="k1")
    assert sent.status == 202
    assert (await rig.sessions.find("c")).state.runs[sent.json["run"]].status == "stopped"
    assert not rig.agent.calls


async def test_a_stop_from_a_page_of_another_site_must_be_json(rig: Rig) -> None:
    await send(rig)
    elsewhere = {"sec-fetch-site": "cross-site"}
    check_problem(await rig.ask("POST", f"{C}/stop", None, elsewhere), 403, "cross-site")
    assert (await rig.ask("POST", f"{C}/stop", {}, elsewhere)).json["stopped"] is True
