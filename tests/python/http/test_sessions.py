"""Listing, creating, renaming and archiving sessions (PROTOCOL §8.1-8.3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import Answer, Rig, running, user_of
from strandline.core.records import SessionRecord
from strandline.errors import Conflict
from strandline.http.auth import Action, Auth, Identity
from strandline.testing import until

S = "/api/sessions"


def check_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer.body[:300]


async def listed(rig: Any, query: str = "") -> list[str]:
    return [each["id"] for each in (await rig.ask("GET", f"{S}{query}")).json["sessions"]]


async def pages(rig: Any, query: str) -> list[list[str]]:
    """Every page of a list, by following ``next``."""
    found, more = [], ""
    while True:
        answer = (await rig.ask("GET", f"{S}?{query}{more}")).json
        found.append([each["id"] for each in answer["sessions"]])
        if answer["next"] is None:
            return found
        more = f"&before={answer['next']}"


async def feed_of(rig: Rig, chat: str = "c") -> Answer:
    feed = await rig.open("GET", f"{S}/{chat}/events")
    return await feed.until(lambda: feed.frames)


def changes(feed: Answer) -> list[tuple[str | None, bool]]:
    found = [frame.chunk for frame in feed.frames if frame.chunk["type"] == "session-changed"]
    return [(chunk.get("title"), chunk["archived"]) for chunk in found]


# ------------------------------------------------------------------------------------------------ the list


async def test_sessions_are_listed_newest_first_with_their_active_run(rig: Rig) -> None:
    for number in range(3):
        await rig.clock.advance(1)
        answer, call = await rig.begun(f"c{number}", f"title {number}")
        if number < 2:
            call.finish()
            await answer.end()
    listed = (await rig.ask("GET", S)).json["sessions"]
    assert [(each["id"], each["title"]) for each in listed] == [(f"c{n}", f"title {n}") for n in (2, 1, 0)]
    assert [each["activeRun"] for each in listed] == [call.run.id, None, None]
    assert listed[0] == {
        "id": "c2",
        "title": "title 2",
        "archived": False,
        "createdAt": rig.clock.now(),
        "updatedAt": rig.clock.now(),
        "activeRun": call.run.id,
        "submit": None,
        "pending": 0,
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7])
async def test_pages_of_sessions_that_changed_at_the_same_time_are_whole(sqlite_rig: Rig, limit: int) -> None:
    rig = sqlite_rig
    for number in range(6):
        if number == 4:
            await rig.clock.advance(1)
        assert (await rig.ask("POST", S, {"id": f"c&{number}"})).status == 201
    found = await pages(rig, f"limit={limit}")
    assert [id for page in found for id in page] == ["c&4", "c&5", "c&0", "c&1", "c&2", "c&3"]
    assert all(len(page) == limit for page in found[:-1])
    assert 1 <= len(found[-1]) <= limit


async def test_a_session_that_changes_while_the_list_is_read_is_not_shown_twice(rig: Rig) -> None:
    for number in range(4):
        await rig.clock.advance(1)
        await rig.ask("POST", S, {"id": f"c{number}"})
    first = (await rig.ask("GET", f"{S}?limit=2")).json
    await rig.clock.advance(1)
    await rig.ask("PATCH", f"{S}/c2", {"title": "new"})
    rest = (await rig.ask("GET", f"{S}?limit=2&before={first['next']}")).json
    assert [each["id"] for each in (*first["sessions"], *rest["sessions"])] == ["c3", "c2", "c1", "c0"]
    assert rest["next"] is None


async def test_archived_sessions_are_listed_apart(rig: Rig) -> None:
    for number in range(4):
        await rig.clock.advance(1)
        await rig.ask("POST", S, {"id": f"c{number}"})
    for id in ("c1", "c2"):
        await rig.clock.advance(1)
        assert (await rig.ask("PATCH", f"{S}/{id}", {"archived": True})).json["session"]["archived"] is True
    assert await listed(rig) == ["c3", "c0"]
    assert await listed(rig, "?archived=false") == ["c3", "c0"]
    assert await listed(rig, "?archived=true") == ["c2", "c1"]
    assert await listed(rig, "?archived=any") == ["c2", "c1", "c3", "c0"]
    assert await pages(rig, "archived=any&limit=3") == [["c2", "c1", "c3"], ["c0"]]
    assert await pages(rig, "archived=true&limit=1") == [["c2"], ["c1"]]
    await rig.ask("PATCH", f"{S}/c1", {"archived": False})
    assert sorted(await listed(rig)) == ["c0", "c1", "c3"]


@pytest.mark.parametrize(
    "query",
    [
        "archived=yes", "archived=", "archived=1", "before=", "before=garbage", "before=%00", "before=4K6p",
        "before=LTEgYw", "before=MTAw", "before=MSBhL2I", "before=MSAuLg", "before=" + "A" * 5000, "limit=0", "limit=x",
    ],
)  # fmt: skip
async def test_a_query_that_means_nothing_is_a_problem(rig: Rig, query: str) -> None:
    check_problem(await rig.ask("GET", f"{S}?{query}"), 422, "invalid-request")


async def test_the_list_is_bounded_by_the_setting() -> None:
    async with running(max_sessions_listed=2) as rig:
        for number in range(5):
            await rig.ask("POST", S, {"id": f"c{number}"})
        for query in ("limit=100", ""):
            assert [len(page) for page in await pages(rig, query)] == [2, 2, 1]


async def test_a_list_shows_what_the_caller_may_read() -> None:
    """One's own, and of these only what the policy does not hide."""

    def policy(identity: Identity, session: SessionRecord | None, action: Action) -> bool:
        hidden = session is not None and session.title == "hidden" and action is Action.READ
        return not hidden and (session is None or session.owner == identity.user)

    async with running(auth=Auth(user_of, policy)) as rig:
        for number in range(5):
            await rig.ask("POST", S, {"id": f"c{number}", "title": "hidden" if number % 2 else "shown"})
        await rig.as_user("bob").ask("POST", S, {"id": "bobs"})
        assert await pages(rig, "limit=2") == [["c0", "c2"], ["c4"]]
        assert await pages(rig.as_user("bob"), "limit=2") == [["bobs"]]


