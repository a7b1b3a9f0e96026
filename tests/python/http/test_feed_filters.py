"""What a reader of the session feed can leave out, and what it is told instead (PROTOCOL §8.8-8.10)."""

from __future__ import annotations

from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline.core.message import fold

EVENTS = "/api/sessions/c/events"
THOUGHT: list[Any] = [
    {"type": "reasoning-start", "id": "r"},
    {"type": "reasoning-delta", "id": "r", "delta": "secretly "},
    {"type": "reasoning-end", "id": "r"},
]


def events(answer: Answer) -> list[dict[str, Any]]:
    return [dict(frame.chunk) for frame in answer.frames if "seq" in frame.chunk]


def positions(answer: Answer) -> list[str | None]:
    return [frame.cursor for frame in answer.frames if frame.chunk["type"] == "position"]


async def following(rig: Rig, query: str = "", **headers: str) -> Answer:
    """A feed that has caught up."""
    feed = await rig.open("GET", EVENTS + query, headers=headers)
    assert feed.status == 200, feed.body
    return await feed.until(lambda: any(frame.chunk["type"] == "readers" for frame in feed.frames))


async def thoughtful(rig: Rig) -> tuple[Answer, Any]:
    """A reply that has thought and said something, and goes on."""
    answer, call = await rig.begun()
    call.say(*THOUGHT, "said ")
    await answer.until_text("said ")
    return answer, call


def said(chunks: list[Any]) -> str:
    return "".join(part["text"] for part in fold(chunks).parts() if part["type"] == "text")


async def test_the_chunks_of_a_snapshot_and_later_ones_are_the_reply(rig: Rig) -> None:
    answer, call = await thoughtful(rig)
    feed = await following(rig)
    snapshot = feed.frames[0].chunk
    [active] = snapshot["active"]
    assert (active["run"], active["messageId"]) == (call.run.id, snapshot["messages"][-1]["id"])
    assert fold(active["chunks"]).parts() == snapshot["messages"][-1]["parts"]
    call.say("more").finish()
    await feed.until(lambda: events(feed)[-1:] and events(feed)[-1]["type"] == "run-ended")
    later = [chunk for event in events(feed) for chunk in event.get("chunks", ())]
    assert said([*active["chunks"], *later]) == "said more"
    await answer.end()
    after = (await rig.ask("GET", "/api/sessions/c")).json
    assert (after["active"], after["reader"]) == ([], None)
    assert fold([*active["chunks"], *later]).parts() == after["messages"][-1]["parts"]


async def test_a_run_that_waits_for_its_agent_is_active_with_an_empty_message(rig: Rig) -> None:
    _, call = await rig.begun()
    [active] = (await rig.ask("GET", "/api/sessions/c")).json["active"]
    assert active["chunks"] == [{"type": "start", "messageId": active["messageId"]}]
    assert active["run"] == call.run.id


@pytest.mark.parametrize("last", [0, 1, 2, 3, 1000])
async def test_only_the_newest_messages_are_in_a_snapshot_that_names_last(rig: Rig, last: int) -> None:
    for number in range(2):
        answer, call = await rig.begun(id=f"u{number}")
        call.say("ok")
        if number == 0:
            call.finish()
            await answer.end()
        else:
            await answer.until_text("ok")
    whole = (await rig.ask("GET", "/api/sessions/c")).json["messages"]
    assert len(whole) == 4
    for answer in (await rig.ask("GET", f"/api/sessions/c?last={last}"), await following(rig, f"?last={last}")):
        shown = answer.frames[0].chunk if answer.frames else answer.json
        expected = whole[max(0, 4 - last) :]
        assert shown["messages"] == expected
        assert shown["page"] == {"before": expected[0]["id"] if 0 < last < 4 else None}
        assert len(shown["active"]) == 1


@pytest.mark.parametrize(
    "query",
    ["last=-1", "last=1001", "last=x", "last=", "last=%C2%B2", "exclude=text", "only=all", "exclude=reasoning,x"],
)
async def test_an_unknown_filter_is_refused(rig: Rig, query: str) -> None:
    await rig.begun()
    for path in (EVENTS, "/api/sessions/c"):
        refused = await rig.ask("GET", f"{path}?{query}")
        assert (refused.status, refused.code) == (422, "invalid-request")


