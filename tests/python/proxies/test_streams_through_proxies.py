"""Streams through a real nginx and through Starlette's GZipMiddleware: nothing is held back, heartbeats keep a silent
stream up, a reader that was cut resumes, and a dead server does not look like the end of a reply."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from nginx_process import Nginx

from server_process import APP, ServerProcess
from strandline.testing import FrameReader, fold_frames

HEARTBEAT = {"STRANDLINE_HEARTBEAT": "0.5"}
COMPRESSING = "gzip on; gzip_min_length 1; gzip_types text/event-stream application/json; gzip_proxied any;"
SHORT = "proxy_http_version 1.1; proxy_read_timeout 2s;"

WAYS = {
    "as documented": lambda nginx, port, zipped: ("https", nginx.as_documented(port)),
    "untouched": lambda nginx, port, zipped: ("https", nginx.before(port)),
    "untouched, without TLS": lambda nginx, port, zipped: ("http", nginx.before(port, tls=False)),
    "gzip for everything": lambda nginx, port, zipped: ("https", nginx.before(port, server=COMPRESSING)),
    "a short read timeout": lambda nginx, port, zipped: ("https", nginx.before(port, SHORT)),
    "GZipMiddleware": lambda nginx, port, zipped: ("http", zipped),
    "GZipMiddleware behind nginx": lambda nginx, port, zipped: ("https", nginx.before(zipped, server=COMPRESSING)),
}


@pytest.fixture(scope="module")
def urls(nginx: Nginx, launch: Callable[..., ServerProcess]) -> dict[str, str]:
    """The address of every way to a server. Chats are the same behind all but the compressing application."""
    plain, zipped = launch(env=HEARTBEAT), launch(app="gzip", env=HEARTBEAT)
    found = {name: way(nginx, plain.port, zipped.port) for name, way in WAYS.items()}
    nginx.start()
    return {name: f"{scheme}://127.0.0.1:{port}" for name, (scheme, port) in found.items()}


@pytest.fixture(params=WAYS)
def client(request: pytest.FixtureRequest, nginx: Nginx, urls: dict[str, str]) -> Iterator[httpx.Client]:
    """A browser's idea of what it takes, at the end of one of the ways."""
    with client_for(nginx, urls[request.param]) as made:
        yield made


def client_for(nginx: Nginx, url: str) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=nginx.certificate)
    return httpx.Client(
        base_url=url, verify=trusted, timeout=20, trust_env=False, headers={"Accept-Encoding": "gzip, deflate"}
    )


def chat_body(chat: str, text: str) -> dict[str, Any]:
    return {"id": chat, "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}]}


def run_body(chat: str, text: str) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "content": text}
    return {"threadId": chat, "runId": f"run-{chat}", "messages": [message], "tools": [], "context": [], "state": {}}


class Reading:
    """A response that is still coming."""

    def __init__(self, response: httpx.Response, *, id_first: bool = False) -> None:
        assert response.status_code == 200, response.read()
        self.response = response
        self.reader = FrameReader()
        self.reader.id_first = id_first
        self._pieces = response.iter_bytes()

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in fold_frames(self.reader.frames).parts() if part["type"] == "text")

    def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            self.reader.feed(next(self._pieces))

    def to_the_end(self) -> None:
        for piece in self._pieces:
            self.reader.feed(piece)


@contextmanager
def posted(client: httpx.Client, chat: str, text: str) -> Iterator[Reading]:
    with client.stream("POST", "/api/chat", json=chat_body(chat, text)) as response:
        yield Reading(response)


def name_of(request: pytest.FixtureRequest, what: str) -> str:
    """A session per test and way: the ways lead to the same server."""
    return f"{what}-{''.join(each for each in request.node.name if each.isalnum())}"


def numbers(upto: int) -> str:
    return "".join(f"{number} " for number in range(1, upto + 1))


def test_a_token_arrives_while_the_agent_waits_with_the_next(
    client: httpx.Client, request: pytest.FixtureRequest
) -> None:
    """The second number is a minute away: whatever holds the first back holds it until the test has failed."""
    chat, held = name_of(request, "held"), "count to 2 every 60000 ms"
    with posted(client, chat, held) as reading:
        reading.until(lambda: reading.text == "1 ")
        with client.stream("GET", f"/api/chat/{chat}/stream") as response:
            resumed = Reading(response)
            resumed.until(lambda: resumed.text == "1 ")
            assert response.headers["cache-control"] == "no-store, no-transform"
        with client.stream("GET", f"/api/sessions/{chat}/events") as response:
            feed = Reading(response)
            feed.until(lambda: feed.reader.frames)
            assert feed.reader.frames[0].chunk["type"] == "snapshot"
    with client.stream("POST", "/api/tanstack", json=run_body(f"{chat}-t", held)) as response:
        run = Reading(response, id_first=True)
        run.until(lambda: any(frame.chunk["type"] == "TEXT_MESSAGE_CONTENT" for frame in run.reader.frames))


