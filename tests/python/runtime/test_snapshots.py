"""What a herd of readers that join a running reply costs: one unfold, as long as nothing more is said (DESIGN §12)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rig import SHIM, Answer, Rig, until
from strandline.core.events import Appended
from strandline.core.offset import Cursor
from strandline.core.unfold import unfold
from strandline.http import session_feed
from strandline.runtime import reading
from strandline.runtime.live_run import Caller, LiveRun
from strandline.testing import fold_frames

HERD = 50


@pytest.fixture
def unfolded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which wire has unfolded something, each time."""
    seen: list[str] = []

    def counting(wire: str) -> Any:
        def counted(fold: Any) -> Any:
            seen.append(wire)
            return unfold(fold)

        return counted

    monkeypatch.setattr(reading, "unfold", counting("ai-sdk"))
    monkeypatch.setattr(session_feed, "unfold", counting("session"))
    return seen


async def replying(rig: Rig, *words: str) -> tuple[Answer, Any]:
    answer, call = await rig.begun()
    call.say(*words)
    await answer.until_text("".join(words))
    return answer, call


def feed_text(feed: Answer) -> str:
    """What a reader of the feed has of the reply: the snapshot's chunks, and what was appended since."""
    chunks = [chunk for frame in feed.frames for chunk in _chunks(frame.chunk)]
    return "".join(chunk.get("delta", "") for chunk in chunks)


def _chunks(frame: Any) -> list[Any]:
    return frame["active"][0]["chunks"] if frame["type"] == "snapshot" else frame.get("chunks", [])


async def test_a_herd_of_resumes_unfolds_once_and_everybody_has_all_of_it(rig: Rig, unfolded: list[str]) -> None:
    _, call = await replying(rig, "one ", "two ")
    unfolded.clear()
    herd = [await rig.resume("c", shim=bool(number % 2)) for number in range(HERD)]
    await until(lambda: all(answer.frames for answer in herd))
    assert unfolded == ["ai-sdk"]
    assert len({answer.body for answer in herd}) == 1
    call.say("three").finish()
    for answer in herd:
        assert (await answer.end()).text == "one two three"
    assert unfolded == ["ai-sdk"]


async def test_a_herd_of_feeds_unfolds_once_and_everybody_has_all_of_it(rig: Rig, unfolded: list[str]) -> None:
    _, call = await replying(rig, "one ", "two ")
    unfolded.clear()
    herd = [await rig.open("GET", "/api/sessions/c/events") for _ in range(HERD)]
    looks = [await rig.ask("GET", "/api/sessions/c") for _ in range(HERD)]
    await until(lambda: all(feed.frames for feed in herd))
    assert unfolded == ["session"]
    for snapshot in [feed.frames[0].chunk for feed in herd] + [look.json for look in looks]:
        assert snapshot["messages"][1]["parts"][-1] == {"type": "text", "text": "one two ", "state": "streaming"}
        assert snapshot["messages"][1]["id"] == snapshot["active"][0]["messageId"]
    call.say("three").finish()
    for feed in herd:
        await feed.until(lambda feed=feed: any(each.chunk["type"] == "run-ended" for each in feed.frames))
        assert feed_text(feed) == "one two three"
    assert unfolded == ["session"]


async def test_versions_and_filters_have_snapshots_of_their_own(rig: Rig, unfolded: list[str]) -> None:
    answer, call = await rig.begun()
    call.say({"type": "reasoning-start", "id": "r"}, {"type": "reasoning-delta", "id": "r", "delta": "hm"})
    call.say({"type": "message-metadata", "messageMetadata": {"mood": "good"}}, "words")
    await answer.until_text("words")
    unfolded.clear()
    kinds: dict[str, list[str]] = {}
    for query in ("", "?exclude=reasoning", "?only=state", "") * 2:
        look = (await rig.ask("GET", f"/api/sessions/c{query}")).json
        kinds[query] = [part["type"] for message in look["messages"][1:] for part in message["parts"]]
        assert [message["metadata"] for message in look["messages"][1:]] == [{"mood": "good"}] * (len(kinds[query]) > 0)
    assert kinds == {
        "": ["reasoning", "step-start", "text"],
        "?exclude=reasoning": ["step-start", "text"],
        "?only=state": [],
    }
    assert unfolded == ["session"] * 2
    texts = {}
    for major in (5, 6, 7) * 2:
        resumed = await rig.resume("c", **{"Strandline-Client": f"shim/1; ai={major}"})
        await resumed.until_text("words")
        texts[major] = fold_frames(resumed.frames).metadata
    assert texts == {major: {"mood": "good"} for major in (5, 6, 7)}
    assert unfolded == ["session"] * 2 + ["ai-sdk"] * 3


async def test_who_joins_later_is_told_what_was_said_since(rig: Rig, unfolded: list[str]) -> None:
    answer, call = await replying(rig, "one ")
    unfolded.clear()
    for number, word in enumerate(("two ", "three "), 1):
        resumed, look = await rig.resume("c", **SHIM), await rig.ask("GET", "/api/sessions/c")
        await until(lambda resumed=resumed: resumed.frames)
        assert len(unfolded) == 2 * number
        assert resumed.text == answer.text == look.json["messages"][1]["parts"][-1]["text"]
        assert resumed.frames[-1].cursor == look.json["cursor"]
        call.say(word)
        await answer.until_text(word)
    feed = await rig.open("GET", "/api/sessions/c/events")
    call.do(lambda run: run.restart()).say("anew")
    await feed.until(lambda: b"anew" in feed.body)
    assert (await rig.ask("GET", "/api/sessions/c")).json["messages"][1]["parts"][-1]["text"] == "anew"


def test_a_snapshot_is_let_go_when_the_run_goes_on_or_ends() -> None:
    made: list[int] = []

    def make(fold: Any) -> bytes:
        made.append(len(unfold(fold)))
        return json.dumps(unfold(fold)).encode()

    run = LiveRun("run", "msg", "msg", Caller("ann"), Cursor("e", 1, 0))
    assert run.snapshot("form", make) is run.snapshot("form", make)
    assert len(made) == 1
    run.snapshot("other", make)
    assert len(made) == 2
    run.replay(2, Appended(0, "run", "msg", ({"type": "start-step"},)))
    run.snapshot("form", make)
    assert made[2] > made[1]
    run.end()
    assert run.over
    run.snapshot("form", make)
    assert len(made) == 4
