"""A real server: a uvicorn process on a free port, with a real SQLite file and its log captured."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

APP = Path(__file__).parent / "apps" / "server_app.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """``start`` again after ``kill`` or ``terminate``: the same port, the same file."""

    def __init__(
        self,
        folder: Path,
        *,
        app: str = "app",
        env: dict[str, str] | None = None,
        db: str = "chat.db",
        port: int | None = None,
        wait: bool = True,
    ) -> None:
        self.db = db if db == "memory:" else str(folder / db)
        self.log = folder / f"server-{time.monotonic_ns()}.log"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._app = app
        self._env = env or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(APP), self._app, str(self.port)],
                env={**os.environ, "CHAT_DB": self.db, "PYTHONUNBUFFERED": "1", **self._env},
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = 20.0) -> None:
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server has exited: {self.said()}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/api/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.03)
        raise AssertionError(f"the server is not ready: {self.said()}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """``kill -9``."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self, timeout: float = 30.0) -> tuple[int, float]:
        """SIGTERM; the exit code, and how many seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        return code, time.monotonic() - began
