"""Decisions that can be found by who is to take them, and taken by the application (PROTOCOL §8.1, §15)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from asking import REFUND, asked, decide, pending, reply, tools
from rig import Client, Rig, running
from strandline import Ended, Identity
from strandline.core.records import SessionRecord
from strandline.errors import AlreadyDecided, Conflict, Forbidden, NotFound, Unprocessable
from strandline.http.auth import Action, Auth

ROLES = {"roles": ["support"]}


async def who(request: Request) -> dict[str, Any]:
    return {"user": request.headers.get("x-user", "ann"), "roles": request.headers.get("x-roles", "").split()}


def reviewed(identity: Identity, session: SessionRecord | None, action: Action) -> bool:
    """Who has the role may look into what waits, in rooms that are not secret, and decide in those of Ann alone."""
    mine = session is None or session.owner == identity.user
    if mine or "support" not in identity.roles or session is None or session.id.startswith("secret"):
        return mine
    return action is Action.READ or (action is Action.DECIDE and session.owner == "ann")


@pytest.fixture(params=["memory", "sqlite"])
async def reviewing(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    path = tmp_path / "chat.db" if request.param == "sqlite" else None
    async with running(path, auth=Auth(who, reviewed)) as rig:
        yield rig


def approval(run: Any, **more: Any) -> Any:
    return run.request_approval("refund", REFUND, **more)


async def listed(client: Client, query: str = "") -> dict[str, int]:
    answer = await client.ask("GET", f"/api/sessions{query}")
    assert answer.status == 200, answer.body
    return {each["id"]: each["pending"] for each in answer.json["sessions"]}


async def test_every_session_says_how_much_it_waits_for(reviewing: Rig) -> None:
    rig = reviewing
    await asked(rig, approval, lambda run: run.call_client_tool("locate", id="x"))
    answer, call = await rig.begun("quiet")
    call.finish()
    await answer.end()
    assert await listed(rig) == {"c": 2, "quiet": 0}
    assert (await rig.ask("GET", "/api/sessions/c")).json["session"]["pending"] == 2
    await decide(rig, "x", {"output": 1})
    assert await listed(rig) == {"c": 1, "quiet": 0}
    assert (await rig.ask("PATCH", "/api/sessions/c", {"title": "Tides"})).json["session"]["pending"] == 1
    await rig.go_cold()
    assert await listed(rig) == {"c": 1, "quiet": 0}, "nothing is loaded for it"
    assert [session.id for session in rig.sessions.in_memory()] != ["c"]
    await rig.ask("DELETE", f"/api/sessions/c/messages/{call.run.message_id}")
    second = await rig.post("c", id="u2")
    (await rig.agent.called(3)).finish()
    await second.end()
    assert await listed(rig) == {"quiet": 0, "c": 0}, "a new message supersedes what was pending"


async def test_a_reviewer_finds_what_waits_and_nothing_else(reviewing: Rig) -> None:
    rig = reviewing
    people = {"a1": "ann", "a2": "ann", "a3": "ann", "b1": "bob", "secret": "ann", "idle": "ann"}
    for number, (chat, owner) in enumerate(people.items(), 1):
        await rig.clock.advance(1)
        answer = await rig.as_user(owner).post(chat, id=f"u{number}")
        call = await rig.agent.called(number)
        if chat != "idle":
            call.do(approval)
        call.finish()
        await answer.end()
        await rig.ended(chat)
    await rig.ask("PATCH", "/api/sessions/a3", {"archived": True})
    reviewer = Client(rig.app, {"x-user": "eve", "x-roles": "support"})
    assert await listed(reviewer) == {}, "of their own"
    assert await listed(reviewer, "?pending=true") == {"a2": 1, "a1": 1}
    assert set(await listed(reviewer, "?pending=true&archived=any")) == {"a3", "a2", "a1"}
    # Page by page: what may not be seen is passed over, and no place names it.
    first = (await reviewer.ask("GET", "/api/sessions?pending=true&limit=1")).json
    assert [each["id"] for each in first["sessions"]] == ["a2"]
    assert await listed(reviewer, f"?pending=true&limit=1&before={first['next']}") == {"a1": 1}
    last = (await reviewer.ask("GET", f"/api/sessions?pending=true&limit=1&before={first['next']}")).json
    assert last["next"] is None
    assert set(await listed(rig, "?pending=true&archived=any")) == {"a1", "a2", "a3", "secret"}
    assert await listed(Client(rig.app, {"x-user": "eve"}), "?pending=true") == {}, "without the role"
    refused = await rig.ask("GET", "/api/sessions?pending=maybe")
    assert (refused.status, refused.code) == (422, "invalid-request")
    # And decides.
    (found,) = await pending(reviewer, "a1")
    assert (await decide(reviewer, found["id"], {"approved": True}, "a1")).status == 200
    assert await listed(reviewer, "?pending=true") == {"a2": 1}


async def test_on_end_is_told_what_a_suspended_run_waits_for(rig: Rig) -> None:
    seen: list[Ended] = []
    rig.chat.on_end(seen.append)
    _, call = await asked(rig, approval)
    ((ended),) = seen
    assert (ended.status, ended.reason, ended.run) == ("suspended", "awaiting-decisions", call.run.id)
    assert list(ended.decisions) == await pending(rig)
    assert tools(ended.message)[0]["state"] == "approval-requested"
    await rig.chat.decide("c", ended.decisions[0]["id"], {"approved": False}, by=Identity("bob"))
    (await rig.agent.called(2)).finish()
    await rig.ended()
    assert [(each.status, list(each.decisions)) for each in seen[1:]] == [("completed", [])]


async def test_the_application_decides_for_somebody(rig: Rig) -> None:
    await asked(rig, lambda run: approval(run, **ROLES))
    (waiting,) = await pending(rig)
    bob = Identity("bob", roles=frozenset({"support"}))
    with pytest.raises(Forbidden) as forbidden:
        await rig.chat.decide("c", waiting["id"], {"approved": True}, by=Identity("bob"))
    assert forbidden.value.code == "not-yours-to-decide"
    for wrong in ({}, {"approved": "yes"}, {"output": 1}):
        with pytest.raises(Unprocessable):
            await rig.chat.decide("c", waiting["id"], wrong, by=bob)
    for session, decision in (("c", "other"), ("other", waiting["id"])):
        with pytest.raises(NotFound):
            await rig.chat.decide(session, decision, {"approved": True}, by=bob)
    assert await pending(rig) == [waiting]
    yes, no = {"approved": True, "reason": "a regular"}, {"approved": False}
    both = await asyncio.gather(
        *(rig.chat.decide("c", waiting["id"], each, by=bob) for each in (yes, no)), return_exceptions=True
    )
    taken, late = both
    call = await rig.agent.called(2)
    assert isinstance(taken, dict)
    assert (taken["run"], taken["messageId"]) == (call.run.id, call.run.message_id)
    assert (taken["decision"]["outcome"], taken["decision"]["by"]) == ("approved", "user:bob")
    assert isinstance(late, AlreadyDecided)
    assert late.members["decision"] == taken["decision"]
    assert await rig.chat.decide("c", waiting["id"], {"approved": True}, by=bob) == taken, "the same again"
    assert (call.run.user.user, call.run.decisions[0].decided_by) == ("ann", "user:bob")
    call.say("Done.").finish()
    await rig.ended()
    assert tools(await reply(rig))[0]["approval"]["approved"] is True


async def test_what_nobody_waits_for_any_more_is_refused_to_the_application_too(rig: Rig) -> None:
    await asked(rig, approval)
    (waiting,) = await pending(rig)
    await rig.begun("c", "never mind", "u2")
    with pytest.raises(Conflict) as refused:
        await rig.chat.decide("c", waiting["id"], {"approved": True}, by=Identity("bob"))
    assert refused.value.code == "already-decided"
