"""Who reads a session, and how far they are (PROTOCOL §8.11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from rig import SHIM, Answer, Client, Rig, running
from strandline.core.offset import Cursor
from strandline.errors import Conflict
from strandline.http.auth import Auth, Identity
from strandline.runtime import readers as runtime_readers
from strandline.runtime.feed import Feed
from strandline.runtime.readers import MAX_AT_ONCE, MAX_LEFT, Reader, Readers
from strandline.testing import ManualClock, until

EVENTS = "/api/sessions/c/events"


def named(name: str, **headers: str) -> dict[str, str]:
    return {"strandline-reader": name, **headers}


def lists(feed: Answer) -> list[list[dict[str, Any]]]:
    return [list(frame.chunk["readers"]) for frame in feed.frames if frame.chunk["type"] == "readers"]


def kinds(feed: Answer) -> list[str]:
    return [frame.chunk["type"] for frame in feed.frames]


async def following(rig: Client, name: str | None = None, query: str = "", **headers: str) -> Answer:
    feed = await rig.open("GET", EVENTS + query, headers=named(name, **headers) if name is not None else headers)
    assert feed.status == 200, feed.body
    return await feed.until(lambda: lists(feed))


async def shown(rig: Client) -> list[dict[str, Any]]:
    answer = await rig.ask("GET", "/api/sessions/c/readers")
    assert answer.status == 200
    return list(answer.json["readers"])


async def reader(rig: Client, name: str) -> dict[str, Any]:
    [found] = [each for each in await shown(rig) if each["id"] == name]
    return found


async def ack(rig: Client, name: Any, cursor: Any) -> Answer:
    return await rig.ask("POST", "/api/sessions/c/ack", {"reader": name, "cursor": cursor})


async def test_readers_are_announced_as_they_come_and_go(rig: Rig) -> None:
    answer, call = await rig.begun(headers={"strandline-device": "phone"})
    feed = await rig.open("GET", EVENTS)

    def wires(connected: bool) -> list[str]:
        return sorted(each["wire"] for last in lists(feed)[-1:] for each in last if each["connected"] is connected)

    await until(lambda: wires(True) == ["ai-sdk", "session"])
    found = next(each for each in lists(feed)[-1] if each["wire"] == "ai-sdk")
    assert (found["user"], found["device"], found["run"]) == ("ann", "phone", call.run.id)
    await answer.drop()
    await until(lambda: (wires(True), wires(False)) == (["session"], ["ai-sdk"]))
    assert not call.closed, "a connection is only a reader"


async def test_a_reader_is_shown_as_the_contract_says(rig: Rig) -> None:
    await rig.begun()
    feed = await following(rig, "page-1", **{"strandline-client": "shim/0.1.0; ai=7", "strandline-device": "phone"})
    assert feed.frames[0].chunk["reader"] == "page-1"
    assert await reader(rig, "page-1") == {
        "id": "page-1",
        "user": "ann",
        "device": "phone",
        "client": "shim/0.1.0",
        "wire": "session",
        "run": None,
        "connected": True,
        "since": rig.clock.now(),
        "leftAt": None,
        "sent": feed.frames[0].cursor,
        "acknowledged": None,
    }
    answer = (await rig.ask("GET", "/api/sessions/c/readers")).json
    assert answer["cursor"] == feed.cursor
    since = rig.clock.now()
    await rig.clock.advance(3)
    await feed.drop()
    gone = await reader(rig, "page-1")
    assert (gone["connected"], gone["since"], gone["leftAt"]) == (False, since, since + 3000)


async def test_a_reader_without_a_name_has_an_id_that_it_is_told(rig: Rig) -> None:
    await rig.begun()
    feeds = [await following(rig) for _ in range(2)]
    ids = {feed.frames[0].chunk["reader"] for feed in feeds}
    assert len(ids) == 2
    assert ids <= {each["id"] for each in await shown(rig)}


@pytest.mark.parametrize("wire", ["session", "ai-sdk", "ag-ui"])
async def test_how_far_a_reader_is(rig: Rig, wire: str) -> None:
    answer, call = await rig.begun()
    url = {
        "session": EVENTS,
        "ai-sdk": "/api/chat/c/stream",
        "ag-ui": f"/api/tanstack?offset=-1&runId={call.run.id}",
    }[wire]
    stream = await rig.open("GET", url, headers=named("page", **SHIM))
    for words in ("one ", "two ", "three "):
        call.say(words)
        await stream.until(lambda words=words: words.encode() in stream.body)
        found = await reader(rig, "page")
        assert (found["sent"], found["acknowledged"]) == (stream.cursor, None)
        assert found["wire"] == wire
    cursor = stream.cursor
    await stream.drop()
    call.say("four ")
    await answer.until_text("four ")
    gone = await reader(rig, "page")
    assert (gone["connected"], gone["sent"]) == (False, cursor)
    stream = await rig.open("GET", url, headers=named("page", **SHIM, **{"last-event-id": cursor or ""}))
    await stream.until(lambda: b"four " in stream.body)
    back = await reader(rig, "page")
    assert (back["acknowledged"], back["sent"]) == (cursor, stream.cursor)
    assert (await ack(rig, "page", stream.cursor)).status == 204
    assert (await reader(rig, "page"))["acknowledged"] == stream.cursor
    call.finish()
    await answer.end()


@asynccontextmanager
async def choking() -> AsyncIterator[tuple[Rig, asyncio.Event, asyncio.Event]]:
    """A server; two events: the reader ``slow`` is in the middle of a write, and it may go on."""
    stuck, free = asyncio.Event(), asyncio.Event()

    def choked(app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def choke(message: Any) -> None:
                if b"choke" in message.get("body", b""):
                    stuck.set()
                    await free.wait()
                await send(message)

            slow = (b"strandline-reader", b"slow") in scope["headers"]
            await app(scope, receive, choke if slow else send)

        return wrapped

    async with running(wrap=choked) as rig:
        yield rig, stuck, free


async def test_what_is_being_written_counts_as_sent_only_when_the_write_has_returned() -> None:
    async with choking() as (rig, stuck, free):
        _, call = await rig.begun()
        slow, quick = await following(rig, "slow"), await following(rig, "quick")
        before = slow.cursor
        call.say("choke")
        await stuck.wait()
        await quick.until(lambda: b"choke" in quick.body)
        assert (await reader(rig, "slow"))["sent"] == before
        assert (await reader(rig, "quick"))["sent"] == quick.cursor != before
        # A client may have it, and say so, before the server knows that it was written.
        assert (await ack(rig, "slow", quick.cursor)).status == 204
        found = await reader(rig, "slow")
        assert found["sent"] == found["acknowledged"] == quick.cursor
        free.set()
        await slow.until(lambda: slow.cursor == quick.cursor)


async def test_an_acknowledgement_never_goes_back(rig: Rig) -> None:
    answer, call = await rig.begun()
    feed = await following(rig, "page")
    first = feed.cursor
    call.say("said").finish()
    await answer.end()
    await feed.until(lambda: "run-ended" in kinds(feed))
    for cursor in (feed.cursor, first, feed.cursor):
        assert (await ack(rig, "page", cursor)).status == 204
        assert (await reader(rig, "page"))["acknowledged"] == feed.cursor
    # Coming back with an older cursor does not take it back either.
    await feed.drop()
    back = await following(rig, "page", **{"last-event-id": first or ""})
    found = await reader(rig, "page")
    assert (found["acknowledged"], found["connected"]) == (feed.cursor, True)
    await back.drop()


async def test_cursors_are_compared_by_position_not_as_text(rig: Rig) -> None:
    answer, call = await rig.begun()
    feed = await following(rig, "page")
    for number in range(12):
        call.say(f"{number} ")
        await feed.until(lambda number=number: f"{number} ".encode() in feed.body)
    cursors = [frame.cursor for frame in feed.frames if frame.cursor is not None]
    assert sorted(cursors) != cursors, "or this test says nothing"
    for cursor in cursors:
        assert (await ack(rig, "page", cursor)).status == 204
        assert (await reader(rig, "page"))["acknowledged"] == cursor
    call.finish()
    await answer.end()


def test_what_an_earlier_connection_was_sent_can_be_acknowledged_on_the_next_one() -> None:
    readers = Readers(Feed(5))
    first, second = (Reader("page", "ann", None, "session", 0, named=True) for _ in range(2))
    readers.enter(first)
    first.hand(Cursor("abcd", 5, 1))
    second.present(Cursor("abcd", 2, 1))
    readers.enter(second)
    assert first.replaced
    readers.acknowledge("ann", "page", Cursor("abcd", 5, 1))
    assert second.acknowledged == Cursor("abcd", 5, 1)
    with pytest.raises(Conflict):
        readers.acknowledge("ann", "page", Cursor("abcd", 6, 1))
    with pytest.raises(Conflict):
        readers.acknowledge("ann", "page", Cursor("efgh", 1, 1))


async def test_only_what_was_sent_can_be_acknowledged(rig: Rig) -> None:
    answer, call = await rig.begun()
    feed = await following(rig, "page")
    cursor = feed.cursor
    await feed.drop()
    call.say("unseen").finish()
    await answer.end()
    epoch, seq, _ = (cursor or "").split(".")
    newest = (await rig.ask("GET", "/api/sessions/c/readers")).json["cursor"]
    for refused in (newest, f"{epoch}.{int(seq) + 1}.1", f"{epoch}.9999.1", f"zzzz1234.{seq}.1", "garbage", ""):
        problem = await ack(rig, "page", refused)
        assert (problem.status, problem.code) == (409, "not-sent"), refused
    assert (await reader(rig, "page"))["acknowledged"] is None
    assert (await ack(rig, "page", cursor)).status == 204, "also after it has left"
    assert (await reader(rig, "page"))["acknowledged"] == cursor


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"reader": "page"}, 422, "invalid-request"),
        ({"reader": "page", "cursor": 7}, 422, "invalid-request"),
        ({"cursor": "abcd.1.1"}, 422, "invalid-id"),
        ({"reader": "a b", "cursor": "abcd.1.1"}, 422, "invalid-id"),
        ({"reader": "nobody", "cursor": "{cursor}"}, 404, "not-found"),
        ([], 400, "bad-request"),
    ],
)
async def test_a_bad_acknowledgement_is_refused(rig: Rig, body: Any, status: int, code: str) -> None:
    await rig.begun()
    feed = await following(rig, "page")
    if isinstance(body, dict) and body.get("cursor") == "{cursor}":
        body = {**body, "cursor": feed.cursor}
    problem = await rig.ask("POST", "/api/sessions/c/ack", body)
    assert (problem.status, problem.code) == (status, code)


async def test_a_second_connection_of_the_same_name_takes_the_place_of_the_first(rig: Rig) -> None:
    answer, call = await rig.begun()
    first = await following(rig, "page")
    acknowledged = first.cursor
    assert (await ack(rig, "page", acknowledged)).status == 204
    other = await following(rig, "other")
    second = await following(rig, "page")
    await first.end()
    assert kinds(first)[-1] == "replaced" and first.frames[-1].cursor is None
    assert kinds(second)[0] == "snapshot"
    found = await reader(rig, "page")
    assert (found["connected"], found["acknowledged"]) == (True, acknowledged)
    call.say("on").finish()
    await second.until(lambda: "run-ended" in kinds(second))
    assert not other.over
    await answer.end()
    assert "run-ended" not in kinds(first)


@pytest.mark.parametrize("shim", [True, False])
async def test_a_replaced_reader_of_a_run_ends_as_its_client_understands_it(rig: Rig, shim: bool) -> None:
    answer, call = await rig.begun()
    call.say("said ")
    await answer.until_text("said ")
    headers = named("page", **(SHIM if shim else {}))
    first = await rig.open("GET", "/api/chat/c/stream", headers=headers)
    await first.until_text("said ")
    joined = await rig.open("GET", f"/api/tanstack?offset=-1&runId={call.run.id}", headers=headers)
    await joined.until(lambda: b"said " in joined.body)
    feed = await following(rig, "page")
    second = await rig.open("GET", "/api/chat/c/stream", headers=headers)
    await first.end()
    last = first.frames[-1]
    assert (last.chunk.get("code"), last.cursor is None) == ((None, False) if shim else ("replaced", True))
    assert not joined.over and not feed.over, "they are connections for something else"
    again = await rig.open("GET", f"/api/tanstack?offset=-1&runId={call.run.id}", headers=headers)
    await joined.end()
    assert (joined.frames[-1].chunk["code"], joined.frames[-1].cursor) == ("replaced", None)
    call.finish()
    for each in (answer, second, again):
        await each.end()
        assert "replaced" not in each.body.decode()


async def test_a_page_that_reads_a_run_next_to_the_feed_acknowledges_the_feed(rig: Rig) -> None:
    answer, call = await rig.begun(headers=named("page"))
    feed = await following(rig, "page")
    call.say("said ")
    await answer.until_text("said ")
    await feed.until(lambda: feed.cursor == answer.cursor)
    cursor = feed.cursor
    assert (await ack(rig, "page", cursor)).status == 204
    found = {each["wire"]: each["acknowledged"] for each in await shown(rig) if each["id"] == "page"}
    assert found == {"ai-sdk": None, "session": cursor}


async def test_users_may_use_the_same_name() -> None:
    async with running(auth=Auth(_user, lambda identity, session, action: True)) as rig:
        await rig.begun()
        bob = rig.as_user("bob")
        mine, theirs = await following(rig, "page"), await following(bob, "page")
        found = {each["user"]: each for each in await shown(rig) if each["id"] == "page"}
        assert sorted(found) == ["ann", "bob"]
        assert (await ack(bob, "page", theirs.cursor)).status == 204
        found = {each["user"]: each["acknowledged"] for each in await shown(bob) if each["id"] == "page"}
        assert found == {"ann": None, "bob": theirs.cursor}
        assert not mine.over
        only = await following(rig, "mine")
        assert (await ack(bob, "mine", only.cursor)).code == "not-found"


async def _user(request: Request) -> Identity:
    return Identity(request.headers.get("x-user", "ann"))


async def test_a_connection_that_takes_nothing_any_more_is_cut_when_it_is_replaced() -> None:
    async with choking() as (rig, stuck, free):
        _, call = await rig.begun()
        slow = await following(rig, "slow")
        call.say("choke")
        await stuck.wait()
        again = asyncio.create_task(rig.open("GET", EVENTS, headers=named("slow")))
        await slow.end()
        assert kinds(slow)[-1] != "replaced"
        free.set()
        assert "choke" in (await (await again).until(lambda: again.result().frames)).body.decode()
        assert len([each for each in await shown(rig) if each["id"] == "slow"]) == 1


async def test_a_named_reader_that_comes_back_needs_no_second_place() -> None:
    async with running(max_readers_per_session=3, max_readers=3) as rig:
        await rig.begun()
        await following(rig, "one")
        two = await following(rig, "two")
        assert (await rig.ask("GET", EVENTS, headers=named("three"))).code == "too-many-readers"
        await following(rig, "two")
        await two.end()
        assert len((await rig.sessions.find("c")).readers) == 3


async def test_who_has_left_is_listed_for_a_while(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.finish()
    await answer.end()
    feed = await following(rig, "page")
    watching = await following(rig, "watching")
    await feed.drop()
    await rig.passing(lambda: not any(each["id"] == "page" and each["connected"] for each in lists(watching)[-1]))
    await rig.clock.advance(290)
    assert not (await reader(rig, "page"))["connected"]
    await rig.passing(lambda: "page" not in [each["id"] for each in lists(watching)[-1]])
    assert "page" not in [each["id"] for each in await shown(rig)]


async def test_who_has_left_is_listed_also_when_the_session_has_left_memory(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.finish()
    await answer.end()
    feed = await following(rig, "page")
    assert (await ack(rig, "page", feed.cursor)).status == 204
    await feed.drop()
    await rig.go_cold()
    gone = await reader(rig, "page")
    assert (gone["connected"], gone["acknowledged"]) == (False, feed.cursor)
    back = await following(rig, "page", **{"last-event-id": feed.cursor or ""})
    assert (await reader(rig, "page"))["connected"]
    await back.drop()
    await rig.go_cold()
    await rig.clock.advance(300)
    assert not rig.sessions._resting
    assert await shown(rig) == []


async def test_sessions_that_rest_are_remembered_up_to_a_bound(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_readers, "MAX_RESTING", 2)
    for number in range(4):
        answer, call = await rig.begun(f"c{number}")
        call.finish()
        await answer.end()
        await rig.go_cold(f"c{number}")
        await rig.clock.advance(0.5)
    assert len(rig.sessions._resting) == 2
    for number, remembered in enumerate([0, 0, 1, 1]):
        listed = (await rig.ask("GET", f"/api/sessions/c{number}/readers")).json["readers"]
        assert len(listed) == remembered, number
    assert len(rig.sessions._resting) == 0


async def test_a_session_that_was_let_go_of_at_the_wrong_moment_is_in_memory_while_it_is_read(rig: Rig) -> None:
    await rig.begun()
    session = await rig.sessions.find("c")
    del rig.sessions._live["c"]
    with rig.sessions.place(session, Reader("page", "ann", None, "session", 0)):
        assert rig.sessions._live["c"] is session


async def test_as_many_as_have_left_are_remembered_the_newest(rig: Rig) -> None:
    await rig.begun()
    for number in range(MAX_LEFT + 3):
        await (await following(rig, f"page-{number}")).drop()
    left = [each["id"] for each in await shown(rig) if not each["connected"]]
    assert left == [f"page-{number}" for number in range(3, MAX_LEFT + 3)]


async def test_nobody_is_remembered_where_the_setting_says_so() -> None:
    async with running(reader_memory=0.0) as rig:
        await rig.begun()
        await (await following(rig, "page")).drop()
        await rig.clock.advance(0.5)
        assert [each["id"] for each in await shown(rig) if not each["connected"]] == []


async def test_acknowledgements_are_announced_together(rig: Rig) -> None:
    answer, call = await rig.begun()
    feed, watching = await following(rig, "page"), await following(rig, "watching")
    before = len(lists(watching))
    for number in range(20):
        call.say(f"{number} ")
        await feed.until(lambda number=number: f"{number} ".encode() in feed.body)
        assert (await ack(rig, "page", feed.cursor)).status == 204
    assert len(lists(watching)) == before
    await rig.clock.advance(0.5)
    await watching.until(lambda: len(lists(watching)) == before + 1)
    [shown_last] = [each for each in lists(watching)[-1] if each["id"] == "page"]
    assert shown_last["acknowledged"] == feed.cursor
    await rig.clock.advance(2)
    assert len(lists(watching)) == before + 1, "nothing has changed since"
    assert (await ack(rig, "page", feed.cursor)).status == 204
    await rig.clock.advance(2)
    assert len(lists(watching)) == before + 1, "it was known"
    call.finish()
    await answer.end()


async def test_many_that_come_at_once_are_announced_together(rig: Rig) -> None:
    await rig.begun()
    watching = await following(rig, "watching")
    await rig.clock.advance(0.5)
    before = len(lists(watching))
    feeds = [await following(rig, f"page-{number}") for number in range(3 * MAX_AT_ONCE)]
    assert len(lists(watching)) <= before + MAX_AT_ONCE
    assert all(f"page-{number}" in str(lists(feed)[0]) for number, feed in enumerate(feeds)), "each sees itself"
    await rig.clock.advance(0.5)
    await watching.until(lambda: len(lists(watching)[-1]) == len(feeds) + 2)
    assert len(lists(watching)) <= before + MAX_AT_ONCE + 1


async def test_one_that_is_replaced_ends_at_once_also_when_many_come(rig: Rig) -> None:
    """It is not counted any more, so it must not wait for the next sweep: else a name gets around the bound."""
    answer, _ = await rig.begun()
    feeds = [await following(rig, "page")]
    runs = [await rig.resume("c", answer.cursor, **named("page"))]
    for _ in range(MAX_AT_ONCE):
        feeds.append(await rig.open("GET", EVENTS, headers=named("page")))
        runs.append(await rig.resume("c", answer.cursor, **named("page")))
    for feed, run in zip(feeds[:-1], runs[:-1], strict=True):
        await feed.end()
        assert kinds(feed)[-1] == "replaced"
        await run.end()
    assert not feeds[-1].over and not runs[-1].over


async def test_who_is_remembered_keeps_nothing_of_its_request(rig: Rig) -> None:
    await rig.begun()
    feed = await following(rig, "page")
    await feed.drop()
    session = await rig.sessions.find("c")
    (left,) = session.readers.left
    assert left.id == "page" and left.cut is None


async def test_strangers_see_nobody_and_acknowledge_nothing(rig: Rig) -> None:
    await rig.begun()
    feed = await following(rig, "page")
    eve = rig.as_user("eve")
    unknown = await rig.ask("GET", "/api/sessions/nope/readers")
    foreign = await eve.ask("GET", "/api/sessions/c/readers")
    assert (foreign.status, foreign.body) == (unknown.status, unknown.body) and foreign.status == 404
    assert (await ack(eve, "page", feed.cursor)).code == "not-found"
    assert (await reader(rig, "page"))["acknowledged"] is None


@pytest.mark.parametrize("name", ["a b", "x" * 201, "..", "a/b"])
async def test_a_reader_name_that_is_none_is_refused_before_anything_is_started(rig: Rig, name: str) -> None:
    await rig.begun()
    message = {"id": "u9", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    ag_ui = {"threadId": "c", "runId": "r9", "messages": [{"id": "u9", "role": "user", "content": "hi"}]}
    for method, url, body in (
        ("GET", EVENTS, None),
        ("GET", "/api/chat/c/stream", None),
        ("POST", "/api/chat", {"id": "c", "messages": [message], "trigger": "submit-message"}),
        ("POST", "/api/tanstack", ag_ui),
    ):
        refused = await rig.ask(method, url, body, named(name))
        assert (refused.status, refused.code) == (422, "invalid-id"), url
    assert len(rig.agent.calls) == 1


async def test_after_a_restart_those_who_come_back_are_listed_with_what_they_have(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        answer, call = await rig.begun()
        call.say("said").finish()
        await answer.end()
        feed, other = await following(rig, "page"), await following(rig, "other")
        assert (await ack(rig, "other", other.cursor)).status == 204
        cursor = feed.cursor
    async with running(path, clock=ManualClock("later-")) as rig:
        assert await shown(rig) == []
        await following(rig, "page", **{"last-event-id": cursor or ""})
        [back] = await shown(rig)
        assert (back["id"], back["acknowledged"], back["sent"]) == ("page", cursor, cursor)
