"""The examples and the docs' snippets for agent libraries, with the libraries' own fake models."""

from __future__ import annotations

import itertools
import re
import sys
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import GenericFakeChatModel
from pydantic_ai.models.test import TestModel

from strandline.cli.application import load

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def client_of(chat: Any, app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with chat.lifespan():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client


async def asked(client: httpx.AsyncClient, text: str, id: str = "u1") -> list[dict[str, Any]]:
    """Send a message, and read the reply's parts when it is over."""
    message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
    answer = await client.post("/api/chat", json={"id": "c1", "messages": [message]})
    assert answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n")
    parts: list[dict[str, Any]] = (await last(client))["parts"]
    return parts


async def last(client: httpx.AsyncClient) -> dict[str, Any]:
    """The last message of the history."""
    history = (await client.get("/api/chat/c1/messages")).json()
    message: dict[str, Any] = history["messages"][-1]
    return message


@pytest.fixture
def example(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of an example, loaded as ``strandline serve app:app`` does, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "app.py").write_text((ROOT / "examples" / request.param / "app.py").read_text())
    monkeypatch.setattr(sys, "path", list(sys.path))
    load("app:app")
    module = sys.modules.pop("app")
    assert module.__file__ == str(tmp_path / "app.py")
    return module


@pytest.mark.parametrize("approved", [True, False])
@pytest.mark.parametrize("example", ["pydantic-ai"], indirect=True)
async def test_the_pydantic_ai_example_answers_with_its_tools_when_one_was_decided(
    example: Any, approved: bool, capsys: Any
) -> None:
    async with client_of(example.chat, example.app) as client:
        before = await asked(client, "How high is the tide?")
        assert [part["type"] for part in before] == ["step-start", "tool-tide", "tool-open_lock"]
        assert before[1]["output"]["metres"] == 2.7
        assert before[2]["state"] == "approval-requested"
        message = await last(client)
        parts = await decided(client, {"approved": approved, "reason": "High tide."})
        assert (await last(client))["id"] == message["id"]
        assert parts[1] == before[1]
        if approved:
            assert (parts[2]["state"], parts[2]["output"]) == ("output-available", "The lock at a is open.")
        else:
            assert parts[2]["state"] == "output-denied"
        assert [part["type"] for part in parts[3:]] == ["step-start", "text"]
        assert ("is open" in parts[4]["text"], "High tide." in parts[4]["text"]) == (approved, not approved)
        again = await asked(client, "And now?", "u2")
        assert again[-1]["type"] == "text"
    said = capsys.readouterr().out
    assert said.index("c1 suspended {") < said.index("c1 completed {")


@pytest.mark.parametrize("example", ["langgraph"], indirect=True)
async def test_the_langgraph_example_answers(example: Any) -> None:
    async with client_of(example.chat, example.app) as client:
        for number in (1, 2):
            data, _, text = await asked(client, "When is high tide?", f"u{number}")
            assert data == {"type": "data-progress", "id": "look", "data": {"looking": "at the gauge"}}
            assert text["text"] == "The tide is rising, and will be high at noon."
            assert text["providerMetadata"]["langgraph"]["node"] == "answer"


@pytest.mark.parametrize("example", ["langgraph"], indirect=True)
async def test_the_tool_of_the_langgraph_example_waits_for_a_decision(example: Any) -> None:
    async with client_of(example.chat, example.app) as client:
        for id, approved, state, said in (
            ("u1", True, "output-available", "The lock at Dover is open."),
            ("u2", False, "output-denied", "Not approved: High tide."),
        ):
            data, _, tool = await asked(client, "Open the lock.", id)
            assert (tool["type"], tool["input"]) == ("tool-open_lock", {"place": "Dover"})
            assert tool["state"] == "approval-requested"
            message = await last(client)
            parts = await decided(client, {"approved": approved, "reason": "High tide."})
            assert (await last(client))["id"] == message["id"]
            assert (parts[0], parts[2]["state"], parts[2].get("output")) == (data, state, said if approved else None)
            assert [part["type"] for part in parts[3:]] == ["step-start", "text"]
            assert parts[4]["text"] == said
        text = (await asked(client, "When is high tide?", "u3"))[-1]["text"]
        assert text == "The tide is rising, and will be high at noon."


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


def executed(code: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)
    exec(compile(code, "snippet.py", "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.mark.parametrize("entered", [False, True])
async def test_the_agent_of_the_pydantic_ai_page_answers(
    entered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    whole, own_agent, _ = snippets("pydantic-ai.md")
    if entered:
        head, tail = whole[: whole.index("@chat.agent")], whole[whole.index("app = ") :]
        whole = head + own_agent + tail
    module = executed(whole, monkeypatch)
    with module.agent.override(model=TestModel(custom_output_text="High.")):
        async with client_of(module.chat, module.app) as client:
            assert (await asked(client, "How is the tide?"))[-1]["text"] == "High."
    assert ("High.\n" in capsys.readouterr().out) is entered


async def test_the_graph_of_the_langgraph_page_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stand_in = types.ModuleType("langchain_openai")
    stand_in.ChatOpenAI = lambda **_: GenericFakeChatModel(messages=itertools.repeat("High."))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "langchain_openai", stand_in)
    whole, _ = snippets("langgraph.md")
    module = executed(whole, monkeypatch)
    async with client_of(module.chat, module.app) as client:
        assert (await asked(client, "How is the tide?"))[-1]["text"] == "High."


async def test_the_agent_of_the_pydantic_ai_page_that_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    whole, _, asking = snippets("pydantic-ai.md")
    head, tail = whole[: whole.index("@chat.agent")], whole[whole.index("app = ") :]
    module = executed(head + asking + tail, monkeypatch)
    with module.agent.override(model=TestModel(custom_output_text="Open.")):
        async with client_of(module.chat, module.app) as client:
            (waiting,) = [part for part in await asked(client, "Open it.") if part["type"].startswith("tool-")]
            assert waiting["state"] == "approval-requested"
            _, tool, *_, text = await decided(client, {"approved": True})
    assert (tool["output"], text["text"]) == ("open by 0.0 m", "Open.")


async def test_the_graph_of_the_langgraph_page_that_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stand_in = types.ModuleType("langchain_openai")
    stand_in.ChatOpenAI = lambda **_: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "langchain_openai", stand_in)
    whole, asking = snippets("langgraph.md")
    head, tail = whole[: whole.index("@chat.agent")], whole[whole.index("app = ") :]
    node = "async def answer(state):\n    return {'messages': [AIMessage(f\"At {interrupt('When?')}.\")]}\n\n"
    head += "from langchain_core.messages import AIMessage\nfrom langgraph.types import interrupt\n"
    head += "from langgraph.checkpoint.memory import InMemorySaver\n\n"
    module = executed(head + node + "checkpointer = InMemorySaver()\n" + asking + tail, monkeypatch)
    async with client_of(module.chat, module.app) as client:
        assert (await asked(client, "Meet me."))[-1]["input"] == "When?"
        assert (await decided(client, {"output": "noon"}))[-1]["text"] == "At noon."


async def decided(client: httpx.AsyncClient, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Decide about the one thing that is pending; the parts of the reply when it is over."""
    (waiting,) = (await client.get("/api/sessions/c1/decisions")).json()["decisions"]
    assert (await client.post(f"/api/sessions/c1/decisions/{waiting['id']}", json=answer)).status_code == 200
    await client.get("/api/chat/c1/stream")
    parts: list[dict[str, Any]] = (await last(client))["parts"]
    return parts