# ------------------------------------------------------------------------------------------------ create


async def test_a_session_is_created_once_and_then_shown_as_it_is(rig: Rig) -> None:
    created = await rig.ask("POST", S, {"id": "c", "title": "  A plan  "})
    assert created.status == 201
    assert created.json["session"] == {
        "id": "c",
        "title": "A plan",
        "archived": False,
        "createdAt": rig.clock.now(),
        "updatedAt": rig.clock.now(),
        "activeRun": None,
        "submit": None,
        "pending": 0,
    }
    again = await rig.ask("POST", S, {"id": "c", "title": "Another"})
    assert (again.status, again.json) == (200, created.json)
    (event,) = await rig.log()
    assert event == {
        "type": "session-changed", "at": rig.clock.now(), "by": "user:ann", "title": "A plan", "archived": False,
    }  # fmt: skip
    snapshot = (await feed_of(rig)).frames[0].chunk
    assert snapshot["messages"] == []
    assert snapshot["session"] == created.json["session"]


async def test_without_an_id_the_server_gives_one(rig: Rig) -> None:
    one, other = [(await rig.ask("POST", S, {})).json["session"] for _ in range(2)]
    assert one["id"] != other["id"]
    assert one["title"] is None
    assert sorted(await listed(rig)) == sorted([one["id"], other["id"]])


@pytest.mark.parametrize("title", [None, "Mine"])
async def test_a_created_session_takes_messages_and_its_title_from_the_first_if_it_has_none(
    rig: Rig, title: str | None
) -> None:
    await rig.ask("POST", S, {"id": "c", "title": title})
    answer, call = await rig.begun("c", "What is a strand?")
    call.say("A thread.").finish()
    await answer.end()
    assert (await rig.ask("GET", S)).json["sessions"][0]["title"] == (title or "What is a strand?")
    assert [event["type"] for event in await rig.log()][:3] == ["session-changed", "message-created", "run-queued"]
    assert [message["role"] for message in (await rig.history("c"))["messages"]] == ["user", "assistant"]


