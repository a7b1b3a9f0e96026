"""What happens to a decision and to something else at the same moment (DESIGN §1, 2, 3 and 7): the order of the log
decides, everybody is answered by it, and a run goes on at most once, with all that was decided."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from asking import answering, asked, decide, pending, post_back, reply, tools
from rig import Answer, Rig, at_once, running
from strandline import Run
from strandline.core.run import Status
from strandline.testing import ScriptedAgent, until

C = "/api/sessions/c"

Ask = Callable[[Rig, "Waiting"], Awaitable[Any]]


class Waiting:
    """A reply that waits for two decisions."""

    def __init__(self, first: Any, second: Any, run: Run) -> None:
        self.first, self.second, self.run = first, second, run


async def two(rig: Rig, **terms: Any) -> Waiting:
    _, call = await asked(
        rig,
        lambda run: run.request_approval("refund", {"n": 1}, **terms),
        lambda run: run.request_approval("refund", {"n": 2}, **terms),
    )
    first, second = await pending(rig)
    return Waiting(first, second, call.run)


def deciding(which: str, approved: bool = True) -> Ask:
    return lambda rig, about: decide(rig, getattr(about, which)["id"], {"approved": approved})


def posting(policy: str) -> Ask:
    return lambda rig, about: rig.post("c", "next", "u2", headers={"Strandline-Submit": policy})


async def expiring(rig: Rig, about: Waiting) -> None:
    for each in (about.first, about.second):
        session = await rig.sessions.find("c")
        found = session.state.decisions.get(each["id"]) if session is not None else None
        if found is not None:
            await rig.sessions.expire(found)


OTHERS: dict[str, Ask] = {
    "first": deciding("first"),
    "first again": deciding("first"),
    "second": deciding("second"),
    "second denied": deciding("second", False),
    "delete": lambda rig, about: rig.ask("DELETE", f"{C}/messages/{about.run.message_id}"),
    "delete the question": lambda rig, about: rig.ask("DELETE", f"{C}/messages/u1"),
    "stop": lambda rig, about: rig.stop("c", messageId=about.run.message_id),
    "stop all": lambda rig, about: rig.ask("POST", f"{C}/stop", {"all": True}),
    "expire": expiring,
    "interrupt": posting("interrupt"),
    "queue": posting("queue"),
    "concurrent": posting("concurrent"),
    "regenerate": lambda rig, about: rig.open(
        "POST",
        "/api/chat",
        {"id": "c", "messages": [], "trigger": "regenerate-message", "messageId": about.run.message_id},
    ),
    "delete the session": lambda rig, about: rig.ask("DELETE", C),
}


async def sound(rig: Rig, about: Waiting) -> None:
    """What holds in whatever order things have happened."""
    await until(lambda: not rig.sessions._starting)
    session = await rig.sessions.find("c")
    if session is None:
        return
    state, log = session.state, await rig.log_from_store()
    # Decided once each, and never after the end of what it was decided for.
    made = Counter(event["decision"] for event in log if event["type"] == "decision-made")
    assert set(made.values()) <= {1}
    # Gone on from at most once, and only when nothing is left.
    continued = [run for run in state.runs.values() if state.continues(run)]
    assert len(continued) <= 1
    for run in continued:
        if state.messages[run.message].deleted:
            continue  # what was decided is erased with it
        by_somebody = [
            event["decision"]
            for event in log
            if event["type"] == "decision-made" and event["outcome"] in ("approved", "denied")
        ]
        assert by_somebody
        queued = next(
            place for place, event in enumerate(log) if event["type"] == "run-queued" and event["run"] == run.id
        )
        before = [event["decision"] for event in log[:queued] if event["type"] == "decision-made"]
        assert set(before) == {about.first["id"], about.second["id"]}
    # Every run that has started was called once, unless it ended before its turn on the loop.
    started = {event["run"] for event in log if event["type"] == "run-started"}
    called = Counter(call.run.id for call in rig.agent.calls if call.run.id in state.runs)
    assert set(called.values()) <= {1}
    assert set(called) <= started
    assert {run.id for run in state.runs.values() if run.status is Status.RUNNING} <= set(called)
    # After its end nothing is added to a run.
    ended: set[str] = set()
    for event in log:
        assert event["type"] not in ("appended", "run-started") or event["run"] not in ended
        if event["type"] == "run-ended":
            ended.add(event["run"])
    # What is in memory is what is in the store.
    outline = await rig.store.outline("c")
    assert {run.id: run.status for run in outline.runs} == {run.id: run.status for run in state.runs.values()}
    assert {each.id: each.outcome for each in outline.decisions} == {
        each.id: each.outcome for each in state.decisions.values()
    }
    # A call waits as long as its decision does, unless its message is gone.
    for message in await rig.store.messages("c", [each.version for each in outline.messages]):
        waits = {each.tool_call for each in state.waiting(message.version)}
        assert {
            part["toolCallId"]
            for part in tools({"parts": message.parts or ()})
            if part["state"] == "approval-requested"
        } == waits


async def finished(rig: Rig) -> None:
    """Let every agent that was called say something and come to its end."""
    session = await rig.sessions.find("c")
    told = 0
    while session is not None and session.live:
        for call in rig.agent.calls[told:]:
            call.say("words").finish()
        told = len(rig.agent.calls)
        await asyncio.sleep(0.001)


def answers_of(found: list[Any]) -> list[Answer]:
    return [each for each in found if isinstance(each, Answer)]


@pytest.fixture(params=["memory", "sqlite"])
async def any_rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "chat.db" if request.param == "sqlite" else None) as rig:
        yield rig


@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize("first", OTHERS)
async def test_whatever_happens_at_once_happens_in_one_order(first: str, under_way: bool) -> None:
    """Every two of these, in every order, and a third one; the first one as well while its commit is under way."""
    left = [name for name in OTHERS if name != first]
    chance = random.Random(first)
    for second in left:
        names = (first, second, chance.choice([name for name in left if name != second]))
        async with running(max_concurrent=8) as rig:
            about = await two(rig, expires_in=5)
            await rig.ask("POST", "/api/sessions", {"id": "blocker"})
            if "expire" in names:
                rig.clock._elapsed += 6  # without a turn for the janitor
            asks = [OTHERS[name](rig, about) for name in names]
            found = await at_once(rig, *asks, under_way=under_way)
            for name, answer in zip(names, found, strict=True):
                assert answer is None or answer.status in (200, 202, 204, 404, 409), (names, name, answer.body)
            try:
                await sound(rig, about)
                await finished(rig)
                await sound(rig, about)
            except BaseException as exc:
                exc.add_note(str(names))
                raise


async def test_two_devices_decide_about_two_calls_of_one_run_at_once(any_rig: Rig) -> None:
    rig = any_rig
    about = await two(rig)
    await rig.ask("POST", "/api/sessions", {"id": "blocker"})
    devices = [rig, rig.as_user("ann")]
    found = await at_once(
        rig,
        decide(devices[0], about.first["id"], {"approved": True}),
        decide(devices[1], about.second["id"], {"approved": False}),
    )
    assert [answer.status for answer in found] == [200, 200]
    runs = [answer.json["run"] for answer in found]
    call = await rig.agent.called(2)
    assert sorted(runs, key=str) == sorted([None, call.run.id], key=str)
    assert {each.input["n"]: each.approved for each in call.run.decisions} == {1: True, 2: False}
    call.finish()
    await rig.ended()
    assert len(rig.agent.calls) == 2
    queued = [event for event in await rig.log() if event["type"] == "run-queued"]
    assert len(queued) == 2


@pytest.mark.parametrize("gone", ["reply", "parent", "session"])
async def test_who_has_decided_is_told_so_though_it_was_deleted_at_once(gone: str) -> None:
    other = ScriptedAgent()
    async with running(more={"other": other}) as rig:
        if gone == "parent":
            _, call = await rig.begun()
            call.do(lambda run: run.spawn("other"))
            beside = await other.called()
            beside.do(lambda run: run.request_approval("refund", {})).finish()
            await rig.ended_run(beside.run.id)
        else:
            _, call = await asked(rig)
        [waits] = await pending(rig)
        where = C if gone == "session" else f"{C}/messages/{call.run.message_id}"
        decided, deleted = await at_once(
            rig, decide(rig, waits["id"], {"approved": True}), rig.ask("DELETE", where), under_way=True
        )
        assert (decided.status, deleted.status) == (200, 204)
        assert (decided.json["decision"]["outcome"], decided.json["decision"]["input"]) == ("approved", None)
        assert decided.json["run"]


@pytest.mark.parametrize("wire", ["chat", "tanstack"])
@pytest.mark.parametrize("other", [True, False])
async def test_one_request_decides_a_call_once(rig: Rig, wire: str, other: bool) -> None:
    """Also where it says so twice, or says two things."""
    await asked(rig)
    [waits] = await pending(rig)
    if wire == "chat":
        copies = [answering(await reply(rig), {"approved": approved}) for approved in (True, not other)]
        answer = await post_back(rig, {**copies[0], "parts": [*copies[0]["parts"], *tools(copies[1])]})
    else:
        given = [
            {"interruptId": waits["id"], "status": "resolved", "payload": {"approved": approved}}
            for approved in (True, not other)
        ]
        body = {"threadId": "c", "runId": "r2", "messages": [], "resume": given}
        answer = await rig.open("POST", "/api/tanstack", body)
    made = [event["outcome"] for event in await rig.log() if event["type"] == "decision-made"]
    if other:
        await answer.end()
        assert (answer.status, answer.code, made) == (422, "invalid-request", [])
        assert await pending(rig) == [waits]
    else:
        assert (answer.status, made) == (200, ["approved"])
        (await rig.agent.called(2)).finish()
        await answer.end()


async def test_a_request_that_repeats_an_older_decision_goes_on_from_the_newer_one(rig: Rig) -> None:
    await asked(rig)
    [old] = await pending(rig)
    await decide(rig, old["id"], {"approved": True})
    call = await rig.agent.called(2)
    call.do(lambda run: run.tool_result(old["toolCallId"], {})).do(lambda run: run.request_approval("again", {}))
    call.finish()
    await rig.ended()
    [new] = await pending(rig)
    given = [{"interruptId": each["id"], "status": "resolved", "payload": {"approved": True}} for each in (old, new)]
    body = {"threadId": "c", "runId": "r3", "messages": [], "resume": given}
    answer = await rig.open("POST", "/api/tanstack", body)
    assert answer.status == 200, answer.body
    turn = await rig.agent.called(3)
    assert [(each.id, each.tool) for each in turn.run.decisions] == [(new["id"], "again")]
    queued = [event for event in await rig.log() if event["type"] == "run-queued"]
    assert [event.get("parent_run") for event in queued] == [None, old["run"], new["run"]]
    turn.finish()
    await answer.end()


async def test_a_decision_on_a_branch_that_is_not_shown(rig: Rig) -> None:
    """It goes on there, beside what is written where people are."""
    await asked(rig)
    _, edited = await rig.begun(text="changed", id="u1", messageId="u1", headers={"Strandline-Submit": "concurrent"})
    assert await pending(rig) == [], "an edit takes the place of what is pending"
    edited.do(lambda run: run.request_approval("refund", {"n": 2})).finish()
    await rig.ended()
    [waits] = await pending(rig)
    assert (await rig.ask("POST", f"{C}/branch", {"message": "u1", "index": 0})).status == 200
    _, third = await rig.begun(text="third", id="u3")
    [waits] = await pending(rig)
    run = (await decide(rig, waits["id"], {"approved": True})).json["run"]
    turn = await rig.agent.called(4)
    assert (turn.run.id, turn.run.message_id) == (run, edited.run.message_id)
    assert [message["id"] for message in turn.run.messages] == ["u1", edited.run.message_id]
    assert turn.run.prompt()[0]["content"] == "changed"
    third.say("here").finish()
    turn.say("there").finish()
    await rig.ended()
    history = await rig.history("c")
    assert history["messages"][-1]["id"] == third.run.message_id
    await rig.ask("POST", f"{C}/branch", {"message": "u1", "index": 1})
    assert (await reply(rig))["parts"][-1]["text"] == "there"


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_at_every_moment_of_a_decision_the_drain_leaves_nothing_behind(turns: int) -> None:
    """It was taken, and what went on ended as lost; or it was refused, and waits."""
    alive: set[str] = set()

    async def agent(run: Run) -> None:
        if not run.decisions:
            await run.request_approval("refund", {})
            return
        alive.add(run.id)
        try:
            await asyncio.Event().wait()
        finally:
            alive.discard(run.id)

    async with running(agent=agent, shutdown_grace=0.0) as rig:
        for chat in ("c", "d"):
            await (await rig.post(chat)).end()
            await rig.ended(chat)
        waits = {chat: (await pending(rig, chat))[0]["id"] for chat in ("c", "d")}
        states = {chat: (await rig.sessions.find(chat)).state for chat in waits}
        asks = [asyncio.create_task(decide(rig, id, {"approved": True}, chat)) for chat, id in waits.items()]
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(rig.chat.service.drain(), 10)
        await asyncio.wait_for(rig.chat.service.stop(), 10)
        answers = [await asyncio.wait_for(each, 10) for each in asks]
        assert not alive
        for (chat, id), answer in zip(waits.items(), answers, strict=True):
            decision, runs = states[chat].decisions[id], list(states[chat].runs.values())
            assert answer.status in (200, 503)
            if answer.status == 200:
                assert (decision.outcome, len(runs)) == ("approved", 2)
                assert (runs[-1].status.value, runs[-1].reason) == ("lost", "shutdown")
            else:
                assert (decision.outcome, len(runs)) == (None, 1)
