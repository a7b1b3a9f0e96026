"""Editing and deleting messages over HTTP (PROTOCOL §16): everyone converges, and nothing brings the old text back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from test_branches import answered, regenerated, seen, texts

from rig import Answer, Rig, running
from strandline.core.events import DecisionRequested
from strandline.core.records import SessionRecord
from strandline.errors import Conflict
from strandline.http.auth import Action, Auth
from strandline.runtime.live import Decided
from strandline.testing import until

C = "/api/sessions/c"
SECRET = "the word is tamarind"


@pytest.fixture(params=["memory", "sqlite"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "chat.db" if request.param == "sqlite" else None) as made:
        yield made


async def edit(rig: Any, id: str, text: str, **more: Any) -> Answer:
    answer: Answer = await rig.ask("PATCH", f"{C}/messages/{id}", {"parts": [{"type": "text", "text": text}], **more})
    return answer


async def delete(rig: Any, id: str) -> Answer:
    answer: Answer = await rig.ask("DELETE", f"{C}/messages/{id}")
    return answer


async def everywhere(rig: Rig) -> bytes:
    """All that the routes, the store and the memory of the session say."""
    told = [await rig.ask("GET", path) for path in (C, f"{C}/messages", "/api/chat/c/messages", "/api/sessions")]
    told.append(await rig.ask("GET", "/api/tanstack?threadId=c"))
    session = await rig.sessions.find("c")
    versions = [*session.state.messages]
    stored = [
        await rig.store.session("c"),
        await rig.store.outline("c"),
        await rig.store.messages("c", versions),
        [line.decode() for _, line in await rig.store.events("c", 0, 2**62)],
        [row[2].decode() for row in session.feed.rows(0)],
        [session.feed._frames, session.feed.joined, [entry.blob for entry in session.feed._fresh]],
    ]
    return b"".join(answer.body for answer in told) + repr(stored).encode()


async def followed(rig: Rig, cursor: str | None = None) -> Answer:
    feed = await rig.open("GET", f"{C}/events", headers={"Last-Event-ID": cursor} if cursor else {})
    return await feed.until(lambda: any(frame.chunk["type"] == "readers" for frame in feed.frames))


def kinds(answer: Answer) -> list[str]:
    return [frame.chunk["type"] for frame in answer.frames if frame.chunk["type"] != "readers"]


# ------------------------------------------------------------------------------------------------ edit


async def test_a_user_message_says_something_else_in_its_place(rig: Rig) -> None:
    await answered(rig, SECRET, "u1", "first")
    before = len(rig.agent.calls)
    feed = await followed(rig)
    answer = await edit(rig, "u1", "never mind", metadata={"edited": True})
    assert (answer.status, answer.json) == (200, {"messageId": "u1"})
    await feed.until(lambda: kinds(feed)[-1] == "message-replaced")
    told = feed.frames[-1].chunk
    assert told["parts"] == [{"type": "text", "text": "never mind"}]
    assert (told["metadata"], told["by"]) == ({"edited": True}, "user:ann")
    assert len(rig.agent.calls) == before, "nobody is asked again"
    assert await seen(rig) == {"texts": ["never mind", "first"], "places": {}}
    await feed.drop()
    await rig.go_cold()
    assert await seen(rig) == {"texts": ["never mind", "first"], "places": {}}
    assert SECRET.encode() not in await everywhere(rig)


async def test_the_title_follows_the_message_that_gave_it(rig: Rig) -> None:
    await answered(rig, SECRET, "u1", "first")
    await rig.ask("PATCH", C, {"archived": True})  # an event that repeats the title
    await edit(rig, "u1", "never mind")
    session = (await rig.ask("GET", C)).json["session"]
    assert (session["title"], session["archived"]) == ("never mind", True)
    assert SECRET.encode() not in await everywhere(rig)
    await rig.ask("PATCH", C, {"title": "Mine"})
    await edit(rig, "u1", "something else")
    assert (await rig.ask("GET", C)).json["session"]["title"] == "Mine"
    await rig.go_cold()
    assert (await rig.ask("GET", C)).json["session"]["title"] == "Mine"


async def test_the_same_again_is_no_event(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    before = len(await rig.log())
    assert (await edit(rig, "u1", "one")).status == 200
    assert len(await rig.log()) == before


async def test_the_agent_sees_what_a_message_says_now(rig: Rig) -> None:
    await answered(rig, SECRET, "u1", "first")
    await edit(rig, "u1", "never mind")
    call = await answered(rig, "two", "u2", "second")
    assert texts(call.run.messages) == ["never mind", "first", "two"]


async def test_what_a_browser_may_not_change(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    reply = (await rig.history("c"))["messages"][-1]["id"]
    for id, body, status, code in [
        (reply, {"parts": [{"type": "text", "text": "x"}]}, 403, "not-a-user-message"),
        ("nobody", {"parts": [{"type": "text", "text": "x"}]}, 404, "not-found"),
        ("u1", {"parts": []}, 422, "invalid-message"),
        ("u1", {"parts": [{"type": "tool-x", "toolCallId": "1"}]}, 422, "invalid-message"),
        ("u1", {}, 422, "invalid-message"),
        ("..", {"parts": [{"type": "text", "text": "x"}]}, 422, "invalid-id"),
    ]:
        answer = await rig.ask("PATCH", f"{C}/messages/{id}", body)
        assert (answer.status, answer.code) == (status, code), (id, body)
    for answer in (await edit(rig.as_user("eve"), "u1", "x"), await delete(rig.as_user("eve"), "u1")):
        assert (answer.status, answer.code) == (404, "not-found")
    assert await seen(rig) == {"texts": ["one", "first"], "places": {}}


async def test_editing_and_deleting_are_an_action_of_their_own() -> None:
    denied = {Action.EDIT}

    def policy(_: object, session: SessionRecord | None, action: Action) -> bool:
        return action not in denied

    async with running(auth=Auth(lambda: "ann", policy)) as rig:
        await answered(rig, "one", "u1", "first")
        assert (await edit(rig, "u1", "x")).code == (await delete(rig, "u1")).code == "not-found"
        denied.clear()
        assert (await edit(rig, "u1", "x")).status == 200
        assert (await delete(rig, "u1")).status == 204


async def test_an_application_may_replace_what_an_agent_said(rig: Rig) -> None:
    await answered(rig, "one", "u1", SECRET)
    reply = (await rig.history("c"))["messages"][-1]["id"]
    run = rig.agent.calls[-1].run.id
    await rig.chat.replace_message("c", reply, [{"type": "text", "text": "[removed]", "state": "done"}])
    assert (await seen(rig))["texts"] == ["one", "[removed]"]
    named = await (await rig.resume("c", query=f"?run={run}")).end()
    assert named.text == "[removed]"
    joined = await (await rig.open("GET", f"/api/tanstack?runId={run}&offset=-1")).end()
    assert b"[removed]" in joined.body
    assert SECRET.encode() not in named.body + joined.body + await everywhere(rig)


async def test_what_is_being_written_is_not_replaced(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("half")
    await answer.until_text("half")
    with pytest.raises(Conflict) as refused:
        await rig.chat.replace_message("c", call.run.message_id, [{"type": "text", "text": "x"}])
    assert refused.value.code == "message-active"
    call.finish()
    await answer.end()


# ------------------------------------------------------------------------------------------------ delete


@pytest.mark.parametrize("cold", [False, True])
async def test_a_deleted_message_is_gone_everywhere(rig: Rig, cold: bool) -> None:
    await answered(rig, "one", "u1", "first")
    await answered(rig, SECRET, "u2", "second")
    await answered(rig, "three", "u3", "third")
    if cold:
        await rig.go_cold()
    feed = await followed(rig)
    assert (await delete(rig, "u2")).status == 204
    await feed.until(lambda: kinds(feed)[-1] == "message-deleted")
    assert SECRET.encode() not in await everywhere(rig)
    assert (await seen(rig))["texts"] == ["one", "first", "second", "three", "third"]
    call = await answered(rig, "four", "u4", "fourth")
    assert texts(call.run.messages) == ["one", "first", "second", "three", "third", "four"]
    await feed.drop()
    await rig.go_cold()
    assert (await seen(rig))["texts"][:3] == ["one", "first", "second"]
    assert SECRET.encode() not in await everywhere(rig)
    assert (await delete(rig, "u2")).status == 204, "that it is gone is what was asked for"
    assert (await delete(rig, "u99")).code == "not-found"


async def test_deleting_a_reply_takes_its_log_and_leaves_no_reader_with_it(rig: Rig) -> None:
    await answered(rig, "one", "u1", SECRET)
    call = rig.agent.calls[-1]
    early = (await rig.ask("GET", f"{C}/messages")).json["cursor"]
    posted = await (await rig.resume("c", query=f"?run={call.run.id}")).end()
    assert posted.text == SECRET
    await delete(rig, call.run.message_id)
    assert SECRET.encode() not in await everywhere(rig)
    assert (await seen(rig))["texts"] == ["one"]
    # Whoever comes for it: nothing, or "load it again".
    assert (await rig.resume("c")).status == 204
    assert (await rig.resume("c", query=f"?run={call.run.id}")).status == 204
    joined = await rig.ask("GET", f"/api/tanstack?runId={call.run.id}&offset=-1")
    assert (joined.status, joined.code) == (409, "resync")
    epoch = early.partition(".")[0]
    log = await rig.log()
    for number, event in enumerate(log, 1):
        if event.get("run") != call.run.id or event["type"] == "run-ended":
            continue
        cursor = f"{epoch}.{number}.1"
        shim = await (await rig.resume("c", cursor, shim=True)).end()
        assert shim.frames[-1].chunk["code"] == "resync", number
        assert (await rig.resume("c", cursor)).status == 204, number
        assert (await rig.ask("GET", f"/api/tanstack?runId={call.run.id}&offset={cursor}")).status == 409
        feed = await followed(rig, cursor)
        if event["type"] == "appended":
            assert kinds(feed)[0] == "snapshot", "a cursor into what was erased gets the full state"
        else:
            assert "resync" in kinds(feed)
        assert SECRET.encode() not in feed.body
        await feed.drop()


async def test_deleting_what_is_being_written_stops_it(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say(SECRET)
    await answer.until_text(SECRET)
    joined = await rig.open("GET", f"/api/tanstack?runId={call.run.id}&offset=-1")
    await joined.until(lambda: SECRET.encode() in joined.body)
    call.say("never shown")
    assert (await delete(rig, call.run.message_id)).status == 204
    await answer.end()
    await joined.end()
    await until(lambda: call.closed)
    assert (answer.types[-2:], answer.frames[-2].chunk["reason"]) == (["abort", "[DONE]"], "deleted")
    assert joined.frames[-1].chunk["metadata"]["strandline"] == {"status": "stopped", "reason": "deleted"}
    run = (await rig.store.outline("c")).runs[0]
    assert (run.status.value, run.reason) == ("stopped", "deleted")
    assert (await seen(rig))["texts"] == ["hello"]
    assert SECRET.encode() not in await everywhere(rig)
    kept = [event["type"] for event in await rig.log()][-3:]
    assert kept == ["stop-requested", "run-ended", "message-deleted"]


async def test_a_queued_question_is_taken_back_as_if_it_had_never_been_asked(rig: Rig) -> None:
    queue = {"Strandline-Submit": "queue"}
    _, call = await rig.begun("c", "one", "u1")
    second = await rig.post("c", SECRET, "u2", headers=queue)
    await rig.post("c", "three", "u3", headers=queue)
    feed = await followed(rig)
    assert (await delete(rig, "u2")).status == 204
    await second.end()
    assert (second.types[-2:], second.frames[-2].chunk["reason"]) == (["abort", "[DONE]"], "deleted")
    await feed.until(lambda: kinds(feed)[-1] == "message-deleted")
    told = [frame.chunk for frame in feed.frames if frame.chunk["type"] in ("run-ended", "message-deleted")]
    reply = second.headers["strandline-message"]
    assert [each["message_id"] for each in told] == [reply, reply, "u2"]
    await feed.drop()
    (batch,) = [batch for batch in rig.store.committed if "message-deleted" in rig.kinds(batch)]
    assert rig.kinds(batch) == ["stop-requested", "run-ended", "message-deleted", "message-deleted"], "one commit"
    assert SECRET.encode() not in await everywhere(rig)
    call.say("first").finish()
    (await rig.agent.called(2)).say("third").finish()
    await rig.ended()
    for _ in range(2):
        assert await seen(rig) == {"texts": ["one", "first", "three", "third"], "places": {}}
        assert [call.run.prompt()[-1]["content"] for call in rig.agent.calls] == ["one", "three"]
        await rig.go_cold()
    assert (await delete(rig, reply)).status == 204, "again"


async def test_deleting_the_last_reply_shows_the_one_beside_it(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    await regenerated(rig, SECRET)
    await delete(rig, (await rig.history("c"))["messages"][-1]["id"])
    assert await seen(rig) == {"texts": ["one", "first"], "places": {}}
    await rig.go_cold()
    assert await seen(rig) == {"texts": ["one", "first"], "places": {}}
    for each in (await rig.history("c"))["messages"]:
        await delete(rig, each["id"])
    assert await seen(rig) == {"texts": [], "places": {}}
    await answered(rig, "again", "u9", "a new beginning")
    assert (await seen(rig))["texts"] == ["again", "a new beginning"]


async def test_a_reply_whose_question_was_deleted_is_not_made_again(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    await delete(rig, "u1")
    again = await rig.ask("POST", f"{C}/messages", {"trigger": "regenerate-message"})
    assert (again.status, again.code) == (409, "unknown-message")
    assert len(rig.agent.calls) == 1


async def test_a_title_goes_with_the_message_that_gave_it(rig: Rig) -> None:
    await answered(rig, SECRET, "u1", "first")
    await delete(rig, "u1")
    assert (await rig.ask("GET", C)).json["session"]["title"] is None
    await answered(rig, "two", "u2", "second")
    assert (await rig.ask("GET", C)).json["session"]["title"] == "two"
    assert SECRET.encode() not in await everywhere(rig)


async def test_annotations_go_with_their_message(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    one = {"message": "u1", "type": "reaction", "data": {"name": "secret-thumb"}}
    assert (await rig.ask("POST", f"{C}/annotations", one)).status == 201
    assert b"secret-thumb" in await everywhere(rig)
    assert (await delete(rig, "u1")).status == 204
    assert b"secret-thumb" not in await everywhere(rig)
    assert (await rig.ask("GET", f"{C}/annotations?message=u1")).status == 404
    assert (await rig.ask("POST", f"{C}/annotations", one)).status in (404, 422)
    for _ in range(2):
        assert (await rig.ask("GET", C)).json["annotations"] == {}
        await rig.go_cold()


async def test_what_a_deleted_message_waits_for_is_superseded(rig: Rig) -> None:
    await answered(rig, "one", "u1", "first")
    reply = (await rig.history("c"))["messages"][-1]["id"]
    session = await rig.sessions.find("c")
    run = session.state.messages[reply].run
    asked = DecisionRequested(1, run, reply, reply, "d1", "approval", "call", "delete", {"path": SECRET})
    await rig.sessions.journal.decide(session, lambda session: Decided((asked,), lambda: None))
    feed = await followed(rig)
    await delete(rig, reply)
    await feed.until(lambda: kinds(feed)[-1] == "message-deleted")
    made = next(frame.chunk for frame in feed.frames if frame.chunk["type"] == "decision-made")
    assert (made["decision"], made["outcome"]) == ("d1", "superseded")
    assert (await rig.store.outline("c")).decisions == ()
    assert session.state.decisions == {}
    assert SECRET.encode() not in await everywhere(rig)


async def test_a_reader_of_the_feed_that_was_away_is_told_to_begin_again(rig: Rig) -> None:
    await answered(rig, SECRET, "u1", "first")
    session = await rig.sessions.find("c")
    early = f"{session.state.record.epoch}.1.1"
    feed = await followed(rig, early)
    await feed.drop()
    await delete(rig, "u1")
    for cold in (False, True):
        if cold:
            await rig.go_cold()
        feed = await followed(rig, early)
        assert kinds(feed)[0] == "snapshot"  # the cursor points into it
        assert SECRET.encode() not in feed.body
        await feed.drop()


SLOW = ["in the log", "between two writes"]


@pytest.mark.parametrize("where", SLOW)
@pytest.mark.parametrize("wire", ["run", "feed", "join"])
async def test_a_slow_reader_is_not_shown_what_was_deleted_meanwhile(
    tmp_path: Path, monkeypatch: Any, where: str, wire: str
) -> None:
    for module in ("reading_session", "reading", "reading_ag_ui"):
        monkeypatch.setattr(f"strandline.runtime.{module}.PIECE", 1)
    wishes: list[asyncio.Task[Answer]] = []

    async def deleted() -> None:
        """Somebody deletes the reply, just now."""
        if not wishes:
            wishes.append(asyncio.create_task(delete(rig, call.run.message_id)))
            await asyncio.wait(wishes)

    def slowly(app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def sent(message: Any) -> None:
                await send(message)
                if b"one" in message.get("body", b"") and reading and where == SLOW[1]:
                    await deleted()

            await app(scope, receive, sent)

        return wrapped

    reading = False
    async with running(tmp_path / "chat.db", wrap=slowly) as rig:
        answer, call = await rig.begun()
        for word in ("one", "two", SECRET):
            call.say(word)
            await answer.until_text(word)
        call.finish()
        await answer.end()
        await rig.ended()
        await rig.go_cold()
        session = await rig.sessions.find("c")
        first = f"{session.state.record.epoch}.3.1"
        events, reads = rig.store.inner.events, 0

        async def slow(session: str, first: int, last: int, *run: str | None) -> Any:
            nonlocal reads
            found = await events(session, first, last, *run)
            reads += first != last
            # The first time the run is looked through from the cursor, the second time it is told.
            if where == SLOW[0] and reads == (2 if wire == "run" else 1):
                await deleted()
            return found

        monkeypatch.setattr(rig.store.inner, "events", slow)
        reading = True
        if wire == "run":
            reader = await (await rig.resume("c", first, shim=True)).end()
            assert reader.frames[-1].chunk["code"] == "resync"
        elif wire == "feed":
            reader = await followed(rig, first)
            assert "snapshot" in kinds(reader) or "resync" in kinds(reader)
        else:
            reader = await (await rig.open("GET", f"/api/tanstack?runId={call.run.id}&offset=-1")).end()
            assert reader.status == 409 or reader.frames[-1].chunk["code"] == "resync"
        assert wishes[0].result().status == 204
        assert SECRET.encode() not in reader.body


@pytest.mark.parametrize("order", range(4))
async def test_two_devices_at_once_end_in_the_same_place(rig: Rig, order: int) -> None:
    await answered(rig, "one", "u1", "first")
    await regenerated(rig, "second")
    last = (await rig.history("c"))["messages"][-1]["id"]
    feeds = [await followed(rig) for _ in range(2)]
    wishes = [
        delete(rig, last),
        edit(rig, "u1", "changed"),
        rig.ask("POST", f"{C}/branch", {"message": last, "index": 0}),
        edit(rig, "u1", "changed otherwise"),
        delete(rig, last),
    ]
    answers = await asyncio.gather(*(wishes[order:] + wishes[:order]))
    assert {answer.status for answer in answers} <= {200, 204, 409}
    end = await seen(rig)
    assert end["places"] == {}
    assert end["texts"][0] in ("changed", "changed otherwise")
    assert end["texts"][1:] == ["first"]
    newest = (await rig.log())[-1]["type"]
    for feed in feeds:
        await feed.until(lambda feed=feed: kinds(feed)[-1] == newest)
    told = [[frame.chunk for frame in feed.frames if "seq" in frame.chunk] for feed in feeds]
    assert told[0] == told[1]
    for feed in feeds:
        await feed.drop()
    await rig.go_cold()
    assert await seen(rig) == end
