"""How runs end, and that every end but ``suspended`` leaves nothing dangling (DESIGN §14.9, PROTOCOL §9)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import Rig, running
from strandline import PublicError, Run, Strandline
from strandline.errors import Conflict, Unprocessable
from strandline.http.auth import Auth
from strandline.settings import Settings
from strandline.stores import MemoryStore
from strandline.testing import FailingStore, ManualClock, ScriptedAgent, fold_frames, until

OPEN: list[Any] = [
    {"type": "start-step"},
    {"type": "reasoning-start", "id": "r"},
    {"type": "reasoning-delta", "id": "r", "delta": "hm"},
    {"type": "text-start", "id": "t"},
    {"type": "text-delta", "id": "t", "delta": "so far"},
    {"type": "tool-input-start", "toolCallId": "streaming", "toolName": "a"},
    {"type": "tool-input-delta", "toolCallId": "streaming", "inputTextDelta": '{"half": "wa'},
    {"type": "tool-input-available", "toolCallId": "waiting", "toolName": "b", "input": {"x": 1}},
    {"type": "tool-input-available", "toolCallId": "preliminary", "toolName": "b", "input": {}},
    {"type": "tool-output-available", "toolCallId": "preliminary", "output": 1, "preliminary": True},
    {"type": "tool-input-start", "toolCallId": "dynamic", "toolName": "d", "dynamic": True},
]


async def run_of(rig: Rig, chat: str = "c") -> dict[str, Any]:
    (run,) = (await rig.history(chat))["runs"].values()
    return dict(run)


async def test_a_natural_end(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("all").finish()
    await answer.end()
    assert answer.types == [
        "start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish", "[DONE]",
    ]  # fmt: skip
    assert answer.frames[-2].chunk == {"type": "finish", "finishReason": "stop"}
    assert answer.frames[-1].cursor is None
    assert await run_of(rig) == {"run": call.run.id, "status": "completed", "reason": "completed"}


async def test_saying_nothing_is_a_natural_end_too(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.finish()
    await answer.end()
    assert answer.types == ["start", "finish", "[DONE]"]
    history = await rig.history("c")
    assert history["messages"][-1]["parts"] == []
    assert (await rig.resume("c")).status == 204


async def test_a_bug_in_the_agent_fails_the_run_with_a_safe_text_and_the_traceback_in_the_log(
    rig: Rig, caplog: Any
) -> None:
    answer, call = await rig.begun()
    call.say("kept ").fail(RuntimeError("the password is swordfish"))
    await answer.end()
    assert answer.text == "kept "
    assert answer.frames[-2].chunk == {
        "type": "error", "errorText": "The reply failed. Please try again.", "code": "agent-error",
    }  # fmt: skip
    assert answer.types[-1] == "[DONE]"
    told = await run_of(rig)
    assert (told["status"], told["reason"], told["error"]) == (
        "failed", "agent-error", "The reply failed. Please try again.",
    )  # fmt: skip
    feed = await rig.ask("GET", "/api/sessions/c")
    assert b"swordfish" not in answer.body + feed.body
    assert "swordfish" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_public_error_is_shown_as_it_is(rig: Rig) -> None:
    for number, (error, shown) in enumerate(
        [
            (PublicError("Your quota is used up."), "Your quota is used up."),
            (PublicError(), "The reply failed. Please try again."),
            (PublicError("half \ud800"), "The reply failed. Please try again."),
        ]
    ):
        answer, call = await rig.begun(f"c{number}", id="u1")
        call.fail(error)
        await answer.end()
        assert answer.frames[-2].chunk["errorText"] == shown


async def test_a_run_that_takes_too_long_ends_as_failed(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("slow ")
    await answer.until_text("slow ")
    await rig.clock.jump(3599)
    assert not answer.over
    await rig.clock.advance(2)
    await answer.end()
    assert answer.frames[-2].chunk["code"] == "deadline"
    assert answer.text == "slow "
    await until(lambda: call.closed)
    assert (await run_of(rig))["status"] == "failed"


async def test_an_agent_that_is_cancelled_by_itself_has_failed(rig: Rig) -> None:
    async def cancels(run: Run) -> None:
        await run.text("before ")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    answer, call = await rig.begun()
    call.do(cancels)
    await answer.end()
    assert answer.frames[-2].chunk["code"] == "cancelled"
    assert answer.text == "before "


async def test_whatever_an_agent_raises_nobody_is_left_waiting(rig: Rig) -> None:
    class Odd(BaseException):
        pass

    for number, error in enumerate([Odd(), BaseExceptionGroup("many", [Odd()]), GeneratorExit(), StopAsyncIteration()]):
        answer, call = await rig.begun(f"c{number}", id="u1")
        call.fail(error)
        await answer.end()
        assert answer.frames[-2].chunk["type"] == "error"


async def test_a_history_that_cannot_be_read_fails_the_run(rig: Rig) -> None:
    rig.store.fail(reads=True)
    rig.store._error, failing = None, rig.store._error
    posting = asyncio.create_task(rig.post("c"))
    await asyncio.sleep(0)

    async def broken(session: Any, versions: Any) -> Any:
        raise failing

    rig.store.messages = broken  # type: ignore[method-assign]
    answer = await posting
    await answer.end()
    assert answer.frames[-2].chunk["code"] == "agent-error"
    assert not rig.agent.calls


@pytest.mark.parametrize("end", ["completed", "failed", "stopped", "superseded", "deadline", "lost"])
async def test_every_end_closes_what_is_open(end: str) -> None:
    async with running(shutdown_grace=0.0) as rig:
        answer, call = await rig.begun()
        call.say(*OPEN)
        await answer.until(lambda: len(answer.frames) >= len(OPEN) + 1)
        match end:
            case "completed":
                call.finish()
            case "failed":
                call.fail(ValueError())
            case "stopped":
                await rig.stop("c")
            case "superseded":
                await rig.post("c", id="u2")
            case "deadline":
                await rig.clock.jump(3601)
                await rig.clock.advance(1)
            case _:
                rig.chat.service.drain()
        await answer.end()
        state = fold_frames(answer.frames)
        assert not state.anything_open
        parts = {part.get("toolCallId", part["type"]): part for part in state.parts()}
        assert parts["text"]["state"] == parts["reasoning"]["state"] == "done"
        for call_id in ("streaming", "waiting", "dynamic"):
            assert parts[call_id]["state"] == "output-error"
            assert parts[call_id]["errorText"]
        assert parts["streaming"]["input"] == {"half": "wa"}
        assert parts["waiting"]["input"] == {"x": 1}
        assert "tool-input-error" in answer.types
        assert "tool-output-error" in answer.types
        if end != "lost":
            stored = next(m for m in (await rig.history("c"))["messages"] if m["id"] == call.run.message_id)
            assert stored["parts"] == state.parts()
            late = await (await rig.resume("c", query=f"?run={call.run.id}")).end()
            assert fold_frames(late.frames).parts() == state.parts()


async def test_a_finished_part_stays_as_it_was(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say(
        {"type": "tool-input-available", "toolCallId": "1", "toolName": "a", "input": {}},
        {"type": "tool-output-available", "toolCallId": "1", "output": "ok"},
    ).finish()
    await answer.end()
    assert fold_frames(answer.frames).parts()[-1]["output"] == "ok"
    assert "tool-output-error" not in answer.types


# ---------------------------------------------------------------------- what follows the end


async def ended_runs(rig: Rig, end: str) -> list[Any]:
    seen: list[Any] = []
    rig.chat.on_end(seen.append)
    answer, call = await rig.begun(text="question", key="k1")
    call.do(lambda run: usage(run)).say("words")
    await answer.until_text("words")
    if end == "completed":
        call.finish()
    elif end == "failed":
        call.fail(PublicError("No."))
    elif end == "stopped":
        await rig.stop("c", reason="enough")
    await answer.end()
    await until(lambda: seen)
    await asyncio.sleep(0.02)
    return seen


async def usage(run: Run) -> None:
    run.usage(input_tokens=3)
    run.usage(output_tokens=4)


@pytest.mark.parametrize(
    ("end", "status", "reason", "error"),
    [
        ("completed", "completed", "completed", None),
        ("failed", "failed", "agent-error", "No."),
        ("stopped", "stopped", "enough", None),
    ],
)
async def test_on_end_is_told_once_with_the_finished_message(
    rig: Rig, end: str, status: str, reason: str, error: str | None
) -> None:
    (ended,) = await ended_runs(rig, end)
    assert (ended.session, ended.run, ended.user) == ("c", rig.agent.calls[0].run.id, "ann")
    assert (ended.status, ended.reason, ended.error) == (status, reason, error)
    assert ended.message == (await rig.history("c"))["messages"][-1]
    if end != "stopped":
        assert ended.usage == {"input_tokens": 3, "output_tokens": 4}


async def test_an_on_end_that_fails_is_logged_and_harms_nobody(rig: Rig, caplog: Any) -> None:
    @rig.chat.on_end
    async def bad(ended: Any) -> None:
        raise RuntimeError("the hook is broken")

    for number in range(2):
        answer, call = await rig.begun(id=f"u{number}")
        call.say("x").finish()
        await answer.end()
    await until(lambda: caplog.text.count("the hook is broken") >= 2)


async def test_runs_of_a_process_that_is_gone_are_told_to_on_end_at_the_next_start() -> None:
    memory, clock = MemoryStore(), ManualClock()
    running_rig = running(store=FailingStore(memory), clock=clock)
    rig = await running_rig.__aenter__()
    answer, call = await rig.begun()
    call.say("words ")
    await answer.until_text("words ")
    rig.store.hang()  # the process dies: nothing more is written
    memory._is_open = False
    seen: list[Any] = []
    chat = Strandline(memory, auth=Auth(lambda: "ann"), clock=clock, settings=Settings())
    chat.agent(ScriptedAgent())
    chat.on_end(seen.append)
    async with chat.lifespan():
        await until(lambda: seen)
        session = await chat.service.sessions.find("c")
        assert session is not None
        assert not session.live
    (ended,) = seen
    assert (ended.status, ended.reason, ended.message["parts"][-1]["text"]) == ("lost", "process-lost", "words ")
    rig.sessions.journal.healthy = False
    call.finish()
    await running_rig.__aexit__(None, None, None)


async def test_import_and_then_chat_goes_on(rig: Rig) -> None:
    messages = [
        {"id": "i1", "role": "user", "parts": [{"type": "text", "text": "old question"}]},
        {
            "id": "i2",
            "role": "assistant",
            "parts": [
                {"type": "tool-x", "toolCallId": "1", "state": "output-available", "input": {}, "output": 1},
                {"type": "text", "text": "old answer", "state": "done"},
            ],
            "metadata": {"model": "old"},
        },
    ]
    record = await rig.chat.import_messages("c", messages, user="ann", title="An old talk")
    assert (record.owner, record.title) == ("ann", "An old talk")
    history = await rig.history("c")
    assert history["messages"] == messages
    assert (await rig.as_user("eve").history("c"))["messages"] == []
    assert (await rig.as_user("eve").post("c")).status == 404
    answer, call = await rig.begun(text="new question")
    assert [message["id"] for message in call.run.messages] == ["i1", "i2", "u1"]
    assert call.run.prompt()[1] == {"role": "assistant", "content": "old answer"}
    call.say("new answer").finish()
    await answer.end()
    assert len((await rig.history("c"))["messages"]) == 4
    again, call = await rig.begun(trigger="regenerate-message", messageId="i2", text="old question", id="i1")
    call.say("better").finish()
    await again.end()
    assert [message["id"] for message in (await rig.history("c"))["messages"]][:1] == ["i1"]
    assert (await rig.ask("GET", "/api/sessions")).json["sessions"][0]["title"] == "An old talk"


async def test_an_import_is_all_or_nothing(rig: Rig) -> None:
    good = {"id": "i1", "role": "user", "parts": [{"type": "text", "text": "x"}]}
    bad: list[Any] = [
        {"id": "a b", "role": "user", "parts": good["parts"]},
        {"id": "i2", "role": "tool", "parts": good["parts"]},
        {"id": "i2", "role": "user", "parts": []},
        {"id": "i2", "role": "assistant", "parts": [{"text": "no type"}]},
        {"id": "i2", "role": "assistant", "parts": [{"type": "text", "text": "\ud800"}]},
        {"id": "i2", "role": "assistant", "parts": [{"type": "text", "text": "x", "__proto__": {}}]},
        good,
    ]
    for each in bad:
        with pytest.raises((Unprocessable, ValueError)):
            await rig.chat.import_messages("c", [good, each], user="ann")
    with pytest.raises(Unprocessable):
        await rig.chat.import_messages("c", [good], user="ann", title="\ud800")
    assert (await rig.history("c"))["messages"] == []
    await rig.chat.import_messages("c", [good], user="ann")
    with pytest.raises(Conflict, match="has messages already"):
        await rig.chat.import_messages("c", [good], user="ann")
    with pytest.raises(Conflict):
        await rig.chat.import_messages("c", [good], user="eve")
    assert (await rig.begun(id="u9"))[0].status == 200