async def test_an_unknown_run_is_not_followed_in_silence(rig: Rig) -> None:
    await rig.begun()
    assert (await rig.ask("GET", f"{EVENTS}?run=nope")).code == "not-found"
    assert (await rig.ask("GET", f"{EVENTS}?run=a%20b")).code == "invalid-id"


async def test_without_reasoning(rig: Rig) -> None:
    _, call = await thoughtful(rig)
    feed, whole = await following(rig, "?exclude=reasoning"), await following(rig)
    snapshot = feed.frames[0].chunk
    assert [part["type"] for part in snapshot["messages"][-1]["parts"]] == ["step-start", "text"]
    assert said(snapshot["active"][0]["chunks"]) == "said "
    call.say(*[{**chunk, "id": "r2"} for chunk in THOUGHT], "more").finish()
    await whole.until(lambda: events(whole)[-1:] and events(whole)[-1]["type"] == "run-ended")
    await feed.until(lambda: events(feed)[-1:] == events(whole)[-1:])
    for each, secret in ((feed, False), (whole, True)):
        assert (b"secretly" in each.body) is secret
    later = [chunk for event in events(feed) for chunk in event.get("chunks", ())]
    assert said([*snapshot["active"][0]["chunks"], *later]) == "said more"


async def test_only_state_has_no_content(rig: Rig) -> None:
    answer, call = await thoughtful(rig)
    writing = (await rig.ask("GET", "/api/sessions/c?only=state")).json
    assert (writing["messages"], writing["active"]) == ([], [])
    assert writing["session"]["activeRun"] == call.run.id
    call.finish()
    await answer.end()
    state = await following(rig, "?only=state")
    snapshot = state.frames[0].chunk
    assert (snapshot["messages"], snapshot["active"]) == ([], [])
    assert snapshot["runs"][0]["status"] == "completed"
    answer, call = await rig.begun(id="u2", text="another question")
    call.say("another answer").finish()
    await answer.end()
    await state.until(lambda: events(state)[-1:] and events(state)[-1]["type"] == "run-ended")
    assert [event["type"] for event in events(state)] == ["message-created", "run-queued", "run-started", "run-ended"]
    assert not any("parts" in event or "chunks" in event for event in events(state))
    assert b"another" not in state.body


async def test_only_one_run(rig: Rig) -> None:
    answer, first = await rig.begun()
    first.say("one").finish()
    await answer.end()
    _, second = await rig.begun(id="u2")
    feed = await following(rig, f"?run={first.run.id}&exclude=reasoning")
    snapshot = feed.frames[0].chunk
    assert [message["parts"][-1]["text"] for message in snapshot["messages"]] == ["one"]
    assert snapshot["active"] == []
    both = (await rig.ask("GET", f"/api/sessions/c?run={first.run.id},{second.run.id}")).json
    assert [message["role"] for message in both["messages"]] == ["assistant"] * 2
    live = await following(rig, f"?run={second.run.id}", **{"last-event-id": snapshot["cursor"]})
    second.say("two").finish()
    await live.until(lambda: events(live)[-1:] and events(live)[-1]["type"] == "run-ended")
    assert {event["run"] for event in events(live)} == {second.run.id}
    assert events(feed) == []


