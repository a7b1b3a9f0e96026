"""A message that its agent says anew: replaced, reset to the last step, settled at a checkpoint (PROTOCOL §17)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from rig import Rig, running
from strandline import ChunkRefused, Run, RunOver
from strandline.testing import fold_frames

PLAIN = {"type": "text", "text": "plain", "state": "done"}


async def said(rig: Rig, chat: str = "c") -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = (await rig.history(chat))["messages"][-1]["parts"]
    return parts


def words(parts: list[dict[str, Any]]) -> list[str]:
    return [part["text"] for part in parts if part["type"] == "text"]


async def test_a_replacement_is_one_commit_and_what_follows_it_comes_after(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("a draft")
    await answer.until_text("a draft")
    call.do(lambda run: run.metadata({"model": "m"})).do(lambda run: run.replace("the answer")).say(
        " and more"
    ).finish()
    await rig.ended()
    kinds = [rig.kinds(batch) for batch in rig.store.committed]
    assert next(each for each in kinds if "message-reset" in each)[:2] == ["message-reset", "appended"]
    assert words(await said(rig)) == words(call.run.partial["parts"]) == ["the answer", " and more"]
    assert call.run.partial["metadata"] == {"model": "m"}
    assert (await rig.history("c"))["messages"][-1]["metadata"] == {"model": "m"}


async def test_nobody_sees_an_empty_message_in_between(rig: Rig) -> None:
    """Whoever loads or joins at any commit finds the old words or the new ones."""
    answer, call = await rig.begun()
    call.say("a draft")
    await answer.until_text("a draft")
    session = await rig.sessions.find("c")
    seen: list[list[str]] = []
    absorb = type(session).absorb

    def looking(self: Any, *args: Any) -> Any:
        done = absorb(self, *args)
        seen.extend(words(live.fold.parts()) for live in self.live.values())
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(session), "absorb", looking)
        call.do(lambda run: run.replace("one")).do(lambda run: run.replace([PLAIN])).say("!").finish()
        await rig.ended()
    assert [] not in seen
    assert words(await said(rig)) == ["plain", "!"]


@pytest.mark.parametrize("major", [5, 6, 7])
async def test_an_open_stream_ends_with_resync_and_the_next_one_has_the_new_words_once(rig: Rig, major: int) -> None:
    answer, call = await rig.begun(headers={"Strandline-Client": f"x; ai={major}"})
    call.say("a draft")
    await answer.until_text("a draft")
    call.do(lambda run: run.replace("the answer"))
    await answer.end()
    assert answer.frames[-1].chunk["code"] == "resync"
    again = await rig.resume("c")
    await again.until_text("the answer")
    call.say(" goes on").finish()
    await again.end()
    assert again.text == "the answer goes on"
    # A cursor from before it: the full state to a stock client, a word to the shim.
    late = await (await rig.resume("c", answer.cursor)).end()
    assert late.text == "the answer goes on"
    shim = await (await rig.resume("c", answer.cursor, shim=True)).end()
    assert [frame.chunk["code"] for frame in shim.frames] == ["resync"]


async def test_parts_of_every_kind_are_what_the_message_says(rig: Rig) -> None:
    parts = [
        {"type": "step-start"},
        {"type": "reasoning", "id": "r", "text": "hm", "state": "done"},
        {"type": "tool-add", "toolCallId": "c1", "state": "output-available", "input": {"a": 1}, "output": 2},
        {"type": "step-start"},
        PLAIN,
        {"type": "source-url", "sourceId": "s", "url": "https://example.org"},
        {"type": "data-thing", "id": "d", "data": {"x": 1}},
    ]
    _, call = await rig.begun()
    call.say("a draft").do(lambda run: run.replace(parts)).finish()
    await rig.ended()
    assert await said(rig) == parts


@pytest.mark.parametrize(
    "bad",
    [
        [{"type": "text"}],
        [{"type": "nothing-known", "x": 1}],
        ["words"],
        [{"type": "text", "text": None}],
        [{"type": "tool-add", "toolCallId": "c1"}],
        [{"type": "text", "text": object()}],
        [{"type": "data-thing", "data": {"__proto__": 1}}],
    ],
)
async def test_parts_that_no_client_could_read_are_refused_and_change_nothing(rig: Rig, bad: Any) -> None:
    answer, call = await rig.begun()
    refused: list[str] = []

    async def replace(run: Run) -> None:
        try:
            await run.replace(bad)
        except ChunkRefused as exc:
            refused.append(exc.detail)

    call.say("a draft").do(replace).finish()
    await answer.end()
    assert answer.text == "a draft"
    assert len(refused) == 1
    assert "message-reset" not in [event["type"] for event in await rig.log()]


async def test_a_replacement_counts_towards_the_longest_reply() -> None:
    async with running(message_limit=1000, chunk_limit=1000, delta_limit=100) as rig:
        answer, call = await rig.begun()
        call.do(lambda run: run.replace("y" * 500)).finish()
        await answer.end()
        assert (await rig.resume("c", query=f"?run={call.run.id}")).status == 200
        appended = [event for event in await rig.log() if event["type"] == "appended"]
        deltas = [chunk["delta"] for event in appended for chunk in event["chunks"] if chunk["type"] == "text-delta"]
        assert max(map(len, deltas)) <= 100
        assert "".join(deltas) == "y" * 500
        _, call = await rig.begun(text="again", id="u2")
        call.do(lambda run: run.replace("y" * 1001))
        await rig.ended()
        assert (await rig.history("c"))["runs"][call.run.message_id]["reason"] == "reply-too-long"


@pytest.mark.parametrize("kept", ["what it was told", "what it goes on with"])
async def test_what_is_said_again_counts_as_well(kept: str) -> None:
    """An agent that begins again and again says the same for ever, and each time it is in the log."""

    async def agent(run: Run) -> None:
        if kept == "what it was told":
            await run.text("begin")
            async for _ in run.steering():
                break
        elif not run.decisions:
            await run.text("x" * 2000)
            await run.request_approval("refund", {}, id="call")
            return
        for _ in range(100):
            await (run.replace("") if kept == "what it was told" else run.restart())

    async with running(agent=agent, message_limit=20_000) as rig:
        await (await rig.post("c")).until_text("begin" if kept == "what it was told" else "x" * 2000)
        if kept == "what it was told":
            said = {"id": "n1", "role": "user", "parts": [{"type": "text", "text": "x" * 2000}]}
            assert (await rig.ask("POST", "/api/sessions/c/steer", {"message": said})).status == 202
        else:
            await rig.ended()
            [asked] = (await rig.ask("GET", "/api/sessions/c/decisions")).json["decisions"]
            path = f"/api/sessions/c/decisions/{asked['id']}"
            assert (await rig.ask("POST", path, {"approved": True})).status == 200
        await rig.ended()
        log = await rig.log()
        assert (log[-1]["type"], log[-1]["reason"]) == ("run-ended", "reply-too-long")
        assert 5 < [event["type"] for event in log].count("message-reset") < 10


# ------------------------------------------------------------------------------------------------ the current step


@pytest.mark.parametrize("major", [5, 6, 7])
async def test_a_step_is_said_again(rig: Rig, major: int) -> None:
    answer, call = await rig.begun(headers={"Strandline-Client": f"x; ai={major}"})

    async def work(run: Run) -> None:
        await run.text("kept. ")
        await run.tool_result(await run.tool_call("look", {}), 1)
        await run.reasoning("hm")
        await run.text("wrong")

    call.do(work)
    await answer.until(lambda: any(frame.chunk.get("delta") == "wrong" for frame in answer.frames))
    call.do(lambda run: run.reset_step()).say("right").finish()
    await answer.end()
    if major < 7:
        assert answer.frames[-1].chunk["code"] == "resync"
        answer = await (await rig.resume("c")).end()
    assert words(fold_frames(answer.frames).parts()) == ["kept. ", "right"]
    assert words(await said(rig)) == ["kept. ", "right"]
    assert [part["type"] for part in await said(rig)].count("reasoning") == 0


async def test_a_part_of_an_earlier_step_is_closed_first(rig: Rig) -> None:
    answer, call = await rig.begun()
    chunks = [
        {"type": "start-step"},
        {"type": "text-start", "id": "a"},
        {"type": "text-delta", "id": "a", "delta": "A"},
    ]
    call.say(*chunks, {"type": "start-step"}, "wrong").do(lambda run: run.reset_step()).say("right").finish()
    await answer.end()
    assert words(await said(rig)) == ["A", "right"]


# ------------------------------------------------------------------------------------------------ checkpoints


async def test_a_checkpoint_is_after_everything_that_was_added_and_durable(rig: Rig) -> None:
    answer, call = await rig.begun()
    cursors: list[str] = []

    async def work(run: Run) -> None:
        await run.text("settled")
        cursors.append(await run.checkpoint("one"))
        assert run.checkpoints == ("one",)
        await run.checkpoint()
        await run.checkpoint("one")
        await run.text(" and more")

    call.do(work).finish()
    await answer.end()
    log = await rig.log()
    at = next(index for index, event in enumerate(log) if event["type"] == "checkpointed")
    assert [chunk for event in log[:at] if event["type"] == "appended" for chunk in event["chunks"]][-1]["delta"] == (
        "settled"
    )
    assert [event.get("name") for event in log if event["type"] == "checkpointed"] == ["one", None, "one"]
    rest = await (await rig.resume("c", cursors[0], headers="")).end()
    assert [frame.chunk.get("delta") for frame in rest.frames if "delta" in frame.chunk] == [" and more"]


async def test_checkpoints_are_forgotten_with_what_they_settled(rig: Rig) -> None:
    _, call = await rig.begun()
    seen: list[Any] = []

    async def work(run: Run) -> None:
        await run.text("a")
        await run.checkpoint("a")
        await run.restart()
        seen.append(run.checkpoints)
        await run.checkpoint("b")
        await run.replace("b")
        seen.append(run.checkpoints)

    call.do(work).finish()
    await rig.ended()
    assert seen == [(), ()]


async def test_a_checkpoint_beside_a_task_that_never_stops_talking(rig: Rig) -> None:
    _, call = await rig.begun()

    async def work(run: Run) -> None:
        async def chatter() -> None:
            while True:
                await run.text("x")
                await asyncio.sleep(0)

        talking = asyncio.create_task(chatter())
        for number in range(3):
            await run.checkpoint(f"c{number}")
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talking

    call.do(work).finish()
    await rig.ended()
    assert [event["type"] for event in await rig.log()].count("checkpointed") == 3


@pytest.mark.parametrize("name", ["", "x" * 201, "\ud800"])
async def test_a_name_that_cannot_be_kept_is_refused(rig: Rig, name: str) -> None:
    _, call = await rig.begun()
    call.do(lambda run: run.checkpoint(name))
    await rig.ended()
    assert (await rig.history("c"))["runs"][call.run.message_id]["reason"] == "chunk-refused"


async def test_a_run_that_was_stopped_settles_nothing(rig: Rig) -> None:
    _, call = await rig.begun()
    await rig.stop("c")
    with pytest.raises(RunOver):
        await call.run.checkpoint()
    assert "checkpointed" not in [event["type"] for event in await rig.log()]
