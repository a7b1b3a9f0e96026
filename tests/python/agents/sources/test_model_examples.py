"""The examples and pages for OpenAI and Anthropic, run as they are, with a server of ours in the provider's place."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic_recordings
import httpx
import openai_recordings
import pytest
from model_server import ModelServer, model_server, sse

ROOT = Path(__file__).parents[4]
THOUGHT = "The tide table knows."
ARGUMENTS = '{"port":"Kiel"}'
SAID = "2 m."


@pytest.fixture
async def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[ModelServer]:
    """The provider, for clients that are made without arguments, as an application makes them."""
    monkeypatch.chdir(tmp_path)
    async with model_server() as server:
        for name in ("OPENAI", "ANTHROPIC"):
            monkeypatch.setenv(f"{name}_API_KEY", "k")
            monkeypatch.setenv(f"{name}_BASE_URL", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def recordings(provider: str) -> list[bytes]:
    """A call of the tool, then the answer."""
    if provider == "openai":
        o = openai_recordings
        asked = o.responses(o.reasoning(THOUGHT), o.function_call("tide", ARGUMENTS))
        return [sse(asked), sse(o.responses(o.message(o.text(SAID))))]
    a = anthropic_recordings
    asked = a.message(a.thinking(THOUGHT), a.tool_use("tide", ARGUMENTS), stop="tool_use")
    return [sse(asked), sse(a.message(a.text(SAID)))]


async def replied(module: types.ModuleType) -> list[dict[str, Any]]:
    """Ask the application of a module once; the parts of its reply."""
    body = {"id": "c1", "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "How high?"}]}]}
    async with module.chat.lifespan(), module.client:
        transport = httpx.ASGITransport(module.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            await http.post("/api/chat", json=body)
            history = (await http.get("/api/chat/c1/messages")).json()
    return [part for part in history["messages"][-1]["parts"] if part["type"] != "step-start"]


def check(parts: list[dict[str, Any]], output: Any) -> None:
    assert [part["type"] for part in parts] == ["reasoning", "tool-tide", "text"]
    assert (parts[0]["text"], parts[2]["text"]) == (THOUGHT, SAID)
    assert (parts[1]["input"], parts[1]["output"]) == ({"port": "Kiel"}, output)


def example(provider: str, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / provider / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_the_example_answers_with_its_tool(provider: str, model: ModelServer) -> None:
    model.play(*recordings(provider))
    check(await replied(example(provider, "app")), {"port": "Kiel", "height": 2.0, "unit": "m"})
    first, second = model.requests
    assert first["tools"] == second["tools"] and first["stream"] is True
    assert len(second.get("input") or second["messages"]) > len(first.get("input") or first["messages"])


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


async def _tide(port: str) -> str:
    return f"{port}: 2 m"


def run_block(first: str, instead: str = "") -> types.ModuleType:
    """The module that a page's first block is; with another block's agent in place of its own."""
    module = types.ModuleType("chat")
    module.__dict__.update(TOOLS=[], FUNCTIONS={"tide": _tide})
    head, _, rest = first.partition("@chat.agent\n")
    end = rest[rest.index("app = ") :]
    code = head + instead + end if instead else first
    exec(compile(code, "chat.py", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_the_agents_of_the_page_answer(provider: str, model: ModelServer) -> None:
    first, tools, *_ = blocks(f"{provider}.md")
    model.play(recordings(provider)[1], *recordings(provider))
    assert [part["text"] for part in await replied(run_block(first))] == [SAID]
    Path("chat.db").unlink()  # noqa: ASYNC240
    check(await replied(run_block(first, tools)), "Kiel: 2 m")


async def test_the_example_of_chat_completions_answers(model: ModelServer) -> None:
    model.play(sse(openai_recordings.completion(SAID), named=False))
    assert [part["text"] for part in await replied(example("openai", "completions"))] == [SAID]
    assert model.requests[0]["messages"] == [{"role": "user", "content": "How high?"}]


async def test_the_chat_of_the_page_answers(model: ModelServer) -> None:
    first, _, _, chat = blocks("openai.md")
    model.play(sse(openai_recordings.completion(SAID), named=False))
    assert [part["text"] for part in await replied(run_block(first, chat))] == [SAID]
    assert model.requests[0]["messages"] == [{"role": "user", "content": "How high?"}]


def test_strandline_does_not_import_the_libraries() -> None:
    code = "import sys, strandline.cli; print([name for name in ('openai', 'anthropic') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
