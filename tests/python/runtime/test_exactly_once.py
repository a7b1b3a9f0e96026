"""Cut anywhere, resume anywhere: the same message, and the agent ran once (DESIGN §1.3, §14.1-§14.7)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from rig import SHIM, Answer, Rig, running
from strandline.core.message import FoldState
from strandline.core.offset import parse
from strandline.stores import MemoryStore
from strandline.testing import FailingStore, Frame, ManualClock, ScriptedAgent, fold_frames, until

REPLY: list[Any] = [
    "Let me look. ",
    {"type": "reasoning-start", "id": "r"},
    {"type": "reasoning-delta", "id": "r", "delta": "hm "},
    {"type": "reasoning-delta", "id": "r", "delta": "hm"},
    {"type": "reasoning-end", "id": "r"},
    {"type": "tool-input-start", "toolCallId": "t1", "toolName": "weather"},
    {"type": "tool-input-delta", "toolCallId": "t1", "inputTextDelta": '{"city": '},
    {"type": "tool-input-delta", "toolCallId": "t1", "inputTextDelta": '"Köln"}'},
    {"type": "tool-input-available", "toolCallId": "t1", "toolName": "weather", "input": {"city": "Köln"}},
    {"type": "tool-output-available", "toolCallId": "t1", "output": {"c": 3}},
    {"type": "data-status", "id": "s", "data": {"n": 1}},
    {"type": "data-status", "id": "s", "data": {"n": 2}},
    {"type": "data-ping", "data": 1, "transient": True},
    {"type": "message-metadata", "messageMetadata": {"model": "m"}},
    {"type": "source-url", "sourceId": "s1", "url": "https://example.org"},
    {"type": "file", "url": "https://example.org/a.png", "mediaType": "image/png"},
    "It is 3 °C in ",
    "Köln. 🦩",
]


async def said(rig: Rig, *, finish: bool = True, id: str = "u1") -> tuple[Answer, Any]:
    """A reply with a commit of its own for every chunk, or nearly so."""
    answer, call = await rig.begun(id=id)
    for piece in REPLY:
        before = len(rig.store.committed)
        call.say(piece)
        await until(lambda before=before: len(rig.store.committed) > before)
    if finish:
        call.finish()
        await answer.end()
    return answer, call


def shown(frames: list[Frame]) -> Any:
    state = fold_frames(frames)
    return state.message_id, state.parts(), state.metadata, state.finish_reason


def after(frames: list[Frame], cursor: str) -> list[Frame]:
    """The frames that follow the one with this cursor."""
    index = next(index for index, frame in enumerate(frames) if frame.cursor == cursor)
    return frames[index + 1 :]


def upto(frames: list[Frame], cursor: str) -> list[Frame]:
    return frames[: len(frames) - len(after(frames, cursor))]


async def check_every_cursor(rig: Rig, whole: list[Frame], *, warm: bool) -> None:
    for frame in whole:
        if frame.cursor is None:
            continue
        for shim in (True, False):
            resumed = await rig.resume("c", frame.cursor, shim=shim)
            rest = after(whole, frame.cursor)
            if not rest or rest[0].done:
                assert resumed.status == 204
                continue
            await resumed.end()
            assert resumed.headers["strandline-replay"] == "tail"
            assert resumed.frames == rest, "byte for byte what an uninterrupted reader got"
        if not warm:
            assert not rig.sessions.in_memory() or rig.sessions.in_memory()[0].feed.first_seq > 2


async def test_every_cursor_of_a_reply_continues_to_the_same_frames(rig: Rig) -> None:
    answer, call = await said(rig)
    assert len({frame.cursor for frame in answer.frames}) > 20
    await check_every_cursor(rig, answer.frames, warm=True)
    await rig.go_cold()
    await check_every_cursor(rig, answer.frames, warm=False)
    assert len(rig.agent.calls) == 1
    assert call.closed


async def test_every_cursor_continues_while_the_reply_is_still_being_written(rig: Rig) -> None:
    answer, call = await said(rig, finish=False)
    resumed = {
        frame.cursor: await rig.resume("c", frame.cursor, shim=bool(index % 2))
        for index, frame in enumerate(answer.frames)
        if frame.cursor
    }
    fresh = await rig.resume("c")
    named = await rig.resume("c", query=f"?run={call.run.id}")
    call.say(" The end.").finish()
    await answer.end()
    for cursor, each in resumed.items():
        await each.end()
        assert each.frames == after(answer.frames, cursor)
    for each in (fresh, named):
        await each.end()
        assert each.headers["strandline-replay"] == "full"
        assert shown(each.frames) == shown(answer.frames)


async def test_a_tail_that_was_evicted_is_read_from_the_log_frame_for_frame() -> None:
    async with running(tail_limit=0) as rig:
        answer, _ = await said(rig)
        session = await rig.sessions.find("c")
        await rig.passing(lambda: session.feed.size == 0)
        await check_every_cursor(rig, answer.frames, warm=False)


async def test_every_cursor_continues_after_a_restart_on_the_same_file(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        answer, _ = await said(rig)
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        await check_every_cursor(rig, answer.frames, warm=False)
        assert not rig.agent.calls


async def test_a_reply_that_a_restart_cut_continues_to_its_lost_end(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        answer, _ = await said(rig, finish=False)
        await rig.clock.advance(11)
    await answer.end()
    assert answer.types[-2:] == ["error", "[DONE]"]
    assert answer.frames[-2].chunk["code"] == "lost"
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        await check_every_cursor(rig, answer.frames, warm=False)


async def test_after_retention_every_cursor_gets_the_full_state_and_the_shim_is_told(rig: Rig) -> None:
    answer, call = await said(rig)
    await rig.go_cold()
    await rig.clock.jump(86_400)
    await rig.passing(lambda: not rig.store.inner._log.get("c"))
    last = answer.frames[-2].cursor
    for frame in answer.frames:
        if frame.cursor is None:
            continue
        resumed = await rig.resume("c", frame.cursor)
        told = await rig.resume("c", frame.cursor, shim=True)
        if frame.cursor == last:
            assert resumed.status == told.status == 204
            continue
        await resumed.end()
        assert resumed.headers["strandline-replay"] == "full"
        assert shown(resumed.frames) == shown(answer.frames)
        assert resumed.types[-1] == "[DONE]"
        await told.end()
        assert [frame.chunk.get("code") for frame in told.frames] == ["resync"]
        assert told.frames[0].cursor is None
    whole = await (await rig.resume("c", query=f"?run={call.run.id}", shim=True)).end()
    assert shown(whole.frames) == shown(answer.frames)


async def test_in_a_snapshot_only_the_last_frame_has_an_id(rig: Rig) -> None:
    answer, call = await said(rig, finish=False)
    fresh = await rig.resume("c")
    await fresh.until(lambda: fresh.frames)
    assert [frame.cursor is not None for frame in fresh.frames] == [False] * (len(fresh.frames) - 1) + [True]
    assert fresh.frames[-1].cursor == answer.cursor
    call.finish()
    await fresh.end()
    assert shown(fresh.frames) == shown(answer.frames)
    again = await (await rig.resume("c", query=f"?run={call.run.id}")).end()
    assert [frame.cursor for frame in again.frames if frame.cursor] == [answer.cursor]


async def test_readers_that_come_at_every_moment_all_end_with_the_same_message(rig: Rig) -> None:
    dice = random.Random(11)
    answer, call = await rig.begun()
    readers: list[Answer] = []

    async def join() -> None:
        readers.append(await rig.resume("c"))

    joining = []
    for piece in [*REPLY, *[f"word{number} " for number in range(40)]]:
        call.say(piece)
        joining.append(asyncio.create_task(join()))
        for _ in range(dice.randint(0, 6)):
            await asyncio.sleep(0)
    call.finish()
    await answer.end()
    await asyncio.gather(*joining)
    assert len(readers) == len(joining)
    for reader in readers:
        if reader.status == 204:
            continue
        await reader.end()
        assert shown(reader.frames) == shown(answer.frames)
    assert len(rig.agent.calls) == 1


async def test_a_reader_cut_any_number_of_times_has_the_same_message(rig: Rig) -> None:
    dice = random.Random(5)
    answer, call = await rig.begun()
    held: list[Frame] = []
    cursor: str | None = None

    async def talk() -> None:
        for number in range(120):
            call.say(f"{number} ")
            await asyncio.sleep(0)
        call.finish()

    talking = asyncio.create_task(talk())
    for _ in range(1000):
        reader = await rig.resume("c", cursor, shim=True) if cursor else await rig.resume("c")
        if reader.status == 204:
            break
        for _ in range(dice.randint(1, 8)):
            await asyncio.sleep(0)
        await reader.drop()
        # Only what came up to the last frame with an id counts: a snapshot is one unit.
        whole = list(reader.frames)
        while whole and whole[-1].cursor is None and not whole[-1].done:
            whole.pop()
        held = held + whole if cursor else whole
        cursor = reader.cursor or cursor
    await talking
    await answer.end()
    assert shown(held) == shown(answer.frames)
    assert len(rig.agent.calls) == 1


# ---------------------------------------------------------------------- repeated requests


async def test_a_repeated_post_attaches_while_active_and_after_the_end(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("once ")
    await answer.until_text("once ")
    repeated = await rig.post("c")
    assert repeated.headers["strandline-run"] == call.run.id
    call.say("only").finish()
    await answer.end()
    await repeated.end()
    late = await (await rig.post("c")).end()
    assert shown(repeated.frames) == shown(late.frames) == shown(answer.frames)
    assert [frame.chunk["type"] for frame in late.frames[:1]] == ["start"]
    assert len(rig.agent.calls) == 1
    assert len((await rig.history("c"))["messages"]) == 2


async def test_a_repeated_post_attaches_cold(sqlite_rig: Rig) -> None:
    answer, call = await said(sqlite_rig)
    await sqlite_rig.go_cold()
    late = await (await sqlite_rig.post("c")).end()
    assert shown(late.frames) == shown(answer.frames)
    assert len(sqlite_rig.agent.calls) == 1
    assert call.closed


async def test_the_same_key_attaches_whatever_the_message_is(rig: Rig) -> None:
    answer, call = await rig.begun(key="k1")
    for body in ({}, {"messageId": "u1"}, {"trigger": "regenerate-message"}):
        attached = await rig.post("c", "other text", "other-id", key="k1", **body)
        assert attached.headers["strandline-run"] == call.run.id
    call.finish()
    await answer.end()
    assert len(rig.agent.calls) == 1


@pytest.mark.parametrize("how", [{}, {"key": "k"}, {"key": "k", "trigger": "regenerate-message"}])
async def test_identical_posts_at_the_same_moment_run_the_agent_once(rig: Rig, how: dict[str, Any]) -> None:
    answers = await asyncio.gather(*(rig.post("c", **how) for _ in range(10)))
    (await rig.agent.called()).say("once").finish()
    for answer in answers:
        assert answer.status == 200
        await answer.end()
        assert answer.text == "once"
    assert len(rig.agent.calls) == 1
    assert len({answer.headers["strandline-run"] for answer in answers}) == 1
    assert [event["type"] for event in await rig.log()].count("message-created") == 1


async def test_the_same_id_with_other_words_is_a_conflict(rig: Rig) -> None:
    await rig.begun()
    refused = await rig.post("c", "other words")
    assert (refused.status, refused.code) == (409, "message-exists")


async def test_an_edit_makes_a_branch_and_the_agent_sees_only_the_new_one(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("first").finish()
    await answer.end()
    second, call = await rig.begun(id="u2", text="more")
    call.say("second").finish()
    await second.end()
    edited, call = await rig.begun(text="edited", messageId="u1")
    assert call.run.prompt() == [{"role": "user", "content": "edited"}]
    call.say("third").finish()
    await edited.end()
    history = await rig.history("c")
    texts = [message["parts"][-1]["text"] for message in history["messages"]]
    assert texts == ["edited", "third"]
    assert history["messages"][0]["id"] == "u1"


async def test_regenerate_makes_a_sibling(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("first").finish()
    await answer.end()
    again, call = await rig.begun(trigger="regenerate-message")
    assert call.run.prompt() == [{"role": "user", "content": "hello"}]
    call.say("second").finish()
    await again.end()
    assert again.headers["strandline-message"] != answer.headers["strandline-message"]
    texts = [message["parts"][-1]["text"] for message in (await rig.history("c"))["messages"]]
    assert texts == ["hello", "second"]


async def test_sending_again_after_a_failure_is_a_new_attempt_when_named(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.fail(RuntimeError("boom"))
    await answer.end()
    attached = await (await rig.post("c")).end()
    assert attached.types[-2:] == ["error", "[DONE]"]
    retried, call = await rig.begun(messageId="u1")
    call.say("now").finish()
    await retried.end()
    assert retried.text == "now"
    assert len(rig.agent.calls) == 2


# ---------------------------------------------------------------------- history and resume


def merged_view(history: Any, resumed: Answer) -> list[tuple[str, str]]:
    """What a stock client shows: the messages of history, and the one that the resume gave."""
    texts = {
        message["id"]: (message["role"], "".join(part.get("text", "") for part in message["parts"]))
        for message in history["messages"]
    }
    if resumed.status == 200:
        state: FoldState = fold_frames(resumed.frames)
        assert state.message_id is not None
        assert state.message_id not in texts, "the client would show it twice"
        texts[state.message_id] = ("assistant", resumed.text)
    return list(texts.values())


async def test_a_reload_at_any_moment_shows_exactly_one_whole_reply(rig: Rig) -> None:
    words = [f"w{number} " for number in range(25)]
    for moment in range(60):
        chat = f"c{moment}"
        _, call = await rig.begun(chat, id="u1")

        async def talk(call: Any = call) -> None:
            for word in words:
                call.say(word)
                await asyncio.sleep(0)
            call.finish()

        talking = asyncio.create_task(talk())
        for _ in range(moment):
            await asyncio.sleep(0)
        history = await rig.history(chat)
        for _ in range(moment % 13):
            await asyncio.sleep(0)
        if moment % 3 == 0:
            await talking
            await rig.ended(chat)
        resumed = await rig.resume(chat)
        if resumed.status == 200:
            await resumed.end()
        else:
            assert history["activeRun"] is None
        assert merged_view(history, resumed) == [("user", "hello"), ("assistant", "".join(words))]
        await talking
        assert (await rig.resume(chat)).status == 204
    assert len(rig.agent.calls) == 60


async def test_history_leaves_out_what_is_being_written_and_its_cursor_gives_all_of_it(rig: Rig) -> None:
    answer, call = await said(rig, finish=False)
    history = await rig.history("c")
    assert [message["id"] for message in history["messages"]] == ["u1"]
    assert history["runs"] == {}
    assert history["activeRun"] == {"id": call.run.id, "messageId": call.run.message_id, "status": "running"}
    parse(history["cursor"])
    live = await rig.resume("c", history["cursor"], shim=True)
    call.finish()
    await answer.end()
    await live.end()
    for late in (live, await rig.resume("c", history["cursor"]), await rig.resume("c", history["cursor"], shim=True)):
        await late.end()
        assert shown(late.frames) == shown(answer.frames)
    assert (await rig.history("c"))["cursor"] is None


@pytest.mark.parametrize(("seconds", "owed"), [(0, True), (29, True), (31, False)])
async def test_a_history_that_left_a_reply_out_owes_it_for_30_seconds(rig: Rig, seconds: int, owed: bool) -> None:
    answer, call = await rig.begun()
    call.say("owed")
    await answer.until_text("owed")
    await rig.history("c")
    call.finish()
    await answer.end()
    await rig.clock.advance(seconds)
    assert (await rig.as_user("eve").resume("c")).status == 204
    resumed = await rig.resume("c")
    assert resumed.status == (200 if owed else 204)
    if owed:
        await resumed.end()
        assert resumed.text == "owed"
        assert (await rig.resume("c")).status == 204, "owed once"


async def test_two_tabs_that_were_both_left_waiting_are_both_given_the_reply(rig: Rig) -> None:
    answer, call = await rig.begun()
    await rig.history("c")
    await rig.history("c")
    call.say("both").finish()
    await answer.end()
    for _ in range(2):
        assert (await (await rig.resume("c")).end()).text == "both"
    assert (await rig.resume("c")).status == 204


async def test_a_page_that_was_loaded_twice_is_given_the_reply_of_its_own_history(rig: Rig) -> None:
    answer, call = await rig.begun()
    await rig.history("c")  # this page was closed before it resumed
    call.say("first").finish()
    await answer.end()
    answer, call = await rig.begun(id="u2")
    await rig.history("c")
    call.say("second").finish()
    await answer.end()
    assert (await (await rig.resume("c")).end()).text == "second"


async def test_a_debt_is_settled_with_the_run_it_was_made_for(rig: Rig) -> None:
    answer, call = await rig.begun()
    await rig.history("c")
    resumed = await rig.resume("c")
    call.say("x").finish()
    await answer.end()
    await resumed.end()
    assert (await rig.resume("c")).status == 204


async def test_no_moment_between_two_runs_answers_that_nothing_is_active(rig: Rig) -> None:
    await rig.begun()
    statuses: list[int] = []
    posting = asyncio.create_task(rig.post("c", id="u2"))
    while not posting.done():
        resumed = await rig.resume("c")
        statuses.append(resumed.status)
        await asyncio.sleep(0)
    assert set(statuses) == {200}


# ---------------------------------------------------------------------- restarted messages (R15)


async def test_a_restarted_message_shows_only_the_new_words_everywhere(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("old words")
    await answer.until_text("old words")
    before = answer.cursor
    call.do(lambda run: run.restart()).say("new ", "words")
    await answer.end()
    assert answer.frames[-1].chunk["code"] == "resync"
    assert answer.frames[-1].cursor is None
    assert answer.text == "old words"
    fresh = await rig.resume("c")
    await fresh.until_text("new words")
    assert "old" not in fresh.text
    plain = await rig.resume("c", before)
    await plain.until_text("new words")
    assert plain.headers["strandline-replay"] == "full"
    told = await (await rig.resume("c", before, shim=True)).end()
    assert [frame.chunk.get("code") for frame in told.frames] == ["resync"]
    call.finish()
    for each in (fresh, plain):
        await each.end()
        assert each.text == "new words"
    assert (await rig.history("c"))["messages"][-1]["parts"][-1]["text"] == "new words"
    await rig.go_cold()
    plain = await (await rig.resume("c", before)).end()
    assert plain.text == "new words"
    assert [frame.chunk.get("code") for frame in (await (await rig.resume("c", before, shim=True)).end()).frames] == [
        "resync"
    ]


async def test_what_was_pending_at_a_restart_comes_before_it_and_what_follows_after_it(rig: Rig) -> None:
    answer, call = await rig.begun()

    async def both(run: Any) -> None:
        await run.text("old")
        restarting = asyncio.create_task(run.restart())
        await asyncio.sleep(0)
        adding = asyncio.create_task(run.text("new"))
        await asyncio.gather(restarting, adding)

    call.do(both).finish()
    await answer.end()
    await rig.ended()
    assert (await rig.history("c"))["messages"][-1]["parts"][-1]["text"] == "new"


async def test_reset_steps_end_open_streams_of_older_clients_only(rig: Rig) -> None:
    answer, call = await rig.begun()
    older = await rig.resume("c", **{"Strandline-Client": "mine; ai=6"})
    call.say({"type": "start-step"}, {"type": "text-start", "id": "1"}, {"type": "text-delta", "id": "1", "delta": "a"})
    await answer.until_text("a")
    await older.until_text("a")
    cursor = older.cursor
    call.say({"type": "reset-step"}, {"type": "text-start", "id": "2"}, {"type": "text-delta", "id": "2", "delta": "b"})
    await older.end()
    assert older.frames[-1].chunk["code"] == "resync"
    again = await rig.resume("c", cursor, **{"Strandline-Client": "mine; ai=6"})
    await again.until_text("b")
    call.finish()
    await answer.end()
    await again.end()
    assert again.text == answer.text == "b"


# ---------------------------------------------------------------------- epochs


async def test_a_memory_store_that_restarts_has_another_epoch_and_gives_the_full_state() -> None:
    async with running(agent=ScriptedAgent("before")) as rig:
        answer = await (await rig.post("c")).end()
    async with running(agent=ScriptedAgent("after")) as rig:
        assert (await rig.resume("c", answer.frames[0].cursor)).status == 204, "there is no such session now"
        second = await (await rig.post("c")).end()
        resumed = await (await rig.resume("c", answer.frames[0].cursor)).end()
        assert resumed.headers["strandline-replay"] == "full"
        assert resumed.text == second.text == "after"
        told = await (await rig.resume("c", answer.frames[0].cursor, shim=True)).end()
        assert [frame.chunk["code"] for frame in told.frames] == ["resync"]


async def test_garbage_and_future_cursors_are_answered_in_full_or_with_resync(rig: Rig) -> None:
    answer, _ = await said(rig)
    epoch = parse(answer.frames[0].cursor or "").epoch
    for cursor in (
        "garbage",
        "0",
        "zzzz1234.1.1",
        f"{epoch}.999999.1",
        f"{epoch}.4.99",
        f"{epoch}.0.0",
        "🦩".encode().decode("latin-1"),
    ):
        full = await (await rig.resume("c", cursor)).end()
        assert (full.status, full.headers["strandline-replay"]) == (200, "full")
        assert shown(full.frames) == shown(answer.frames)
        told = await (await rig.resume("c", cursor, shim=True)).end()
        assert told.types == ["error"]
        assert (told.frames[0].chunk["code"], told.frames[0].cursor) == ("resync", None)
        assert told.body.startswith(b": strandline\n")
    by_query = await (await rig.resume("c", query="?after=garbage")).end()
    assert shown(by_query.frames) == shown(answer.frames)


async def test_the_header_wins_over_the_query(rig: Rig) -> None:
    answer, _ = await said(rig)
    first, later = answer.frames[0].cursor, answer.frames[6].cursor
    resumed = await (await rig.resume("c", first, query=f"?after={later}")).end()
    assert resumed.frames == after(answer.frames, first or "")
    resumed = await (await rig.resume("c", query=f"?after={later}", headers="", **SHIM)).end()
    assert resumed.frames == after(answer.frames, later or "")


async def test_an_event_source_at_the_end_is_told_to_stop_coming_back(rig: Rig) -> None:
    answer, _ = await said(rig)
    assert (await rig.resume("c", answer.cursor)).status == 204
    await rig.go_cold()
    assert (await rig.resume("c", answer.cursor)).status == 204


async def test_a_store_that_is_the_same_object_keeps_its_epoch_over_a_restart() -> None:
    memory, clock = MemoryStore(), ManualClock()
    async with running(store=FailingStore(memory), clock=clock) as rig:
        answer, _ = await said(rig)
    async with running(store=FailingStore(memory), clock=clock) as rig:
        await check_every_cursor(rig, answer.frames, warm=False)
