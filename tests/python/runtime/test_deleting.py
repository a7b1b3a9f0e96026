"""Deleting a session (PROTOCOL §8.4): all of it or nothing, whatever else happens at the same moment."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from rig import EMPTY, Answer, Rig, at_once, running
from strandline import Ended
from strandline.core.offset import parse
from strandline.stores import MemoryStore, SqliteStore
from strandline.stores.port import Outline
from strandline.testing import FailingStore, ManualClock, ScriptedAgent, until

C = "/api/sessions/c"


@pytest.fixture(params=["memory", "sqlite"])
async def any_rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "chat.db" if request.param == "sqlite" else None) as made:
        yield made


async def delete(rig: Any, chat: str = "c") -> int:
    return int((await rig.ask("DELETE", f"/api/sessions/{chat}")).status)


async def begun(rig: Rig, text: str = "said ") -> tuple[Answer, Any]:
    answer, call = await rig.begun()
    call.say(text)
    await answer.until_text(text)
    return answer, call


async def told(rig: Rig, chat: str = "c", **headers: str) -> Answer:
    feed = await rig.open("GET", f"/api/sessions/{chat}/events", headers=headers)
    return await feed.until(lambda: any(frame.chunk["type"] == "readers" for frame in feed.frames))


async def in_store(rig: Rig, chat: str = "c") -> list[Any]:
    store = rig.store
    return [await store.session(chat), await store.outline(chat), await store.events(chat, 0, 2**62)]


NOTHING: list[Any] = [None, Outline(), []]


# ------------------------------------------------------------------------------------------------ what is gone


async def test_a_running_reply_is_stopped_and_every_reader_is_told(any_rig: Rig) -> None:
    rig = any_rig
    answer, call = await begun(rig)
    joined = await rig.open("GET", f"/api/tanstack?runId={call.run.id}&offset=-1")
    await joined.until(lambda: len(joined.frames) > 2)
    feed = await told(rig)
    call.say("never shown")
    assert await delete(rig) == 204
    for each in (answer, joined, feed):
        await each.end()
    await until(lambda: call.closed)
    assert call.cancelled
    assert answer.types[-2:] == ["abort", "[DONE]"]
    assert answer.frames[-2].chunk["reason"] == "deleted"
    assert joined.frames[-1].chunk["type"] == "RUN_FINISHED"
    assert joined.frames[-1].chunk["metadata"]["strandline"] == {"status": "stopped", "reason": "deleted"}
    assert (feed.frames[-1].chunk, feed.frames[-1].cursor) == ({"type": "session-deleted"}, None)
    assert [frame.chunk["type"] for frame in feed.frames if "seq" in frame.chunk][-1] == "run-ended"
    assert answer.text in ("said ", "said never shown")


async def test_nothing_of_it_is_found_any_more(any_rig: Rig) -> None:
    rig = any_rig
    answer, call = await begun(rig)
    await rig.ask("DELETE", C)
    await answer.end()
    assert await in_store(rig) == NOTHING
    assert await rig.store.run(call.run.id) is None
    assert await rig.store.unfinished() == []
    assert (await rig.ask("GET", "/api/sessions?archived=any")).json == {"sessions": [], "next": None}
    assert (await rig.resume("c")).status == 204
    assert (await rig.resume("c", answer.cursor)).status == 204
    assert (await rig.resume("c", query=f"?run={call.run.id}")).status == 204
    assert (await rig.history("c"))["messages"] == []
    assert (await rig.ask("GET", "/api/tanstack?threadId=c")).json["messages"] == []
    assert (await rig.ask("GET", f"/api/tanstack?runId={call.run.id}&offset=-1")).status == 404
    for method, path, body in [
        ("GET", C, None), ("GET", f"{C}/events", None), ("GET", f"{C}/messages", None), ("POST", f"{C}/stop", {}),
        ("PATCH", C, {"title": "x"}), ("DELETE", C, None), ("POST", "/api/chat/c/stop", {"run": call.run.id}),
    ]:  # fmt: skip
        gone = await rig.ask(method, path, body)
        assert (gone.status, gone.code) == (404, "not-found"), path


async def test_nothing_of_it_stays_in_memory(rig: Rig) -> None:
    other = (await rig.begun("other"))[1]
    answer = (await begun(rig))[0]
    feed = await told(rig)
    await rig.history("c")  # owes a replay
    await rig.stop("c", messageId="later")
    session = await rig.sessions.find("c")
    assert session.owed
    assert rig.sessions._stops._stops
    await rig.ask("DELETE", C)
    for each in (answer, feed):
        await each.end()
        assert each.task is not None
        await each.task
    assert [each.id for each in rig.sessions.reachable()] == ["other"]
    assert rig.sessions._stops._stops == {}
    assert session not in rig.sessions.journal._segments._open
    assert session not in rig.sessions.journal._segments._due
    assert not session.commands
    assert (session.live, len(session.readers)) == ({}, 0)
    # The runs of others go on, and are written down.
    other.say("on").finish()
    await rig.ended("other")
    await rig.go_cold("other")
    assert (await rig.history("other"))["messages"][-1]["parts"][-1]["text"] == "on"
    gone = weakref.ref(session)
    rig.agent.calls.clear()
    del session, each, answer, feed
    gc.collect()
    assert gone() is None


async def test_an_idle_and_a_cold_session_are_deleted_too(any_rig: Rig) -> None:
    rig = any_rig
    for cold in (False, True):
        answer, call = await begun(rig)
        call.finish()
        await answer.end()
        if cold:
            await rig.go_cold()
        assert await delete(rig) == 204
        assert await in_store(rig) == NOTHING
        rig.agent.calls.clear()
    assert [batch.deleted for batch in rig.store.committed if batch.deleted] == [("c",), ("c",)]
    assert not any(batch.entries for batch in rig.store.committed if batch.deleted)


async def test_on_end_is_told_of_a_reply_that_went_with_its_session(rig: Rig) -> None:
    heard: list[Ended] = []
    rig.chat.on_end(heard.append)
    _, call = await begun(rig)
    await rig.ask("DELETE", C)
    await until(lambda: heard)
    assert [(each.run, each.status, each.reason) for each in heard] == [(call.run.id, "stopped", "deleted")]
    assert heard[0].message["parts"] == []


# ------------------------------------------------------------------------------------------------ the id again


async def test_the_id_may_be_used_again_and_is_another_session(any_rig: Rig) -> None:
    rig = any_rig
    answer, call = await begun(rig)
    old = parse(answer.cursor or "").epoch
    await rig.ask("DELETE", C)
    await answer.end()
    bob = rig.as_user("bob")
    again = await bob.post("c", "mine", "u1", key="k")
    second = await rig.agent.called(2)
    assert second.run.prompt() == [{"role": "user", "content": "mine"}]
    second.say("new").finish()
    await again.end()
    assert again.text == "new"
    assert parse(again.cursor or "").epoch != old
    assert (await rig.ask("GET", C)).status == 404, "it is Bob's"
    assert (await bob.history("c"))["messages"][0]["parts"] == [{"type": "text", "text": "mine"}]
    # A cursor of the old one is not taken for one of the new one.
    feed = await bob.open("GET", f"{C}/events", headers={"Last-Event-ID": f"{old}.2.1"})
    await feed.until(lambda: feed.frames)
    assert feed.frames[0].chunk["type"] == "snapshot"
    del call


async def test_keys_and_run_ids_of_a_deleted_session_start_anew(rig: Rig) -> None:
    await rig.open("POST", "/api/tanstack", agent_input("hi"))
    await rig.agent.called()
    await rig.post("d", key="k")
    await rig.agent.called(2)
    assert [await delete(rig), await delete(rig, "d")] == [204, 204]
    await rig.open("POST", "/api/tanstack", {**agent_input("hi"), "threadId": "e"})
    assert (await rig.agent.called(3)).run.id == "r1"
    await rig.post("d", key="k")
    await rig.agent.called(4)


async def test_a_stop_that_was_remembered_for_a_deleted_session_stops_nothing_in_the_new_one(rig: Rig) -> None:
    await begun(rig)
    assert (await rig.stop("c", messageId="u2")).status == 202
    assert (await rig.stop("d", messageId="u2")).status == 202
    await rig.ask("DELETE", C)
    _, call = await rig.begun("c", id="u2")
    assert not call.cancelled
    assert (await (await rig.post("d", id="u2")).end()).types[-2] == "abort"


# ------------------------------------------------------------------------------------------------ at the same moment


async def asked(rig: Rig, *requests: tuple[str, str, Any]) -> list[Answer]:
    """Requests whose decisions wait for the same commit, in this order."""
    return list(await at_once(rig, *(rig.open(*request) for request in requests)))


def post(text: str, id: str) -> tuple[str, str, Any]:
    message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
    return ("POST", "/api/chat", {"id": "c", "messages": [message], "trigger": "submit-message"})


DELETE: tuple[str, str, Any] = ("DELETE", C, None)


@pytest.fixture
async def busy(rig: Rig) -> Rig:
    """A reply that is running, and another session to keep the writer busy with."""
    await rig.ask("POST", "/api/sessions", {"id": "blocker"})
    await begun(rig)
    return rig


async def test_a_message_that_comes_after_the_deletion_starts_a_new_session(busy: Rig) -> None:
    epoch = (await busy.sessions.find("c")).state.record.epoch
    deleted, answer = await asked(busy, DELETE, post("again", "u1"))
    assert deleted.status == 204
    call = await busy.agent.called(2)
    call.say("new").finish()
    await answer.end()
    assert answer.text == "new"
    session = await busy.sessions.find("c")
    assert session.state.record.epoch != epoch
    assert [message.message_id for message in session.state.path()] == ["u1", call.run.message_id]
    assert [run.id for run in (await busy.store.outline("c")).runs] == [call.run.id]


async def test_a_message_that_comes_before_the_deletion_goes_with_the_session(busy: Rig) -> None:
    answer, deleted = await asked(busy, post("again", "u2"), DELETE)
    assert deleted.status == 204
    await answer.end()
    assert answer.types[-2:] == ["abort", "[DONE]"]
    assert answer.frames[-2].chunk["reason"] == "deleted"
    assert await in_store(busy) == NOTHING


async def test_a_stop_beside_a_deletion_has_stopped_or_finds_nothing(busy: Rig) -> None:
    stop: tuple[str, str, Any] = ("POST", "/api/chat/c/stop", {})
    stopped, deleted = await asked(busy, stop, DELETE)
    assert (stopped.json["stopped"], deleted.status) == (True, 204)
    await begun(busy, "more ")
    deleted, stopped = await asked(busy, DELETE, stop)
    assert (deleted.status, stopped.status) == (204, 404)


async def test_of_two_deletions_one_has_deleted(busy: Rig) -> None:
    answers = await asked(busy, DELETE, DELETE)
    assert [answer.status for answer in answers] == [204, 404]


async def test_what_is_decided_after_a_deletion_finds_nothing_or_makes_it_anew(busy: Rig) -> None:
    deleted, renamed, created = await asked(
        busy, DELETE, ("PATCH", C, {"title": "x"}), ("POST", "/api/sessions", {"id": "c", "title": "New"})
    )
    assert [deleted.status, renamed.status, created.status] == [204, 404, 201]
    assert (await busy.ask("GET", C)).json["session"]["title"] == "New"
    assert (await busy.ask("GET", C)).json["messages"] == []


async def test_a_deletion_while_the_session_is_being_loaded(rig: Rig) -> None:
    answer, call = await begun(rig)
    call.finish()
    await answer.end()
    await rig.go_cold()
    inner = rig.store.inner
    real, go = inner.outline, asyncio.Event()

    async def slow(session_id: str) -> Any:
        await go.wait()
        return await real(session_id)

    inner.outline = slow  # type: ignore[method-assign]
    requests = [post("again", "u2"), DELETE, ("GET", C, None), DELETE]
    tasks = [asyncio.create_task(rig.open(*request)) for request in requests]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    go.set()
    sent, deleted, looked, again = [await task for task in tasks]
    inner.outline = real  # type: ignore[method-assign]
    assert (deleted.status, again.status) == (204, 404)
    assert looked.status in (200, 404)
    await sent.end()
    assert sent.frames[-2].chunk.get("reason") == "deleted"
    assert await in_store(rig) == NOTHING


@pytest.mark.parametrize("let_read", [0, 1, 2])
async def test_a_reader_of_a_deleted_session_is_not_shown_the_next_one_of_that_name(let_read: int) -> None:
    """What the log has under an id may be somebody else's, even with the same run ids: a reader that is behind ends.
    ``let_read``: how often each may read the log before the session is deleted."""
    reads: ContextVar[list[int]] = ContextVar("reads")
    async with running(tail_limit=0, segment_age=1.0) as rig:
        await rig.open("POST", "/api/tanstack", agent_input("the question"))
        call = await rig.agent.called()
        call.say("said")
        session = await rig.sessions.find("c")
        await until(lambda: session.feed.last_seq == 4)
        await rig.passing(lambda: session.feed.first_seq == 5)
        epoch = session.state.record.epoch
        inner = rig.store.inner
        real, go = inner.events, asyncio.Event()

        async def slow(*args: Any) -> Any:
            count = reads.get([-100])
            count[0] += 1
            if count[0] > let_read:
                await go.wait()
            return await real(*args)

        async def reader(path: str) -> Answer:
            reads.set([0])
            return await (await rig.open("GET", path)).end()

        inner.events = slow  # type: ignore[method-assign]
        requests = {
            "ai-sdk": f"/api/chat/c/stream?after={epoch}.3.1",
            "session": f"/api/sessions/c/events?after={epoch}.2.1",
            "run": "/api/tanstack?runId=r1&offset=-1",
            "thread": f"/api/tanstack/events?threadId=c&after={epoch}.2.0",
        }
        readers = {name: asyncio.create_task(reader(path)) for name, path in requests.items()}
        await asyncio.sleep(0.1)
        assert await delete(rig) == 204
        eve = rig.as_user("eve")
        secret = await eve.open("POST", "/api/tanstack", agent_input("the secret"))
        second = await rig.agent.called(2)
        live = await rig.sessions.find("c")
        for number in range(4, 12):
            second.say("secret ")
            await until(lambda number=number: live.feed.last_seq == number)
        await rig.passing(lambda: live.feed.first_seq == 12)
        assert len(await real("c", 1, 11, "r1")) == 10
        go.set()
        ended = {name: await task for name, task in readers.items()}
        assert not any(b"secret" in each.body for each in ended.values())
        assert ended["session"].frames[-1].chunk == {"type": "session-deleted"}
        # The whole of what is left, which is its end, or the word that it cannot be gone on with: never a hole.
        sent = ended["ai-sdk"]
        assert sent.types == ["start", "abort", "[DONE]"] if let_read < 2 else sent.frames[0].chunk["code"] == "resync"
        second.finish()
        await secret.end()


@pytest.mark.parametrize(
    ("path", "status", "shown"),
    [
        ("/api/chat/c/messages", 200, EMPTY),
        ("/api/tanstack?threadId=c", 200, {"messages": [], "activeRun": None, "cursor": None, "leaf": None}),
        (C, 404, {"code": "not-found"}),
        (f"{C}/messages", 404, {"code": "not-found"}),
        ("/api/tanstack?runId={run}", 409, {"code": "resync"}),
        ("/api/chat/c/stream?run={run}", 200, "resync"),
        (f"{C}/events", 200, "session-deleted"),
    ],
)
async def test_who_reads_messages_while_they_are_deleted_is_not_shown_an_empty_reply(
    path: str, status: int, shown: Any
) -> None:
    async with running(log_retention=1.0) as rig:
        answer, call = await begun(rig)
        call.finish()
        await answer.end()
        await rig.go_cold()
        await rig.clock.jump(60)
        await rig.passing(lambda: not rig.store.inner._log["c"])  # type: ignore[attr-defined]
        inner = rig.store.inner
        real, reading, go = inner.messages, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any) -> Any:
            reading.set()
            await go.wait()
            return await real(*args)

        inner.messages = slow  # type: ignore[method-assign]
        asked = asyncio.create_task(rig.ask("GET", path.format(run=call.run.id)))
        await asyncio.wait_for(reading.wait(), 5)
        assert await delete(rig) == 204
        go.set()
        found = await asked
        assert found.status == status
        if isinstance(shown, str):
            assert [frame.chunk.get("code", frame.chunk["type"]) for frame in found.frames] == [shown]
        else:
            assert {name: found.json[name] for name in shown} == shown


def agent_input(text: str) -> dict[str, Any]:
    return {
        "threadId": "c", "runId": "r1", "state": {}, "tools": [], "context": [], "forwardedProps": {},
        "messages": [{"id": "u1", "role": "user", "content": text}],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ failures


async def test_a_deletion_that_cannot_be_committed_has_deleted_nothing(rig: Rig) -> None:
    answer, call = await begun(rig)
    rig.store.fail()
    deleting = asyncio.create_task(delete(rig))
    attempts = rig.store.attempts
    await rig.passing(lambda: rig.store.attempts > attempts + 1)
    assert not deleting.done()
    assert answer.types[-1] == "text-delta", "nothing is shown that is not so"
    rig.store.mend()
    await rig.passing(deleting.done)
    assert await deleting == 204
    assert await in_store(rig) == NOTHING
    del call


async def test_a_deletion_that_was_given_up_leaves_the_session(rig: Rig) -> None:
    async with running(commit_patience=0.0) as rig:
        answer, _ = await begun(rig)
        rig.store.fail()
        assert await delete(rig) == 503
        rig.store.mend()
        await rig.passing(lambda: rig.chat.service.ready)
        await rig.ended()
        history = await rig.history("c")
        assert history["messages"][-1]["parts"][-1]["text"] == "said "
        assert [run["status"] for run in history["runs"].values()] == ["lost"]
        assert await delete(rig) == 204
        await answer.end()


async def test_who_hangs_up_has_deleted_all_the_same(rig: Rig) -> None:
    await begun(rig)
    rig.store.hang()
    attempts = rig.store.attempts
    deleting = asyncio.create_task(delete(rig))
    await until(lambda: rig.store.attempts > attempts)
    deleting.cancel()
    await asyncio.wait({deleting})
    rig.store.mend()
    await until(lambda: not rig.sessions.reachable())
    assert await in_store(rig) == NOTHING


@pytest.mark.parametrize("committed", [False, True])
async def test_after_a_crash_it_is_there_as_a_whole_or_not_at_all(tmp_path: Path, committed: bool) -> None:
    """The files are taken away as they are, as if the process had been killed before or after the commit."""
    clock = ManualClock()
    async with running(tmp_path / "chat.db", clock=clock) as rig:
        await rig.begun("other")
        answer, _ = await begun(rig)
        if committed:
            await rig.ask("DELETE", C)
            await answer.end()
        for name in ("chat.db", "chat.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / f"killed-{name}")
    async with running(tmp_path / "killed-chat.db", clock=clock) as rig:
        assert [message["role"] for message in (await rig.history("other"))["messages"]] == ["user", "assistant"]
        if committed:
            assert await in_store(rig) == NOTHING
            assert (await rig.history("c"))["messages"] == []
        else:
            assert (await rig.history("c"))["messages"][-1]["parts"][-1]["text"] == "said "


async def test_the_words_are_not_in_the_file_after_a_clean_end(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    secrets = [f"secret-{name}-words" for name in ("asked", "said", "title")]
    asked, said, title = secrets
    async with running(path) as rig:
        for chat in ("c", "cold"):
            answer, call = await rig.begun(chat, asked)
            call.say(said)
            await answer.until_text(said)
            await rig.ask("PATCH", f"/api/sessions/{chat}", {"title": title})
            call.finish()
            await answer.end()
            if chat == "cold":
                await rig.go_cold(chat)
            assert await delete(rig, chat) == 204
            rig.agent.calls.clear()
        answer, call = await rig.begun("kept", "kept-words")
        call.finish()
        await answer.end()
        before = path.read_bytes() + path.with_name("chat.db-wal").read_bytes()
        assert all(secret.encode() in before for secret in secrets), "or this test could not fail"
    assert not path.with_name("chat.db-wal").exists()
    left = path.read_bytes()
    assert b"kept-words" in left
    assert [secret for secret in secrets if secret.encode() in left] == []


async def test_a_segment_that_is_due_in_the_commit_that_deletes(rig: Rig) -> None:
    """Its session is gone when it is written; others of the same commit are not."""
    await begun(rig)
    _, other = await rig.begun("other")
    other.say("x")
    rig.store.hang()
    attempts = rig.store.attempts
    deleting = asyncio.create_task(delete(rig))
    await until(lambda: rig.store.attempts > attempts)
    await rig.clock.jump(rig.chat.settings.segment_age + 1)
    rig.sessions.journal.poke(rig.clock.monotonic())
    rig.store.mend()
    assert await deleting == 204
    rig.sessions.journal.poke(rig.clock.monotonic())
    await until(lambda: any(segment.session == "other" for batch in rig.store.committed for segment in batch.segments))
    other.say("y").finish()
    await rig.ended("other")
    assert await in_store(rig) == NOTHING


async def test_a_shutdown_beside_a_deletion_ends() -> None:
    store = FailingStore(MemoryStore())
    async with running(store=store) as rig:
        answer, _ = await begun(rig)
        deleting = asyncio.create_task(delete(rig))
        await asyncio.sleep(0)
        del answer
    await asyncio.wait({deleting})
    await store.inner.open()
    assert (await store.inner.session("c") is None) == (deleting.result() == 204)
    await store.inner.close()


async def test_sessions_come_and_go_for_as_long_as_one_likes(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db", agent=ScriptedAgent("some ", "words")) as rig:
        for number in range(30):
            answer = await rig.post("c", f"question {number}")
            if number % 2:
                await answer.end()
            assert await delete(rig) == 204
            await answer.end()
        assert await in_store(rig) == NOTHING
        assert rig.sessions.reachable() == []
    store = SqliteStore(tmp_path / "chat.db")
    await store.open()
    assert await store.sessions() == []
    await store.close()
