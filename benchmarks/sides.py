"""The servers that are measured, each as its users run it, pinned to one core."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from machine import SERVER_CORE, free_port, pin

HERE = Path(__file__).parent
NUMBER = "000000"
"""Stands for the number of the request, six digits, in what the load generator sends."""


@dataclass
class Server:
    """A side that runs. ``pids``: its processes, that of the producer last. ``store``: its database file, if any."""

    side: Side
    port: int
    pids: list[int]
    store: Path | None
    start: Callable[[], int]

    def kill(self) -> None:
        """End the producer as a crash does, and start it again."""
        os.kill(self.pids[-1], signal.SIGKILL)
        self.pids[-1] = self.start()


@dataclass(frozen=True)
class Side:
    """One of the servers. ``durable``: what it promises of a token that a reader has seen."""

    name: str
    durable: str
    application: str
    environment: Mapping[str, str] = field(default_factory=dict)
    file: bool = False
    redis: bool = False
    node: bool = False

    def send(self, asked: str, number: str = NUMBER) -> bytes:
        """The request that starts reply ``number`` and streams it."""
        if self.application == "strandline_side":
            message = {"id": f"u{number}", "role": "user", "parts": [{"type": "text", "text": asked}]}
            return http("POST", "/api/chat", json.dumps({"id": f"c{number}", "messages": [message]}))
        return http("POST", f"/chat/{number}", asked)

    def resume(self, number: str = NUMBER, cursor: str | None = None) -> bytes:
        """The request of a reader that comes (back) to reply ``number`` while it is written."""
        path = f"/api/chat/c{number}/stream" if self.application == "strandline_side" else f"/chat/{number}/stream"
        return http("GET", path, None, {} if cursor is None else {"Last-Event-ID": cursor})

    def read_again(self, number: str) -> bytes:
        """The request of somebody who wants to read reply ``number`` after its producer has died."""
        if self.application == "strandline_side":
            return http("GET", f"/api/chat/c{number}/messages", None)
        return self.resume(number)


def _durable(how: str) -> dict[str, str]:
    return {"STRANDLINE_DURABILITY": how}


SIDES = {
    side.name: side
    for side in (
        Side("strandline-full", "fsync before delivery", "strandline_side", _durable("full"), file=True),
        Side("strandline-normal", "outlives the process", "strandline_side", _durable("normal"), file=True),
        Side("strandline-memory", "nothing", "strandline_side"),
        Side("redis-streams", "Redis' memory (AOF every second)", "redis_relay", redis=True),
        Side("resumable-stream", "the producer's memory", "resumable", redis=True, node=True),
        Side("floor", "nothing", "floor"),
    )
}


def http(method: str, path: str, body: str | None, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + (body or "")).encode()


@contextmanager
def running(side: Side, folder: Path, core: int = SERVER_CORE, **environment: str) -> Iterator[Server]:
    """The side, over an empty store in ``folder``."""
    with ExitStack() as stack:
        port, pids, store = free_port(), [], None
        env = {
            **os.environ,
            **side.environment,
            **environment,
            "PYTHONPATH": f"{HERE / 'sides'}:{HERE.parent / 'python'}",
        }
        if side.redis:
            redis_port = free_port()
            env["BENCH_REDIS"] = f"redis://127.0.0.1:{redis_port}/0"
            pids.append(stack.enter_context(_process(_redis(redis_port, folder), env, core, folder)))
            _until(lambda: _redis_answers(redis_port))
        if side.file:
            store = folder / "bench.db"
        env["BENCH_STORE"] = str(store) if store is not None else "memory:"
        if side.node:
            command = ["node", str(HERE / "sides" / f"{side.application}.mjs"), str(port), env["BENCH_REDIS"]]
        else:
            target = f"{side.application}:app"
            command = [sys.executable, "-m", "uvicorn", target, "--port", str(port), "--log-level", "warning"]
            command += ["--no-access-log", "--host", "127.0.0.1"]

        def start() -> int:
            pid = stack.enter_context(_process(command, env, core, folder))
            _until(lambda: _answers(port))
            return pid

        pids.append(start())
        yield Server(side, port, pids, store, start)


@contextmanager
def _process(command: list[str], env: Mapping[str, str], core: int, folder: Path) -> Iterator[int]:
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, preexec_fn=lambda: pin(core), cwd=folder)
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _redis(port: int, folder: Path) -> list[str]:
    binary = shutil.which("redis-server") or sys.exit("redis-server is missing: apt-get install redis-server")
    where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    return [binary, *where, "--appendonly", "yes", "--save", ""]


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError("a server did not start; see its log.txt")
