"""The TanStack AI and AG-UI wire over HTTP (PROTOCOL §11): which request is which, and what it is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline.testing import fold_frames

URL = "/api/tanstack"


def user(text: Any, id: str = "u1", **more: Any) -> dict[str, Any]:
    return {"id": id, "role": "user", "content": text, **more}


async def run(
    rig: Rig, run_id: str = "r1", text: Any = "hello", id: str = "u1", *, thread: str = "c", **more: Any
) -> Answer:
    """Send a message as TanStack does."""
    headers = more.pop("headers", {})
    body = {"threadId": thread, "runId": run_id, "messages": [user(text, id)], "forwardedProps": {}, **more}
    return await rig.open("POST", URL, body, {"X-Run-Id": run_id, **headers})


async def join(rig: Rig, run_id: str = "r1", cursor: str | None = None, **headers: str) -> Answer:
    sent = {**({"Last-Event-ID": cursor} if cursor is not None else {}), **headers}
    return await rig.open("GET", f"{URL}?offset=-1&runId={run_id}", headers=sent)


async def hydrate(rig: Rig, thread: str = "c", query: str = "", **headers: str) -> Any:
    answer = await rig.ask("GET", f"{URL}?threadId={thread}{query}", headers=headers)
    assert answer.status == 200, answer.body
    return answer.json


def text_of(answer: Answer) -> str:
    return "".join(frame.chunk.get("delta", "") for frame in answer.frames if "TEXT" in frame.chunk["type"])


def fold_text(message: Any, name: str) -> str:
    return "".join(part[name] for part in message["parts"] if part["type"] == "text")


def kinds(answer: Answer) -> list[str]:
    return [frame.chunk["type"] for frame in answer.frames]


async def begun(rig: Rig, *pieces: str, **more: Any) -> tuple[Answer, Any]:
    before = len(rig.agent.calls)
    answer = await run(rig, **more)
    assert answer.status == 200, answer.body
    call = await rig.agent.called(before + 1)
    call.say(*pieces)
    await answer.until(lambda: text_of(answer).endswith("".join(pieces)))
    return answer, call


async def ended(rig: Rig, *pieces: str, **more: Any) -> Answer:
    answer, call = await begun(rig, *pieces, **more)
    call.finish()
    return await answer.end()


async def go_cold(rig: Rig) -> None:
    """Let time pass until the session has left memory, so that everything is read from the store."""
    for _ in range(2000):
        if "c" not in rig.sessions._live:
            break
        await rig.clock.advance(0.5)
        await asyncio.sleep(0.001)
    assert "c" not in rig.sessions._live
    rig.sessions._held.pop("c", None)


# ---------------------------------------------------------------------- POST


async def test_a_message_is_answered_with_its_run_from_the_first_event(rig: Rig) -> None:
    answer = await ended(rig, "Hel", "lo")
    assert answer.headers["strandline-run"] == "r1"
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert answer.frames[0].chunk == {
        "type": "RUN_STARTED",
        "threadId": "c",
        "runId": "r1",
        "protocolVersion": "1.0",
        "metadata": {"strandline": {"parent": "u1", "message": answer.headers["strandline-message"]}},
    }
    assert text_of(answer) == "Hello"
    assert kinds(answer)[-1] == "RUN_FINISHED"
    cursors = [frame.cursor for frame in answer.frames]
    assert None not in cursors
    assert len(set(cursors)) == len(cursors)


async def test_the_first_event_does_not_wait_for_the_agent(rig: Rig) -> None:
    answer = await run(rig)
    await answer.until(lambda: kinds(answer) == ["RUN_STARTED"])


async def test_the_agent_is_given_the_message_and_what_came_along(rig: Rig) -> None:
    image = {"type": "image", "source": {"type": "data", "value": "AAAA", "mimeType": "image/png"}}
    tools = [{"name": "t", "description": "", "parameters": {}}]
    content = [{"type": "text", "text": "look"}, image]
    answer = await run(rig, text=content, forwardedProps={"model": "x"}, tools=tools, context=[], state={})
    assert answer.status == 200
    call = await rig.agent.called()
    assert call.run.id == "r1"
    assert call.run.body == {"model": "x", "tools": tools}
    assert call.run.messages == [
        {
            "id": "u1",
            "role": "user",
            "parts": [
                {"type": "text", "text": "look"},
                {"type": "file", "url": "data:image/png;base64,AAAA", "mediaType": "image/png"},
            ],
        }
    ]


async def test_the_same_post_again_attaches_to_the_run_and_starts_nothing(rig: Rig) -> None:
    first, call = await begun(rig, "one ")
    second = await run(rig)
    call.say("two").finish()
    await first.end()
    await second.end()
    third = await (await run(rig)).end()
    assert first.frames == second.frames == third.frames
    assert len(rig.agent.calls) == 1


async def test_two_posts_at_the_same_moment_are_one_run(rig: Rig) -> None:
    answers = await asyncio.gather(*(run(rig) for _ in range(5)))
    (await rig.agent.called()).say("hi").finish()
    for answer in answers:
        await answer.end()
    assert {text_of(answer) for answer in answers} == {"hi"}
    assert len(rig.agent.calls) == 1


async def test_a_reconnecting_post_is_sent_strictly_the_rest(rig: Rig) -> None:
    whole = await ended(rig, "one ", "two ", "three")
    for number, frame in enumerate(whole.frames, 1):
        again = await (await run(rig, headers={"Last-Event-ID": frame.cursor})).end()
        assert again.status == 200
        assert again.frames == whole.frames[number:]
    assert len(rig.agent.calls) == 1


async def test_a_reconnecting_post_never_starts_a_run(rig: Rig) -> None:
    await ended(rig, "x")
    answer = await run(rig, "r2", id="u2", headers={"Last-Event-ID": "abcd.1.1"})
    assert (answer.status, answer.code) == (404, "not-found")
    assert len(rig.agent.calls) == 1


async def test_a_known_message_with_a_new_run_id_is_answered_again(rig: Rig) -> None:
    await ended(rig, "first")
    again = await ended(rig, "second", run_id="r2")
    assert text_of(again) == "second"
    shown = await hydrate(rig)
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"]
    assert shown["messages"][1]["parts"] == [{"type": "text", "content": "second"}]


async def test_a_known_message_that_says_something_else_was_edited(rig: Rig) -> None:
    await ended(rig, "first")
    await ended(rig, "second", run_id="r2", text="changed")
    shown = await hydrate(rig)
    assert [message["parts"][0]["content"] for message in shown["messages"]] == ["changed", "second"]
    assert shown["messages"][0]["id"] == "u1"


async def test_a_new_message_interrupts_the_run_that_is_active(rig: Rig) -> None:
    first, _ = await begun(rig, "one")
    second = await ended(rig, "two", run_id="r2", id="u2")
    await first.end()
    assert first.frames[-1].chunk["outcome"] == {"type": "cancelled"}
    assert first.frames[-1].chunk["metadata"]["strandline"]["reason"] == "superseded"
    assert text_of(second) == "two"


async def test_a_run_id_is_unique_in_the_store(rig: Rig) -> None:
    await ended(rig, "x")
    other = await run(rig, thread="other")
    assert (other.status, other.code) == (409, "run-exists")
    foreign = await run(rig, thread="other", headers={"x-user": "bob"})
    assert (foreign.status, foreign.code) == (409, "run-exists")
    assert (await hydrate(rig, "other"))["messages"] == []


async def test_of_two_sessions_that_want_one_run_id_at_the_same_moment_one_gets_it(sqlite_rig: Rig) -> None:
    answers = await asyncio.gather(*(run(sqlite_rig, thread=f"c{number}") for number in range(6)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409, 409]
    assert (await sqlite_rig.chat.service.store.run("r1")) is not None


async def test_a_foreign_session_is_not_found(rig: Rig) -> None:
    await ended(rig, "x")
    answer = await run(rig, "r2", id="u2", headers={"x-user": "bob"})
    assert (answer.status, answer.code) == (404, "not-found")
    again = await run(rig, headers={"x-user": "bob", "Last-Event-ID": "abcd.1.1"})
    assert (again.status, again.code) == (404, "not-found")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"threadId": "a/b"}, 422, "invalid-id"),
        ({"runId": None}, 422, "invalid-id"),
        ({"messages": "x"}, 422, "invalid-request"),
        ({"messages": []}, 422, "invalid-message"),
        ({"messages": [user(None)]}, 422, "invalid-message"),
        ({"messages": [user([{"type": "hologram"}])]}, 422, "invalid-message"),
        ({"messages": [user([{"type": "image", "source": {"type": "file", "value": "f"}}])]}, 422, "invalid-message"),
        ({"messages": [user("x", id="a b")]}, 422, "invalid-id"),
        ({"messages": [user("\ud800")]}, 400, "bad-request"),
        ({"messages": [user("x"), {"id": "t", "role": "tool", "content": "1"}]}, 409, "continuation-unsupported"),
        ({"resume": [{"interruptId": "i", "status": "resolved"}]}, 404, "not-found"),
        ({"resume": "x"}, 422, "invalid-request"),
        ({"resume": [{"interruptId": "i", "status": "odd"}]}, 422, "invalid-request"),
        ({"resume": [{"interruptId": 1, "status": "cancelled"}]}, 422, "invalid-id"),
    ],
)
async def test_what_cannot_be_taken_is_refused_and_leaves_nothing(
    rig: Rig, change: dict[str, Any], status: int, code: str
) -> None:
    body = {"threadId": "c", "runId": "r1", "messages": [user("hello")], **change}
    answer = await rig.ask("POST", URL, body)
    assert (answer.status, answer.code) == (status, code)
    assert rig.agent.calls == []
    assert rig.store.committed == []


async def test_a_header_and_a_body_that_name_two_runs_are_refused(rig: Rig) -> None:
    answer = await run(rig, headers={"X-Run-Id": "r2"})
    assert (answer.status, answer.code) == (422, "invalid-request")


async def test_an_id_that_is_a_replys_is_refused(rig: Rig) -> None:
    answer = await ended(rig, "x")
    again = await run(rig, "r2", id=answer.headers["strandline-message"])
    assert (again.status, again.code) == (409, "message-exists")


async def test_a_client_that_hangs_up_does_not_end_the_run(rig: Rig) -> None:
    answer, call = await begun(rig, "one ")
    await answer.drop()
    call.say("two").finish()
    assert text_of(await (await join(rig)).end()) == "one two"


async def test_a_run_that_fails_says_what_may_be_said(rig: Rig) -> None:
    answer, call = await begun(rig, "one")
    call.fail(RuntimeError("secret"))
    await answer.end()
    last = answer.frames[-1].chunk
    assert (last["type"], last["code"]) == ("RUN_ERROR", "agent-error")
    assert last["metadata"]["tanstack"] == {"runId": "r1", "threadId": "c"}
    assert b"secret" not in answer.body
    assert kinds(answer).count("TEXT_MESSAGE_END") == 1


# ---------------------------------------------------------------------- GET: join


async def test_a_join_is_sent_the_whole_message_and_then_what_follows(rig: Rig) -> None:
    first, call = await begun(rig, "one ", "two ")
    joined = await join(rig)
    await joined.until(lambda: text_of(joined) == "one two ")
    call.say("three").finish()
    await joined.end()
    await first.end()
    assert joined.frames == first.frames
    assert joined.headers["strandline-replay"] == "full"


async def test_a_join_of_a_run_that_has_ended_is_sent_all_of_it(rig: Rig) -> None:
    first = await ended(rig, "one")
    assert (await (await join(rig)).end()).frames == first.frames


async def test_a_header_wins_over_the_offset(rig: Rig) -> None:
    first = await ended(rig, "one ", "two")
    resumed = await (await join(rig, cursor=first.frames[1].cursor)).end()
    assert resumed.frames == first.frames[2:]
    by_query = await rig.ask("GET", f"{URL}?runId=r1&offset={first.frames[1].cursor}")
    assert by_query.frames == first.frames[2:]


async def test_after_its_last_event_a_run_has_nothing_more_to_say(rig: Rig) -> None:
    first = await ended(rig, "one")
    again = await (await join(rig, cursor=first.cursor)).end()
    assert (again.status, again.frames) == (200, [])


@pytest.mark.parametrize("cursor", ["garbage", "zzzz.1.1", "{epoch}.999.1", "{epoch}.{first}.7", "{epoch}.1.1"])
async def test_a_cursor_that_cannot_be_continued_is_refused(rig: Rig, cursor: str) -> None:
    first = await ended(rig, "one")
    epoch, seq, _ = (first.frames[0].cursor or "").split(".")
    answer = await join(rig, cursor=cursor.format(epoch=epoch, first=seq))
    assert (answer.status, answer.code) == (409, "resync")


async def test_unknown_and_foreign_runs_look_alike(rig: Rig) -> None:
    await ended(rig, "x")
    unknown = await join(rig, "nothing")
    foreign = await join(rig, "r1", **{"x-user": "bob"})
    assert unknown.status == foreign.status == 404
    assert unknown.json == foreign.json


async def test_a_join_reads_the_same_from_the_store(sqlite_rig: Rig) -> None:
    first = await ended(sqlite_rig, "one ", "two ", "three")
    await go_cold(sqlite_rig)
    assert (await (await join(sqlite_rig)).end()).frames == first.frames
    await go_cold(sqlite_rig)
    for number, frame in enumerate(first.frames, 1):
        assert (await (await join(sqlite_rig, cursor=frame.cursor)).end()).frames == first.frames[number:]


async def test_when_the_log_is_gone_a_join_is_sent_the_message_and_a_cursor_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db") as rig:
        first = await ended(rig, "one")
        await go_cold(rig)
        assert await rig.chat.service.store.expire(rig.clock.now() + 10**9) > 0
        joined = await (await join(rig)).end()
        assert text_of(joined) == "one"
        assert kinds(joined)[0] == "RUN_STARTED"
        assert kinds(joined)[-1] == "RUN_FINISHED"
        assert [frame.cursor is None for frame in joined.frames] == [True] * (len(joined.frames) - 1) + [False]
        assert (await join(rig, cursor=first.frames[0].cursor)).code == "resync"


async def test_a_message_that_is_started_over_ends_open_streams_and_a_join_is_sent_what_counts(rig: Rig) -> None:
    first, call = await begun(rig, "wrong")
    call.do(lambda run: run.restart())
    await first.end()
    assert first.frames[-1].chunk["code"] == "resync"
    assert first.frames[-1].cursor is None
    assert (await run(rig, headers={"Last-Event-ID": first.cursor or ""})).code == "resync"
    joined = await join(rig)
    call.say("right").finish()
    await joined.end()
    assert text_of(joined) == "right"
    again = await (await join(rig, cursor=joined.frames[0].cursor)).end()
    assert again.frames == joined.frames[1:]


# ---------------------------------------------------------------------- GET: hydrate


async def test_hydrate_shows_finished_messages_with_parts(rig: Rig) -> None:
    answer = await ended(rig, "hi")
    shown = await hydrate(rig)
    assert shown["activeRun"] is None
    assert shown["interrupts"] is None
    assert shown["page"] == {"truncated": False}
    assert [(each["id"], each["role"], each["parts"]) for each in shown["messages"]] == [
        ("u1", "user", [{"type": "text", "content": "hello"}]),
        (answer.headers["strandline-message"], "assistant", [{"type": "text", "content": "hi"}]),
    ]
    assert shown["messages"][0]["createdAt"] == "2027-01-15T08:00:00.000Z"


async def test_hydrate_leaves_out_what_is_being_written_and_names_its_run(rig: Rig) -> None:
    await begun(rig, "one")
    shown = await hydrate(rig)
    assert shown["activeRun"] == {"runId": "r1"}
    assert [each["role"] for each in shown["messages"]] == ["user"]


async def test_unknown_and_foreign_threads_hydrate_empty(rig: Rig) -> None:
    await ended(rig, "x")
    nothing = {
        "messages": [],
        "activeRun": None,
        "interrupts": None,
        "page": {"truncated": False},
        "cursor": None,
        "leaf": None,
        "more": False,
        "branches": {},
        "authors": {},
        "seq": 0,
    }
    assert await hydrate(rig, "nothing") == nothing
    assert await hydrate(rig, **{"x-user": "bob"}) == nothing


async def test_history_is_read_in_pages(rig: Rig) -> None:
    for number in range(5):
        await ended(rig, f"reply {number}", run_id=f"r{number}", id=f"u{number}", text=f"ask {number}")
    whole = (await hydrate(rig))["messages"]
    assert len(whole) == 10
    found: list[Any] = []
    query = "&limit=3"
    while True:
        page = await hydrate(rig, query=query)
        found = [*page["messages"], *found]
        if not page["page"]["truncated"]:
            break
        assert len(page["messages"]) == 3
        query = f"&limit=3&before={page['page']['cursor']}"
    assert found == whole


@pytest.mark.parametrize("query", ["&limit=0", "&limit=x", "&limit=-1", "&before=nothing"])
async def test_a_page_that_is_none_is_refused(rig: Rig, query: str) -> None:
    await ended(rig, "x")
    answer = await rig.ask("GET", f"{URL}?threadId=c{query}")
    assert (answer.status, answer.code) == (422, "invalid-request")


async def test_a_get_that_names_nothing_is_refused(rig: Rig) -> None:
    assert (await rig.ask("GET", URL)).code == "invalid-request"
    assert (await rig.ask("DELETE", URL)).status == 404
    assert (await rig.ask("GET", f"{URL}/else")).status == 404


# ---------------------------------------------------------------------- stop


async def test_stop_ends_the_run_and_every_reader_is_told(rig: Rig) -> None:
    first, _ = await begun(rig, "one")
    answer = await rig.ask("POST", f"{URL}/stop", {"threadId": "c", "runId": "r1"})
    assert (answer.status, answer.json["status"], answer.json["stopped"]) == (200, "stopped", True)
    await first.end()
    assert first.frames[-1].chunk["outcome"] == {"type": "cancelled"}
    again = await rig.ask("POST", f"{URL}/stop", {"threadId": "c"})
    assert again.json["status"] == "idle"


async def test_a_stop_that_overtakes_its_message_is_remembered(rig: Rig) -> None:
    await ended(rig, "x")
    answer = await rig.ask("POST", f"{URL}/stop", {"threadId": "c", "runId": "r2"})
    assert (answer.status, answer.json["status"]) == (202, "remembered")
    born = await (await run(rig, "r2", id="u2")).end()
    assert kinds(born) == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_END", "RUN_FINISHED"]
    assert born.frames[-1].chunk["outcome"] == {"type": "cancelled"}
    assert len(rig.agent.calls) == 1


async def test_a_stop_of_a_foreign_thread_ends_nothing(rig: Rig) -> None:
    first, call = await begun(rig, "one")
    answer = await rig.ask("POST", f"{URL}/stop", {"threadId": "c"}, {"x-user": "bob"})
    assert answer.status == 404
    call.finish()
    await first.end()
    assert first.frames[-1].chunk["outcome"] == {"type": "success"}


# ---------------------------------------------------------------------- across wires


async def test_what_is_written_on_one_wire_is_read_on_the_other(rig: Rig) -> None:
    await ended(rig, "from tanstack")
    answer = await rig.post("c", "second", "u2")
    (await rig.agent.called(2)).say("from the ai sdk").finish()
    await answer.end()
    by_ai_sdk = (await rig.history("c"))["messages"]
    by_tanstack = (await hydrate(rig))["messages"]
    assert [each["id"] for each in by_ai_sdk] == [each["id"] for each in by_tanstack]
    assert [fold_text(each, "text") for each in by_ai_sdk] == [fold_text(each, "content") for each in by_tanstack]
    assert fold_text(by_tanstack[3], "content") == "from the ai sdk"


async def test_a_run_of_one_wire_is_followed_and_stopped_on_the_other(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("one")
    await answer.until_text("one")
    active = (await hydrate(rig))["activeRun"]["runId"]
    joined = await join(rig, active)
    await joined.until(lambda: text_of(joined) == "one")
    assert (await rig.ask("POST", f"{URL}/stop", {"threadId": "c", "runId": active})).json["stopped"]
    await joined.end()
    await answer.end()
    assert fold_frames(answer.frames).parts()[-1]["text"] == text_of(joined) == "one"


async def test_a_message_with_parts_that_this_wire_cannot_say_is_still_known_by_it(rig: Rig) -> None:
    parts = [{"type": "text", "text": "hello"}, {"type": "data-place", "data": {"x": 1}}]
    message = {"id": "u1", "role": "user", "parts": parts}
    answer = await rig.open("POST", "/api/chat", {"id": "c", "messages": [message], "trigger": "submit-message"})
    (await rig.agent.called()).say("one").finish()
    await answer.end()
    shown = (await hydrate(rig))["messages"][0]
    assert shown["parts"] == [{"type": "text", "content": "hello"}]
    assert shown["metadata"]["strandline"]["parts"] == parts[1:]
    await ended(rig, "two", run_id="r2")
    assert (await rig.agent.called(2)).run.messages[0]["parts"] == parts


# ---------------------------------------------------------------------- faults


async def test_a_store_that_cannot_be_written_ends_streams_with_an_error_that_is_not_logged() -> None:
    async with running(commit_patience=0.0) as rig:
        answer, call = await begun(rig, "one")
        rig.store.fail()
        call.say("two")
        await answer.end()
        assert answer.frames[-1].cursor is None
        assert answer.frames[-1].chunk["code"] == "store-unavailable"
        assert text_of(answer) == "one"
        rig.store.mend()
        await go_cold(rig)
        joined = await (await join(rig)).end()
        assert text_of(joined) == "one"
        assert joined.frames[-1].chunk["code"] == "lost"
