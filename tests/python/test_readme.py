"""The README's agent, taken from the README, does what it shows."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import httpx
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def code(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_first_example_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("chat")
    monkeypatch.setitem(sys.modules, "chat", module)
    exec(compile(code("python"), "chat.py", "exec"), module.__dict__)
    body = {"id": "c1", "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "good day"}]}]}
    async with module.chat.lifespan():
        transport = httpx.ASGITransport(module.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            reply = await client.post("/api/chat", json=body)
            history = (await client.get("/api/chat/c1/messages")).json()
    assert reply.status_code == 200
    assert reply.text.endswith("data: [DONE]\n\n")
    assert history["messages"][1]["parts"] == [
        {"type": "step-start"},
        {"type": "text", "text": "You said: good day ", "state": "done"},
    ]
    assert "chat.db" in {path.name for path in tmp_path.iterdir()}  # noqa: ASYNC240


def test_the_agent_is_about_ten_lines() -> None:
    lines = [line for line in code("python").splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10
