"""Whatever was asked with a key, or under an id, is answered again as it was, and done once: also after its run has
ended, the session has left memory, or the server was restarted (PROTOCOL §7.4, §14.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from rig import Answer, Rig, running
from strandline import Run
from strandline.testing import ManualClock

S = "/api/sessions"
C = f"{S}/c"


def message(text: str, id: str) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


class Served:
    """One file, served by one process after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self._stack = AsyncExitStack()
        self.rig: Rig

    async def start(self) -> None:
        self.rig = await self._stack.enter_async_context(running(self.path, clock=self.clock))

    async def stop(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def evict(self) -> None:
        await self.rig.go_cold()

    async def expire(self) -> None:
        """Retention lets the whole log go, and the session is loaded again."""
        await self.rig.go_cold()
        await self.rig.store.expire(self.clock.now() + 10**12)
        await self.restart()
        assert await self.rig.store.events("c", 1, 2**62) == []

    async def state(self) -> tuple[list[tuple[str, str]], list[tuple[str, Any]]]:
        """Every message version and every run."""
        outline = await self.rig.store.outline("c")
        runs = [(run.id, run.status) for run in outline.runs]
        return [(each.message_id, each.role) for each in outline.messages], runs


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    server = Served(tmp_path / "chat.db")
    await server.start()
    yield server
    await server.stop()


Later = Callable[[Served], Any]
LATER = pytest.mark.parametrize("later", [Served.evict, Served.restart, Served.expire], ids=lambda each: each.__name__)


# ------------------------------------------------------------------------------------------------ steered


async def by_ai_sdk(rig: Rig) -> Any:
    """The AI SDK wire, without a key: known by the message's id."""
    answer = await (await rig.post("c", "shorter", "n1", headers={"Strandline-Submit": "steer"})).end()
    return answer.types, answer.frames[0].chunk


async def by_ai_sdk_with_key(rig: Rig) -> Any:
    answer = await (await rig.post("c", "shorter", "n1", key="k1", headers={"Strandline-Submit": "steer"})).end()
    return answer.types, answer.frames[0].chunk


async def by_ai_sdk_retry(rig: Rig) -> Any:
    """The POST of a new message that is pressed "retry" on: known by its key alone."""
    more = {"trigger": "regenerate-message", "key": "k1", "headers": {"Strandline-Submit": "steer"}}
    answer = await (await rig.post("c", "shorter", "n1", **more)).end()
    return answer.types, answer.frames[0].chunk


async def by_tanstack(rig: Rig) -> Any:
    body = {"threadId": "c", "runId": "ag1", "messages": [{"id": "n1", "role": "user", "content": "shorter"}]}
    sent = {"Strandline-Submit": "steer", "X-Run-Id": "ag1"}
    answer = await (await rig.open("POST", "/api/tanstack", body, sent)).end()
    return [frame.chunk for frame in answer.frames]


async def by_tanstack_async(rig: Rig) -> Any:
    body = {"threadId": "c", "runId": "ag1", "messages": [{"id": "n1", "role": "user", "content": "shorter"}]}
    sent = {"Strandline-Submit": "steer", "Prefer": "respond-async"}
    answer = await rig.ask("POST", "/api/tanstack", body, sent)
    return answer.status, answer.json


async def by_session(rig: Rig) -> Any:
    body = {"message": message("shorter", "n1"), "submit": "steer"}
    answer = await rig.ask("POST", f"{C}/messages", body, {"Idempotency-Key": "k1"})
    return answer.status, answer.json


async def by_steer(rig: Rig) -> Any:
    answer = await rig.ask("POST", f"{C}/steer", {"message": message("shorter", "n1")})
    return answer.status, answer.json


WIRES = [by_ai_sdk, by_ai_sdk_with_key, by_ai_sdk_retry, by_tanstack, by_tanstack_async, by_session, by_steer]


@LATER
@pytest.mark.parametrize("fate", ["taken", "answered", "left"])
@pytest.mark.parametrize("ask", WIRES, ids=lambda each: each.__name__)
async def test_what_was_told_to_an_agent_is_told_once(served: Served, ask: Any, fate: str, later: Later) -> None:
    _, call = await served.rig.begun()
    call.say("Once ")
    first = await ask(served.rig)
    if fate == "taken":
        call.do(lambda run: _take(run)).finish()
    elif fate == "answered":
        call.finish()
        (await served.rig.agent.called(2)).finish()
    else:
        await served.rig.stop("c")
    await served.rig.ended()
    before = await served.state()
    assert len(before[1]) == (2 if fate == "answered" else 1)
    assert ("n1", "user") in before[0] or fate == "taken"
    assert await ask(served.rig) == first
    await later(served)
    assert await ask(served.rig) == first
    # It is the same also where another agent runs that could be told, and where the policy is another one.
    _, call = await served.rig.begun(text="and now?", id="u9")
    assert await ask(served.rig) == first
    assert [each.message_id for each in (await served.rig.store.outline("c")).receipts] == ["n1"]
    call.finish()
    await served.rig.ended()
    after = await served.state()
    assert [each for each in after[0] if each[0] == "n1"] == [each for each in before[0] if each[0] == "n1"]
    assert len(after[1]) == len(before[1]) + 1


async def _take(run: Run) -> None:
    assert [note.text for note in run.take_steering()] == ["shorter"]


@LATER
async def test_the_id_of_a_note_is_never_taken_for_other_words(served: Served, later: Later) -> None:
    _, call = await served.rig.begun()
    await by_steer(served.rig)
    call.do(_take).finish()
    await served.rig.ended()
    await later(served)
    before = await served.state()
    refused = [
        await served.rig.post("c", "longer", "n1"),
        await served.rig.ask("POST", f"{C}/messages", {"message": message("longer", "n1")}),
        await served.rig.ask("POST", f"{C}/steer", {"message": message("longer", "n1")}),
    ]
    assert {(answer.status, answer.code) for answer in refused} == {(409, "message-exists")}
    assert await served.state() == before


@pytest.mark.parametrize("said_in", ["reply", "message"])
async def test_a_request_with_a_key_does_not_bring_back_what_was_deleted(served: Served, said_in: str) -> None:
    _, call = await served.rig.begun()
    first = await by_session(served.rig)
    call.do(_take) if said_in == "reply" else call.fail(ValueError("no"))
    if said_in == "reply":
        call.finish()
    await served.rig.ended()
    name = first[1]["messageId"] if said_in == "reply" else "n1"
    assert (await served.rig.ask("DELETE", f"{C}/messages/{name}")).status == 204
    for _ in range(2):
        before = await served.state()
        assert await by_session(served.rig) == first
        assert await served.state() == before
        assert [each.digest for each in (await served.rig.store.outline("c")).receipts] == [None]
        await served.restart()


async def test_a_note_that_is_asked_about_again_under_another_run_id_is_a_new_question(served: Served) -> None:
    _, call = await served.rig.begun()
    await by_tanstack(served.rig)
    call.do(_take).finish()
    await served.rig.ended()
    await served.restart()
    body = {"threadId": "c", "runId": "ag2", "messages": [{"id": "n1", "role": "user", "content": "shorter"}]}
    answer = await served.rig.open("POST", "/api/tanstack", body)
    (await served.rig.agent.called(1)).finish()
    await answer.end()
    assert (await served.state())[0][-2:] == [("n1", "user"), (answer.headers["strandline-message"], "assistant")]


# ------------------------------------------------------------------------------------------------ everything else


async def submitted(rig: Rig, wire: str, text: str, id: str, key: str, policy: str, **more: Any) -> Answer:
    if wire == "ai-sdk":
        return await rig.post("c", text, id, key=key, headers={"Strandline-Submit": policy}, **more)
    if wire == "session":
        body = {"message": message(text, id), "submit": policy, **more}
        return await rig.ask("POST", f"{C}/messages", body, {"Idempotency-Key": key})
    body = {"threadId": "c", "runId": key, "messages": [{"id": id, "role": "user", "content": text}]}
    return await rig.open("POST", "/api/tanstack", body, {"Strandline-Submit": policy})


def run_in(answer: Answer) -> str:
    assert answer.status in (200, 202), answer.body
    return answer.headers.get("strandline-run") or str(answer.json["run"])


@LATER
@pytest.mark.parametrize("wire", ["ai-sdk", "tanstack", "session"])
@pytest.mark.parametrize("policy", ["queue", "interrupt", "concurrent", "steer-idle"])
async def test_a_message_under_any_policy_has_one_run(served: Served, policy: str, wire: str, later: Later) -> None:
    policy, idle = policy.removesuffix("-idle"), policy.endswith("-idle")
    if not idle:
        _, call = await served.rig.begun()
    first = run_in(await submitted(served.rig, wire, "two", "u2", "k2", policy))
    if not idle:
        call.finish()
    (await served.rig.agent.called(1 if idle else 2)).finish()
    await served.rig.ended()
    before = await served.state()
    await later(served)
    assert run_in(await submitted(served.rig, wire, "two", "u2", "k2", policy)) == first
    assert await served.state() == before
    # Nor is an interruption that was carried out carried out again, with another reply being written.
    _, call = await served.rig.begun(text="three", id="u3")
    before = await served.state()
    assert run_in(await submitted(served.rig, wire, "two", "u2", "k2", policy)) == first
    assert await served.state() == before
    call.finish()
    await served.rig.ended()


@LATER
@pytest.mark.parametrize("wire", ["ai-sdk", "tanstack", "session"])
async def test_what_was_rejected_was_not_there_and_comes_once(served: Served, wire: str, later: Later) -> None:
    _, call = await served.rig.begun()
    before = await served.state()
    for _ in range(2):
        refused = await submitted(served.rig, wire, "two", "u2", "k2", "reject")
        assert (refused.status, refused.code) == (409, "busy")
    assert await served.state() == before
    call.finish()
    await served.rig.ended()
    await later(served)
    calls = len(served.rig.agent.calls)
    first = run_in(await submitted(served.rig, wire, "two", "u2", "k2", "reject"))
    (await served.rig.agent.called(calls + 1)).finish()
    await served.rig.ended()
    before = await served.state()
    await later(served)
    assert run_in(await submitted(served.rig, wire, "two", "u2", "k2", "reject")) == first
    assert await served.state() == before


@LATER
@pytest.mark.parametrize("wire", ["ai-sdk", "session"])
@pytest.mark.parametrize("what", ["edit", "regenerate"])
async def test_an_edit_and_another_attempt_are_made_once(served: Served, what: str, wire: str, later: Later) -> None:
    _, call = await served.rig.begun()
    call.finish()
    await served.rig.ended()
    edit = {"messageId": "u1", "trigger": "submit-message" if what == "edit" else "regenerate-message"}
    text = "other words" if what == "edit" else "hello"
    first = run_in(await submitted(served.rig, wire, text, "u1", "k2", "interrupt", **edit))
    (await served.rig.agent.called(2)).finish()
    await served.rig.ended()
    before = await served.state()
    await later(served)
    assert run_in(await submitted(served.rig, wire, text, "u1", "k2", "interrupt", **edit)) == first
    assert await served.state() == before


async def ask_first(run: Run) -> None:
    await run.request_approval("delete", {"path": "a"}, id="call-1")


async def decided(rig: Rig, wire: str, decision: str) -> Answer:
    if wire == "decision":
        return await rig.ask("POST", f"{C}/decisions/{decision}", {"approved": True})
    if wire == "tanstack":
        item = {"interruptId": decision, "status": "resolved", "payload": {"approved": True}}
        return await rig.open(
            "POST", "/api/tanstack", {"threadId": "c", "runId": "ag2", "messages": [], "resume": [item]}
        )
    shown = (await rig.ask("GET", f"{C}")).json["messages"][-1]
    for part in shown["parts"]:
        if part.get("approval"):
            part |= {"state": "approval-responded", "approval": {"id": part["approval"]["id"], "approved": True}}
            part.pop("output", None)
    named = {"Idempotency-Key": "k2"} if wire == "ai-sdk with key" else {}
    body = {"id": "c", "messages": [shown], "trigger": "submit-message", "messageId": shown["id"]}
    return await rig.open("POST", "/api/chat", body, named)


@LATER
@pytest.mark.parametrize("wire", ["decision", "tanstack", "ai-sdk", "ai-sdk with key"])
async def test_a_decision_is_carried_out_once(served: Served, wire: str, later: Later) -> None:
    _, call = await served.rig.begun()
    call.do(ask_first).finish()
    await served.rig.ended()
    (decision,) = (await served.rig.ask("GET", f"{C}/decisions")).json["decisions"]
    first = run_in(await decided(served.rig, wire, decision["id"]))
    (await served.rig.agent.called(2)).finish()
    await served.rig.ended()
    before = await served.state()
    await later(served)
    again = await decided(served.rig, wire, decision["id"])
    if wire == "tanstack" and later is Served.expire:
        assert again.code == "resync"  # what the run has added alone is not known any more
    else:
        assert run_in(again) == first
    assert await served.state() == before


@LATER
async def test_an_annotation_under_its_id_and_an_edit_in_place_count_once(served: Served, later: Later) -> None:
    _, call = await served.rig.begun()
    call.finish()
    await served.rig.ended()

    async def noted() -> tuple[int, int]:
        body = {"message": "u1", "type": "reaction", "data": {"name": "up"}, "id": "a1"}
        changed = await served.rig.ask("PATCH", f"{C}/messages/u1", {"parts": message("new", "u1")["parts"]})
        return (await served.rig.ask("POST", f"{C}/annotations", body)).status, changed.status

    assert await noted() == (201, 200)
    before = await served.state()
    await later(served)
    seq = (await served.rig.store.session("c")).last_seq
    assert await noted() == (201, 200)
    assert await served.state() == before
    assert len((await served.rig.store.outline("c")).annotations) == 1
    assert (await served.rig.store.session("c")).last_seq == seq + 1  # the annotation, which replaces itself
    for _ in range(2):
        assert (await served.rig.ask("DELETE", f"{C}/messages/u1")).status == 204
        await served.restart()
