"""``--log-format json``: whatever collects the output of a container can read every line."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_processes import Command, post, run, server, until

from strandline.cli.json_lines import JsonLines

NOISY = """
import logging
import warnings

logging.getLogger("shop").warning("an order\\nof two lines", extra={"order": 7})

@chat.on_end
def hook(ended):
    warnings.warn("a warning of Python")
    raise RuntimeError("the hook\\nis broken")
"""


def lines(started: Command) -> list[dict[str, Any]]:
    """What has been written on stderr: every line of it, strictly."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    text = started.err
    assert text == "" or text.endswith("\n"), text
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def actions(started: Command) -> list[str]:
    return [line["action"] for line in lines(started) if "action" in line]


def test_every_line_of_a_server_is_json_from_its_start_to_its_end(here: Path) -> None:
    with (here / "main.py").open("a") as module:
        module.write(NOISY)
    with server("serve", "main:chat", "--log-format", "json", "--log-level", "debug", cwd=here) as started:
        post(started.api, "s", "m", "3", whole=True)
        httpx.get(f"{started.url}/nowhere", trust_env=False)
        until("the end of the run", lambda: "on-end-failed" in actions(started))
        assert started.end(signal.SIGTERM) == -signal.SIGTERM
    found = lines(started)
    assert "INFO" not in started.out, "the access log goes to stderr as well"
    for line in found:
        assert list(line)[:3] == ["ts", "level", "logger"] and isinstance(line["message"], str)
        assert line["ts"].endswith("Z") and len(line["ts"]) == 24
    by_logger = {line["logger"] for line in found}
    assert {"uvicorn.error", "uvicorn.access", "strandline", "strandline.runner", "shop", "py.warnings"} <= by_logger
    order = [name for name in actions(started) if name not in ("on-end-failed",)]
    assert order == ["started", "run-started", "run-ended", "drain-begun", "drain-ended", "stopped"]
    [ended] = [line for line in found if line.get("action") == "run-ended"]
    assert (ended["session"], ended["status"], ended["reason"], ended["level"]) == (
        "s",
        "completed",
        "completed",
        "info",
    )
    assert ended["seconds"] > 0 and ended["run"] in ended["message"]
    [failed] = [line for line in found if line.get("action") == "on-end-failed"]
    assert "Traceback" in failed["exception"] and "is broken" in failed["exception"]
    [order_line] = [line for line in found if line["logger"] == "shop"]
    assert (order_line["message"], order_line["order"]) == ("an order\nof two lines", 7)
    assert any("GET /nowhere" in line["message"] for line in found)


def test_the_default_is_text_as_before(here: Path) -> None:
    with server("serve", "main:chat", cwd=here) as started:
        post(started.api, "s", "m", "1", whole=True)
        until("the access log", lambda: "POST /api/chat" in started.out)
        until("the end of the run", lambda: "INFO:     run " in started.err)
        assert started.end(signal.SIGINT) == 0


def test_what_is_refused_before_the_start_is_json_too(here: Path) -> None:
    for target, said in (("absent:chat", "There is no module 'absent'"), ("main:absent", "main has no 'absent'")):
        ended = run("serve", target, "--log-format", "json", "--log-level", "critical", cwd=here)
        [line] = ended.stderr.splitlines()
        assert ended.returncode == 2
        assert said in json.loads(line)["message"] and json.loads(line)["action"] == "refused"


def test_a_start_that_is_refused_and_one_that_fails_are_json(here: Path) -> None:
    with server("serve", "main:chat", cwd=here):
        second = run("serve", "main:app", "--port", "0", "--log-format", "json", cwd=here, STRANDLINE_LOCK_WAIT="0")
    assert second.returncode == 3
    last = [json.loads(line) for line in second.stderr.splitlines()][-1]
    assert "is in use by process" in last["message"]
    (here / "late.py").write_text(
        "from contextlib import asynccontextmanager\nfrom fastapi import FastAPI\n"
        "@asynccontextmanager\nasync def life(app):\n    raise RuntimeError('no mail server')\n    yield\n"
        "app = FastAPI(lifespan=life)\n"
    )
    ended = run("serve", "late:app", "--port", "0", "--log-format", "json", cwd=here)
    said = [json.loads(line) for line in ended.stderr.splitlines()]
    assert any("no mail server" in line["message"] for line in said)


def test_an_end_at_once_is_json(here: Path) -> None:
    with server("serve", "main:chat", "--log-format", "json", cwd=here) as started:
        post(started.api, "s", "m", "9999")
        started.process.send_signal(signal.SIGINT)
        until("the drain", lambda: "drain-begun" in started.err)
        assert started.end(signal.SIGINT) == 130
    assert actions(started)[-1] == "ended-at-once"


def test_the_demo_can_do_it_too(tmp_path: Path) -> None:
    with server("demo", "--no-browser", "--db", "demo.db", "--log-format", "json", cwd=tmp_path) as started:
        post(started.api, "s", "m", "fail after 1", whole=True)
        [failed] = until("the failure", lambda: lines(started))
        assert (failed["action"], failed["session"], failed["level"]) == ("agent-failed", "s", "error")
        assert started.end(signal.SIGINT) == 0


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("message", "args", "more", "shown"),
    [
        ("%d of %s", (1, "a"), {"session": "s"}, {"message": "1 of a", "session": "s"}),
        ("%d", ("x",), {}, {"message": "%d ('x',)"}),
        ("half \ud800, and \u2028", (), {}, {"message": "half \ud800, and \u2028"}),
        ("x", (), {"size": float("nan"), "n": 1}, {"size": "nan", "n": "1"}),
        ("x", (), {"path": Path("/tmp"), "odd": Odd(), "big": 2**70}, {"path": "/tmp", "odd": "<Odd>", "big": 2**70}),
        ("x", (), {"by": {1: 2, (3, 4): 5}}, {"by": {"1": 2}}),
        ("x", (), {"level": "mine", "ts": 1, "logger": 2}, {"level": "info", "level_": "mine", "ts_": 1, "logger_": 2}),
    ],
)
def test_whatever_a_record_holds_it_is_one_line_of_json(
    message: str, args: tuple[Any, ...], more: dict[str, Any], shown: dict[str, Any]
) -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, message, args, None)
    vars(record).update(more)
    text = JsonLines().format(record)
    assert "\n" not in text and text.isascii()
    assert json.loads(text).items() >= shown.items()


def test_a_value_that_holds_itself_and_an_exception_and_a_stack_are_shown() -> None:
    itself: list[Any] = []
    itself.append(itself)
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "m", None, sys.exc_info(), sinfo="the stack")
    vars(record)["itself"] = itself
    line = json.loads(JsonLines().format(record))
    assert line["itself"] == "[[...]]"
    assert line["exception"].endswith("ValueError: broken")
    assert line["stack"] == "the stack"
