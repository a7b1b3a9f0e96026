"""Who has said what, and whose it is to change (PROTOCOL §16.4, §16.5, §16.7): two people in one session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from rig import Answer, Client, Rig, running
from strandline.core.records import SessionRecord
from strandline.http.auth import Action, Auth, Identity

ANN, BOB, AGENT = {"by": "user:ann"}, {"by": "user:bob"}, {"by": "agent:scripted"}
OF_THE_TEAM = {Action.READ, Action.SUBMIT, Action.EDIT}


async def who(request: Request) -> dict[str, Any]:
    return {"user": request.headers.get("x-user", "ann"), "roles": request.headers.get("x-roles", "").split()}


def team(identity: Identity, session: SessionRecord | None, action: Action) -> bool:
    return action in OF_THE_TEAM or "moderator" in identity.roles


def served(path: Path | None = None) -> Any:
    return running(path, auth=Auth(who, team))


@pytest.fixture(params=["memory", "sqlite"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with served(tmp_path / "chat.db" if request.param == "sqlite" else None) as rig:
        yield rig


def people(rig: Rig) -> tuple[Client, Client, Client]:
    return rig.as_user("ann"), rig.as_user("bob"), Client(rig.app, {"x-user": "mod", "x-roles": "moderator"})


async def said(rig: Rig, user: str, id: str, times: int) -> Any:
    answer = await rig.as_user(user).post("c", f"{user} says", id=id)
    call = await rig.agent.called(times)
    call.say("Noted.").finish()
    await answer.end()
    await rig.ended()
    return call


async def edit(client: Client, message: str, text: str) -> Answer:
    body = {"parts": [{"type": "text", "text": text}]}
    return await client.ask("PATCH", f"/api/sessions/c/messages/{message}", body)


async def delete(client: Client, message: str) -> Answer:
    return await client.ask("DELETE", f"/api/sessions/c/messages/{message}")


HISTORIES = ["/api/chat/c/messages", "/api/sessions/c/messages", "/api/sessions/c", "/api/tanstack?threadId=c"]


async def authors(client: Client) -> dict[str, Any]:
    """As every history tells it: the same in all."""
    found = [(await client.ask("GET", path)).json["authors"] for path in HISTORIES]
    assert all(each == found[0] for each in found), found
    return dict(found[0])


async def text_of(client: Client, message: str) -> str:
    shown = {each["id"]: each for each in (await client.ask("GET", "/api/sessions/c")).json["messages"]}
    return str(shown[message]["parts"][0]["text"])


async def test_every_history_and_the_agent_know_who_said_what(shared: Rig) -> None:
    rig = shared
    first = await said(rig, "ann", "u1", 1)
    second = await said(rig, "bob", "u2", 2)
    assert first.run.authors == {"u1": "user:ann"}
    assert second.run.authors == {"u1": "user:ann", first.run.message_id: "agent:scripted", "u2": "user:bob"}
    whole = {"u1": ANN, first.run.message_id: AGENT, "u2": BOB, second.run.message_id: AGENT}
    assert await authors(rig) == whole
    await rig.go_cold()
    assert await authors(rig) == whole
    page = (await rig.ask("GET", "/api/sessions/c/messages?limit=1&before=u2")).json
    assert page["authors"] == {first.run.message_id: AGENT}, "of the listed messages"


async def test_a_spawned_message_has_an_author_too(rig: Rig) -> None:
    async def critic(run: Any) -> None:
        await run.text("Hm.")

    answer, call = await rig.begun()
    call.do(lambda run: run.spawn(critic, name="critic")).finish()
    await answer.end()
    await rig.ended()
    for path in ("/api/sessions/c/messages", "/api/sessions/c"):
        shown = (await rig.ask("GET", path)).json
        (beside,) = shown["spawned"]
        assert shown["authors"][beside["message"]["id"]] == {"by": "agent:critic"}


async def test_what_somebody_said_is_theirs_to_edit(shared: Rig) -> None:
    rig = shared
    ann, bob, _ = people(rig)
    await said(rig, "ann", "u1", 1)
    before = await rig.log()
    refused = await edit(bob, "u1", "I owe Bob money")
    assert (refused.status, refused.code) == (403, "not-the-author")
    assert (await edit(bob, "u1", "ann says")).status == 403, "not even what it says already"
    refused = await delete(bob, "u1")
    assert (refused.status, refused.code) == (403, "not-the-author")
    assert await rig.log() == before
    assert (await edit(ann, "u1", "I meant this")).status == 200
    assert (await authors(bob))["u1"] == {"by": "user:ann", "editedBy": "user:ann"}
    assert (await delete(ann, "u1")).status == 204
    assert "u1" not in await authors(bob)


async def test_who_moderates_edits_and_everybody_can_tell_for_good(tmp_path: Path) -> None:
    async with served(tmp_path / "chat.db") as rig:
        ann, bob, mod = people(rig)
        await said(rig, "ann", "u1", 1)
        assert (await edit(mod, "u1", "[removed]")).status == 200
        edited = {"by": "user:ann", "editedBy": "user:mod"}
        assert (await authors(bob))["u1"] == edited
        assert (await rig.log())[-1]["by"] == "user:mod"
        call = await said(rig, "bob", "u2", 2)
        assert call.run.authors["u1"] == "user:ann"
        await rig.go_cold()
        assert (await authors(bob))["u1"] == edited
    async with served(tmp_path / "chat.db") as rig:
        ann, bob, mod = people(rig)
        assert (await authors(bob))["u1"] == edited
        assert await text_of(bob, "u1") == "[removed]"
        assert (await edit(ann, "u1", "better")).status == 200, "it is still hers"
        assert (await authors(bob))["u1"] == {"by": "user:ann", "editedBy": "user:ann"}
        assert (await delete(mod, "u2")).status == 204
        await rig.chat.replace_message("c", "u1", [{"type": "text", "text": "[gone]"}])
        assert (await authors(bob))["u1"] == {"by": "user:ann", "editedBy": "server"}


async def test_an_edit_that_is_answered_anew_is_by_whoever_made_it(shared: Rig) -> None:
    rig = shared
    await said(rig, "ann", "u1", 1)
    answer = await rig.as_user("bob").post("c", "bob thinks", id="u1", messageId="u1")
    (await rig.agent.called(2)).finish()
    await answer.end()
    assert (await authors(rig))["u1"] == BOB
    back = await rig.ask("POST", "/api/sessions/c/branch", {"message": "u1", "index": 0})
    assert back.status == 200
    assert (await authors(rig))["u1"] == ANN
    assert await text_of(rig, "u1") == "ann says"


async def test_a_reply_is_deleted_by_whoever_may_edit(shared: Rig) -> None:
    call = await said(shared, "ann", "u1", 1)
    _, bob, _ = people(shared)
    assert (await delete(bob, call.run.message_id)).status == 204
    assert await authors(bob) == {"u1": ANN}


async def test_what_was_imported_is_the_owners(shared: Rig) -> None:
    rig = shared
    messages = [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "long ago"}]}]
    await rig.chat.import_messages("c", messages, user="ann")
    ann, bob, _ = people(rig)
    assert (await authors(bob))["u1"] == {"by": "server"}
    assert (await edit(bob, "u1", "never")).status == 403
    assert (await edit(ann, "u1", "not so long ago")).status == 200
    assert (await authors(bob))["u1"] == {"by": "server", "editedBy": "user:ann"}
