"""The examples of remote agents, as their READMEs start them: a server, and the agent in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bad_proxy import BadProxy

from server_process import ServerProcess
from strandline.testing import until

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"


class Example(ServerProcess):
    """``strandline serve main:app``, in a copy of the example's directory."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder / name
        if (EXAMPLES / name).exists():
            shutil.copytree(EXAMPLES / name, self.folder)
        super().__init__(folder)

    def launch(self) -> Any:
        serve = [sys.executable, "-m", "strandline", "serve", "main:app", "--port", str(self.port)]
        with self.log.open("ab") as log:
            return subprocess.Popen(serve, cwd=self.folder, stdout=log, stderr=log)


@pytest.fixture(params=["remote-agent-python", "remote-agent-typescript"])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Example, list[str]]]:
    """The server, and the command that starts the agent; the address comes last."""
    made = Example(request.param, tmp_path)
    if request.param == "remote-agent-python":
        command = [sys.executable, str(made.folder / "agent.py"), "--url"]
    else:
        tsc = ROOT / "node_modules" / ".bin" / "tsc"
        subprocess.run([tsc, "-p", made.folder], check=True, capture_output=True)
        command = ["node", str(made.folder / "agent.js")]
    yield made, command
    made.kill()


def begun(command: list[str], proxy: BadProxy) -> subprocess.Popen[bytes]:
    return started([*command, f"http://127.0.0.1:{proxy.port}/api/agents"])


def started(command: list[str], **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={**os.environ, **env})


async def send(client: httpx.AsyncClient, chat: str, text: str) -> None:
    message = {"id": f"u-{chat}", "role": "user", "parts": [{"type": "text", "text": text}]}
    assert (await client.post("/sessions", json={"id": chat})).status_code == 201
    assert (await client.post(f"/sessions/{chat}/messages", json={"message": message})).status_code == 202


async def shows(client: httpx.AsyncClient, path: str, text: str) -> Any:
    """What is there, once it has this text."""
    for _ in range(1000):
        answer = await client.get(f"/sessions/{path}")
        if text in answer.text:
            return answer.json()
        await asyncio.sleep(0.02)
    raise TimeoutError(f"{path} does not show {text}")


async def ended(client: httpx.AsyncClient, chat: str) -> tuple[str, str]:
    """What the reply says, and how its run ended."""
    for _ in range(3000):
        session = (await client.get(f"/sessions/{chat}")).json()
        if not session["active"]:
            message, run = session["messages"][-1], session["runs"][-1]
            return "".join(part.get("text", "") for part in message["parts"]), run["status"]
        await asyncio.sleep(0.02)
    raise TimeoutError(f"the reply in {chat} does not end")


def counted(to: int) -> str:
    return "".join(f"{number} " for number in range(1, to + 1))


async def test_the_reply_is_exact_over_a_bad_network_and_a_server_that_is_killed(
    example: tuple[Example, list[str]],
) -> None:
    server, command = example
    async with (
        httpx.AsyncClient(base_url=f"{server.url}/api", timeout=30) as client,
        BadProxy(server.port, seed=7, badness=0.3) as proxy,
    ):
        agent = begun(command, proxy)
        try:
            await send(client, "a", "count to 60 every 5 ms")
            await send(client, "b", "count to 80 every 10 ms")
            assert await ended(client, "a") == (counted(60), "completed")
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert await ended(client, "b") == (counted(80), "completed")
            await send(client, "c", "hello?")
            assert await ended(client, "c") == ("Ask me to count to 50 every 100 ms.", "completed")
        finally:
            agent.kill()
            agent.wait()


async def test_an_approval_a_note_and_a_worker_that_is_killed_in_between(example: tuple[Example, list[str]]) -> None:
    server, command = example
    async with (
        httpx.AsyncClient(base_url=f"{server.url}/api", timeout=30) as client,
        BadProxy(server.port, seed=3, badness=0.3) as proxy,
    ):
        agent = begun(command, proxy)
        try:
            await send(client, "c", "count to 200000 every 5 ms")
            (asked,) = (await shows(client, "c/decisions", "toolCallId"))["decisions"]
            assert (asked["tool"], asked["input"]) == ("count", {"to": 200_000})
        finally:
            agent.kill()
            agent.wait()
        decided = await client.post(f"/sessions/c/decisions/{asked['id']}", json={"approved": True})
        assert decided.json()["run"] is not None
        agent = begun(command, proxy)
        try:
            await shows(client, "c", "8 9")
            note = {"id": "n1", "role": "user", "parts": [{"type": "text", "text": "count to 7"}]}
            assert (await client.post("/sessions/c/steer", json={"message": note})).status_code == 202
            text, status = await ended(client, "c")
        finally:
            agent.kill()
            agent.wait()
        numbers = text.removesuffix("(to 7) ")
        assert (numbers, status) == (counted(len(numbers.split())), "completed")
        user, reply = (await client.get("/sessions/c")).json()["messages"]
        assert user["id"] == "u-c"
        kinds = [part["type"] for part in reply["parts"] if part["type"] != "step-start"]
        assert kinds == ["tool-count", "text", "steering-message", "text"]
        assert reply["parts"][1]["output"] == "counting"
        assert text != numbers


async def test_the_page_about_remote_agents_does_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "remote-agents.md").read_text()
    main, agent = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "main.py").write_text(main)
    server = Example("page", tmp_path)
    model = "async def my_llm(prompt):\n    yield 'You said '\n    yield prompt[-1]['content']\n\n"
    code = model + agent.replace("http://127.0.0.1:8000", server.url)
    worker = started([sys.executable, "-c", code], TOKEN="t")
    try:
        async with httpx.AsyncClient(base_url=f"{server.url}/api", timeout=30) as client:
            await send(client, "c", "good day")
            assert await ended(client, "c") == ("You said good day", "completed")
    finally:
        worker.kill()
        worker.wait()
        server.kill()


async def test_a_stop_reaches_the_agent_at_once(example: tuple[Example, list[str]]) -> None:
    server, command = example
    async with (
        httpx.AsyncClient(base_url=f"{server.url}/api", timeout=30) as client,
        BadProxy(server.port, seed=0, badness=0) as proxy,
    ):
        agent = begun(command, proxy)
        try:
            await send(client, "c", "count to 100000 every 10 ms")
            await until(lambda: sum("append" in path for path, _ in proxy.posts) > 3)
            assert (await client.post("/sessions/c/stop", json={})).json()["stopped"] is True
            text, status = await ended(client, "c")
            assert status == "stopped"
            assert counted(100_000).startswith(text)
            before = len(proxy.posts)
            await send(client, "d", "count to 5 every 10 ms")
            assert await ended(client, "d") == (counted(5), "completed")
            # All that came since is of the new run, but for what was on its way.
            late = [path for path, _ in proxy.posts[before:] if path.split("/")[4] == proxy.posts[0][0].split("/")[4]]
            assert len(late) <= 2
        finally:
            agent.kill()
            agent.wait()
