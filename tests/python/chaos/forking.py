"""A process that has imported everything once and forks a server whenever it is told to: a trial that kills a server
then costs 0.1 s to start the next one, not 0.8 s. What it forks is an ordinary server process with its own memory,
threads and files.

Run as a program it reads one JSON object per line on stdin and answers each on stdout (``Nursery`` speaks to it). A
forked server may carry an ``Aim``: a statement of its own SQLite connections at which it dies, as by ``kill -9``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

TESTS = Path(__file__).parents[1]
REFUSED = 3
_CAPABILITIES_V3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a server dies: ``after`` seconds after it began the ``count``-th statement that starts with ``sql`` (on any
    connection, spaces and case aside). Counted from the start of the process, or from SIGUSR1 (``armed`` False)."""

    sql: str
    count: int = 1
    after: float = 0.0
    armed: bool = True


# ------------------------------------------------------------------------------------------------ in the child


class Trigger:
    """Sees every statement that this process begins."""

    def __init__(self, aim: Aim) -> None:
        self._sql = aim.sql.upper()
        self._left = aim.count
        self._after = aim.after
        self._armed = aim.armed
        self._hit = threading.Event()
        self._counting = threading.Lock()
        if aim.after:
            threading.Thread(target=self._die_later, daemon=True).start()
        signal.signal(signal.SIGUSR1, self._arm)

    def _arm(self, *_: object) -> None:
        self._armed = True

    def _die_later(self) -> None:
        self._hit.wait()
        time.sleep(self._after)
        os.kill(os.getpid(), signal.SIGKILL)

    def begins(self, statement: str) -> None:
        if not self._armed or not statement.lstrip().upper().startswith(self._sql):
            return
        with self._counting:
            self._left -= 1
            if self._left:
                return
        if self._after:
            self._hit.set()
        else:
            os.kill(os.getpid(), signal.SIGKILL)


def take_aim(aim: Aim) -> None:
    """Every connection that this process makes from now on is watched."""
    trigger, connect = Trigger(aim), sqlite3.connect

    def watched(*args: Any, **named: Any) -> sqlite3.Connection:
        db = connect(*args, **named)
        db.set_trace_callback(trigger.begins)
        return db

    sqlite3.connect = watched  # type: ignore[assignment]


def _serve(order: dict[str, Any]) -> None:
    import uvicorn

    from apps import server_app
    from strandline.stores import schema, sqlite

    schema.BUSY_SECONDS = order["busy"]
    sqlite._SWEEPS = 1  # a checkpoint with every sweep: these servers do not live for ten seconds
    uvicorn.run(getattr(server_app, order["app"])(), host="127.0.0.1", port=order["port"], log_level="info")


def _prepare(order: dict[str, Any]) -> None:
    """Only what a store does to its file at every start, the journal in small pieces."""
    from strandline.errors import StrandlineError
    from strandline.stores import schema

    schema._SLICE_BYTES = order["slice"]
    try:
        schema.prepare(Path(order["path"]), order["durability"])
    except StrandlineError as error:
        sys.stdout.write(f"{error.code}: {error}\n")
        sys.exit(REFUSED)


def _command(order: dict[str, Any]) -> None:
    """A ``strandline`` command, in a working directory."""
    from strandline.cli import main
    from strandline.stores import schema

    schema.BUSY_SECONDS = order["busy"]
    os.chdir(order["cwd"])
    sys.exit(main(order["args"]))


def _hinder(order: dict[str, Any]) -> None:
    """Take from this process what it could do as an administrator, or room: bytes that a file may have."""
    if order["file_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"],) * 2)
    if order["hindered"] and os.geteuid() == 0:
        # No capabilities: modes of files are obeyed, also by root.
        header, none = struct.pack("Ii", _CAPABILITIES_V3, 0), bytes(24)
        assert ctypes.CDLL(None).capset(header, none) == 0


def _become(order: dict[str, Any]) -> NoReturn:
    """The forked process. Never returns into the loop of its parent."""
    code = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for fd, at in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(fd, at)
        os.environ.update(order.get("env", {}))
        if order["aim"] is not None:
            take_aim(Aim(**order["aim"]))
        if order["do"] == "command":
            _hinder(order)
        {"serve": _serve, "prepare": _prepare, "command": _command}[order["do"]](order)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _reap(pid: int, timeout: float) -> int | None:
    """The return code of a child as ``Popen`` has it; None when it still runs after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


def _obey() -> None:
    sys.path.insert(0, str(TESTS))
    import uvicorn  # noqa: F401

    from apps import server_app  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "wait":
            answer = _reap(order["pid"], order["timeout"])
        else:
            answer = pid if (pid := os.fork()) else _become(order)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


# ------------------------------------------------------------------------------------------------ in the test


class Forked:
    """A server process, to be used like a ``Popen``."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float = 30.0) -> int:
        code = self._wait(timeout)
        if code is None:
            raise TimeoutError(f"process {self.pid} has not ended in {timeout:g} s")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.ask({"do": "wait", "pid": self.pid, "timeout": timeout})
        return self.returncode


class Nursery:
    """The process that forks. ``close`` ends it; the servers have to be ended before."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._turn = threading.Lock()

    def ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(f"{json.dumps(order)}\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def serve(self, app: str, port: int, env: dict[str, str], log: Path, aim: Aim | None, busy: float) -> Forked:
        """A server with an application of ``server_app``. ``busy``: seconds that it waits for SQLite's locks."""
        return self._fork({"do": "serve", "app": app, "port": port, "env": env, "log": str(log), "busy": busy}, aim)

    def prepare(self, path: Path, durability: str, slice_bytes: int, log: Path, aim: Aim | None) -> Forked:
        """A process that makes a database file ready to be served, and ends."""
        order = {"do": "prepare", "path": str(path), "durability": durability, "slice": slice_bytes, "log": str(log)}
        return self._fork(order, aim)

    def command(
        self, *args: str, cwd: Path, log: Path, hindered: bool = False, file_limit: int | None = None, busy: float = 0.2
    ) -> Forked:
        """A ``strandline`` command. ``hindered``: modes of files count, also for root. ``file_limit``: in bytes."""
        order = {"do": "command", "args": args, "cwd": str(cwd), "log": str(log), "busy": busy}
        return self._fork({**order, "hindered": hindered, "file_limit": file_limit}, None)

    def _fork(self, order: dict[str, Any], aim: Aim | None) -> Forked:
        return Forked(self, self.ask({**order, "aim": None if aim is None else asdict(aim)}))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


if __name__ == "__main__":
    _obey()
