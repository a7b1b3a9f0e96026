"""What becomes of a message that comes while a reply is being written (PROTOCOL §14.1), and what stops name (§6.4)."""

from __future__ import annotations

from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline.settings import Settings
from strandline.testing import ScriptedAgent, until

S = "/api/sessions"


def under(policy: str) -> dict[str, str]:
    return {"Strandline-Submit": policy}


def message(text: str, id: str) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


async def statuses(rig: Rig) -> list[str]:
    return [run["status"] for run in (await rig.ask("GET", f"{S}/c")).json["runs"]]


async def patched(rig: Any, **changes: Any) -> Answer:
    answer: Answer = await rig.ask("PATCH", f"{S}/c", changes)
    return answer


# ------------------------------------------------------------------------------------------------ where it comes from


async def test_the_message_says_then_the_session_then_the_service() -> None:
    async with running(submit="reject") as rig:
        await rig.begun()
        assert (await rig.post("c", "two", "u2")).code == "busy"
        assert (await patched(rig, submit="queue")).json["session"]["submit"] == "queue"
        assert (await rig.post("c", "two", "u2")).status == 200
        assert await statuses(rig) == ["running", "queued"]
        assert (await rig.post("c", "three", "u3", headers=under("reject"))).code == "busy"
        assert (await patched(rig, submit=None)).json["session"]["submit"] is None
        assert (await rig.post("c", "four", "u4")).code == "busy"


async def test_by_default_the_newest_message_counts() -> None:
    assert Settings().submit == "interrupt"
    assert Settings.from_env({"STRANDLINE_SUBMIT": "queue"}).submit == "queue"


async def test_the_policy_of_a_session_is_shown_to_everybody_and_kept(rig: Rig) -> None:
    await rig.ask("POST", S, {"id": "c"})
    feed = await rig.open("GET", f"{S}/c/events")
    await patched(rig, submit="steer")
    await feed.until(lambda: "session-changed" in feed.types)
    changed = next(frame.chunk for frame in feed.frames if frame.chunk["type"] == "session-changed")
    assert changed["submit"] == "steer"
    await feed.drop()
    await patched(rig, title="a title")
    await rig.go_cold()
    assert (await rig.ask("GET", f"{S}/c")).json["session"]["submit"] == "steer"


@pytest.mark.parametrize("policy", ["", "Queue", "later"])
async def test_an_unknown_policy_is_refused_everywhere_before_anything_happens(rig: Rig, policy: str) -> None:
    answers = [
        await rig.post("c", headers=under(policy)),
        await rig.ask("POST", f"{S}/c/messages", {"message": message("x", "u1")}, under(policy)),
        await rig.ask("POST", f"{S}/c/messages", {"message": message("x", "u1"), "submit": policy}),
        await rig.ask(
            "POST",
            "/api/tanstack",
            {"threadId": "c", "runId": "r1", "messages": [{"id": "u1", "role": "user", "content": "x"}]},
            under(policy),
        ),
    ]
    assert {(answer.status, answer.code) for answer in answers} == {(422, "invalid-request")}
    await rig.ask("POST", S, {"id": "c"})
    assert (await patched(rig, submit=policy)).status == 422
    assert rig.agent.calls == []


async def test_on_the_session_wire_the_field_wins_over_the_header(rig: Rig) -> None:
    await rig.begun()
    sent = await rig.ask("POST", f"{S}/c/messages", {"message": message("x", "u2"), "submit": "queue"}, under("reject"))
    assert sent.status == 202
    assert await statuses(rig) == ["running", "queued"]


async def test_a_page_of_another_origin_may_send_the_header(rig: Rig) -> None:
    from strandline.http.cors import REQUEST_HEADERS

    assert "Strandline-Submit" in REQUEST_HEADERS


# ------------------------------------------------------------------------------------------------ reject


async def test_a_refusal_names_the_reply_that_is_being_written(rig: Rig) -> None:
    _, call = await rig.begun()
    for refused in (
        await rig.post("c", "two", "u2", headers=under("reject")),
        await rig.post("c", "hello", "u1", headers=under("reject"), trigger="regenerate-message"),
        await rig.post("c", "hullo", "u1", headers=under("reject"), messageId="u1"),
    ):
        assert (refused.status, refused.code) == (409, "busy")
        assert refused.json["activeRun"] == {
            "id": call.run.id,
            "messageId": call.run.message_id,
            "status": "running",
        }
    assert [event["type"] for event in await rig.log()] == ["message-created", "run-queued", "run-started"]
    call.finish()
    await rig.ended()
    assert (await rig.post("c", "two", "u2", headers=under("reject"))).status == 200


@pytest.mark.parametrize("policy", ["interrupt", "queue", "reject", "steer", "concurrent"])
async def test_a_retry_never_meets_the_policy(rig: Rig, policy: str) -> None:
    first, call = await rig.begun(key="k1")
    again = await rig.post("c", key="k1", headers=under(policy))
    same = await rig.post("c", headers=under(policy))
    call.say("hi").finish()
    for answer in (first, again, same):
        assert (await answer.end()).text == "hi"
    assert len(rig.agent.calls) == 1


# ------------------------------------------------------------------------------------------------ concurrent


async def test_replies_side_by_side_have_a_message_each_and_know_nothing_of_one_another(rig: Rig) -> None:
    first, one = await rig.begun(text="one")
    one.say("First")
    await first.until_text("First")
    second, two = await rig.begun(text="two", id="u2", headers=under("concurrent"))
    assert [turn["content"] for turn in two.run.prompt()] == ["one", "two"]
    assert [message["id"] for message in two.run.messages] == ["u1", "u2"]
    two.say("Second")
    await second.until_text("Second")
    one.say(".").finish()
    two.say("!").finish()
    assert ((await first.end()).text, (await second.end()).text) == ("First.", "Second!")
    shown = (await rig.history("c"))["messages"]
    assert [message["parts"][-1]["text"] for message in shown] == ["one", "First.", "two", "Second!"]


