"""The live thread of the TanStack wire (PROTOCOL §11.10-11.12): everything that is said, once, from any cursor on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline.codecs.sse import OPENING
from strandline.core.offset import parse
from strandline.runtime import ag_ui_frames
from strandline.runtime.readers import Reader
from strandline.runtime.reading_ag_ui import REPLACED, ag_ui_stream, begin
from strandline.runtime.thread_ag_ui import Thread, thread_stream
from strandline.testing import Frame, until

URL = "/api/tanstack"


async def send(rig: Rig, run_id: str, id: str, content: Any = "hello", **headers: str) -> Answer:
    """Send a message as our connection does."""
    body = {"threadId": "c", "runId": run_id, "messages": [{"id": id, "role": "user", "content": content}]}
    return await rig.ask("POST", URL, body, {"Prefer": "respond-async", **headers})


async def begun(rig: Rig, run_id: str, id: str, *pieces: str, content: Any = "hello") -> Any:
    before = len(rig.agent.calls)
    assert (await send(rig, run_id, id, content)).status == 202
    call = await rig.agent.called(before + 1)
    call.say(*pieces)
    return call


async def ended(rig: Rig, run_id: str, id: str, *pieces: str) -> None:
    (await begun(rig, run_id, id, *pieces)).finish()
    await rig.ended("c")


async def hydrate(rig: Rig, query: str = "", **headers: str) -> Any:
    answer = await rig.ask("GET", f"{URL}?threadId=c{query}", headers=headers)
    assert answer.status == 200
    return answer.json


async def follow(rig: Rig, cursor: str | None, **headers: str) -> Answer:
    sent = headers if cursor is None else {"Last-Event-ID": cursor, **headers}
    return await rig.open("GET", f"{URL}/events?threadId=c", headers=sent)


def short(frames: list[Frame]) -> list[str]:
    """``TYPE id text`` of each."""
    names = ("runId", "messageId", "delta")
    return [" ".join([f.chunk["type"], *(str(f.chunk[n]) for n in names if n in f.chunk)]) for f in frames]


def text_of(answer: Answer) -> str:
    return "".join(frame.chunk.get("delta", "") for frame in answer.frames)


def place(frame: Frame) -> Any:
    return frame.chunk["metadata"]["strandline"]


async def test_a_message_is_taken_without_its_reply(rig: Rig) -> None:
    answer = await send(rig, "r1", "u1")
    assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
    session = await rig.sessions.find("c")
    assert answer.json == {"runId": "r1", "messageId": session.state.runs["r1"].message_id}
    again = await send(rig, "r1", "u1")
    assert (again.status, again.json) == (202, answer.json)
    assert len(rig.agent.calls) <= 1
    refused = await send(rig, "r2", "u2", **{"x-user": "bob"})
    assert (refused.status, refused.code) == (404, "not-found")


async def test_the_live_thread_tells_messages_and_replies_in_order(rig: Rig) -> None:
    await ended(rig, "r1", "u1", "one")
    shown = await hydrate(rig)
    reply = shown["messages"][-1]["id"]
    assert shown["leaf"] == reply
    live = await follow(rig, shown["cursor"])
    await ended(rig, "r2", "u2", "two")
    await live.until(lambda: short(live.frames)[-1:] == ["RUN_FINISHED r2"])
    second = (await hydrate(rig))["leaf"]
    assert short(live.frames) == [
        "TEXT_MESSAGE_START u2",
        "TEXT_MESSAGE_CONTENT u2 hello",
        "TEXT_MESSAGE_END u2",
        "RUN_STARTED r2",
        "STEP_STARTED",
        f"TEXT_MESSAGE_START {second}",
        f"TEXT_MESSAGE_CONTENT {second} two",
        f"TEXT_MESSAGE_END {second}",
        "STEP_FINISHED",
        "RUN_FINISHED r2",
    ]
    assert live.frames[0].chunk["role"] == "user"
    assert place(live.frames[0]) == {"parent": reply}
    assert place(live.frames[3]) == {"parent": "u2", "message": second}
    cursors = [frame.cursor for frame in live.frames]
    assert None not in cursors
    assert len(set(cursors)) == len(cursors)
    assert not live.over


async def test_what_is_being_written_comes_from_its_first_event_on(rig: Rig) -> None:
    call = await begun(rig, "r1", "u1", "one ")
    shown = await hydrate(rig)
    assert (shown["activeRun"], shown["leaf"], len(shown["messages"])) == ({"runId": "r1"}, "u1", 1)
    call.say("two")
    call.finish()
    await rig.ended("c")
    live = await follow(rig, shown["cursor"])  # also when it has ended since
    await live.until(lambda: short(live.frames)[-1:] == ["RUN_FINISHED r1"])
    assert short(live.frames)[0] == "RUN_STARTED r1"
    assert text_of(live) == "one two"


@pytest.mark.parametrize("cold", [False, True])
async def test_from_every_frame_on_exactly_the_rest(rig: Rig, cold: bool) -> None:
    await ended(rig, "r0", "u0", "zero")
    start = (await hydrate(rig))["cursor"]
    await ended(rig, "r1", "u1", "one ", "two ", "three")
    await ended(rig, "r2", "u2", "four")
    if cold:
        await rig.go_cold()
    whole = await follow(rig, start)
    await whole.until(lambda: short(whole.frames)[-1:] == ["RUN_FINISHED r2"])
    assert len(whole.frames) > 12
    for number, frame in enumerate(whole.frames, 1):
        live = await follow(rig, frame.cursor)
        rest = whole.frames[number:]
        await live.until(lambda live=live, rest=rest: len(live.frames) >= len(rest))
        await asyncio.sleep(0)
        assert live.frames == rest
        await live.drop()


async def test_a_reader_goes_from_the_log_into_the_tail_and_on(tmp_path: Any) -> None:
    async with running(tmp_path / "chat.db", tail_limit=0, segment_age=0.01) as rig:
        call = await begun(rig, "r1", "u1", "one ")
        start = (await hydrate(rig))["cursor"]
        first = await follow(rig, start)
        await first.until(lambda: text_of(first) == "one ")
        session = await rig.sessions.find("c")
        await rig.passing(lambda: session.feed.first_seq > session.state.runs["r1"].first_seq + 1)
        late = await follow(rig, start)
        await late.until(lambda: text_of(late) == "one ")
        call.say("two").finish()
        for live in (first, late):
            await live.until(lambda live=live: short(live.frames)[-1:] == ["RUN_FINISHED r1"])
        assert late.frames == first.frames
        assert text_of(late) == "one two"


async def test_a_message_of_more_than_one_text_says_all_of_its_parts(rig: Rig) -> None:
    await ended(rig, "r1", "u1", "one")
    live = await follow(rig, (await hydrate(rig))["cursor"])
    image = {"type": "image", "source": {"type": "data", "value": "AAAA", "mimeType": "image/png"}}
    await begun(rig, "r2", "u2", content=[{"type": "text", "text": "look"}, image])
    await live.until(lambda: "RUN_STARTED r2" in short(live.frames))
    assert place(live.frames[0])["parts"] == [
        {"type": "text", "text": "look"},
        {"type": "file", "url": "data:image/png;base64,AAAA", "mediaType": "image/png"},
    ]
    assert text_of(live) == "look"


async def test_a_new_attempt_names_the_message_that_it_answers(rig: Rig) -> None:
    await ended(rig, "r1", "u1", "one")
    live = await follow(rig, (await hydrate(rig))["cursor"])
    await ended(rig, "r2", "u1", "two")
    await live.until(lambda: short(live.frames)[-1:] == ["RUN_FINISHED r2"])
    assert short(live.frames)[0] == "RUN_STARTED r2"
    assert place(live.frames[0])["parent"] == "u1"


async def test_a_reply_that_starts_over_ends_streams_and_is_told_anew_from_the_next_history_on(rig: Rig) -> None:
    call = await begun(rig, "r1", "u1", "wrong")
    early = (await hydrate(rig))["cursor"]
    live = await follow(rig, early)
    await live.until(lambda: text_of(live) == "wrong")
    call.do(lambda run: run.restart())
    await live.end()
    assert (live.frames[-1].chunk["code"], live.frames[-1].cursor) == ("resync", None)
    # Who has been shown a part of it is told again, who was shown nothing of it, goes on from there.
    again = await (await follow(rig, str(live.frames[-2].cursor))).end()
    assert again.frames[-1].chunk["code"] == "resync"
    unseen = await follow(rig, early)
    await unseen.until(lambda: short(unseen.frames)[:1] == ["RUN_STARTED r1"])
    assert text_of(unseen) == ""
    await unseen.drop()
    shown = await hydrate(rig)
    assert shown["cursor"] != early
    fresh = await follow(rig, shown["cursor"])
    call.say("right").finish()
    await fresh.until(lambda: short(fresh.frames)[-1:] == ["RUN_FINISHED r1"])
    assert text_of(fresh) == "right"
    assert short(fresh.frames)[0] == "RUN_STARTED r1"
    for number, frame in enumerate(fresh.frames, 1):
        if frame.cursor is not None:
            later = await follow(rig, frame.cursor)
            await later.until(lambda later=later, number=number: later.frames == fresh.frames[number:])
            await later.drop()


@pytest.mark.parametrize("begins", ["before", "after"])
async def test_of_replies_that_were_started_over_side_by_side_history_goes_on_from_the_first(
    rig: Rig, begins: str
) -> None:
    """The second one begins before the first is started over, and is in no way told; or after that, and is."""
    first = await begun(rig, "r1", "u1", "wrong")
    if begins == "after":
        first.do(lambda run: run.restart())
    assert (await send(rig, "r2", "u2", **{"Strandline-Submit": "concurrent"})).status == 202
    second = await rig.agent.called(2)
    second.say("wrong as well")
    if begins == "before":
        first.do(lambda run: run.restart())
    first.say("right")
    second.do(lambda run: run.restart())
    second.say("too")
    async with asyncio.timeout(10):
        while "too" not in str((await rig.ask("GET", "/api/sessions/c")).json):
            pass
    shown = await hydrate(rig)
    assert (shown["activeRun"], shown["leaf"], shown["more"]) == ({"runId": "r1"}, "u1", True)
    live = await follow(rig, shown["cursor"])
    await live.until(lambda: text_of(live).endswith("too") and "right" in text_of(live))
    assert "wrong" not in text_of(live)
    starts = [each for each in short(live.frames) if each.startswith("RUN_")]
    assert starts == (["RUN_STARTED r1"] if begins == "before" else ["RUN_STARTED r1", "RUN_STARTED r2"])
    # Where one is started over that was told, that is told.
    (first if begins == "before" else second).do(lambda run: run.restart())
    await live.end()
    assert live.frames[-1].chunk["code"] == "resync"
    first.finish()
    second.finish()
    await rig.ended("c")


@pytest.mark.parametrize("cursor", ["nonsense", "abcd.1.1", None])
async def test_a_cursor_that_cannot_be_continued_and_none_are_refused(rig: Rig, cursor: str | None) -> None:
    await ended(rig, "r1", "u1", "one")
    answer = await follow(rig, cursor)
    assert (answer.status, answer.code) == (409, "resync")


async def test_a_cursor_beyond_an_event_or_the_log_is_refused(rig: Rig) -> None:
    await ended(rig, "r1", "u1", "one")
    epoch, last, _ = (await hydrate(rig))["cursor"].split(".")
    for cursor in (f"{epoch}.{int(last) + 1}.0", f"{epoch}.{last}.40"):
        assert (await follow(rig, cursor)).code == "resync"


async def test_a_log_that_has_expired_is_refused_or_ends_the_stream_and_history_goes_on_from_its_end(rig: Rig) -> None:
    await ended(rig, "r1", "u1", "one")
    start = (await hydrate(rig))["cursor"]
    await ended(rig, "r2", "u2", "two")
    await rig.go_cold()
    end = (await hydrate(rig))["cursor"]
    await rig.store.expire(2**60)
    assert (await follow(rig, start)).code == "resync"
    live = await follow(rig, end)
    await ended(rig, "r3", "u3", "three")
    await live.until(lambda: short(live.frames)[-1:] == ["RUN_FINISHED r3"])
    assert text_of(live) == "hellothree"


async def test_a_hole_in_the_log_ends_the_stream(rig: Rig) -> None:
    call = await begun(rig, "r1", "u1", "one ")
    start = (await hydrate(rig))["cursor"]
    live = await follow(rig, start)
    await live.until(lambda: text_of(live) == "one ")
    assert (await rig.ask("PATCH", "/api/sessions/c", {"title": "renamed"})).status == 200
    renamed_at = rig.clock.now()
    await rig.clock.jump(20.0)
    call.say("two").finish()
    await live.until(lambda: short(live.frames)[-1:] == ["RUN_FINISHED r1"])
    await live.drop()
    await rig.go_cold()
    await rig.store.expire(renamed_at + 10_000)
    holed = await (await follow(rig, start)).end()
    assert text_of(holed) == "one "
    assert holed.frames[-1].chunk["code"] == "resync"


async def test_strangers_see_nothing(rig: Rig) -> None:
    await ended(rig, "r1", "u1", "one")
    shown = await hydrate(rig)
    for headers in ({"x-user": "bob"}, {"x-user": "bob", "Last-Event-ID": shown["cursor"]}):
        answer = await rig.ask("GET", f"{URL}/events?threadId=c", headers=headers)
        assert (answer.status, answer.code) == (404, "not-found")
    unknown = await rig.ask("GET", f"{URL}/events?threadId=nobody")
    assert (unknown.status, unknown.code) == (404, "not-found")
    theirs = await hydrate(rig, **{"x-user": "bob"})
    assert (theirs["cursor"], theirs["leaf"], theirs["messages"]) == (None, None, [])
    assert (await rig.ask("GET", f"{URL}/events")).code == "invalid-request"
    assert (await rig.ask("GET", f"{URL}/events?threadId=a/b")).code == "invalid-id"


async def test_readers_are_counted_listed_and_replaced(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    await ended(rig, "r1", "u1", "one")
    cursor = (await hydrate(rig))["cursor"]
    first = await follow(rig, cursor, **{"Strandline-Reader": "page", "Strandline-Device": "phone"})
    session = await rig.sessions.find("c")
    assert [(each["id"], each["wire"], each["run"]) for each in session.readers.plain()] == [("page", "ag-ui", None)]
    second = await follow(rig, cursor, **{"Strandline-Reader": "page"})
    await first.end()
    await ended(rig, "r2", "u2", "two")
    await second.until(lambda: short(second.frames)[-1:] == ["RUN_FINISHED r2"])
    (listed,) = session.readers.plain()
    assert listed["sent"] == second.cursor
    assert listed["acknowledged"] == cursor


@pytest.mark.parametrize("wire", ["thread", "run"])
async def test_one_that_is_replaced_while_it_is_behind_is_not_sent_the_rest(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ag_ui_frames, "PAGE", 2)
    async with running(tail_limit=0, segment_age=1.0) as rig:
        call = await begun(rig, "r1", "u1")
        session = await rig.sessions.find("c")
        await until(lambda: session.feed.last_seq == 3)
        cursor = (await hydrate(rig))["cursor"]
        reader = Reader("page", "ann", None, "ag-ui", 0)
        if wire == "thread":
            stream = thread_stream(session, Thread(session, rig.store, parse(cursor)), reader)
        else:
            run = session.state.runs["r1"]
            stream = ag_ui_stream(session, rig.store, run, await begin(session, rig.store, run, None), reader)
        assert await anext(stream) == OPENING or wire == "run"
        for number in range(4, 24):
            call.say("more ")
            await until(lambda number=number: session.feed.last_seq == number)
        await rig.passing(lambda: session.feed.first_seq == 24)
        await anext(stream)
        reader.replace()
        assert [data async for data in stream] == [REPLACED]


async def test_one_reader_too_many_is_refused() -> None:
    async with running(max_readers_per_session=1) as rig:
        await ended(rig, "r1", "u1", "one")
        cursor = (await hydrate(rig))["cursor"]
        await follow(rig, cursor)
        answer = await follow(rig, cursor)
        assert (answer.status, answer.code) == (429, "too-many-readers")


async def test_it_ends_when_it_is_old_and_with_the_server() -> None:
    async with running(max_stream_age=60.0) as rig:
        await ended(rig, "r1", "u1", "one")
        live = await follow(rig, (await hydrate(rig))["cursor"])
        await rig.passing(lambda: live.over)
        assert live.frames == []
        other = await follow(rig, (await hydrate(rig))["cursor"])
        rig.sessions.close()
        await other.end()
        assert other.frames[-1].chunk["code"] == "shutting-down"


async def test_a_store_that_cannot_be_written_ends_it_with_an_error_that_is_not_logged() -> None:
    async with running(commit_patience=0.0) as rig:
        call = await begun(rig, "r1", "u1", "one")
        live = await follow(rig, (await hydrate(rig))["cursor"])
        await live.until(lambda: text_of(live) == "one")
        rig.store.fail()
        call.say("two")
        await live.end()
        assert (live.frames[-1].chunk["code"], live.frames[-1].cursor) == ("store-unavailable", None)


async def test_many_readers_of_a_reply_cost_one_encoding(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    take = ag_ui_frames.Encoding.take

    def counted(self: Any, seq: int, *rest: Any) -> Any:
        taken.append(seq)
        return take(self, seq, *rest)

    monkeypatch.setattr(ag_ui_frames.Encoding, "take", counted)
    call = await begun(rig, "r1", "u1", "one ")
    cursor = (await hydrate(rig))["cursor"]
    readers = [await follow(rig, cursor) for _ in range(5)]
    for piece in ("two ", "three "):
        call.say(piece)
        for live in readers:
            await live.until(lambda live=live, piece=piece: text_of(live).endswith(piece))
    # One that comes back reads what is there.
    again = await follow(rig, readers[0].frames[2].cursor)
    await again.until(lambda: again.frames == readers[0].frames[3:])
    joined = await rig.open("GET", f"{URL}?offset=-1&runId=r1")
    await joined.until(lambda: text_of(joined) == "one two three ")
    call.finish()
    for live in [*readers, again]:
        await live.until(lambda live=live: short(live.frames)[-1:] == ["RUN_FINISHED r1"])
    assert len(taken) == len(set(taken))


async def test_annotations_are_in_history_and_on_the_live_thread(rig: Rig) -> None:
    await ended(rig, "r1", "u1", "one")
    shown = await hydrate(rig)
    reply = shown["leaf"]
    live = await follow(rig, shown["cursor"])
    body = {"message": reply, "type": "reaction", "data": {"name": "good"}, "id": "n1"}
    assert (await rig.ask("POST", "/api/sessions/c/annotations", body)).status == 201
    await live.until(lambda: len(live.frames) == 1)
    summary = {"count": 1, "names": {"good": 1}}
    said = await hydrate(rig)
    value = {"message": reply, "type": "reaction", "summary": summary, "seq": said["seq"]}
    assert live.frames[0].chunk == {"type": "CUSTOM", "name": "strandline.annotated", "value": value}
    assert said["messages"][-1]["metadata"]["strandline"] == {"annotations": {"reaction": summary}}
    assert (await rig.ask("DELETE", "/api/sessions/c/annotations/n1")).status == 204
    await live.until(lambda: len(live.frames) == 2)
    assert live.frames[1].chunk["value"]["summary"] == {"count": 0}
    assert "metadata" not in (await hydrate(rig))["messages"][-1]