async def test_who_follows_one_run_and_who_follows_all_do_not_share_what_they_are_sent(rig: Rig) -> None:
    answer, first = await thoughtful(rig)
    first.finish()
    await answer.end()
    answer, second = await rig.begun(id="u2")
    of_first = await following(rig, f"?run={first.run.id}")
    feeds = [await following(rig), await following(rig, f"?run={second.run.id}")]
    for text in ("one ", "two "):
        second.say(text)
        for feed in feeds:
            await feed.until(lambda feed=feed, text=text: text.encode() in feed.body)
    second.finish()
    for feed in feeds:
        await feed.until(lambda feed=feed: events(feed) and events(feed)[-1]["type"] == "run-ended")
    await answer.end()
    everything, of_second = (events(feed) for feed in feeds)
    assert of_second == [event for event in everything if event["run"] == second.run.id] == everything
    assert events(of_first) == []


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("query", ["exclude=reasoning", "only=state", "run=run-1", "exclude=reasoning&run=run-1"])
async def test_every_cursor_goes_on_with_a_filter(rig: Rig, query: str, cold: bool) -> None:
    answer, call = await rig.begun()
    call.say(*THOUGHT, "said", *[{**chunk, "id": "r2"} for chunk in THOUGHT]).finish()
    await answer.end()
    answer, call = await rig.begun(id="u2")
    call.say("again").finish()
    await answer.end()
    whole = await following(rig, f"?{query}&after={(await epoch(rig))}.1.0")
    expected = events(whole)
    assert expected
    log = await rig.log()
    start = await epoch(rig)
    if cold:
        await whole.drop()
        await rig.go_cold()
    for seq in range(1, len(log) + 1):
        for frame in range(len(log[seq - 1].get("chunks", [None])) + 1):
            feed = await following(rig, f"?{query}", **{"last-event-id": f"{start}.{seq}.{frame}"})
            rest = [event for event in expected if event["seq"] > seq or (event["seq"] == seq and not frame)]
            cut = [event for event in events(feed) if event["seq"] == seq] if frame else []
            assert [event for event in events(feed) if event not in cut] == rest
            left = log[seq - 1].get("chunks", [])[frame:]
            assert all(chunk in left for event in cut for chunk in event["chunks"])
            wanted = [chunk for chunk in left if chunk["type"].startswith("text")]
            if cut:
                assert [chunk for chunk in cut[0]["chunks"] if chunk["type"].startswith("text")] == wanted
            elif frame and any(event["seq"] == seq for event in expected):
                assert not wanted
            await feed.drop()


async def epoch(rig: Rig) -> str:
    return str((await rig.sessions.find("c")).state.record.epoch)


async def test_the_position_is_told_with_the_heartbeat_where_something_was_left_out() -> None:
    async with running(heartbeat=15.0) as rig:
        answer, call = await rig.begun()
        state, whole = await following(rig, "?only=state"), await following(rig)
        call.say("much ", "said")
        await whole.until(lambda: events(whole))
        for _ in range(28):
            await rig.clock.advance(0.5)
        assert positions(state) == []
        await rig.clock.advance(1)
        await state.until(lambda: positions(state))
        assert positions(state) == [whole.cursor]
        # Nothing was left out since: nothing more to tell.
        for _ in range(60):
            await rig.clock.advance(0.5)
        assert positions(state) == [whole.cursor]
        assert positions(whole) == []
        call.say(" more")
        await whole.until(lambda: len(events(whole)) == 2)
        call.finish()
        await state.until(lambda: events(state))
        for _ in range(60):
            await rig.clock.advance(0.5)
        assert len(positions(state)) == 1, "a frame with an id has told it"
        resumed = await following(rig, "?only=state", **{"last-event-id": positions(state)[0] or ""})
        assert [event["type"] for event in events(resumed)] == ["run-ended"]
        await answer.end()


async def test_a_position_is_told_at_most_twice_a_second_however_short_the_heartbeat() -> None:
    async with running(heartbeat=0.01) as rig:
        _, call = await rig.begun()
        state, whole = await following(rig, "?only=state"), await following(rig)
        for number in range(20):
            call.say(f"{number} ")
            await whole.until(lambda number=number: len(events(whole)) == number + 1)
        assert len(positions(state)) <= 1
        await rig.clock.advance(1)
        await state.until(lambda: positions(state)[-1:] == [whole.cursor])


async def test_a_position_is_told_before_a_feed_is_ended() -> None:
    async with running(max_stream_age=2.0) as rig:
        _, call = await rig.begun()
        state, whole = await following(rig, "?only=state"), await following(rig)
        call.say("said")
        await whole.until(lambda: events(whole))
        await rig.clock.advance(3)
        await state.end()
        assert positions(state) == [whole.cursor]


