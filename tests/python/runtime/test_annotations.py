"""Annotations of messages: who may, what readers are told, what is kept (PROTOCOL §19)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rig import Answer, Rig, running, user_of
from strandline import Auth, Identity, Run
from strandline.core.annotation import summaries
from strandline.core.records import SessionRecord
from strandline.errors import Unprocessable
from strandline.http.auth import Action

PATH = "/api/sessions/c/annotations"


def together(identity: Identity, session: SessionRecord | None, action: Action) -> bool:
    """Everybody may read and annotate; only the owner may do the rest."""
    return session is None or action in (Action.READ, Action.ANNOTATE) or session.owner == identity.user


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "chat.db", auth=Auth(user_of, together), max_annotations=5) as rig:
        yield rig


async def answered(rig: Rig) -> tuple[str, str]:
    """A session with a message and its reply; their ids."""
    answer, call = await rig.begun()
    call.say("Ada wrote the first program.")
    call.finish()
    await answer.end()
    messages = (await rig.history("c"))["messages"]
    return messages[0]["id"], messages[1]["id"]


async def annotate(rig: Any, message: str, kind: str = "reaction", data: Any = None, **more: Any) -> Answer:
    body = {"message": message, "type": kind, "data": {"name": "ok"} if data is None else data, **more}
    return await rig.ask("POST", PATH, body)  # type: ignore[no-any-return]


async def shown(rig: Rig) -> Any:
    """The summaries as all three readings give them, which have to agree."""
    snapshot = (await rig.ask("GET", "/api/sessions/c")).json["annotations"]
    page = (await rig.ask("GET", "/api/sessions/c/messages")).json["annotations"]
    assert snapshot == page == (await rig.history("c"))["annotations"]
    return snapshot


async def test_readers_are_told_summaries_and_load_the_single_ones(rig: Rig) -> None:
    _, reply = await answered(rig)
    feed = await rig.open("GET", "/api/sessions/c/events")
    whole = await rig.open("GET", "/api/sessions/c/events?annotations=all")
    place = {"part": 0, "start": 0, "end": 3}
    cited = await annotate(rig, reply, "citation", {"url": "https://en.example/ada", "title": "Ada"}, range=place)
    assert cited.status == 201
    assert cited.json["annotation"]["data"] == {"url": "https://en.example/ada", "title": "Ada"}
    await annotate(rig, reply, "citation", {"url": "https://en.example/program"})
    await annotate(rig.as_user("bob"), reply, id="mine")
    expected = {
        "citation": {"count": 2, "names": {"en.example": 2}},
        "reaction": {"count": 1, "names": {"ok": 1}},
    }
    assert await shown(rig) == {reply: expected}
    await feed.until(lambda: feed.types.count("annotated") == 3)
    frames = [frame.chunk for frame in feed.frames if frame.chunk["type"] == "annotated"]
    assert [frame["summary"] for frame in frames] == [
        {"count": 1, "names": {"en.example": 1}},
        expected["citation"],
        expected["reaction"],
    ]
    assert not any({"data", "range"} & set(frame) for frame in frames)
    await whole.until(lambda: whole.types.count("annotated") == 3)
    full = [frame.chunk for frame in whole.frames if frame.chunk["type"] == "annotated"]
    assert full[0]["range"] == place and full[2]["data"] == {"name": "ok"}
    listed = (await rig.ask("GET", f"{PATH}?message={reply}&limit=2")).json
    assert [each["type"] for each in listed["annotations"]] == ["citation", "citation"]
    rest = (await rig.ask("GET", f"{PATH}?message={reply}&limit=2&after={listed['next']}")).json
    assert [each["id"] for each in rest["annotations"]] == ["mine"] and rest["next"] is None
    only = (await rig.ask("GET", f"{PATH}?message={reply}&type=reaction")).json
    assert [each["by"] for each in only["annotations"]] == ["user:bob"]
    assert listed["annotations"][0]["range"] == place


async def test_they_are_all_there_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db") as rig:
        user, reply = await answered(rig)
        for number in range(3):
            await annotate(rig, reply, "note", {"name": f"n{number % 2}"}, id=f"a{number}")
        await annotate(rig, user)
        await rig.ask("DELETE", f"{PATH}/a1")
        before = await shown(rig)
        await rig.go_cold()
        assert await shown(rig) == before
    async with running(tmp_path / "chat.db") as rig:
        assert await shown(rig) == before
        assert before[reply] == {"note": {"count": 2, "names": {"n0": 2}}}
        session = await rig.sessions.find("c")
        assert all(each.data is None for each in session.state.annotations.values())


async def test_the_same_id_again_replaces_ones_own_and_never_anothers(rig: Rig) -> None:
    user, reply = await answered(rig)
    await annotate(rig, reply, id="x")
    assert (await annotate(rig, reply, data={"name": "better"}, id="x")).status == 201
    assert await shown(rig) == {reply: {"reaction": {"count": 1, "names": {"better": 1}}}}
    assert (await annotate(rig.as_user("bob"), reply, id="x")).code == "annotation-exists"
    assert (await annotate(rig, user, id="x")).code == "annotation-exists"
    feed = await rig.open("GET", "/api/sessions/c/events")
    assert (await annotate(rig, reply, "note", {"name": "other"}, id="x")).status == 201
    assert await shown(rig) == {reply: {"note": {"count": 1, "names": {"other": 1}}}}
    await feed.until(lambda: "annotated" in feed.types)
    changes = [frame.chunk for frame in feed.frames if frame.chunk["type"].startswith("annot")]
    assert [(each["kind"], each["summary"]["count"]) for each in changes] == [("reaction", 0), ("note", 1)]


async def test_the_author_takes_it_back_and_the_owner_of_the_session(rig: Rig) -> None:
    _, reply = await answered(rig)
    bob, eve = rig.as_user("bob"), rig.as_user("eve")
    for name in ("one", "two"):
        await annotate(bob, reply, id=name)
    assert (await eve.ask("DELETE", f"{PATH}/one")).status == 403
    assert (await bob.ask("DELETE", f"{PATH}/one")).status == 204
    assert (await bob.ask("DELETE", f"{PATH}/one")).status == 404
    assert (await rig.ask("DELETE", f"{PATH}/two")).status == 204
    assert await shown(rig) == {}


async def test_who_may_not_see_the_session_learns_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db") as rig:
        _, reply = await answered(rig)
        await annotate(rig, reply, id="x")
        bob = rig.as_user("bob")
        for known, unknown in (
            (await annotate(bob, reply), await annotate(bob, "nothing")),
            (await bob.ask("GET", f"{PATH}?message={reply}"), await bob.ask("GET", f"{PATH}?message=nothing")),
            (await bob.ask("DELETE", f"{PATH}/x"), await bob.ask("DELETE", f"{PATH}/nothing")),
        ):
            assert (known.status, known.body) == (404, unknown.body)
        assert await shown(rig) == {reply: {"reaction": {"count": 1, "names": {"ok": 1}}}}


async def test_what_cannot_be_an_annotation_is_refused_and_nothing_is_written(rig: Rig) -> None:
    _, reply = await answered(rig)
    events = len(await rig.log())
    for kind, data, more in (
        ("Citation", None, {}),
        ("citation", {"url": "javascript:alert(1)"}, {}),
        ("citation", {"title": "no url"}, {}),
        ("reaction", {"name": ""}, {}),
        ("reaction", [], {}),
        ("note", "x" * 4096, {}),
        ("note", {"a": "\ud800"}, {}),
        ("note", 1, {"range": {"start": 1}}),
    ):
        assert (await annotate(rig, reply, kind, data, **more)).code in ("invalid-annotation", "bad-request"), kind
    assert (await annotate(rig, "nothing")).status == 404
    assert (await annotate(rig, reply, id="a/b")).code == "invalid-id"
    assert (await rig.ask("GET", PATH)).code == "invalid-request"
    for number in range(5):
        assert (await annotate(rig, reply, id=f"a{number}")).status == 201
    assert (await annotate(rig, reply, id="a5")).code == "too-many-annotations"
    assert (await annotate(rig, reply, id="a4", data={"name": "changed"})).status == 201
    assert len(await rig.log()) == events + 6


async def test_an_agent_annotates_what_it_writes_and_its_own_kinds_are_checked(tmp_path: Path) -> None:
    refused: list[str] = []

    async def agent(run: Run) -> None:
        await run.text("Ada wrote the first program.")
        await run.annotate("citation", {"url": "https://en.example/ada"}, range={"part": 1, "start": 0, "end": 3})
        await run.annotate("grade", {"points": 3}, message=run.messages[-1]["id"], id="grade")
        try:
            await run.annotate("grade", {"points": "many"})
        except Unprocessable as problem:
            refused.append(str(problem))

    async with running(tmp_path / "chat.db", agent=agent) as rig:
        rig.chat.annotation_type("grade", dict[str, int])
        answer = await (await rig.post("c")).end()
        assert answer.frames[-1].done
        user, reply = [message["id"] for message in (await rig.history("c"))["messages"]]
        assert await shown(rig) == {
            user: {"grade": {"count": 1}},
            reply: {"citation": {"count": 1, "names": {"en.example": 1}}},
        }
        assert refused == ["`data.points` of a grade: Input should be a valid integer, unable to parse string as an "
                           "integer."]  # fmt: skip
        [cited] = (await rig.ask("GET", f"{PATH}?message={reply}")).json["annotations"]
        assert cited["by"] == "agent:agent"


async def test_a_message_is_the_same_with_and_without_annotations(rig: Rig) -> None:
    _, reply = await answered(rig)
    before = (await rig.history("c"))["messages"]
    await annotate(rig, reply)
    assert (await rig.history("c"))["messages"] == before


async def test_summaries_on_the_feed_are_those_of_the_state_at_every_event(rig: Rig) -> None:
    user, reply = await answered(rig)
    feed = await rig.open("GET", "/api/sessions/c/events")
    await feed.until(lambda: "readers" in feed.types)
    for number, message in enumerate([user, reply, reply, user, reply]):
        await annotate(rig.as_user(f"u{number}"), message, data={"name": str(number % 2)}, id=f"a{number}")
    await rig.ask("DELETE", f"{PATH}/a2")
    told: dict[str, dict[str, Any]] = {}
    await feed.until(lambda: "annotation-removed" in feed.types)
    for frame in feed.frames:
        if frame.chunk["type"].startswith("annot"):
            told.setdefault(frame.chunk["message_id"], {})[frame.chunk["kind"]] = frame.chunk["summary"]
    assert told == await shown(rig)
    session = await rig.sessions.find("c")
    assert len(summaries(session.state.annotations.values())) == 2