async def test_creating_is_safe_to_repeat_at_the_same_moment(rig: Rig) -> None:
    rig.store.hang()
    both = [asyncio.create_task(rig.ask("POST", S, {"id": "c"})) for _ in range(2)]
    await until(lambda: rig.store.attempts)
    rig.store.mend()
    assert sorted([(await each).status for each in both]) == [200, 201]
    assert len(await rig.log()) == 1


async def test_a_session_is_its_creators_whoever_asked_about_the_id_before(rig: Rig) -> None:
    assert (await rig.as_user("eve").post("c", messageId="nobody")).status == 409
    await rig.clock.advance(5)
    created = (await rig.ask("POST", S, {"id": "c"})).json["session"]
    assert created["createdAt"] == rig.clock.now()
    assert await listed(rig) == ["c"]
    assert await listed(rig.as_user("eve")) == []


async def test_history_can_be_imported_into_a_session_of_the_same_user_that_is_still_empty(rig: Rig) -> None:
    await rig.ask("POST", S, {"id": "c", "title": "Mine"})
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "old"}]}
    with pytest.raises(Conflict, match="another user"):
        await rig.chat.import_messages("c", [message], user="eve")
    record = await rig.chat.import_messages("c", [message], user="ann", title="Old talk")
    assert (record.owner, record.title) == ("ann", "Old talk")
    assert [event["type"] for event in await rig.log()] == ["session-changed", "session-changed", "message-created"]
    with pytest.raises(Conflict, match="has messages"):
        await rig.chat.import_messages("c", [message], user="ann")


async def test_the_id_of_somebody_elses_session_cannot_be_created(rig: Rig) -> None:
    await rig.ask("POST", S, {"id": "c", "title": "Secret"})
    refused = await rig.as_user("eve").ask("POST", S, {"id": "c"})
    check_problem(refused, 404, "not-found")
    assert b"Secret" not in refused.body
    assert len(await rig.log()) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"id": "a/b"}, "invalid-id"),
        ({"id": ""}, "invalid-id"),
        ({"id": 7}, "invalid-id"),
        ({"title": 7}, "invalid-request"),
        ({"title": "x" * 201}, "invalid-request"),
        ({"title": "two\nlines"}, "invalid-request"),
        ({"title": "\x00"}, "invalid-request"),
    ],
)
async def test_what_cannot_be_created_is_a_problem(rig: Rig, body: Any, code: str) -> None:
    check_problem(await rig.ask("POST", S, body), 422, code)
    assert await listed(rig) == []


async def test_creating_and_changing_need_json(rig: Rig) -> None:
    await rig.ask("POST", S, {"id": "c"})
    for method, path in (("POST", S), ("PATCH", f"{S}/c"), ("POST", f"{S}/c/messages")):
        plain = {"content-type": "text/plain", "sec-fetch-site": "cross-site"}
        check_problem(await rig.ask(method, path, {}, plain), 415, "unsupported-media-type")
        check_problem(await rig.ask(method, path), 415, "unsupported-media-type")
    async with running(max_body=100) as small:
        for method, path in (("POST", S), ("PATCH", f"{S}/c"), ("POST", f"{S}/c/messages")):
            check_problem(await small.ask(method, path, {"title": "x" * 200}), 413, "body-too-large")


# ------------------------------------------------------------------------------------------------ change


