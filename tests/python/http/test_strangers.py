"""What somebody else has, and what a policy forbids, cannot be told from what does not exist (PROTOCOL §6.7). The
comparison of a foreign with an unknown session, route by route, is in ``test_bad_input.py``; every route and its action
are in ``test_actions.py``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Request

from rig import EMPTY, Answer, Rig, running
from strandline.core.records import SessionRecord
from strandline.http.auth import Action, Auth, Identity


async def who(request: Request) -> dict[str, Any]:
    return {"user": request.headers.get("x-user", "ann"), "roles": request.headers.get("x-roles", "").split()}


class Rules:
    """A policy that the test changes while the server runs."""

    def __init__(self) -> None:
        self.denied: set[Action] = set()

    def __call__(self, identity: Identity, session: SessionRecord | None, action: Action) -> bool:
        return action not in self.denied


@pytest.fixture
def rules() -> Rules:
    return Rules()


@pytest.fixture
async def ruled(rules: Rules) -> AsyncIterator[Rig]:
    async with running(auth=Auth(who, rules)) as rig:
        yield rig


def same(first: Answer, second: Answer) -> bool:
    return (first.status, first.headers, first.body) == (second.status, second.headers, second.body)


async def test_who_may_not_read_is_shown_nothing(ruled: Rig, rules: Rules) -> None:
    answer, call = await ruled.begun()
    call.say("secret")
    await answer.until_text("secret")
    rules.denied = {Action.READ}
    for query in ("", f"?run={call.run.id}", f"?after={answer.cursor}"):
        for shim in (True, False):
            assert (await ruled.resume("c", query=query, shim=shim)).status == 204
    assert await ruled.history("c") == EMPTY
    for path in ("/api/sessions/{}", "/api/sessions/{}/events"):
        refused = await ruled.ask("GET", path.format("c"))
        assert (refused.status, refused.code) == (404, "not-found")
        assert same(refused, await ruled.ask("GET", path.format("nobody")))
    assert not call.closed
    # The stream that was open before stays: a connection is asked when it comes.
    call.say(" told").finish()
    await answer.end()
    assert answer.text == "secret told"


async def test_who_may_not_submit_starts_nothing(ruled: Rig, rules: Rules) -> None:
    answer, call = await ruled.begun(key="k1")
    before = await ruled.log()
    rules.denied = {Action.SUBMIT}
    for body in ({}, {"id": "u2"}, {"messageId": "u1"}, {"trigger": "regenerate-message"}, {"key": "k1"}):
        refused = await ruled.post("c", **{"id": "u1", **body})  # type: ignore[arg-type]
        assert (refused.status, refused.code) == (404, "not-found"), "not even an attach"
    refused = await ruled.post("new")
    assert (refused.status, refused.code) == (404, "not-found")
    rules.denied = set()
    assert (await ruled.ask("GET", "/api/sessions/new")).status == 404
    assert await ruled.log() == before
    call.finish()
    await answer.end()


async def test_who_may_not_stop_stops_nothing(ruled: Rig, rules: Rules) -> None:
    answer, call = await ruled.begun(key="k1")
    rules.denied = {Action.STOP}
    for body in ({}, {"run": call.run.id}, {"run": "unknown"}):
        refused = await ruled.stop("c", **body)
        assert (refused.status, refused.code) == (404, "not-found")
        assert same(refused, await ruled.stop("nobody", **body))
    for body in ({"messageId": "u1"}, {"key": "k1"}, {"messageId": call.run.message_id}):
        assert same(await ruled.stop("c", **body), await ruled.stop("nobody", **body))
    assert (await ruled.history("c"))["activeRun"]["status"] == "running"
    assert not call.closed
    call.finish()
    await answer.end()
    assert answer.types[-2] == "finish"


async def test_who_may_not_list_is_told_so(ruled: Rig, rules: Rules) -> None:
    await ruled.begun()
    rules.denied = {Action.LIST}
    refused = await ruled.ask("GET", "/api/sessions")
    assert (refused.status, refused.code) == (403, "forbidden")
    assert (await ruled.ask("GET", "/api/sessions/c")).status == 200


async def test_a_policy_that_lets_others_in_makes_one_session_for_both() -> None:
    def team(identity: Identity, session: SessionRecord | None, action: Action) -> bool:
        mine = session is None or session.owner == identity.user
        return mine or (action is Action.READ and "operator" in identity.roles)

    async with running(auth=Auth(who, team)) as rig:
        answer, call = await rig.begun()
        call.say("hello")
        await answer.until_text("hello")
        bob = rig.as_user("bob")
        assert (await bob.resume("c")).status == 204
        operator = {"x-roles": "operator"}
        reading = await bob.open("GET", "/api/chat/c/stream", headers=operator)
        await reading.until_text("hello")
        stopped = await bob.ask("POST", "/api/chat/c/stop", {}, operator)
        assert (stopped.status, stopped.code) == (404, "not-found")
        refused = await bob.post("c", id="b1", headers=operator)
        assert refused.status == 404
        call.say(" you").finish()
        await reading.end()
        assert reading.text == "hello you"
        # The list is of one's own.
        assert (await bob.ask("GET", "/api/sessions", headers=operator)).json == {"sessions": [], "next": None}


async def test_a_strangers_stop_is_not_remembered_for_somebody_else(rig: Rig) -> None:
    eve = rig.as_user("eve")
    for body in ({"messageId": "u1"}, {"key": "k1"}):
        assert (await eve.stop("c", **body)).json == {"run": None, "status": "remembered", "stopped": False}
    answer, call = await rig.begun(key="k1")
    call.say("undisturbed").finish()
    await answer.end()
    assert answer.text == "undisturbed"


async def test_names_of_others_mean_nothing_in_ones_own_session(rig: Rig) -> None:
    answer, call = await rig.begun("hers", key="k1")
    call.say("secret")
    await answer.until_text("secret")
    eve = rig.as_user("eve")
    mine = await eve.post("mine", id="v1")
    own = await rig.agent.called(2)
    assert mine.status == 200
    for query in (f"?run={call.run.id}", f"?run={call.run.id}&after={answer.cursor}"):
        stream = await eve.resume("mine", query=query)
        assert stream.headers.get("strandline-run") != call.run.id
        assert b"secret" not in stream.body
    stream = await eve.resume("mine", answer.cursor)
    assert stream.headers["strandline-run"] == own.run.id
    assert (await eve.stop("mine", run=call.run.id)).status == 404
    assert (await eve.stop("mine", messageId="u1")).status == 202
    assert (await eve.stop("mine", messageId=call.run.message_id)).status == 202
    # A message and a key of the same name are one's own, not hers.
    second = await eve.post("mine", id="u2", key="k1")
    assert second.headers["strandline-run"] not in (call.run.id, own.run.id)
    assert not call.closed
    call.finish()
    await answer.end()
    assert answer.text == "secret"
    for path in ("/api/sessions", "/api/sessions/mine", "/api/chat/mine/messages"):
        seen = (await eve.ask("GET", path)).body
        assert b"hers" not in seen
        assert b"secret" not in seen
    assert [each["id"] for each in (await eve.ask("GET", "/api/sessions")).json["sessions"]] == ["mine"]
    assert [each["id"] for each in (await rig.ask("GET", "/api/sessions")).json["sessions"]] == ["hers"]


async def test_a_full_session_is_not_given_away_by_its_limit() -> None:
    async with running(max_readers_per_session=1) as rig:
        answer, call = await rig.begun("hers")
        assert (await rig.post("hers", id="u2")).status == 429
        eve = rig.as_user("eve")
        refused = await eve.post("hers", id="u2")
        assert (refused.status, refused.code) == (404, "not-found")
        assert same(await eve.resume("hers"), await eve.resume("nobody"))
        assert same(
            await eve.ask("GET", "/api/sessions/hers/events"), await eve.ask("GET", "/api/sessions/nobody/events")
        )
        call.finish()
        await answer.end()


async def test_a_session_that_was_only_refused_can_still_be_created_by_anybody(rig: Rig) -> None:
    eve = rig.as_user("eve")
    assert (await eve.post("c", id="e1", messageId="nothing")).status == 409
    assert (await eve.post("c", id="e 1")).status == 422
    answer, call = await rig.begun("c")
    assert call.run.user.user == "ann"
    assert json.dumps(await rig.log()).count("eve") == 0
    assert (await eve.resume("c")).status == 204
    call.finish()
    await answer.end()
