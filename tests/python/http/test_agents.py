"""The agent wire (PROTOCOL §18): runs that are written by a process elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from far import FAR, LEASE, Worker, asked, reply, served, text, who
from rig import Rig, running
from strandline.http.auth import Auth
from strandline.testing import fold_frames, until

# ---------------------------------------------------------------------- the ordinary course


async def test_a_run_is_offered_claimed_written_and_ended(far: Rig) -> None:
    worker = Worker(far.app)
    listening = await worker.work()
    answer = await far.post("c", "hello", headers=FAR, mood="good")
    run = answer.headers["strandline-run"]
    await listening.until(lambda: listening.frames)
    offered = listening.frames[0].chunk
    assert offered["type"] == "run"
    assert (offered["run"], offered["session"], offered["user"], offered["attempt"]) == (run, "c", "ann", 1)
    claimed = (await worker.claim(run)).json
    assert claimed["state"] == "running"
    assert (claimed["producer"], claimed["sequence"], claimed["lease"], claimed["user"]) == (1, 0, LEASE, "ann")
    assert claimed["body"] == {"mood": "good"}
    assert claimed["prompt"] == [{"role": "user", "content": "hello"}]
    assert claimed["messages"][0]["parts"] == [{"type": "text", "text": "hello"}]
    assert claimed["authors"] == {"u1": "user:ann"}
    assert claimed["partial"] is None
    answered = {"sequence": 1, "notes": 0, "state": "running"}
    assert (await worker.append({"type": "start-step"}, *text("Good "))).json == answered
    assert (await worker.append("day")).json == {**answered, "sequence": 2}
    ended = await worker.end(usage={"tokens": 2}, finishReason="length")
    assert ended.json == {"state": "over", "status": "completed", "reason": "completed", "error": None}
    await answer.end()
    assert answer.text == "Good day"
    assert answer.frames[-2].chunk["finishReason"] == "length"
    parts, how = await reply(far)
    assert [part["text"] for part in parts if part["type"] == "text"] == ["Good ", "day"]
    assert how["status"] == "completed"
    assert fold_frames(answer.frames).parts() == parts
    listening.frames.clear()
    await listening.drop()
    assert [event["type"] for event in await far.log()].count("run-claimed") == 1


async def test_a_later_listener_is_told_what_still_waits_and_not_what_is_taken(far: Rig) -> None:
    _, worker = await asked(far, chat="taken")
    waiting = await far.post("waiting", headers=FAR)
    other = Worker(far.app, "other")
    listening = await other.work()
    await listening.until(lambda: listening.frames)
    assert [frame.chunk["run"] for frame in listening.frames] == [waiting.headers["strandline-run"]]
    again = await worker.work()  # it may have been restarted: it is told of its own as well
    await again.until(lambda: again.frames)
    assert [(f.chunk["session"], f.chunk["attempt"]) for f in again.frames] == [("taken", 2), ("waiting", 1)]
    await listening.drop()
    await again.drop()


async def test_a_failure_says_what_users_may_read(far: Rig) -> None:
    answer, worker = await asked(far)
    await worker.append("so far")
    assert (await worker.end(status="failed", error="Out of credit.")).json["error"] == "Out of credit."
    await answer.end()
    parts, how = await reply(far)
    assert how == {"run": worker.run, "status": "failed", "reason": "agent-error", "error": "Out of credit."}
    assert parts[-1]["text"] == "so far"


async def test_an_end_that_is_repeated_is_answered_with_the_end(far: Rig) -> None:
    _, worker = await asked(far)
    first = await worker.end()
    for again in (
        await worker.end(),
        await worker.end(status="failed"),
        await worker.append("late"),
        await worker.beat(),
    ):
        assert again.json == first.json
    assert (await reply(far))[0] == []


# ---------------------------------------------------------------------- once, in order


async def test_a_request_that_comes_again_adds_nothing(far: Rig) -> None:
    answer, worker = await asked(far)
    for _ in range(3):
        assert (await worker.append("one ", sequence=1)).json["sequence"] == 1
    await worker.append("two", sequence=2)
    assert (await worker.append("one ", sequence=1)).json["sequence"] == 1
    await worker.end()
    assert (await answer.end()).text == "one two"


async def test_requests_at_the_same_moment_count_once(far: Rig) -> None:
    answer, worker = await asked(far)
    far.store.hang()
    twins = [asyncio.create_task(worker.append("one ", sequence=1)) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert not any(twin.done() for twin in twins), "answered before it is durable"
    far.store.mend()
    assert {(await twin).status for twin in twins} == {200}
    await worker.end()
    assert (await answer.end()).text == "one "


async def test_a_gap_is_refused_and_says_what_is_missing(far: Rig) -> None:
    answer, worker = await asked(far)
    await worker.append("one ")
    late = await worker.append("three", sequence=3)
    assert (late.status, late.code, late.json["expected"]) == (409, "gap", 2)
    early = await worker.end(sequence=2)
    assert (early.status, early.code, early.json["expected"]) == (409, "gap", 2)
    await worker.append("two ")
    await worker.append("three")
    await worker.end()
    assert (await answer.end()).text == "one two three"


async def test_a_request_that_adds_no_chunk_counts_all_the_same(far: Rig) -> None:
    answer, worker = await asked(far)
    assert (await worker.append({"type": "start", "messageId": "mine"})).json["sequence"] == 1
    assert (await worker.append()).json["sequence"] == 2
    joined = await far.resume("c")
    await joined.until(lambda: joined.frames)
    assert joined.types == ["start"]
    assert (await worker.append("words")).json["sequence"] == 3
    feed = await far.open("GET", "/api/sessions/c/events")
    tan = await far.open("GET", f"/api/tanstack?runId={worker.run}&offset=-1")
    await worker.append({"type": "finish", "finishReason": "length"})
    await worker.end()
    await answer.end()
    assert answer.text == (await joined.end()).text == "words"
    assert answer.frames[-2].chunk["finishReason"] == "length"
    await tan.end()
    await feed.until(lambda: any(frame.chunk["type"] == "run-ended" for frame in feed.frames))
    empty = next(frame for frame in feed.frames if frame.chunk["type"] == "appended")
    assert empty.cursor
    after = await far.open("GET", "/api/sessions/c/events", headers={"Last-Event-ID": empty.cursor})
    await after.until(lambda: any(frame.chunk["type"] == "run-ended" for frame in after.frames))
    assert after.frames[0].chunk["type"] != "snapshot"
    for stream in (feed, after):
        await stream.drop()


# ---------------------------------------------------------------------- who writes


async def test_only_one_worker_has_a_run(far: Rig) -> None:
    _, worker = await asked(far)
    other = Worker(far.app, "other")
    refused = await other.claim(worker.run)
    assert (refused.status, refused.code) == (409, "claimed")
    stranger = await other.ask(
        "POST", f"/api/agents/runs/{worker.run}/append", {"producer": 2, "sequence": 1, "text": "x"}
    )
    assert (stranger.status, stranger.code) == (409, "fenced")
    both = await asyncio.gather(worker.append("mine"), other.claim(worker.run))
    assert [answer.status for answer in both] == [200, 409]


async def test_a_claim_that_comes_again_is_the_same_claim(far: Rig) -> None:
    answer, worker = await asked(far)
    await worker.append("one ")
    again = (await worker.claim(worker.run)).json
    assert (again["producer"], again["sequence"]) == (1, 1)
    await worker.append("two")
    await worker.end()
    assert (await answer.end()).text == "one two"


async def test_a_worker_that_was_restarted_goes_on_and_its_zombie_is_refused(far: Rig) -> None:
    answer, zombie = await asked(far)
    await zombie.append(
        {"type": "start-step"},
        {"type": "text-start", "id": "t"},
        {"type": "text-delta", "id": "t", "delta": "one "},
        {"type": "tool-input-available", "toolCallId": "k", "toolName": "look", "input": {}},
    )
    reborn = Worker(far.app)
    claimed = (await reborn.claim(zombie.run, "second")).json
    assert (claimed["producer"], claimed["sequence"]) == (2, 0)
    assert claimed["partial"]["parts"][1] == {"type": "text", "text": "one ", "state": "done"}
    assert claimed["partial"]["parts"][2]["state"] == "output-error"
    for refused in (
        await zombie.append("zombie"),
        await zombie.beat(),
        await zombie.end(),
        await zombie.claim(zombie.run),
    ):
        assert (refused.status, refused.code) == (409, "fenced")
    await reborn.append(*text("two", "t"))
    await reborn.end()
    assert (await zombie.append("zombie")).code == "fenced"
    assert (await answer.end()).text == "one two"
    parts, how = await reply(far)
    assert how["status"] == "completed"
    assert fold_frames(answer.frames).parts() == parts


async def test_what_the_old_producer_was_promised_is_there_before_the_new_one(far: Rig) -> None:
    answer, old = await asked(far)
    far.store.hang()
    early = asyncio.create_task(old.append("very ", sequence=1))
    await asyncio.sleep(0.01)  # that is being committed, and this one waits for the next commit
    late = asyncio.create_task(old.append("old ", sequence=2))
    await asyncio.sleep(0.01)
    new = Worker(far.app)
    taking = asyncio.create_task(new.claim(old.run, "second"))
    await asyncio.sleep(0.01)
    far.store.mend()
    assert (await taking).json["partial"]["parts"][-1]["text"] == "very old "
    assert [(await early).status, (await late).status] == [200, 200]
    await new.append("new")
    await new.end()
    assert (await answer.end()).text == "very old new"


async def test_a_claim_whose_request_is_gone_still_keeps_the_old_producer_out(far: Rig) -> None:
    answer, old = await asked(far)
    await old.append("old ")
    far.store.hang()
    lease = far.chat._leases.find(old.run)
    assert lease is not None
    claiming = asyncio.create_task(lease.claim("w", "second"))
    await asyncio.sleep(0.01)
    claiming.cancel()
    await asyncio.wait({claiming})
    late = asyncio.create_task(old.append("zombie "))
    await asyncio.sleep(0.01)
    far.store.mend()
    assert (await late).code == "fenced"
    new = Worker(far.app)
    assert (await new.claim(old.run, "second")).json["producer"] == 2
    await new.append("new")
    await new.end()
    assert (await answer.end()).text == "old new"


# ---------------------------------------------------------------------- time


async def test_a_run_that_nobody_takes_fails(far: Rig) -> None:
    answer = await far.post("c", headers=FAR)
    await far.clock.advance(far.chat.settings.claim_timeout + 1)
    await answer.end()
    assert (await reply(far))[1]["reason"] == "no-agent"


async def test_a_worker_that_is_gone_leaves_its_words_and_a_lost_run(far: Rig) -> None:
    answer, worker = await asked(far)
    await worker.append("so far")
    await far.clock.advance(LEASE - 1)
    assert (await worker.beat(status="thinking")).json == {"notes": 0, "state": "running"}
    await far.clock.advance(LEASE - 1)
    assert (await worker.append(" and on")).json["state"] == "running"
    await far.clock.advance(LEASE - 1)
    assert not answer.over
    await far.clock.advance(2)
    await answer.end()
    assert answer.text == "so far and on"
    parts, how = await reply(far)
    assert (how["status"], how["reason"]) == ("lost", "lease-expired")
    assert (await worker.append("zombie")).json["status"] == "lost"
    assert (await worker.claim(worker.run, "later")).json["state"] == "over"
    assert (await reply(far))[0] == parts


async def test_a_stop_reaches_the_worker_at_once_and_at_its_next_request(far: Rig) -> None:
    answer, worker = await asked(far)
    listening = await worker.work()
    await worker.append("so far")
    assert await far.stop("c")
    await listening.until(lambda: any(frame.chunk["type"] == "stop" for frame in listening.frames))
    assert listening.frames[-1].chunk == {"type": "stop", "run": worker.run}
    over = {"state": "over", "status": "stopped", "reason": "user", "error": None}
    for told in (await worker.beat(), await worker.append("more"), await worker.end()):
        assert told.json == over
    await answer.end()
    assert (await reply(far))[0][-1]["text"] == "so far"
    await listening.drop()


async def test_an_end_of_its_own_is_not_told_to_the_worker(far: Rig) -> None:
    _, worker = await asked(far)
    listening = await worker.work()
    await worker.end()
    await far.post("c", "next", "u2", headers=FAR)
    await listening.until(lambda: len(listening.frames) > 1)
    assert [frame.chunk["type"] for frame in listening.frames] == ["run", "run"]
    await listening.drop()


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "chunk",
    [
        {"type": "text-delta", "id": "nobody", "delta": "x"},
        {"type": "unknown"},
        {"type": "error", "errorText": "no"},
        {"type": "abort"},
        {"type": "data-x", "data": "x" * 2_000_000},
        "not a chunk",
    ],
)
async def test_a_chunk_that_clients_could_not_read_ends_the_run(far: Rig, chunk: Any) -> None:
    answer, worker = await asked(far)
    await worker.append("before")
    refused = await worker.about("append", sequence=2, chunks=[{"type": "file", "url": "u", "mediaType": "m"}, chunk])
    assert (refused.status, refused.code) == (422, "chunk-refused")
    await answer.end()
    parts, how = await reply(far)
    assert (how["status"], how["reason"]) == ("failed", "chunk-refused")
    assert parts[1]["text"] == "before"
    assert (await worker.append("again")).json["status"] == "failed"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"producer": 1},
        {"producer": 1, "sequence": 1},
        {"producer": 1, "sequence": 0, "text": "x"},
        {"producer": True, "sequence": 1, "text": "x"},
        {"producer": 1, "sequence": 1, "text": 1},
        {"producer": 1, "sequence": 1, "text": "x", "chunks": []},
        {"producer": 1, "sequence": 1, "chunks": [{"type": "start-step"}] * 1001},
    ],
)
async def test_a_request_that_says_nothing_sensible_is_refused_and_harms_nothing(far: Rig, body: Any) -> None:
    answer, worker = await asked(far)
    refused = await worker.ask("POST", f"/api/agents/runs/{worker.run}/append", body)
    assert (refused.status, refused.code) == (422, "invalid-request")
    await worker.append("fine")
    await worker.end()
    assert (await answer.end()).text == "fine"


async def test_who_is_no_worker_of_the_agent_sees_and_does_nothing(far: Rig) -> None:
    answer, worker = await asked(far)
    for stranger in (Worker(far.app, role=""), Worker(far.app, role="agent:near"), Worker(far.app, role="admin")):
        stranger.headers["x-user"] = "ann"  # not even in their own session
        stranger.run, stranger.producer = worker.run, 1
        assert (await stranger.work()).status == 403
        assert (await stranger.ask("POST", "/api/agents/far/runs", {"session": "c"})).status == 403
        unknown = await stranger.ask("POST", "/api/agents/runs/unknown/append", {})
        for refused in (
            await stranger.claim(worker.run, "mine"),
            await stranger.append("I am the assistant"),
            await stranger.beat(),
            await stranger.end(),
        ):
            assert (refused.status, refused.body) == (404, unknown.body)
    assert (await Worker(far.app, role="").ask("GET", "/api/agents")).status == 403
    await worker.end()
    assert (await answer.end()).text == ""


async def test_a_policy_may_keep_workers_out_of_a_session(tmp_path: Path) -> None:
    asked_of: list[Any] = []

    def policy(identity: Any, session: Any, action: Any) -> bool:
        asked_of.append((session.id if session is not None else None, str(action)))
        return not (action == "agent" and session is not None and session.id == "secret")

    async with running(auth=Auth(who, policy), prepare=lambda chat: chat.remote_agent("far")) as rig:
        secret = await rig.post("secret", headers=FAR)
        open_one = await rig.post("open", headers=FAR)
        worker = Worker(rig.app)
        listening = await worker.work()
        await listening.until(lambda: listening.frames)
        assert [frame.chunk["session"] for frame in listening.frames] == ["open"]
        assert (await worker.claim(secret.headers["strandline-run"])).status == 404
        assert (await worker.claim(open_one.headers["strandline-run"])).status == 200
        assert ("secret", "agent") in asked_of
        # Nor is it told of what happens there.
        for chat in ("secret", "open"):
            note = {"id": "n1", "role": "user", "parts": [{"type": "text", "text": "shorter"}]}
            assert (await rig.ask("POST", f"/api/sessions/{chat}/steer", {"message": note})).status == 202
            assert (await rig.stop(chat)).json["stopped"]
        await listening.until(lambda: "stop" in listening.types)
        told = {(frame.chunk["type"], frame.chunk["run"]) for frame in listening.frames}
        run = open_one.headers["strandline-run"]
        assert told == {("run", run), ("note", run), ("stop", run)}
        await listening.drop()


async def test_how_the_agents_are_doing(far: Rig) -> None:
    _, worker = await asked(far)
    await far.post("d", headers=FAR)
    listening = await worker.work()
    await worker.beat(status="thinking")
    assert (await worker.beat(status="sleeping")).code == "invalid-request"
    boss = Worker(far.app, role="agent")
    agents = (await boss.ask("GET", "/api/agents")).json["agents"]
    assert [(each["name"], each["kind"]) for each in agents] == [("scripted", "local"), ("far", "remote")]
    assert agents[1] == {
        "name": "far", "kind": "remote", "lease": LEASE, "workers": 1, "waiting": 1, "active": 2,
        "doing": {"thinking": 1}, "seenAt": far.clock.now(),
    }  # fmt: skip
    assert [each["name"] for each in (await worker.ask("GET", "/api/agents")).json["agents"]] == ["far"]
    await listening.drop()


async def test_how_the_agents_are_doing_says_nothing_of_sessions_that_are_refused() -> None:
    def policy(identity: Any, session: Any, action: Any) -> bool:
        foreign = session is not None and session.id.startswith("secret")
        return action != "agent" or not foreign or identity.user == "worker-trusted"

    async with running(auth=Auth(who, policy), prepare=lambda chat: chat.remote_agent("far", lease=LEASE)) as rig:
        kept_out, trusted = Worker(rig.app, "out", role="agent"), Worker(rig.app, "trusted", role="agent")

        async def counts(worker: Worker) -> list[tuple[int, int, dict[str, int]]]:
            agents = (await worker.ask("GET", "/api/agents")).json["agents"]
            return [(each["waiting"], each["active"], each["doing"]) for each in agents]

        await asked(rig, trusted, "secret")
        await trusted.beat(status="thinking")
        await rig.post("secret-waits", headers=FAR)
        await rig.begun("secret-local")
        assert await counts(kept_out) == [(0, 0, {}), (0, 0, {})]
        await asked(rig, kept_out, "open")
        await kept_out.beat(status="streaming")
        await rig.begun("open-local")
        assert await counts(kept_out) == [(0, 1, {}), (0, 1, {"streaming": 1})]
        assert await counts(trusted) == [(0, 2, {}), (1, 3, {"thinking": 1, "streaming": 1})]


# ---------------------------------------------------------------------- unasked


async def test_an_agent_speaks_unasked(far: Rig) -> None:
    _, first = await asked(far)
    await first.append("first")
    await first.end()
    feed = await far.open("GET", "/api/sessions/c/events")
    worker = Worker(far.app)
    named = {"session": "c", "holder": "w", "claim": "k1"}
    begun = await worker.ask("POST", "/api/agents/far/runs", named)
    assert (begun.status, begun.json["state"], begun.json["producer"]) == (201, "running", 1)
    assert begun.json["prompt"][-1] == {"role": "assistant", "content": "first"}
    again = await worker.ask("POST", "/api/agents/far/runs", named)
    assert again.json["run"] == begun.json["run"]
    busy = await worker.ask("POST", "/api/agents/far/runs", {**named, "claim": "k2"})
    assert (busy.status, busy.code) == (409, "run-active")
    worker.run, worker.producer = begun.json["run"], 1
    await worker.append("By the way")
    await worker.end()
    over = await worker.ask("POST", "/api/agents/far/runs", named)
    assert over.json["state"] == "over"
    parts, how = await reply(far)
    assert (parts[-1]["text"], how["status"]) == ("By the way", "completed")
    assert len((await far.history("c"))["messages"]) == 3
    await feed.until(lambda: any(frame.chunk["type"] == "run-ended" for frame in feed.frames))
    assert "k1" not in str([frame.chunk for frame in feed.frames if frame.chunk["type"] == "run-claimed"])
    await feed.drop()
    for body in ({"session": "nobody"}, {"session": "c", "answers": "nobody"}):
        refused = await worker.ask("POST", "/api/agents/far/runs", {**named, "claim": "k3", **body})
        assert refused.status in (404, 422)


# ---------------------------------------------------------------------- a restart of the server


@pytest.mark.parametrize("unfriendly", [True, False])
async def test_a_run_goes_on_over_a_restart_of_the_server(tmp_path: Path, unfriendly: bool) -> None:
    path = tmp_path / "chat.db"
    async with served(path) as rig:
        _, worker = await asked(rig)
        await worker.append({"type": "start-step"}, *text("one", "t"), {"type": "text-start", "id": "t"})
        await worker.append({"type": "text-delta", "id": "t", "delta": "two "})
        waiting = await rig.post("waiting", headers=FAR, mood="bad")
        if unfriendly:
            rig.chat.service.stop = rig.chat.service._close  # type: ignore[method-assign]
    async with served(path) as rig:
        worker.app = rig.app
        assert (await worker.append("not again", sequence=2)).json["sequence"] == 2
        worker.sent = 2
        late = await worker.append("x", sequence=4)
        assert (late.code, late.json["expected"]) == ("gap", 3)
        other = Worker(rig.app, "other")
        assert (await other.claim(worker.run)).code == "claimed"
        joined = await rig.resume("c")
        await worker.append({"type": "text-delta", "id": "t", "delta": "three"}, {"type": "text-end", "id": "t"})
        await worker.end()
        assert (await joined.end()).text == "onetwo three"
        parts, how = await reply(rig)
        assert ([part["text"] for part in parts[1:]], how["status"]) == (["one", "two three"], "completed")
        taken = (await other.claim(waiting.headers["strandline-run"])).json
        assert (taken["user"], taken["body"], taken["producer"]) == ("ann", {"mood": "bad"}, 1)
        await rig.clock.advance(LEASE + 1)
        await until(lambda: rig.chat.counters().active_runs == 0)
        assert (await reply(rig, "waiting"))[1]["status"] == "lost"


async def test_a_server_that_shuts_down_tells_no_worker_to_stop(tmp_path: Path) -> None:
    async with asyncio.timeout(30), served(tmp_path / "chat.db", shutdown_grace=600.0) as rig:
        answer, worker = await asked(rig)
        listening = await worker.work()
        await worker.append("so far")  # it is not waited for: it does not end with this process
    await listening.end()
    await answer.end()
    assert [frame.chunk["type"] for frame in listening.frames] == ["run"]
    assert answer.frames[-1].chunk["code"] == "shutting-down"
    late = await worker.append("more")
    assert (late.status, late.code) == (503, "not-started")


async def test_an_open_text_of_requests_without_chunks_goes_on_over_a_restart(tmp_path: Path) -> None:
    async with served(tmp_path / "chat.db") as rig:
        _, worker = await asked(rig)
        await worker.append("one ")
    async with served(tmp_path / "chat.db") as rig:
        worker.app = rig.app
        await worker.append("two")
        await worker.append({"type": "source-url", "sourceId": "s", "url": "https://example.com"})
        await worker.append("three")
        await worker.end()
        parts, _ = await reply(rig)
        assert [part.get("text", part["type"]) for part in parts] == ["step-start", "one two", "source-url", "three"]


async def test_a_server_that_stays_away_is_not_the_workers_fault(tmp_path: Path) -> None:
    async with served(tmp_path / "chat.db") as rig:
        _, worker = await asked(rig)
        await worker.append("so far")
        await rig.clock.advance(LEASE - 1)
    async with served(tmp_path / "chat.db") as rig:
        worker.app = rig.app
        await rig.clock.advance(LEASE - 1)
        assert (await worker.beat()).json["state"] == "running"
        await rig.clock.advance(LEASE + 1)
        await until(lambda: rig.chat.counters().active_runs == 0)
        assert (await worker.beat()).json["status"] == "lost"
