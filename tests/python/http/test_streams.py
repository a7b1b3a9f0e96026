"""What a streaming response looks like, byte for byte, and who is let in (PROTOCOL §4, §5). With real sockets:
``test_wire.py``; here the time is held still."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.middleware.gzip import GZipMiddleware

from rig import SHIM, Answer, Client, Rig, running
from strandline.errors import StrandlineError
from strandline.http.cors import cors
from strandline.testing import until

FRAME = re.compile(rb"data: (?:\[DONE\]|\{[^\n]*\})\n(?:id: [0-9a-z.]+\n)?\n")
ORIGIN = "https://app.example"
CHUNKS: list[Any] = [
    "Hi",
    {"type": "reasoning-file", "url": "https://example.org/r", "mediaType": "text/plain"},
    {"type": "custom", "kind": "openai.compaction"},
    {"type": "tool-input-available", "toolCallId": "t", "toolName": "x", "input": {}},
    {"type": "tool-approval-request", "toolCallId": "t", "approvalId": "a"},
    {"type": "tool-output-denied", "toolCallId": "t"},
    " there",
]
EXPECTED = {
    5: {"reasoning-file": 0, "custom": 0, "tool-approval-request": 0, "tool-output-denied": 0, "tool-output-error": 1},
    6: {"reasoning-file": 0, "custom": 0, "tool-approval-request": 1, "tool-output-denied": 1, "tool-output-error": 0},
    7: {"reasoning-file": 1, "custom": 1, "tool-approval-request": 1, "tool-output-denied": 1, "tool-output-error": 0},
}


def compressed(app: Any) -> Any:
    return GZipMiddleware(app, minimum_size=1)


def plain(app: Any) -> Any:
    return app


@pytest.mark.parametrize("wrap", [plain, compressed])
async def test_the_first_bytes_come_before_any_chunk(wrap: Any) -> None:
    async with running(wrap=wrap) as rig:
        gzip = {"accept-encoding": "gzip, br"}
        answer = await rig.post("c", headers=gzip)
        await rig.agent.called()
        await answer.until(lambda: answer.body)
        assert answer.body.startswith(b": strandline\n")
        resumed = await rig.resume("c", **gzip)
        feed = await rig.open("GET", "/api/sessions/c/events", headers=gzip)
        await until(lambda: resumed.body and feed.body)
        assert resumed.body.startswith(b": strandline\n")
        assert feed.body.startswith(b": strandline\nretry: 1000\ndata: {")
        for stream in (answer, resumed, feed):
            assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
            assert stream.headers["cache-control"] == "no-store, no-transform"
            assert stream.headers["x-accel-buffering"] == "no"
            assert "content-encoding" not in stream.headers
            assert "content-length" not in stream.headers
        for stream in (answer, resumed):
            assert stream.headers["x-vercel-ai-ui-message-stream"] == "v1"
            assert {"strandline-run", "strandline-message", "strandline-replay"} <= set(stream.headers)
        assert "strandline-run" not in feed.headers
        (await rig.agent.called()).say("x").finish()
        await answer.end()
        resync = await rig.resume("c", "garbage", shim=True)
        await resync.end()
        assert resync.body.startswith(b": strandline\ndata: {")
        assert resync.headers["cache-control"] == "no-store, no-transform"


async def test_every_byte_of_a_stream_is_a_comment_or_a_frame_with_its_id_last(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("a\nb\r\n", "\u2028 data: x\n\nid: 7\n\n", ": hb\n", "🦩").finish()
    await answer.end()
    for stream in (
        answer,
        await (await rig.resume("c", "garbage")).end(),
        await (await rig.resume("c", answer.frames[0].cursor)).end(),
        await (await rig.resume("c", query=f"?run={call.run.id}")).end(),
    ):
        opening, _, rest = stream.body.partition(b"\n")
        assert opening == b": strandline"
        assert FRAME.sub(b"", rest) == b""
        assert b"\r" not in stream.body
        assert stream.body.endswith(b"data: [DONE]\n\n")
        assert stream.body.count(b"[DONE]") == 1
        *_, terminal, done = stream.frames
        assert done.cursor is None
        assert (terminal.chunk["type"], bool(terminal.cursor)) == ("finish", True)
        assert stream.text == "a\nb\r\n\u2028 data: x\n\nid: 7\n\n: hb\n🦩"


async def test_heartbeats_stand_between_frames_and_never_in_one() -> None:
    async with running(heartbeat=0.01) as rig:
        answer, call = await rig.begun()
        feed = await rig.open("GET", "/api/sessions/c/events")
        for number in range(10):
            beats = answer.body.count(b": hb\n")
            await answer.until(lambda beats=beats: answer.body.count(b": hb\n") > beats)
            call.say(f"{number} ")
            await answer.until_text(f"{number} ")
        call.finish()
        await answer.end()
        await feed.until(lambda: feed.frames and feed.frames[-1].chunk["type"] == "readers")
        for stream in (answer, feed):
            assert stream.body.count(b": hb\n") >= 8
            assert b": hb\n\n" not in stream.body
            opening = b": strandline\n" if stream is answer else b": strandline\nretry: 1000\n"
            assert FRAME.sub(b"", stream.body).replace(b": hb\n", b"") == opening
        assert not answer.body.endswith(b": hb\n"), "nothing comes after [DONE]"


@pytest.mark.parametrize("major", [5, 6, 7])
@pytest.mark.parametrize("name", ["mine", "shim/0.1.0", "setting"])
async def test_chunks_are_gated_for_the_client_that_asks(major: int, name: str) -> None:
    setting = {"ai_sdk_version": major} if name == "setting" else {"ai_sdk_version": {5: 7, 6: 5, 7: 6}[major]}
    headers = {} if name == "setting" else {"Strandline-Client": f"{name}; ai={major}"}
    async with running(**setting) as rig:
        answer, call = await rig.begun(headers=headers)
        live = await rig.open("GET", "/api/chat/c/stream", headers=headers)
        call.say(*CHUNKS).finish()
        await answer.end()
        await live.end()
        tail = await rig.open(
            "GET", "/api/chat/c/stream", headers={**headers, "Last-Event-ID": answer.frames[0].cursor or ""}
        )
        for stream in (answer, live, await tail.end()):
            types = [frame.chunk.get("type") for frame in stream.frames]
            assert {kind: types.count(kind) for kind in EXPECTED[major]} == EXPECTED[major]
        assert answer.text == "Hi there"
        # The cursors are the same for every version: a client may be updated in the middle of a reply.
        other = await rig.open(
            "GET",
            "/api/chat/c/stream",
            headers={"Strandline-Client": "x; ai=7", "Last-Event-ID": answer.frames[0].cursor or ""},
        )
        await other.end()
        assert {frame.cursor for frame in tail.frames} <= {frame.cursor for frame in other.frames}


async def test_streams_and_problems_pass_through_cors() -> None:
    def across(app: Any) -> Any:
        cors(app, [ORIGIN])
        return app

    async with running(wrap=across, max_readers_per_session=3) as rig:
        origin = {"origin": ORIGIN}
        answer, call = await rig.begun(headers=origin)
        resumed = await rig.open("GET", "/api/chat/c/stream", headers=origin)
        feed = await rig.open("GET", "/api/sessions/c/events", headers=origin)
        problems = [
            await rig.ask("GET", "/api/chat/c/stream", headers=origin),  # 429
            await rig.ask("GET", "/api/chat/a%20b/stream", headers=origin),  # 422
            await rig.ask("POST", "/api/chat/x/stop", {}, origin),  # 404
            await (await rig.open("POST", "/api/chat", b"{", origin, raw=True)).end(),  # 400
            await rig.ask("GET", "/api/chat", headers=origin),  # 404
        ]
        assert [problem.status for problem in problems] == [429, 422, 404, 400, 404]
        for each in (answer, resumed, feed, *problems):
            assert each.headers["access-control-allow-origin"] == ORIGIN
            exposed = {name.strip().lower() for name in each.headers["access-control-expose-headers"].split(",")}
            assert {"strandline-run", "strandline-message", "strandline-replay", "retry-after"} <= exposed
        assert problems[0].headers["retry-after"] == "5"
        elsewhere = await rig.open("GET", "/api/chat/c/messages", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in elsewhere.headers
        call.finish()
        await answer.end()


async def held(rig: Rig, number: int) -> list[Answer]:
    """So many readers that come at the same moment."""
    answers = await asyncio.gather(*(rig.resume("c") for _ in range(number)))
    return list(answers)


async def test_readers_who_come_at_the_same_moment_are_counted_too() -> None:
    async with running(max_readers_per_session=4) as rig:
        answer, call = await rig.begun()
        answers = await held(rig, 20)
        taken = [each for each in answers if each.status == 200]
        assert len(taken) == 3, "and the one that posted"
        for refused in answers:
            if refused.status != 200:
                assert (refused.status, refused.code) == (429, "too-many-readers")
        # Who leaves makes room.
        await taken[0].drop()
        again = await rig.resume("c")
        assert again.status == 200
        assert (await rig.resume("c")).status == 429
        call.finish()
        await answer.end()
        await until(lambda: not rig.sessions._live["c"].readers)


async def test_all_readers_together_are_limited() -> None:
    async with running(max_readers=2) as rig:
        first, one = await rig.begun("c")
        second, two = await rig.begun("d")
        for path in ("/api/chat/c/stream", "/api/sessions/d/events"):
            assert (await rig.ask("GET", path)).code == "too-many-readers"
        refused = await rig.post("e")
        assert refused.status == 429
        assert len(rig.agent.calls) == 2, "a message that could not be answered is not taken"
        assert (await rig.ask("GET", "/api/sessions/e")).status == 404
        one.finish()
        await first.end()
        await until(lambda: not rig.sessions._live["c"].readers)
        third, three = await rig.begun("e")
        for answer, call in ((second, two), (third, three)):
            call.finish()
            await answer.end()


async def test_a_stream_that_is_refused_is_shown_to_the_applications_own_handler() -> None:
    async with running(max_readers=1) as rig:
        answer, call = await rig.begun()
        app = FastAPI()
        app.include_router(rig.chat.router, prefix="/api")

        @app.exception_handler(StrandlineError)
        async def own(_request: Request, error: StrandlineError) -> JSONResponse:
            return JSONResponse({"own": error.code}, 299)

        refused = await Client(app).ask("GET", "/api/sessions/c/events")
        assert (refused.status, refused.json) == (299, {"own": "too-many-readers"})
        call.finish()
        await answer.end()


@pytest.mark.parametrize("shim", [True, False])
async def test_a_reader_that_leaves_is_forgotten_and_the_run_goes_on(rig: Rig, shim: bool) -> None:
    answer, call = await rig.begun(headers=SHIM if shim else {})
    readers = await held(rig, 5)
    session = await rig.sessions.find("c")
    await until(lambda: len(session.readers) == 6)
    for each in (answer, *readers):
        await each.drop()
    await until(lambda: not session.readers)
    call.say("on").finish()
    await rig.ended()
    assert (await rig.history("c"))["messages"][1]["parts"][-1]["text"] == "on"


async def test_a_reader_that_does_not_read_is_dropped_while_another_goes_on() -> None:
    stuck = asyncio.Event()

    def choked(app: Any) -> Any:
        """The connection of the reader called ``slow`` takes its headers, and then nothing."""

        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def choke(message: Any) -> None:
                if message["type"] == "http.response.body":
                    stuck.set()
                    await asyncio.Event().wait()
                await send(message)

            slow = (b"x-slow", b"1") in scope["headers"]
            await app(scope, receive, choke if slow else send)

        return wrapped

    async with running(wrap=choked, send_timeout=0.05) as rig:
        answer, call = await rig.begun()
        slow = await rig.resume("c", **{"x-slow": "1"})
        await stuck.wait()
        session = await rig.sessions.find("c")
        for number in range(20):
            call.say(f"{number} ")
        await until(lambda: slow.over)
        assert slow.task is not None
        slow.task.result()
        await until(lambda: len(session.readers) == 1)
        call.finish()
        await answer.end()
        assert answer.text == "".join(f"{number} " for number in range(20))
        resumed = await (await rig.resume("c", query=f"?run={call.run.id}")).end()
        assert resumed.text == answer.text, "the one that was dropped can come back"


async def test_what_is_due_for_a_reader_goes_out_in_one_write(rig: Rig) -> None:
    """Not one write per frame: the socket is what costs (DESIGN §12)."""
    answer, call = await rig.begun()
    for number in range(50):
        call.say({"type": "data-n", "data": number})
    call.finish()
    await answer.end()
    writes = 0

    class Counting:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def count(message: Any) -> None:
                nonlocal writes
                writes += bool(message.get("body"))
                await send(message)

            await rig.app(scope, receive, count)

    counting = type(rig).__mro__[1](Counting())
    tail = await counting.open("GET", "/api/chat/c/stream", headers={"Last-Event-ID": answer.frames[0].cursor or ""})
    await tail.end()
    assert len(tail.frames) >= 50
    assert writes <= 3, json.dumps(writes)
