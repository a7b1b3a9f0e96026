"""Branches over HTTP (PROTOCOL §16): every wire tells the same tree and path, and a switch is followed everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline.http.auth import Action, Auth
from strandline.testing import until

C = "/api/sessions/c"


@pytest.fixture(params=["memory", "sqlite"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "chat.db" if request.param == "sqlite" else None) as made:
        yield made


async def answered(rig: Rig, text: str, id: str, reply: str, **more: Any) -> Any:
    answer, call = await rig.begun(text=text, id=id, **more)
    call.say(reply).finish()
    await answer.end()
    await rig.ended()
    return call


async def regenerated(rig: Rig, reply: str) -> Any:
    before = len(rig.agent.calls)
    answer = await rig.open("POST", f"{C}/messages", {"trigger": "regenerate-message"})
    assert answer.status == 202
    call = await rig.agent.called(before + 1)
    call.say(reply).finish()
    await rig.ended()
    return call


async def select(rig: Rig, message: str, index: int | None = None) -> Answer:
    body = {"message": message} if index is None else {"message": message, "index": index}
    return await rig.ask("POST", f"{C}/branch", body)


def texts(messages: list[Any]) -> list[str]:
    return ["".join(part.get("text", part.get("content", "")) for part in each["parts"]) for each in messages]


async def seen(rig: Rig) -> dict[str, Any]:
    """The path and the branches, having made sure that every wire says the same."""
    chat = await rig.history("c")
    page = (await rig.ask("GET", f"{C}/messages")).json
    look = (await rig.ask("GET", C)).json
    hydrated = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
    assert chat["messages"] == page["messages"] == look["messages"]
    assert texts(chat["messages"]) == texts(hydrated["messages"])
    assert chat["branches"] == page["branches"] == look["branches"] == hydrated["branches"]
    placed = {each["id"]: each.get("metadata", {}).get("strandline", {}).get("branch") for each in hydrated["messages"]}
    assert {id: place for id, place in placed.items() if place is not None} == chat["branches"]
    places = {id: (place["index"], place["count"]) for id, place in chat["branches"].items()}
    return {"texts": texts(chat["messages"]), "places": places}


async def test_regenerate_switch_edit_and_come_from_elsewhere(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    for reply in ("second", "third", "fourth"):
        await regenerated(rig, reply)
    leaf = (await rig.history("c"))["messages"][-1]["id"]
    assert await seen(rig) == {"texts": ["one", "fourth"], "places": {leaf: (3, 4)}}

    switched = await select(rig, leaf, 1)
    assert switched.status == 200
    second = (await rig.history("c"))["messages"][-1]["id"]
    assert switched.json["leaf"] == second
    assert await seen(rig) == {"texts": ["one", "second"], "places": {second: (1, 4)}}
    call = await answered(rig, "two", "u2", "after the second")
    assert texts(call.run.messages) == ["one", "second", "two"], "the agent sees the path, and nothing beside it"

    edit = await answered(rig, "one, edited", "u1", "to the edit", messageId="u1")
    assert texts(edit.run.messages) == ["one, edited"]
    assert await seen(rig) == {"texts": ["one, edited", "to the edit"], "places": {"u1": (1, 2)}}
    await select(rig, "u1", 0)
    assert (await seen(rig))["texts"] == ["one", "second", "two", "after the second"]
    assert (await seen(rig))["places"] == {"u1": (0, 2), second: (1, 4)}
    # From a device, and a process, that has seen nothing of it.
    before = await seen(rig)
    await rig.go_cold()
    assert await seen(rig) == before


async def test_going_to_a_message_shows_the_newest_of_what_followed_it(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    await answered(rig, "two", "u2", "second")
    await answered(rig, "two, edited", "u2", "to the edit", messageId="u2")
    await answered(rig, "one, edited", "u1", "elsewhere", messageId="u1")
    await select(rig, "u1", 0)
    assert (await seen(rig))["texts"] == ["one", "first", "two, edited", "to the edit"]
    version = (await rig.ask("GET", f"{C}/messages")).json["branches"]["u1"]["versions"][1]
    await select(rig, version)
    assert (await seen(rig))["texts"] == ["one, edited", "elsewhere"]


async def test_what_is_shown_already_is_no_event(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    await regenerated(rig, "second")
    before = len(await rig.log())
    leaf = (await rig.history("c"))["messages"][-1]["id"]
    for message, index in ((leaf, None), (leaf, 1), ("u1", None), ("u1", 0)):
        answer = await select(rig, message, index)
        assert (answer.status, answer.json["leaf"]) == (200, leaf)
    assert len(await rig.log()) == before


async def test_what_is_not_there_cannot_be_gone_to(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    for body, status, code in [
        ({"message": "nobody"}, 409, "unknown-message"),
        ({"message": "u1", "index": 1}, 409, "unknown-message"),
        ({"message": "u1", "index": -1}, 422, "invalid-request"),
        ({"message": "u1", "index": True}, 422, "invalid-request"),
        ({}, 422, "invalid-id"),
    ]:
        answer = await rig.ask("POST", f"{C}/branch", body)
        assert (answer.status, answer.code) == (status, code), body
    stranger = await rig.as_user("eve").ask("POST", f"{C}/branch", {"message": "u1"})
    assert (stranger.status, stranger.code) == (404, "not-found")


async def test_a_run_goes_on_writing_on_a_branch_that_is_not_shown(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    first = (await rig.history("c"))["messages"][-1]["id"]
    before = len(rig.agent.calls)
    await rig.open("POST", f"{C}/messages", {"trigger": "regenerate-message"})
    call = await rig.agent.called(before + 1)
    call.say("second ")
    assert (await rig.history("c"))["activeRun"]["id"] == call.run.id
    await select(rig, first)
    history = await rig.history("c")
    assert (texts(history["messages"]), history["activeRun"]) == (["one", "first"], None)
    assert (await rig.ask("GET", "/api/tanstack?threadId=c")).json["activeRun"] is None
    assert (await rig.resume("c")).status == 204
    named = await rig.resume("c", query=f"?run={call.run.id}")
    await named.until_text("second ")
    call.say("goes on").finish()
    await named.end()
    assert named.text == "second goes on"
    assert (await rig.resume("c")).status == 204
    await select(rig, first, 1)
    assert texts((await rig.history("c"))["messages"]) == ["one", "second goes on"]


async def test_going_back_to_a_branch_that_is_being_written_shows_it_as_active(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    first = (await rig.history("c"))["messages"][-1]["id"]
    before = len(rig.agent.calls)
    await rig.open("POST", f"{C}/messages", {"trigger": "regenerate-message"})
    call = await rig.agent.called(before + 1)
    call.say("second ")
    await select(rig, first)
    await select(rig, call.run.message_id)
    history = await rig.history("c")
    assert (texts(history["messages"]), history["activeRun"]["id"]) == (["one"], call.run.id)
    assert history["branches"][call.run.message_id]["index"] == 1
    resumed = await rig.resume("c")
    await resumed.until_text("second ")
    call.finish()
    await resumed.end()


async def test_a_switch_is_an_event_for_every_device(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    await regenerated(rig, "second")
    first = (await rig.history("c"))["branches"][(await rig.history("c"))["messages"][-1]["id"]]["versions"][0]
    hydrated = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
    thread = await rig.open("GET", "/api/tanstack/events?threadId=c", headers={"Last-Event-ID": hydrated["cursor"]})
    feed = await rig.open("GET", f"{C}/events")
    await feed.until(lambda: len(feed.frames) > 1)
    await select(rig, first)
    await feed.until(lambda: feed.frames[-1].chunk["type"] == "branch-selected")
    told = feed.frames[-1].chunk
    assert (told["leaf"], told["message_id"], told["by"]) == (first, first, "user:ann")
    await until(lambda: thread.frames)
    (changed,) = [frame.chunk for frame in thread.frames]
    assert (changed["type"], changed["name"]) == ("CUSTOM", "strandline.changed")
    assert changed["value"]["seq"] == told["seq"] > hydrated["seq"]
    assert (await rig.ask("GET", "/api/tanstack?threadId=c")).json["seq"] == told["seq"]


async def test_the_live_thread_does_not_say_what_is_written_elsewhere(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    first = (await rig.history("c"))["messages"][-1]["id"]
    before = len(rig.agent.calls)
    await rig.open("POST", f"{C}/messages", {"trigger": "regenerate-message"})
    call = await rig.agent.called(before + 1)
    call.say("second ")
    await select(rig, first)
    hydrated = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
    thread = await rig.open("GET", "/api/tanstack/events?threadId=c", headers={"Last-Event-ID": hydrated["cursor"]})
    call.say("unseen").finish()
    await rig.ended()
    await select(rig, call.run.message_id)
    await until(lambda: thread.frames)
    assert [frame.chunk["type"] for frame in thread.frames] == ["CUSTOM"]


async def test_who_comes_when_a_run_has_ended_elsewhere_is_told_its_end_alone(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    first = (await rig.history("c"))["messages"][-1]["id"]
    before = len(rig.agent.calls)
    await rig.open("POST", f"{C}/messages", {"trigger": "regenerate-message"})
    call = await rig.agent.called(before + 1)
    call.say("second ")
    await select(rig, first)
    hydrated = (await rig.ask("GET", "/api/tanstack?threadId=c")).json
    call.say("unseen").finish()
    await rig.ended()
    thread = await rig.open("GET", "/api/tanstack/events?threadId=c", headers={"Last-Event-ID": hydrated["cursor"]})
    await thread.until(lambda: thread.frames)
    await select(rig, call.run.message_id)
    await thread.until(lambda: thread.frames[-1].chunk["type"] == "CUSTOM")
    assert [frame.chunk["type"] for frame in thread.frames] == ["RUN_FINISHED", "CUSTOM"]
    assert thread.frames[0].chunk["runId"] == call.run.id


async def test_to_go_to_a_branch_is_to_submit() -> None:
    denied: set[Action] = set()
    async with running(auth=Auth(lambda: "ann", lambda _, __, action: action not in denied)) as rig:
        await answered(rig, "one", "u1", "first")
        denied.add(Action.SUBMIT)
        assert (await select(rig, "u1")).code == "not-found"
        denied.clear()
        denied.add(Action.EDIT)
        assert (await select(rig, "u1")).status == 200
