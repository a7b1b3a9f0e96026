"""Real ``strandline`` processes on real ports, for the tests beside this file. Every one is ended by its own id."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

_T = TypeVar("_T")
PATIENCE = 20.0


def until(what: str, look: Callable[[], _T | None], patience: float = PATIENCE) -> _T:
    """Look again and again until there is something; fail after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen in {patience:g} s"
        time.sleep(0.01)


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests, and with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRANDLINE_")}
    return {**kept, "HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "NO_PROXY": "*", "DISPLAY": "", **more}


def run(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "strandline", *args],
        cwd=cwd,
        env=environment(cwd, **env),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


class Command:
    """A command that goes on until it is ended. What it writes is in two files, so nothing ever blocks."""

    def __init__(self, *args: str, cwd: Path, **env: str) -> None:
        number = len(list(cwd.glob("*.stdout")))
        self._out, self._err = cwd / f"{number}.stdout", cwd / f"{number}.stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "strandline", *args],
                cwd=cwd,
                env=environment(cwd, **env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                # A test run in the background ignores SIGINT, and its children would inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8")

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until stdout matches."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.out)
            if found is None and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.out}\n{self.err}")
            return found

        return until(f"{pattern!r} on stdout", look)

    def end(self, number: signal.Signals, patience: float = PATIENCE) -> int:
        self.process.send_signal(number)
        return self.process.wait(patience)


@contextmanager
def command(*args: str, cwd: Path, **env: str) -> Iterator[Command]:
    started = Command(*args, cwd=cwd, **env)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait()


class Server(Command):
    """``serve`` or ``demo``, ready to answer."""

    def __init__(self, *args: str, cwd: Path, port: int = 0, **env: str) -> None:
        super().__init__(*args, "--port", str(port), cwd=cwd, **env)
        self.url = self.says(r"http://\S+:\d+")[0]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.api = f"{self.url}/api"


@contextmanager
def server(*args: str, cwd: Path, port: int = 0, **env: str) -> Iterator[Server]:
    started: Server | None = None
    try:
        started = Server(*args, cwd=cwd, port=port, **env)
        yield started
    finally:
        if started is not None:
            if started.process.poll() is None:
                started.process.kill()
            started.process.wait()


def post(api: str, session: str, message: str, text: str, *, whole: bool = False, token: str | None = None) -> str:
    """Send a message as a browser does. Returns the stream: to its end, or not read at all."""
    body = {
        "id": session,
        "trigger": "submit-message",
        "messages": [{"id": message, "role": "user", "parts": [{"type": "text", "text": text}]}],
    }
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.stream("POST", f"{api}/chat", json=body, headers=headers, timeout=PATIENCE, trust_env=False) as response:
        assert response.status_code == 200, response.read()
        return response.read().decode() if whole else ""
