"""``examples/durable-execution``: the process is killed in the middle of a workflow, and its reply goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Client

from server_process import ServerProcess

EXAMPLE = Path(__file__).parents[3] / "examples" / "durable-execution"
SECTIONS = ["Question", "Evidence", "Objections", "Conclusion"]


class Example(ServerProcess):
    def launch(self) -> Any:
        command = [sys.executable, "-m", "uvicorn", "main:app", "--app-dir", str(EXAMPLE), "--port", str(self.port)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env={**os.environ, **self.env}, stdout=log, stderr=log)


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    env = {"WORKFLOWS_DB": f"sqlite:///{tmp_path}/workflows.sqlite", "STEP_SECONDS": "2", "PYTHONUNBUFFERED": "1"}
    server = Example(tmp_path, env=env, wait=False)
    server.wait_ready(60)
    yield server
    server.kill()


def said(text: str) -> list[str]:
    return [section for line in text.split("\n\n") for section in SECTIONS if line.startswith(f"{section}:")]


def test_the_reply_goes_on_without_a_second_copy_and_without_doing_anything_again(example: Example) -> None:
    message = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "Should we move?"}]}
    with Client(base_url=example.url, timeout=60) as client:
        client.post("/api/sessions/c/messages", json={"message": message}).raise_for_status()
        seen = ""
        with client.stream("GET", "/api/sessions/c/events") as feed:
            for line in feed.iter_lines():
                seen += line
                if "Evidence:" in seen and '"checkpointed"' in seen.split("Evidence:")[1]:
                    break
        example.kill()
        before = example.said().count("step ")
        example.env["STEP_SECONDS"] = "0.1"
        example.start(wait=False)
        example.wait_ready(60)
        with client.stream("GET", "/api/chat/c/stream") as rest:
            assert rest.status_code == 200
            assert rest.read().endswith(b"data: [DONE]\n\n")
        history = client.get("/api/chat/c/messages").json()
        text = "".join(part.get("text", "") for part in history["messages"][-1]["parts"])
        assert said(text) == SECTIONS
        assert text.count(":") == len(SECTIONS)
        [run] = history["runs"].values()
        assert run["status"] == "completed"
        steps = [line.split()[1] for line in example.said().splitlines() if line.startswith("step ")]
        assert before < len(steps), "it was killed in the middle"
        assert [steps.count(section) for section in ("Question", "Evidence", "Conclusion")] == [1, 1, 1]
        assert steps.count("Objections") in (1, 2)  # the one that was cut in the middle
