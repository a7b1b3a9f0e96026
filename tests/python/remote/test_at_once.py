"""Four agents write into one session at once, over real sockets and a real file; one is stopped, one crashes. The
others go on, and each message is whole and attributed: on the feed, on the AI SDK wire, and for who comes later."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server_process import APP, ServerProcess
from strandline.testing import FrameReader, fold_frames, until

Serve = Callable[..., ServerProcess]

TEAM = APP.with_name("team_app.py")


class Reading:
    """A stream that is read in the background."""

    def __init__(self, client: httpx.AsyncClient, method: str, url: str, **request: Any) -> None:
        self.reader = FrameReader()
        self._request = (method, url)
        self._more = request
        self.task = asyncio.create_task(self._read(client))

    async def _read(self, client: httpx.AsyncClient) -> None:
        async with client.stream(*self._request, **self._more) as response:
            assert response.status_code == 200, await response.aread()
            async for data in response.aiter_bytes():
                self.reader.feed(data)

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in fold_frames(self.reader.frames).parts() if part["type"] == "text")

    @property
    def types(self) -> list[str]:
        return ["[DONE]" if frame.done else frame.chunk["type"] for frame in self.reader.frames]


class Feed(Reading):
    """The session feed, by run."""

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [frame.chunk for frame in self.reader.frames if frame.chunk["type"] == kind]

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """By agent: what says that its run was queued."""
        return {event["agent"]: event for event in self.events("run-queued")}

    @property
    def ends(self) -> dict[str, tuple[str, str]]:
        agents = {event["run"]: agent for agent, event in self.runs.items()}
        return {agents[event["run"]]: (event["status"], event["reason"]) for event in self.events("run-ended")}

    def said(self, agent: str) -> str:
        """What the chunks of its run add up to."""
        run = self.runs[agent]["run"] if agent in self.runs else None
        chunks = [chunk for event in self.events("appended") if event["run"] == run for chunk in event["chunks"]]
        return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")


def whole(text: str, agent: str) -> bool:
    """Nothing but the agent's own words, none missing, from the first one to where it ends."""
    numbers = re.findall(rf"{agent}(\d+) ", text)
    counted = "".join(f"{agent}{number} " for number in range(len(numbers)))
    return len(numbers) > 5 and text in (counted, f"{counted}{agent}-end")


@pytest.fixture
def worker() -> Iterator[Callable[[ServerProcess], Any]]:
    """Starts the process of ``far``."""
    started: list[Any] = []

    def start(server: ServerProcess) -> Any:
        command = [sys.executable, str(TEAM), "worker", f"{server.url}/api/agents"]
        started.append(subprocess.Popen(command, env=server.environment()))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("how", ["concurrent", "spawned"])
@pytest.mark.parametrize("crash", ["beta", "far"])
async def test_one_is_stopped_one_crashes_and_the_others_go_on(
    serve: Serve, worker: Callable[[ServerProcess], Any], tmp_path: Path, how: str, crash: str
) -> None:
    """``beta`` raises; ``far`` is another process, which is killed."""
    server = serve(app="app", script=TEAM, env={"GO": str(tmp_path / "go"), "LEASE": "4"})
    team = ["alpha", crash, "gamma", "delta"]
    roots = team if how == "concurrent" else ["lead", *([crash] if crash == "far" else [])]
    beside = [] if how == "concurrent" else [name for name in team if name != "far"]
    async with httpx.AsyncClient(base_url=f"{server.url}/api", timeout=60, limits=httpx.Limits()) as client:
        process = worker(server)
        assert (await client.post("/sessions", json={"id": "c"})).status_code == 201
        feed = Feed(client, "GET", "/sessions/c/events")
        await until(lambda: feed.events("snapshot"))
        posts: dict[str, Reading] = {}
        for name in roots:
            words = " ".join(beside) or "hello"
            message = {"id": f"to-{name}", "role": "user", "parts": [{"type": "text", "text": words}]}
            body = {"id": "c", "messages": [message], "trigger": "submit-message"}
            headers = {"Strandline-Agent": name, "Strandline-Submit": "concurrent"}
            posts[name] = Reading(client, "POST", "/chat", json=body, headers=headers)
        everybody = [*roots, *beside]
        await until(lambda: all(f"{name}5 " in feed.said(name) for name in everybody), 30)
        # The AI SDK wire shows one reply of the conversation at a time, and a spawned one only to who names it.
        shown = Reading(client, "GET", "/chat/c/stream")
        named = {name: Reading(client, "GET", f"/chat/c/stream?run={feed.runs[name]['run']}") for name in beside}
        stop = (await client.post("/chat/c/stop", json={"run": feed.runs["alpha"]["run"]})).json()
        assert (stop["stopped"], stop["status"]) == (True, "stopped")
        if crash == "far":
            process.kill()
        else:
            (tmp_path / "crash-beta").touch()
        await until(lambda: {"alpha", crash} <= set(feed.ends), 30)
        # They go on after both.
        others = [name for name in everybody if name not in ("alpha", crash)]
        by_then = {name: len(feed.said(name)) for name in others}
        await until(lambda: all(len(feed.said(name)) > by_then[name] + 50 for name in others), 30)
        assert set(feed.ends) == {"alpha", crash}
        (tmp_path / "go").touch()
        await until(lambda: set(feed.ends) == set(everybody), 30)
        why = {"alpha": ("stopped", "user"), "beta": ("failed", "agent-error"), "far": ("lost", "lease-expired")}
        assert feed.ends == {name: why.get(name, ("completed", "completed")) for name in everybody}
        told = {name: feed.said(name) for name in everybody}
        for name, text in told.items():
            assert whole(text, name), text
            assert text.endswith("-end") == (name in others)
        for name, run in feed.runs.items():
            assert run.get("spawned", False) == (name in beside)
        # Who sent a message was streamed its own reply; who resumed, the first that is being written.
        order = [name for name in feed.runs if name in roots]
        for name, reading in [*posts.items(), *named.items(), (order[0], shown)]:
            await asyncio.wait_for(reading.task, 30)
            assert (reading.text, reading.types[-1]) == (told[name], "[DONE]")
            last = {"alpha": "abort", crash: "error"}.get(name, "finish")
            assert reading.types[-2] == last
        # And who comes later finds the same.
        feed.task.cancel()
        seen = (await client.get("/sessions/c")).json()
        assert [each["id"] for each in seen["messages"] if each["role"] == "user"] == [f"to-{name}" for name in order]
        found = {each["agent"]: each["message"] for each in seen["spawned"]}
        assert set(found) == set(beside)
        replies = {message["id"]: message for message in seen["messages"] if message["role"] == "assistant"}
        found |= {name: replies[feed.runs[name]["message_id"]] for name in roots}
        assert len(replies) == len(roots)
        for name, message in found.items():
            assert "".join(part.get("text", "") for part in message["parts"]) == told[name]
        history = (await client.get("/chat/c/messages")).json()
        assert len(history["messages"]) == 2 * len(roots)
        assert not any(f"{name}0 " in str(history["messages"]) for name in beside)
