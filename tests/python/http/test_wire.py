"""The wire over real sockets, with a real server process and a real file: PROTOCOL §4, §5, §6 and §8."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import httpx_sse
import pytest

from server_process import ServerProcess
from strandline.testing import Frame, FrameReader, fold_frames

Serve = Callable[..., ServerProcess]


def message(text: str, id: str = "u1") -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


def submit(server: ServerProcess, chat: str, text: str, id: str = "u1", **headers: str) -> FrameReader:
    """Post and read to the end."""
    reader = FrameReader()
    body = {"id": chat, "messages": [message(text, id)], "trigger": "submit-message"}
    with httpx.stream("POST", f"{server.url}/api/chat", json=body, headers=headers, timeout=30) as response:
        assert response.status_code == 200, response.read()
        for data in response.iter_raw():
            reader.feed(data)
    return reader


def begin(server: ServerProcess, chat: str, text: str, id: str = "u1") -> None:
    """Post and go away as soon as the answer has begun."""
    body = {"id": chat, "messages": [message(text, id)], "trigger": "submit-message"}
    with httpx.stream("POST", f"{server.url}/api/chat", json=body, timeout=30) as response:
        assert response.status_code == 200
        next(response.iter_raw())


def text_of(frames: list[Frame]) -> str:
    return "".join(part["text"] for part in fold_frames(frames).parts() if part["type"] == "text")


def numbers(upto: int) -> str:
    return "".join(f"{number} " for number in range(1, upto + 1))


def test_a_streaming_response_has_these_headers_and_first_bytes(serve: Serve) -> None:
    server = serve()
    body = {"id": "c", "messages": [message("count to 20 every 50 ms")]}
    with httpx.stream("POST", f"{server.url}/api/chat", json=body, timeout=30) as response:
        headers = response.headers
        assert headers["content-type"].partition(";")[0] == "text/event-stream"
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert headers["strandline-replay"] == "full"
        assert "content-encoding" not in headers
        run, said = headers["strandline-run"], headers["strandline-message"]
        began = time.monotonic()
        first = next(response.iter_raw())
        assert first.startswith(b": strandline\n")
        assert time.monotonic() - began < 1
    with httpx.stream("GET", f"{server.url}/api/chat/c/stream", timeout=30) as response:
        assert (response.headers["strandline-run"], response.headers["strandline-message"]) == (run, said)
        reader = FrameReader()
        for data in response.iter_raw():
            reader.feed(data)
    assert text_of(reader.frames) == numbers(20)
    assert reader.frames[-1].done
    with httpx.stream(
        "GET", f"{server.url}/api/chat/c/stream", headers={"Last-Event-ID": reader.frames[-4].cursor or ""}, timeout=30
    ) as response:
        assert response.headers["strandline-replay"] == "tail"
        assert b"".join(response.iter_raw()).startswith(b": strandline\ndata: ")
    last = reader.frames[-2].cursor or ""
    assert httpx.get(f"{server.url}/api/chat/c/stream", headers={"Last-Event-ID": last}).status_code == 204
    with httpx.stream("GET", f"{server.url}/api/sessions/c/events", timeout=30) as response:
        assert response.headers["cache-control"] == "no-store, no-transform"
        feed = FrameReader()
        for data in response.iter_raw():
            feed.feed(data)
            if len(feed.frames) >= 2:
                break
    assert feed.frames[0].chunk["type"] == "snapshot"
    assert feed.frames[0].cursor
    assert (feed.frames[1].chunk["type"], feed.frames[1].cursor) == ("readers", None)


def test_heartbeats_are_one_comment_line_and_nothing_else(serve: Serve) -> None:
    server = serve(env={"STRANDLINE_HEARTBEAT": "0.05"})
    body = {"id": "c", "messages": [message("count to 3 every 300 ms")]}
    with httpx.stream("POST", f"{server.url}/api/chat", json=body, timeout=30) as response:
        raw = b"".join(response.iter_raw())
    assert raw.count(b": hb\n") >= 8
    assert b": hb\n\n" not in raw
    reader = FrameReader()
    reader.feed(raw)
    assert set(reader.comments) == {": strandline", ": hb"}
    assert text_of(reader.frames) == numbers(3)


def test_compression_does_not_hold_a_stream_back(serve: Serve) -> None:
    server = serve(app="gzip")
    body = {"id": "c", "messages": [message("count to 30 every 50 ms")]}
    arrived: list[float] = []
    with httpx.stream("POST", f"{server.url}/api/chat", json=body, headers={"Accept-Encoding": "gzip"}) as response:
        assert "content-encoding" not in response.headers
        for _ in response.iter_raw():
            arrived.append(time.monotonic())
            if len(arrived) == 8:
                break
    assert arrived[-1] - arrived[0] > 0.1
    assert httpx.get(f"{server.url}/api/chat/c/messages").status_code == 200


def test_the_demo_commands_over_the_wire(serve: Serve) -> None:
    server = serve()
    assert text_of(submit(server, "count", "count to 5 every 1 ms").frames) == numbers(5)
    failed = submit(server, "fail", "fail after 3")
    assert text_of(failed.frames) == numbers(3)
    assert failed.frames[-2].chunk["type"] == "error"
    assert "Traceback" in server.said()
    assert submit(server, "nothing", "say nothing").frames[-2].chunk["type"] == "finish"
    weather = fold_frames(submit(server, "weather", "call weather Köln").frames).parts()
    assert [part["type"] for part in weather] == ["step-start", "tool-weather", "step-start", "text"]


@pytest.mark.parametrize("cuts", [1, 3, 10])
def test_plain_sse_clients_resume_by_the_id_alone(serve: Serve, cuts: int) -> None:
    server = serve()
    begin(server, "c", "count to 120 every 5 ms")
    seen: list[Frame] = []
    last = ""
    for turn in range(cuts + 1):
        headers = {"Last-Event-ID": last} if last else {}
        with (
            httpx.Client(timeout=30) as client,
            httpx_sse.connect_sse(client, "GET", f"{server.url}/api/chat/c/stream", headers=headers) as source,
        ):
            if source.response.status_code == 204:
                break
            for count, event in enumerate(source.iter_sse()):
                if event.data == "[DONE]":
                    break
                seen.append(Frame(json.loads(event.data), event.id or None))
                last = event.id
                # A snapshot is one unit: it is not cut before its id.
                if last and turn < cuts and count > 120 // (cuts + 1):
                    break
    assert text_of(seen) == numbers(120)
    assert [frame.chunk["type"] for frame in seen].count("start") == 1
    response = httpx.get(f"{server.url}/api/chat/c/stream", headers={"Last-Event-ID": last})
    assert response.status_code == 204


def test_a_memory_store_that_restarts_gives_the_full_state_to_old_cursors(serve: Serve) -> None:
    server = serve(db="memory:")
    old = submit(server, "c", "count to 3 every 1 ms").frames[0].cursor or ""
    server.kill()
    server.start()
    submit(server, "c", "count to 4 every 1 ms")
    plain = httpx.get(f"{server.url}/api/chat/c/stream", headers={"Last-Event-ID": old})
    reader = FrameReader()
    reader.feed(plain.content)
    assert text_of(reader.frames) == numbers(4)
    shim = httpx.get(
        f"{server.url}/api/chat/c/stream", headers={"Last-Event-ID": old, "Strandline-Client": "shim/1; ai=7"}
    )
    reader = FrameReader()
    reader.feed(shim.content)
    assert [frame.chunk["code"] for frame in reader.frames] == ["resync"]


def test_a_slow_reader_is_dropped_and_the_others_go_on(serve: Serve, request: pytest.FixtureRequest) -> None:
    server = serve(env={"STRANDLINE_SEND_TIMEOUT": "0.5"})
    begin(server, "c", "flood")
    slow = socket.create_connection(("127.0.0.1", server.port))
    request.addfinalizer(slow.close)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(b"GET /api/chat/c/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    slow.recv(100)
    reader = FrameReader()
    with httpx.stream("GET", f"{server.url}/api/chat/c/stream", timeout=30) as response:
        for data in response.iter_raw():
            reader.feed(data)
    assert reader.frames[-1].done
    assert len(text_of(reader.frames)) == 600 * 16_000
    # Without the limit it would be attached for as long as it likes.
    deadline = time.monotonic() + 10
    while readers(server, "c") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert readers(server, "c") == []
    assert "Traceback" not in server.said()
    # It can resume.
    resumed = httpx.get(f"{server.url}/api/chat/c/stream", headers={"Last-Event-ID": reader.frames[4].cursor or ""})
    assert resumed.content.endswith(b"data: [DONE]\n\n")


def readers(server: ServerProcess, chat: str) -> list[Any]:
    shown = httpx.get(f"{server.url}/api/sessions/{chat}").json()["readers"]
    return [reader for reader in shown if reader["connected"]]


def test_readers_are_limited_and_a_refused_message_starts_nothing(serve: Serve) -> None:
    server = serve(env={"STRANDLINE_MAX_READERS_PER_SESSION": "2"})
    begin(server, "c", "count to 400 every 10 ms")
    opened = threading.Event()
    over = threading.Event()

    def hold() -> None:
        with httpx.stream("GET", f"{server.url}/api/chat/c/stream", timeout=30) as response:
            for _ in response.iter_raw():
                opened.set()
                if over.is_set():
                    return

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while len(readers(server, "c")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    for path in ("chat/c/stream", "sessions/c/events"):
        refused = httpx.get(f"{server.url}/api/{path}")
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-readers")
        assert int(refused.headers["retry-after"]) >= 1
    body = {"id": "c", "messages": [message("count to 2 every 1 ms", "u2")]}
    assert httpx.post(f"{server.url}/api/chat", json=body).status_code == 429
    history = httpx.get(f"{server.url}/api/chat/c/messages").json()
    assert history["activeRun"] is not None
    assert [each["id"] for each in history["messages"]] == ["u1"]
    over.set()
    for thread in threads:
        thread.join()
    while readers(server, "c") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert text_of(submit(server, "c", "count to 2 every 1 ms", "u2").frames) == numbers(2)


def test_a_closed_connection_never_ends_a_run(serve: Serve) -> None:
    server = serve()
    for number in range(5):
        begin(server, f"c{number}", "count to 40 every 5 ms")
    deadline = time.monotonic() + 10
    for number in range(5):
        while True:
            history = httpx.get(f"{server.url}/api/chat/c{number}/messages").json()
            if history["activeRun"] is None or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        assert history["messages"][-1]["parts"][-1]["text"] == numbers(40)


def test_mounted_without_its_lifespan_it_says_what_to_do(serve: Serve) -> None:
    server = serve(app="no_lifespan")
    for method, path in [
        ("GET", "chat/c/stream"), ("GET", "chat/c/messages"), ("POST", "chat/c/stop"), ("GET", "sessions"),
        ("GET", "sessions/c"), ("POST", "chat"),
    ]:  # fmt: skip
        body = {"id": "c", "messages": [message("x")]} if path == "chat" else {}
        answer = httpx.request(method, f"{server.url}/inner/api/{path}", json=body if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (503, "not-started"), path
        assert "lifespan" in answer.json()["detail"]
        assert answer.headers["retry-after"]
    assert httpx.get(f"{server.url}/inner/api/readyz").status_code == 503
