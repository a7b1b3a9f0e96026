"""Replies from other servers by URL: real ones (Strandline's own two wires), and ones that do everything wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from ag_ui.core import RunAgentInput

from rig import Answer, running
from server_process import ServerProcess
from strandline import Run
from strandline.agents.sources import sse
from strandline.agents.sources.sse import ag_ui_body, stream_from, ui_message_body
from strandline.codecs.ag_ui_input import ag_ui_messages
from strandline.errors import ProducerFailed
from strandline.testing import until

Serve = Callable[..., ServerProcess]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"
WHOLE = (
    b'data: {"type":"start","messageId":"m"}\n\n: hb\ndata: {"type":"text-start","id":"t"}\n\n'
    b'data: {"type":"text-delta","id":"t","delta":"gr\xc3\xb6\xc3\x9fer"}\n\n'
    b'data: {"type":"text-end","id":"t"}\n\ndata: {"type":"finish","finishReason":"length"}\n\n'
)
AG_UI = (
    b'data: {"type":"RUN_STARTED","threadId":"c","runId":"r"}\n\n'
    b'data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"m","delta":"hi"}\n\n'
    b'data: {"type":"RUN_FINISHED","threadId":"c","runId":"r","usage":[{"inputTokens":2}]}\n\n'
)


class Producer:
    """A server that answers every request with ``pieces``, each in a write of its own. ``hold``: it says nothing more
    and waits for the client to go."""

    def __init__(self, *pieces: bytes, hold: bool = False) -> None:
        self.pieces = pieces
        self.hold = hold
        self.requests: list[bytes] = []
        self.written = self.gone = 0
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        self.requests.append(head + await reader.readexactly(length))
        try:
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                self.written += len(piece)
            if self.hold:
                assert await reader.read() == b""
        except ConnectionError:
            pass
        finally:
            self.gone += 1
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Producer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://user:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/chat?key=secret"
        async with server:
            yield self
            await until(lambda: self.gone == len(self.requests))


async def chunks_from(producer: Producer, **more: Any) -> list[Any]:
    async with producer.listening():
        return [chunk async for chunk in stream_from(producer.url, **more)]


async def failure(producer: Producer, **more: Any) -> str:
    """What it says; never what is secret in the address."""
    with pytest.raises(ProducerFailed) as caught:
        await chunks_from(producer, **more)
    assert "secret" not in caught.value.detail
    assert caught.value.code == "producer-failed"
    return caught.value.detail


# ---------------------------------------------------------------------- a Strandline as the producer

COMMANDS = ["count to 20 every 1 ms", "think 2", "call weather Oslo", "say nothing"]


async def relayed(url: str, protocol: str, command: str) -> tuple[Answer, dict[str, Any]]:
    """What a Strandline stores that passes on what the one at ``url`` says."""

    async def agent(run: Run) -> AsyncIterator[Any]:
        body = ag_ui_body(run) if protocol == "ag-ui" else ui_message_body(run)
        path = "tanstack" if protocol == "ag-ui" else "chat"
        yield stream_from(f"{url}/api/{path}", protocol=protocol, json=body)  # type: ignore[arg-type]

    async with running(agent=agent) as rig:
        answer = await (await rig.post("c", command)).end()
        return answer, (await rig.history("c"))["messages"][-1]


@pytest.mark.parametrize("protocol", ["ui-message", "ag-ui"])
@pytest.mark.parametrize("command", COMMANDS)
async def test_the_message_is_the_one_that_the_producer_has(serve: Serve, protocol: str, command: str) -> None:
    url = serve().url
    answer, ours = await relayed(url, protocol, command)
    assert answer.frames[-2].chunk == {"type": "finish", "finishReason": "stop"}
    async with httpx.AsyncClient() as client:
        theirs = (await client.get(f"{url}/api/chat/c/messages")).json()["messages"][-1]
    assert theirs["role"] == ours["role"] == "assistant"

    def known(part: dict[str, Any]) -> dict[str, Any]:
        # On the AG-UI wire ids of calls and of reasoning begin with the producer's id of the message.
        call = {"toolCallId": part["toolCallId"].rpartition(":")[2]} if "toolCallId" in part else {}
        return {name: value for name, value in part.items() if name != "id"} | call

    assert [known(part) for part in ours["parts"]] == [known(part) for part in theirs["parts"]]
    if protocol == "ui-message":
        assert ours["parts"] == theirs["parts"]


@pytest.mark.parametrize("protocol", ["ui-message", "ag-ui"])
async def test_a_producer_that_says_that_it_failed_fails_the_run(serve: Serve, protocol: str) -> None:
    answer, ours = await relayed(serve().url, protocol, "fail after 2")
    assert answer.frames[-2].chunk["errorText"] == "The reply failed. Please try again."
    assert ours["parts"][-1]["text"] == "1 2 "


async def test_a_producer_that_is_killed_fails_the_run(serve: Serve, caplog: Any) -> None:
    producer = serve()

    async def agent(run: Run) -> Any:
        return stream_from(f"{producer.url}/api/chat", json=ui_message_body(run))

    async with running(agent=agent) as rig:
        answer = await rig.post("c", "count to 1000 every 10 ms")
        await answer.until_text("1 2 3")
        producer.kill()
        await answer.end()
    assert answer.frames[-2].chunk["errorText"] == "The reply failed. Please try again."
    assert "/api/chat: the stream was cut" in caplog.text


# ---------------------------------------------------------------------- stopping


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("own_client", [False, True])
async def test_a_stop_closes_the_connection_at_once(wrapped: bool, own_client: bool) -> None:
    producer = Producer(HEAD + WHOLE[:160], hold=True)
    client = httpx.AsyncClient()

    async def returning(run: Run) -> Any:
        return stream_from(producer.url, json={}, client=client if own_client else None)

    async def looping(run: Run) -> AsyncIterator[Any]:
        async for chunk in stream_from(producer.url, json={}, client=client if own_client else None):
            yield chunk

    agent = looping if wrapped else returning
    async with client, producer.listening(), running(agent=agent) as rig:
        answer = await rig.post("c")
        await answer.until(lambda: "text-start" in answer.types)
        assert producer.gone == 0
        await rig.stop("c")
        await until(lambda: producer.gone == 1)
        assert (await answer.end()).types[-2] == "abort"


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize("done", [b"", b"data: [DONE]\n\n"])
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_the_chunks_of_a_stream_that_is_cut_anywhere(size: int, done: bytes) -> None:
    stream = WHOLE + done
    chunks = await chunks_from(Producer(HEAD, *(stream[at : at + size] for at in range(0, len(stream), size))))
    assert chunks[2] == {"type": "text-delta", "id": "t", "delta": "größer"}
    assert chunks[-1] == {"type": "finish", "finishReason": "length"}


async def test_a_producer_that_does_not_hang_up_after_the_end_is_not_waited_for(monkeypatch: Any) -> None:
    monkeypatch.setattr(sse, "PATIENCE", 0.01)
    async with asyncio.timeout(20):
        chunks = await chunks_from(Producer(HEAD + WHOLE + b"data: [DONE]\n\n", hold=True))
        assert chunks[-1]["type"] == "finish"
        chunks = await chunks_from(Producer(HEAD + AG_UI, hold=True), protocol="ag-ui")
        assert chunks[-1]["type"] == "finish"


@pytest.mark.parametrize("protocol, stream", [("ui-message", WHOLE + b"data: [DONE]\n\n"), ("ag-ui", AG_UI)])
async def test_a_producer_may_do_what_it_has_to_after_the_end(protocol: str, stream: bytes) -> None:
    ended, left = asyncio.Event(), []

    class Saving(Producer):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            gone = asyncio.create_task(reader.read())
            writer.write(HEAD + stream)
            await ended.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            left.append(gone.done())
            writer.close()
            await gone

    async with Saving().listening() as producer:
        async for chunk in stream_from(producer.url, protocol=protocol):  # type: ignore[arg-type]
            if chunk["type"] == "finish":
                ended.set()
    assert left == [False]


async def test_how_the_connection_ends_after_the_reply_does_not_matter() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = await chunks_from(Producer(chunked + b"%x\r\n%b\r\n" % (len(WHOLE), WHOLE)))
    assert chunks[-1]["type"] == "finish"


async def test_the_request_is_as_it_was_asked_for() -> None:
    producer = Producer(HEAD + WHOLE)
    await chunks_from(producer, json={"a": "ö"}, headers={"X-Key": "x", "accept": "*/*"}, method="PUT")
    (request,) = producer.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /chat?key=secret HTTP/1.1\r\n")
    assert b"\r\nx-key: x" in head.lower() and b"\r\naccept: */*" in head.lower() and b"event-stream" not in head
    assert json.loads(body) == {"a": "ö"}
    producer = Producer(HEAD + WHOLE)
    await chunks_from(producer, method="GET")
    assert producer.requests[0].startswith(b"GET ") and b"\r\naccept: text/event-stream" in producer.requests[0].lower()


async def test_a_client_of_your_own_stays_open() -> None:
    async with httpx.AsyncClient(headers={"X-Team": "tides"}) as client:
        for _ in range(2):
            producer = Producer(HEAD + WHOLE)
            await chunks_from(producer, client=client)
            assert b"\r\nx-team: tides" in producer.requests[0].lower()
        assert not client.is_closed


async def test_the_usage_that_an_ag_ui_producer_reports_is_recorded() -> None:
    producer, ended = Producer(HEAD + AG_UI), []
    async with (
        producer.listening(),
        running(agent=lambda run: stream_from(producer.url, protocol="ag-ui", json=ag_ui_body(run), run=run)) as rig,
    ):
        rig.chat.on_end(ended.append)
        assert (await (await rig.post("c")).end()).text == "hi"
        await until(lambda: ended)
    assert ended[0].usage == {"inputTokens": 2}


# ---------------------------------------------------------------------- what goes wrong


async def test_a_refusal_is_told_with_what_it_says(monkeypatch: Any) -> None:
    refused = b"HTTP/1.1 503 No\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nthe model is cold" + b"x" * 9999
    told = await failure(Producer(refused, hold=True))
    assert "answered 503: 'the model is cold" in told
    assert len(told) < 700
    endless = Producer(refused, *[b"x" * 1_000_000] * 100)
    assert "answered 503" in await failure(endless)
    assert endless.written < 10_000_000
    monkeypatch.setattr(sse, "PATIENCE", 0.01)
    assert "answered 503: ''" in await failure(Producer(refused.partition(b"the model")[0], hold=True))
    assert "answered 302" in await failure(Producer(b"HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"))


async def test_an_answer_that_is_no_stream_is_told() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<h1>Sign in</h1>"
    assert "200 with text/html, not with text/event-stream: '<h1>Sign in" in await failure(Producer(page))
    assert "204 with no content type" in await failure(Producer(b"HTTP/1.1 204 N\r\nConnection: close\r\n\r\n"))


@pytest.mark.parametrize("protocol, stream", [("ui-message", WHOLE), ("ag-ui", AG_UI)])
async def test_a_stream_that_ends_early_is_no_reply(protocol: str, stream: bytes) -> None:
    events = stream.split(b"\n\n")
    between = b"\n\n".join(events[:2]) + b"\n\n"
    assert "ended" in await failure(Producer(HEAD + between), protocol=protocol)
    assert "middle of an event" in await failure(Producer(HEAD + between + events[2]), protocol=protocol)
    sized = HEAD.replace(b"Connection: close", b"Content-Length: 9999")
    assert "the stream was cut" in await failure(Producer(sized + between), protocol=protocol)


async def test_an_event_without_end_is_not_collected_for_ever() -> None:
    class Endless(Producer):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.pieces = (HEAD, b"data: ", *[b"x" * 1_000_000] * 100)
            await super()._serve(reader, writer)

    assert "longer than 16777216 characters" in await failure(Endless())


async def test_what_cannot_be_read_is_told() -> None:
    assert "utf-8" in await failure(Producer(HEAD + b"data: \xff\n\n"))


async def test_a_producer_that_says_nothing_is_not_waited_for_for_ever() -> None:
    assert "said nothing for too long" in await failure(Producer(HEAD + WHOLE[:60], hold=True), timeout=0.05)


async def test_a_producer_that_is_not_there_is_told() -> None:
    async with Producer().listening() as producer:
        pass
    with pytest.raises(ProducerFailed, match="cannot be reached"):
        await anext(stream_from(producer.url))
    for wrong in ("http://[", "nowhere"):
        with pytest.raises(ProducerFailed):
            await anext(stream_from(wrong))


# ---------------------------------------------------------------------- what a producer is sent


async def test_the_bodies_say_what_the_producers_expect() -> None:
    bodies: list[Any] = []

    async def agent(run: Run) -> None:
        bodies.append(ui_message_body(run, model="small"))
        tool = {"name": "look", "description": "Look.", "parameters": {}}
        hint = {"description": "where", "value": "Oslo"}
        bodies.append(ag_ui_body(run, tools=[tool], context=[hint], state={"n": 1}, forwarded_props={"x": 1}))
        bodies.append(ag_ui_body(run))

    async with running(agent=agent) as rig:
        await (await rig.post("c", "hello")).end()
    ui, full, bare = bodies
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
    assert ui == {"id": "c", "messages": [message], "trigger": "submit-message", "model": "small"}
    asked = RunAgentInput.model_validate(full)
    assert (asked.thread_id, asked.run_id, asked.protocol_version) == ("c", "run-1", "1.0")
    assert [(each.id, each.role, each.content) for each in asked.messages] == [("u1", "user", "hello")]
    assert asked.tools and asked.context and (asked.state, asked.forwarded_props) == ({"n": 1}, {"x": 1})
    assert RunAgentInput.model_validate(bare).model_dump()["forwarded_props"] == {}


def tool(id: str, state: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool-look", "toolCallId": id, "state": state, "input": {"q": id}, **more}


def test_a_conversation_as_ag_ui_messages() -> None:
    """As pydantic-ai writes and reads it: ``test_ag_ui.py``."""
    picture = {"type": "file", "url": "data:image/png;base64,AAAA", "mediaType": "image/png"}
    parts = [
        {"type": "step-start"}, {"type": "reasoning", "text": "hm"}, {"type": "text", "text": "one"},
        {"type": "text", "text": "two"}, tool("a", "output-available", output={"n": 1}), {"type": "step-start"},
        tool("b", "output-error", errorText="broken"), tool("d", "output-denied"), tool("w", "input-available"),
        {"type": "data-x", "data": 1}, {"type": "text", "text": "three"}, {"type": "text", "text": ""},
    ]  # fmt: skip
    found = ag_ui_messages(
        [
            {"id": "s", "role": "system", "parts": [{"type": "text", "text": "be brief"}]},
            {"id": "u", "role": "user", "parts": [{"type": "text", "text": "see"}, picture]},
            {"id": "m", "role": "assistant", "parts": parts},
        ]
    )
    assert [message["id"] for message in RunAgentInput.model_validate(body_of(found)).model_dump()["messages"]] == [
        "s", "u", "m:r1", "m", "a:result", "m~2", "b:result", "d:result", "w:result", "m~3",
    ]  # fmt: skip
    assert found[0]["content"] == "be brief"
    source = {"type": "data", "value": "AAAA", "mimeType": "image/png"}
    assert found[1]["content"] == [{"type": "text", "text": "see"}, {"type": "image", "source": source}]
    assert found[3]["content"] == "one\n\ntwo"
    assert [call["function"]["arguments"] for call in found[5]["toolCalls"]] == ['{"q":"b"}', '{"q":"d"}', '{"q":"w"}']
    results = [(each["content"], each.get("error")) for each in found if each["role"] == "tool"]
    denied, open_ = "The tool call was denied.", "The call was not finished."
    assert results == [('{"n":1}', None), ("broken", "broken"), (denied, denied), (open_, open_)]
    assert found[-1] == {"id": "m~3", "role": "assistant", "content": "three"}


def body_of(messages: list[Any]) -> dict[str, Any]:
    return {"threadId": "t", "runId": "r", "messages": messages}