async def test_a_stock_client_is_shown_the_first_of_them(rig: Rig) -> None:
    _, one = await rig.begun()
    second, two = await rig.begun(text="two", id="u2", headers=under("concurrent"))
    history = await rig.history("c")
    assert ([message["id"] for message in history["messages"]], history["activeRun"]["id"]) == (["u1"], one.run.id)
    assert (await rig.resume("c")).headers["strandline-run"] == one.run.id
    named = await rig.resume("c", query=f"?run={two.run.id}")
    two.say("x").finish()
    assert (await named.end()).text == (await second.end()).text == "x"


async def test_one_of_them_is_stopped_and_the_others_go_on(rig: Rig) -> None:
    first, one = await rig.begun()
    second, two = await rig.begun(text="two", id="u2", headers=under("concurrent"))
    _, three = await rig.begun(text="three", id="u3", headers=under("concurrent"))
    await rig.stop("c", run=two.run.id)
    await second.end()
    # Without a name: the newest.
    assert (await rig.stop("c")).json["run"] == three.run.id
    assert await statuses(rig) == ["running", "stopped", "stopped"]
    one.say("still here").finish()
    assert (await first.end()).text == "still here"


async def test_there_are_only_so_many_side_by_side() -> None:
    async with running(max_concurrent=2) as rig:
        await rig.begun()
        await rig.begun(text="two", id="u2", headers=under("concurrent"))
        refused = await rig.post("c", "three", "u3", headers=under("concurrent"))
        assert (refused.status, refused.code) == (429, "too-many")
        assert (await rig.post("c", "three", "u3", headers=under("interrupt"))).status == 200


@pytest.mark.parametrize(("policy", "status"), [("concurrent", 429), ("queue", 429), ("interrupt", 200)])
async def test_what_is_active_already_counts_where_it_goes_on(policy: str, status: int) -> None:
    async with running(max_active_runs=1) as rig:
        await rig.begun()
        assert (await rig.post("c", "two", "u2", headers=under(policy))).status == status


async def test_what_is_queued_waits_only_for_what_came_before_it(rig: Rig) -> None:
    _, one = await rig.begun()
    await rig.post("c", "two", "u2", headers=under("queue"))
    _, three = await rig.begun(text="three", id="u3", headers=under("concurrent"))
    one.finish()
    await rig.agent.called(3)
    assert await statuses(rig) == ["completed", "running", "running"]
    assert not three.closed


# ------------------------------------------------------------------------------------------------ stop: by agent, all


async def test_everything_is_stopped_at_once_what_waits_included(rig: Rig) -> None:
    await rig.begun()
    await rig.begun(text="two", id="u2", headers=under("concurrent"))
    await rig.post("c", "three", "u3", headers=under("queue"))
    before = len(rig.store.committed)
    answer = (await rig.stop("c", all=True, reason="enough")).json
    assert [(each["status"], each["reason"], each["stopped"]) for each in answer["runs"]] == [
        ("stopped", "enough", True)
    ] * 3
    assert len(rig.store.committed) == before + 1
    assert await statuses(rig) == ["stopped"] * 3
    assert (await rig.stop("c", all=True)).json == {"runs": []}


async def test_the_runs_of_one_agent_are_stopped(rig: Rig) -> None:
    _, call = await rig.begun()
    assert (await rig.stop("c", agent="somebody-else")).json == {"runs": []}
    answer = (await rig.stop("c", agent="scripted")).json
    assert [each["run"] for each in answer["runs"]] == [call.run.id]
    await until(lambda: call.closed)


async def test_the_other_agents_go_on(rig: Rig) -> None:
    critic = ScriptedAgent()
    rig.chat.agent(name="critic")(critic)
    first, writer = await rig.begun()
    for number in (2, 3):
        sent = {**under("concurrent"), "Strandline-Agent": "critic"}
        assert (await rig.post("c", "judge", f"u{number}", headers=sent)).status == 200
    await critic.called(2)
    stopped = (await rig.stop("c", agent="critic")).json["runs"]
    assert [each["run"] for each in stopped] == [call.run.id for call in critic.calls]
    writer.say("written").finish()
    assert (await first.end()).text == "written"


@pytest.mark.parametrize("wire", ["/api/chat/c/stop", f"{S}/c/stop", "/api/tanstack/stop"])
async def test_every_wire_can_stop_all(rig: Rig, wire: str) -> None:
    await rig.begun()
    stopped = await rig.ask("POST", wire, {"threadId": "c", "all": True})
    assert [each["status"] for each in stopped.json["runs"]] == ["stopped"]


@pytest.mark.parametrize(
    "body",
    [{"all": "yes"}, {"agent": 7}, {"all": True, "agent": "x"}, {"all": True, "run": "x"}, {"agent": "x", "key": "k"}],
)
async def test_a_stop_that_means_two_things_is_refused(rig: Rig, body: Any) -> None:
    _, call = await rig.begun()
    assert (await rig.stop("c", **body)).status == 422
    assert not call.run.cancelled


async def test_a_stranger_stops_nothing(rig: Rig) -> None:
    _, call = await rig.begun()
    assert (await rig.as_user("eve").stop("c", all=True)).status == 404
    assert not call.run.cancelled
