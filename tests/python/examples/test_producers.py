"""The examples and the docs of these sources, run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from second_python import interpreter
from server_process import ServerProcess
from strandline.testing import fold_frames, read_frames

ROOT = Path(__file__).parents[3]


class Command(ServerProcess):
    """A command line that serves, in a folder of its own."""

    def __init__(self, folder: Path, *args: str, path: str = "/api/readyz", **more: Any) -> None:
        self.args, self.folder, self.path = args, folder, path
        super().__init__(folder, **more)

    def launch(self) -> Any:
        with self.log.open("ab") as log:
            command = [self.python, "-m", *self.args, "--port", str(self.port)]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment(), stdout=log, stderr=log)


@pytest.fixture
def served() -> Iterator[Any]:
    started: list[ServerProcess] = []

    def serve(*args: Any, **more: Any) -> ServerProcess:
        started.append(Command(*args, **more))
        return started[-1]

    yield serve
    for each in started:
        each.kill()


def example(name: str, folder: Path) -> Path:
    return shutil.copytree(ROOT / "examples" / name, folder / name)


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


def asked(url: str, text: str, agent: str | None = None) -> list[Any]:
    """The parts of the reply."""
    message = {"id": f"to-{agent}", "role": "user", "parts": [{"type": "text", "text": text}]}
    named = {"Strandline-Agent": agent} if agent is not None else {}
    answer = httpx.post(f"{url}/api/chat", json={"id": "c", "messages": [message]}, headers=named, timeout=30)
    frames = read_frames(answer.content)
    assert frames[-2].chunk == {"type": "finish", "finishReason": "stop"}, answer.text
    return fold_frames(frames).parts()


def words(parts: list[Any]) -> list[str]:
    return [part["text"].strip() for part in parts if part["type"] == "text"]


def test_the_example_of_the_ai_package(tmp_path: Path, served: Any) -> None:
    server = served(example("ai-python", tmp_path), "strandline", "serve", "main:app", python=interpreter())
    parts = asked(server.url, "What is the weather in Oslo?")
    assert words(parts) == ["Let me look.", "It is 7 °C in Oslo."]
    (tool,) = [part for part in parts if part["type"] == "tool-weather"]
    assert (tool["input"], tool["output"]) == ({"city": "Oslo"}, {"city": "Oslo", "celsius": 7})


COUNTING_FAKE = """
fake = ai.testing.FakeModel([ai.user_message("good day"), ai.assistant_message("Good day to you")])
told = type(fake.provider).stream

async def counting(self, *args, **more):
    async for event in told(self, *args, **more):
        used = ai.types.usage.Usage(input_tokens=3, output_tokens=4)
        yield event.model_copy(update={"usage": used})

type(fake.provider).stream = counting
"""
"""The package's fake model reports no usage."""


def test_the_agent_of_the_ai_page(tmp_path: Path, served: Any) -> None:
    code, _ = snippets("ai-python.md")
    model = 'model = ai.get_model("anthropic:claude-sonnet-4-5")'
    assert model in code
    ended = "\n@chat.on_end\nasync def ended(end):\n    print('used', end.usage, flush=True)\n"
    (tmp_path / "chat.py").write_text(code.replace(model, f"{COUNTING_FAKE}\nmodel = fake") + ended)
    server = served(tmp_path, "strandline", "serve", "chat:app", python=interpreter())
    assert words(asked(server.url, "good day")) == ["Good day to you"]
    server.terminate()
    assert "used {'input_tokens': 3, 'output_tokens': 4}" in server.said()


PAYING_FAKE = """
@ai.tool(require_approval=True)
async def pay(sum: int) -> str:
    'Pays.'
    return f"paid {sum}"

asked = ai.assistant_message("Let me.", ai.testing.tool_call(pay, sum=5))
model = ai.testing.FakeModel([ai.user_message("pay"), asked])
going_on = ai.testing.FakeModel(
    # The package flags what it goes on with, which its fake takes for another message.
    [ai.user_message("pay"), asked.model_copy(update={"replay": True}), ai.assistant_message("Done.")],
)
"""


@pytest.mark.parametrize("approved", [True, False])
def test_the_agent_of_the_ai_page_that_asks(approved: bool, tmp_path: Path, served: Any) -> None:
    whole, asking = snippets("ai-python.md")
    code = whole[: whole.index("@chat.agent")] + asking + "\n\napp = chat.app()\n"
    for old, new in (
        ('model = ai.get_model("anthropic:claude-sonnet-4-5")', PAYING_FAKE),
        ("agent.run(model, messages)", "agent.run(going_on if run.decisions else model, messages)"),
        ("ai.Agent(tools=[])", "ai.Agent(tools=[pay])"),
    ):
        assert code.count(old) == 1
        code = code.replace(old, new)
    (tmp_path / "chat.py").write_text(code)
    server = served(tmp_path, "strandline", "serve", "chat:app", python=interpreter())
    message = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "pay"}]}
    httpx.post(f"{server.url}/api/chat", json={"id": "c", "messages": [message]}, timeout=30)
    decisions = f"{server.url}/api/sessions/c/decisions"
    (waiting,) = httpx.get(decisions).json()["decisions"]
    assert (waiting["tool"], waiting["input"]) == ("pay", {"sum": 5})
    httpx.post(f"{decisions}/{waiting['id']}", json={"approved": approved, "reason": "No."}).raise_for_status()
    httpx.get(f"{server.url}/api/chat/c/stream", timeout=30)
    reply = httpx.get(f"{server.url}/api/chat/c/messages").json()["messages"][-1]
    (tool,) = [part for part in reply["parts"] if part["type"] == "tool-pay"]
    if approved:
        assert (tool["output"], words(reply["parts"])) == ("paid 5", ["Let me.", "Done."])
    else:
        assert "Rejected: No." in str(tool)


def test_the_example_of_an_agent_on_another_server(tmp_path: Path, served: Any) -> None:
    folder = example("remote-producer", tmp_path)
    producer = served(folder, "uvicorn", "producer:app", path="/openapi.json")
    server = served(folder, "strandline", "serve", "main:app", env={"PRODUCER": f"{producer.url}/"})
    assert words(asked(server.url, "Good day to you all")) == ["You said: Good day to you all"]
    assert words(asked(server.url, "And good night", "chat")) == ["You typed: And good night"]


@pytest.mark.parametrize("number, path", [(0, "/api/chat"), (1, "/api/tanstack")])
def test_the_agents_of_the_page_about_producers(
    number: int, path: str, tmp_path: Path, served: Any, serve: Any
) -> None:
    producer = serve()
    code = snippets("producers-by-url.md")[number]
    code, changed = re.subn(r"https://agents\.example\.org/\w+", producer.url + path, code)
    assert changed == 1
    folder = tmp_path / "relay"
    folder.mkdir()
    (folder / "relay.py").write_text(code)
    server = served(folder, "strandline", "serve", "relay:app")
    assert words(asked(server.url, "count to 5 every 1 ms")) == ["1 2 3 4 5"]