async def test_a_change_is_told_on_the_feed_and_stays(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    await rig.ask("POST", S, {"id": "c", "title": "Old"})
    feed = await feed_of(rig)
    await rig.clock.advance(1)
    renamed = (await rig.ask("PATCH", f"{S}/c", {"title": "New"})).json["session"]
    assert (renamed["title"], renamed["archived"], renamed["updatedAt"]) == ("New", False, rig.clock.now())
    await rig.ask("PATCH", f"{S}/c", {"archived": True})
    both = (await rig.ask("PATCH", f"{S}/c", {"title": None, "archived": False})).json["session"]
    assert (both["title"], both["archived"]) == (None, False)
    await feed.until(lambda: len(changes(feed)) == 3)
    assert changes(feed) == [("New", False), ("New", True), (None, False)]
    assert await rig.store.session("c") == (await rig.sessions.find("c")).state.record


@pytest.mark.parametrize("body", [{}, {"title": "Same"}, {"archived": False}, {"title": " Same ", "archived": False}])
async def test_what_changes_nothing_is_not_an_event(rig: Rig, body: Any) -> None:
    created = (await rig.ask("POST", S, {"id": "c", "title": "Same"})).json
    await rig.clock.advance(1)
    assert (await rig.ask("PATCH", f"{S}/c", body)).json == created
    assert len(await rig.log()) == 1


async def test_archiving_stops_nothing(rig: Rig) -> None:
    answer, call = await rig.begun()
    assert (await rig.ask("PATCH", f"{S}/c", {"archived": True})).json["session"]["activeRun"] == call.run.id
    call.say("still here").finish()
    await answer.end()
    assert answer.text == "still here"
    assert await listed(rig, "?archived=true") == ["c"]


@pytest.mark.parametrize(
    "body",
    [
        {"owner": "eve"}, {"title": "x", "id": "d"}, {"archived": None, "epoch": "x"}, {"archived": "true"},
        {"archived": 1}, {"title": ["x"]}, {"title": "x" * 201}, {"title": "a\u2028b"}, {"title": "\t"},
    ],
)  # fmt: skip
async def test_nothing_else_can_be_changed(rig: Rig, body: Any) -> None:
    await rig.ask("POST", S, {"id": "c", "title": "Mine"})
    check_problem(await rig.ask("PATCH", f"{S}/c", body), 422, "invalid-request")
    assert len(await rig.log()) == 1


@pytest.mark.parametrize("title", ["ä🦩" * 100, "می‌خواهم", "👩‍👧 plans", "計画　二", "a\u00a0b"])
async def test_a_title_in_any_script_is_kept_whole(rig: Rig, title: str) -> None:
    assert (await rig.ask("POST", S, {"id": "c", "title": title})).json["session"]["title"] == title
    assert (await rig.ask("GET", f"{S}/c")).json["session"]["title"] == title
    assert (await rig.ask("PATCH", f"{S}/c", {"title": "   "})).json["session"]["title"] is None


async def test_who_may_not_manage_changes_nothing() -> None:
    denied = {Action.MANAGE}

    def policy(identity: Identity, session: SessionRecord | None, action: Action) -> bool:
        return action not in denied

    async with running(auth=Auth(user_of, policy)) as rig:
        answer, call = await rig.begun()
        call.finish()
        await answer.end()
        before = await rig.log()
        for method, path, body in [
            ("POST", S, {"id": "c"}), ("POST", S, {"id": "new"}), ("POST", S, {}), ("PATCH", f"{S}/c", {"title": "x"}),
        ]:  # fmt: skip
            check_problem(await rig.ask(method, path, body), 404, "not-found")
        assert await rig.log() == before
        assert await listed(rig) == ["c"]
        denied.clear()
        denied.add(Action.DELETE)
        check_problem(await rig.ask("DELETE", f"{S}/c"), 404, "not-found")
        assert (await rig.ask("PATCH", f"{S}/c", {"title": "x"})).status == 200
        assert await listed(rig) == ["c"]


async def test_a_store_that_fails_changes_nothing() -> None:
    async with running(commit_patience=0.0) as rig:
        await rig.ask("POST", S, {"id": "c", "title": "Old"})
        rig.store.fail()
        for method, path, body in [
            ("POST", S, {"id": "d"}), ("PATCH", f"{S}/c", {"title": "New"}), ("DELETE", f"{S}/c", None),
        ]:  # fmt: skip
            check_problem(await rig.ask(method, path, body), 503, "store-unavailable")
        rig.store.mend()
        await rig.passing(lambda: rig.chat.service.ready)
        listed = (await rig.ask("GET", S)).json["sessions"]
        assert [(each["id"], each["title"]) for each in listed] == [("c", "Old")]
