"""``strandline agent``: a worker of a remote agent, with the function of the example."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import httpx
import pytest
from cli_processes import command, run, server

from server_process import free_port

EXAMPLE = Path(__file__).parents[3] / "examples" / "remote-agent-python"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("main.py", "agent.py"):
        shutil.copy(EXAMPLE / name, tmp_path)
    return tmp_path


def test_it_waits_for_its_server_and_answers_until_it_is_ended(folder: Path) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    with command("agent", "agent:count", "--name", "counter", "--url", api, cwd=folder) as worker:
        worker.says(r"Asking http://\S+ for the runs of counter")
        with server("serve", "main:app", cwd=folder, port=port):
            message = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "count to 5 every 1 ms"}]}
            body = {"id": "c", "messages": [message], "trigger": "submit-message"}
            with httpx.Client(base_url=api, trust_env=False) as client:
                assert client.post("/chat", json=body, timeout=20).status_code == 200
                history = client.get("/chat/c/messages").json()
            assert history["messages"][1]["parts"][-1]["text"] == "1 2 3 4 5 "
            assert worker.end(signal.SIGINT) == 0
        assert "Traceback" not in worker.err


def test_a_server_that_refuses_ends_it(folder: Path) -> None:
    with server("serve", "main:app", cwd=folder) as served:
        refused = run("agent", "agent:count", "--url", served.api, cwd=folder)
        assert refused.returncode == 3
        assert "There is no such remote agent" in refused.stderr
        assert "prefix" not in refused.stderr
        astray = run("agent", "agent:count", "--url", served.api.removesuffix("/api"), cwd=folder)
        assert astray.returncode == 3
        assert "HTTP 404" in astray.stderr and "Is the prefix of the API missing" in astray.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["agent"], "is not MODULE:NAME. For `async def answer(run)`"),
        (["agent:nothing"], "agent has no 'nothing'"),
        (["agent:argparse"], "agent:argparse is not a function"),
        (["agent:count", "--url", "ftp://x"], "must look like"),
        (["agent:count", "--name", "no name"], "--name must be 1 to 200"),
    ],
)
def test_what_is_written_wrongly_is_said(folder: Path, args: list[str], said: str) -> None:
    refused = run("agent", *args, cwd=folder)
    assert refused.returncode == 2
    assert said in refused.stderr
