"""Servers that die under blocking clients, as plain HTTP libraries are (DESIGN §1.5, §7); more in its neighbours."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from server_process import ServerProcess
from strandline.testing import FrameReader, fold_frames

Serve = Callable[..., ServerProcess]


class Listener(threading.Thread):
    """Posts a message, or resumes, and reads until the server lets go."""

    def __init__(self, server: ServerProcess, chat: str, text: str | None, id: str = "u1", **headers: str) -> None:
        super().__init__(daemon=True)
        self.chat = chat
        self.reader = FrameReader()
        self.refused: int | None = None
        self._server = server
        self._text = text
        self._id = id
        self._headers = headers
        self.start()

    def run(self) -> None:
        base = f"{self._server.url}/api/chat"
        request: dict[str, Any] = {"method": "GET", "url": f"{base}/{self.chat}/stream"}
        if self._text is not None:
            message = {"id": self._id, "role": "user", "parts": [{"type": "text", "text": self._text}]}
            request = {"method": "POST", "url": base, "json": {"id": self.chat, "messages": [message]}}
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.stream(**request, headers=self._headers, timeout=30) as response,
        ):
            if response.status_code != 200:
                self.refused = response.status_code
                return
            for data in response.iter_raw():
                self.reader.feed(data)

    @property
    def text(self) -> str:
        parts = fold_frames(list(self.reader.frames)).parts()
        return "".join(part["text"] for part in parts if part["type"] == "text")

    @property
    def last(self) -> dict[str, Any]:
        """The last chunk that came."""
        chunks = [frame.chunk for frame in self.reader.frames if not frame.done]
        return dict(chunks[-1])

    def hear(self, words: int, timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while len(self.text.split()) < words:
            assert time.monotonic() < deadline, (self.refused, self.text, self._server.said())
            time.sleep(0.005)


def history(server: ServerProcess, chat: str) -> Any:
    return httpx.get(f"{server.url}/api/chat/{chat}/messages", timeout=10).json()


def reply(told: Any) -> str:
    parts = told["messages"][-1]["parts"]
    return "".join(part["text"] for part in parts if part["type"] == "text")


def check_counted(text: str) -> None:
    words = text.split()
    assert words == [str(number) for number in range(1, len(words) + 1)], "in order, without holes"


def test_what_anybody_was_shown_before_a_kill_is_there_after_it(serve: Serve) -> None:
    dice = random.Random(1)
    server = serve()
    for turn in range(2):
        chats = [f"c{turn}-{number}" for number in range(4)]
        listeners = [Listener(server, chat, "count to 100000 every 1 ms") for chat in chats]
        for listener in listeners:
            listener.hear(2)
        seconds = [Listener(server, chat, None) for chat in chats]
        time.sleep(dice.random() * 0.4)
        server.kill()
        for listener in [*listeners, *seconds]:
            listener.join(10)
            assert not listener.is_alive(), "nobody is left on a spinner"
            assert not listener.reader.frames or not listener.reader.frames[-1].done
        server.start()
        for chat, first, second in zip(chats, listeners, seconds, strict=True):
            told = history(server, chat)
            stored = reply(told)
            check_counted(stored)
            assert stored.startswith(first.text)
            assert stored.startswith(second.text)
            assert told["activeRun"] is None
            (run,) = told["runs"].values()
            assert (run["status"], run["reason"]) == ("lost", "process-lost")
            # Who comes back with the last cursor gets the rest and a clear end.
            cursor = next(frame.cursor for frame in reversed(first.reader.frames) if frame.cursor)
            back = FrameReader()
            back.feed(
                httpx.get(f"{server.url}/api/chat/{chat}/stream", headers={"Last-Event-ID": cursor}, timeout=10).content
            )
            assert back.frames[-1].done
            assert back.frames[-2].chunk["code"] == "lost"
            whole = fold_frames([*first.reader.frames, *back.frames])
            assert "".join(part["text"] for part in whole.parts() if part["type"] == "text") == stored
            # The same POST again does not run it again; the next message is taken.
            again = Listener(server, chat, "count to 100000 every 1 ms")
            again.join(10)
            assert again.text == stored
            following = Listener(server, chat, "count to 3 every 1 ms", "u2")
            following.join(10)
            assert following.text == "1 2 3 "
    assert server.said().count("ended as lost") == 2


@pytest.mark.parametrize("shim", [True, False])
def test_sigterm_under_load_loses_nothing_and_keeps_its_grace(serve: Serve, shim: bool) -> None:
    server = serve(env={"STRANDLINE_SHUTDOWN_GRACE": "1.0"})
    headers = {"Strandline-Client": "shim/0.1; ai=7"} if shim else {}
    short = [Listener(server, f"short{number}", "count to 60 every 10 ms", **headers) for number in range(4)]
    long = [Listener(server, f"long{number}", "count to 100000 every 2 ms", **headers) for number in range(4)]
    for listener in [*short, *long]:
        listener.hear(3)
    watching = [Listener(server, f"long{number}", None, **headers) for number in range(4)]
    feed: list[bytes] = []

    def follow() -> None:
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.stream("GET", f"{server.url}/api/sessions/long0/events", timeout=30) as response,
        ):
            feed.extend(response.iter_raw())

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    for listener in watching:
        listener.hear(3)
    deadline = time.monotonic() + 10
    while not feed and time.monotonic() < deadline:
        time.sleep(0.005)
    code, seconds = server.terminate()
    assert code in (0, -15)
    assert seconds < 3.0
    for listener in [*short, *long, *watching]:
        listener.join(5)
        assert not listener.is_alive()
    following.join(5)
    assert b"run-ended" in b"".join(feed)
    for listener in short:
        assert listener.reader.frames[-1].done
        assert listener.text.split()[-1] == "60"
    for listener in [*long, *watching]:
        assert listener.reader.frames[-1].done
        assert listener.last["code"] == "lost"
    assert "Traceback" not in server.said()
    server.start()
    for listener in [*short, *long, *watching]:
        told = history(server, listener.chat)
        assert reply(told) == listener.text
        (run,) = told["runs"].values()
        assert (run["status"], run["reason"]) == (
            ("completed", "completed") if listener.chat.startswith("short") else ("lost", "shutdown")
        )
    assert "of an earlier process" not in server.said()


def test_agents_in_threads_do_not_hold_the_exit_up(serve: Serve) -> None:
    server = serve(app="threads", env={"STRANDLINE_SHUTDOWN_GRACE": "0.3"})
    counting = Listener(server, "count", "go")
    counting.hear(5)
    sleeping = Listener(server, "sleep", "sleep")
    time.sleep(0.3)
    code, seconds = server.terminate()
    assert code in (0, -15)
    assert seconds < 2.3
    counting.join(5)
    sleeping.join(5)
    assert counting.last["code"] == sleeping.last["code"] == "lost"
    server.start()
    check_counted(reply(history(server, "count")))
    assert reply(history(server, "count")) == counting.text
