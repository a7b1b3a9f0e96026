"""A real server: a uvicorn process on a free port, with a real SQLite file and its log captured."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

APP = Path(__file__).parent / "apps" / "server_app.py"


def free_port() -> int:
    """Below the ports which connections going out are given: one of those would take it while a server restarts."""
    while True:
        port = random.randrange(16_384, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class ServerProcess:
    """``start`` again after ``kill`` or ``terminate``: the same port, the same file."""

    path = "/api/readyz"

    def __init__(
        self,
        folder: Path,
        *,
        app: str = "app",
        script: Path = APP,
        env: dict[str, str] | None = None,
        db: str = "chat.db",
        port: int | None = None,
        wait: bool = True,
        python: str = sys.executable,
    ) -> None:
        self.db = db if db == "memory:" else str(folder / db)
        self.log = folder / f"server-{time.monotonic_ns()}.log"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = app
        self.script = str(script)
        self.python = python
        self.env = {"CHAT_DB": self.db, **(env or {})}
        self.process: Any = None
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        self.process = self.launch()
        if wait:
            self.wait_ready()

    def launch(self) -> Any:
        """A new process: a ``Popen``, or what can be used like one."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self.python, self.script, self.app, str(self.port)],
                env=self.environment(),
                stdout=log,
                stderr=log,
            )

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONUNBUFFERED": "1", **self.env}

    def wait_ready(self, timeout: float = 20.0) -> None:
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server has exited: {self.said()}")
            with contextlib.suppress(OSError, HTTPException):
                if self.health() == 200:
                    return
            time.sleep(0.01)
        raise AssertionError(f"the server is not ready: {self.said()}")

    def health(self) -> int:
        """The status of the health check; raises OSError while nobody listens."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", self.path)
            return connection.getresponse().status
        finally:
            connection.close()

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