def test_the_first_bytes_do_not_wait_for_a_token(client: httpx.Client, request: pytest.FixtureRequest) -> None:
    chat = name_of(request, "first")
    with posted(client, chat, "count to 2 every 60000 ms") as reading:
        reading.until(lambda: reading.text == "1 ")
    # The cursor that follows the last token: there is nothing to send after it but the opening.
    cursor = next(frame.cursor for frame in reversed(reading.reader.frames) if frame.cursor)
    with client.stream("GET", f"/api/chat/{chat}/stream", headers={"Last-Event-ID": cursor}) as response:
        waiting = Reading(response)
        began = time.monotonic()
        waiting.until(lambda: waiting.reader.comments)
        assert waiting.reader.comments[0] == ": strandline"
        assert waiting.reader.frames == []
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("way", ["as documented", "a short read timeout", "GZipMiddleware behind nginx"])
def test_heartbeats_keep_a_silent_stream_up(nginx: Nginx, urls: dict[str, str], way: str) -> None:
    """Four seconds without a word after each number; nginx would cut after two without a byte."""
    with client_for(nginx, urls[way]) as client, posted(client, f"silent-{len(way)}", "count to 1 every 4000 ms") as it:
        it.to_the_end()
        assert it.text == numbers(1)
        assert it.reader.frames[-1].done
        assert it.reader.comments.count(": hb") >= 4


def test_without_heartbeats_the_short_timeout_would_have_cut_it(
    nginx: Nginx, urls: dict[str, str], launch: Callable[..., ServerProcess]
) -> None:
    """The proof that the test above can fail."""
    with client_for(nginx, urls["a short read timeout"]) as client:
        asked = {"frames": 1, "quiet": 5}
        with (
            client.stream("GET", "/api/doctor", params=asked) as response,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            Reading(response).to_the_end()


def test_a_reader_that_is_cut_resumes_without_gap_or_repetition(
    client: httpx.Client, request: pytest.FixtureRequest
) -> None:
    chat = name_of(request, "cut")
    frames: list[Any] = []
    with posted(client, chat, "count to 60 every 10 ms") as reading:
        reading.until(lambda: len(reading.text) > 10)
        frames += reading.reader.frames
    connections = 1
    while not frames[-1].done:
        cursor = next(frame.cursor for frame in reversed(frames) if frame.cursor)
        with client.stream("GET", f"/api/chat/{chat}/stream", headers={"Last-Event-ID": cursor}) as response:
            if response.status_code == 204:
                break
            assert response.headers["strandline-replay"] == "tail"
            part = Reading(response)
            part.until(lambda part=part: len(part.reader.frames) > 8 or any(each.done for each in part.reader.frames))
            frames += part.reader.frames
        connections += 1
    assert connections > 3
    text = "".join(part["text"] for part in fold_frames(frames).parts() if part["type"] == "text")
    assert text == numbers(60)
    cursors = [frame.cursor for frame in frames if frame.cursor]
    assert len(set(cursors)) == len(cursors), "nothing came twice"
    history = client.get(f"/api/chat/{chat}/messages").json()
    assert history["messages"][1]["parts"][-1]["text"] == text


class PlainUvicorn(ServerProcess):
    """uvicorn without the extra ``fast``: h11 answers an HTTP/1.0 request without saying where the answer ends."""

    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, "-m", "uvicorn", "server_app:app", "--factory", "--app-dir", str(APP.parent)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--http", "h11", "--port", str(self.port)],
                env={**os.environ, "CHAT_DB": self.db},
                stdout=log,
                stderr=log,
            )
        self.wait_ready()


@pytest.mark.parametrize("told", [True, False], ids=["as documented", "HTTP/1.0 to the server"])
def test_a_server_that_dies_does_not_look_like_the_end_of_a_reply(tmp_path: Path, told: bool) -> None:
    server, own = PlainUvicorn(tmp_path), Nginx(tmp_path / "nginx")
    try:
        port = own.as_documented(server.port) if told else own.before(server.port)
        own.start()
        with (
            client_for(own, f"https://127.0.0.1:{port}") as client,
            posted(client, "dies", "count to 2 every 60000 ms") as reading,
        ):
            reading.until(lambda: reading.text == "1 ")
            server.kill()
            # The other outcome is what docs/deploying.md and `strandline doctor` warn of.
            with pytest.raises(httpx.RemoteProtocolError) if told else nullcontext():
                reading.to_the_end()
            assert not reading.reader.frames[-1].done
    finally:
        own.stop()
        server.kill()


def test_json_is_still_compressed(nginx: Nginx, urls: dict[str, str]) -> None:
    """Or the tests with compression would prove nothing."""
    for way in ("gzip for everything", "GZipMiddleware", "GZipMiddleware behind nginx"):
        with client_for(nginx, urls[way]) as client:
            client.post("/api/chat", json=chat_body("compressed", "count to 400 every 0 ms")).raise_for_status()
            history = client.get("/api/chat/compressed/messages")
            assert history.headers["content-encoding"] == "gzip", way