@pytest.mark.parametrize("major", [5, 6, 7])
async def test_chunks_are_gated_for_the_clients_version(rig: Rig, major: int) -> None:
    answer, call = await rig.begun()
    custom = {"type": "custom", "kind": "openai.compaction"}
    call.say(custom, "said ")
    await answer.until_text("said ")
    feed = await following(rig, **{"strandline-client": f"any; ai={major}"})
    assert (custom in feed.frames[0].chunk["active"][0]["chunks"]) is (major == 7)
    call.say(custom, "more").finish()
    await feed.until(lambda: events(feed)[-1:] and events(feed)[-1]["type"] == "run-ended")
    chunks = [chunk for event in events(feed) for chunk in event.get("chunks", ())]
    assert (custom in chunks) is (major == 7)
    assert said([*feed.frames[0].chunk["active"][0]["chunks"], *chunks]) == "said more"


async def test_what_a_version_cannot_be_told_is_a_resync_with_the_events_id() -> None:
    async with running(ai_sdk_version=6) as rig:
        _, call = await rig.begun()
        call.say({"type": "start-step"}, "wrong")
        old, new = await following(rig), await following(rig, **{"strandline-client": "any; ai=7"})
        call.say({"type": "reset-step"}, {"type": "start-step"}, "right").finish()
        for feed in (old, new):
            await feed.until(lambda feed=feed: events(feed)[-1:] and events(feed)[-1]["type"] == "run-ended")
        resync = next(frame for frame in old.frames if frame.chunk["type"] == "resync")
        assert set(resync.chunk) == {"type", "seq", "at", "run"}
        assert (resync.chunk["run"], resync.cursor) == (
            call.run.id,
            next(frame.cursor for frame in new.frames if frame.chunk.get("seq") == resync.chunk["seq"]),
        )
        assert "resync" not in [frame.chunk["type"] for frame in new.frames]
        again = await following(rig)
        assert again.frames[0].chunk["messages"][-1]["parts"][-1]["text"] == "right"


async def test_readers_with_the_same_filter_share_their_frames_and_filters_that_agree_hold_them_once(rig: Rig) -> None:
    _, call = await rig.begun()
    for _ in range(2):
        await following(rig)
        await following(rig, "?exclude=reasoning")
        await following(rig, "", **{"strandline-client": "any; ai=6"})
    whole = await following(rig)
    call.say("said")
    await whole.until(lambda: events(whole))
    session = await rig.sessions.find("c")
    kept = [session.feed.frames(key, session.feed.last_seq) for key in ("native7", "native7-plain", "native6")]
    assert kept[0] is not None
    assert kept[1] is kept[0] and kept[2] is kept[0]


# ---------------------------------------------------------------------- histories and pages


@pytest.mark.parametrize("path", ["/api/sessions/c/messages", "/api/chat/c/messages"])
async def test_a_history_without_reasoning_and_that_of_one_message_on_demand(rig: Rig, path: str) -> None:
    answer, call = await thoughtful(rig)
    call.finish()
    await answer.end()
    await rig.ended()
    whole = (await rig.ask("GET", path)).json
    assert [part["type"] for part in whole["messages"][1]["parts"]] == ["reasoning", "step-start", "text"]
    assert "secretly" in str(whole)
    lean = (await rig.ask("GET", f"{path}?exclude=reasoning")).json
    assert "secretly" not in str(lean)
    assert [part["type"] for part in lean["messages"][1]["parts"]] == ["step-start", "text"]
    assert {**lean, "messages": []} == {**whole, "messages": []}
    # The rest can be had later: the run that wrote a message is named beside it.
    run = lean["runs"][call.run.message_id]["run"]
    found = (await rig.ask("GET", f"/api/sessions/c?run={run}")).json
    assert found["messages"] == [whole["messages"][1]]
    refused = await rig.ask("GET", f"{path}?exclude=text")
    assert (refused.status, refused.code) == (422, "invalid-request")


async def test_a_page_without_the_reasoning_of_others_either(rig: Rig) -> None:
    async def thinker(run: Any) -> None:
        await run.reasoning("secretly ")
        await run.text("beside")

    answer, call = await rig.begun()
    call.do(lambda run: run.spawn(thinker, name="thinker")).finish()
    await answer.end()
    await rig.ended()
    for query, types in (("", ["step-start", "reasoning", "text"]), ("?exclude=reasoning", ["step-start", "text"])):
        (beside,) = (await rig.ask("GET", f"/api/sessions/c/messages{query}")).json["spawned"]
        assert [part["type"] for part in beside["message"]["parts"]] == types
