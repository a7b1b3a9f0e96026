"""``strandline serve``: what it serves, what it refuses, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_processes import post, run, server, until

from strandline.cli.application import load
from strandline.cli.exits import Failure


def shown(say: Any, db: Path, session: str) -> dict[str, Any]:
    code, out, err = say("show", session, "--db", db, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def reply_in(picture: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in picture["messages"][-1]["parts"])


@pytest.mark.parametrize("target", ["main:chat", "main:app"])
def test_a_strandline_or_its_application_is_served(here: Path, target: str) -> None:
    with server("serve", target, cwd=here) as started:
        assert httpx.get(f"{started.api}/readyz", trust_env=False).json() == {"ready": True}
        assert '3 "' in post(started.api, "s", "m", "3", whole=True)
        assert f"Serving {target} on http://127.0.0.1:{started.port}" in started.out
        assert started.end(signal.SIGINT) == 0
        assert "Traceback" not in started.err


def test_any_asgi_application_is_served_and_logged(here: Path, say: Any) -> None:
    with server("serve", "main:plain", "--host", "localhost", "--log-level", "info", cwd=here) as started:
        assert httpx.get(f"http://127.0.0.1:{started.port}/x", trust_env=False).text == "plain"
        until("the access log", lambda: "GET /x" in started.out)
        for name in ("tail", "stop"):
            code, _, err = say(name, "s", "--url", started.url)
            assert code == 4
            assert "Does --url end with the prefix of the API?" in err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("main", "is not MODULE:NAME. For `chat = Strandline(...)` in the file main.py write main:chat"),
        ("./main.py:chat", "write main:chat"),
        ("main.py:chat", "Write main:NAME, without .py"),
        ("absent:chat", "There is no module 'absent'"),
        ("main:absent", "main has no 'absent'. It has main:chat, main:app, main:guarded."),
        ("main:reply", "main:reply is the function reply, which cannot be served"),
        ("main:Run", "is the class Run"),
        ("main:asyncio", "is a module"),
        ("main:APPLICATIONS", "main has no 'APPLICATIONS'"),
    ],
)
def test_a_wrong_target_is_a_usage_error_that_says_what_to_write(at_home: Path, target: str, said: str) -> None:
    with pytest.raises(Failure) as caught:
        load(target)
    assert said in str(caught.value)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)


def test_a_module_without_auth_is_refused_with_the_place(at_home: Path, say: Any) -> None:
    (at_home / "noauth.py").write_text("from strandline import Strandline\n\nchat = Strandline('x.db')\n")
    code, _, err = say("serve", "noauth:chat")
    assert code == 3
    assert "noauth cannot be imported: Strandline(auth=...) is missing." in err
    assert "(noauth.py, line 3)" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback_of_an_expected_error_too(at_home: Path, say: Any) -> None:
    (at_home / "noauth.py").write_text("from strandline import Strandline\n\nchat = Strandline('x.db')\n")
    for args in (("--debug", "serve", "noauth:chat"), ("serve", "noauth:chat", "--debug")):
        code, _, err = say(*args)
        assert (code, "Traceback" in err) == (3, True)


def test_a_module_that_raises_shows_its_own_lines_only(at_home: Path, say: Any) -> None:
    (at_home / "raising.py").write_text("def broken():\n    return 1 / 0\n\nchat = broken()\n")
    code, _, err = say("serve", "raising:chat")
    assert code == 3
    assert "strandline: raising cannot be imported." in err
    assert 'raising.py", line 4' in err and "ZeroDivisionError" in err
    assert "importlib" not in err and "application.py" not in err


def test_a_missing_dependency_of_the_module_is_not_called_a_missing_module(at_home: Path, say: Any) -> None:
    (at_home / "needy.py").write_text("import nobody_wrote_this\n")
    code, _, err = say("serve", "needy:chat")
    assert code == 3
    assert "needy cannot be imported: No module named 'nobody_wrote_this'. (needy.py, line 1)" in err


@pytest.mark.parametrize("target", ["main:chat", "main:app"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_the_open_mode_is_not_served_beyond_loopback(at_home: Path, say: Any, target: str, host: str) -> None:
    code, out, err = say("serve", target, "--host", host)
    assert (code, out) == (3, "")
    assert "Use --host 127.0.0.1" in err
    assert not (at_home / "chat.db").exists()


def test_a_strandline_with_a_sign_in_may_be_served_anywhere(at_home: Path) -> None:
    load("main:guarded").refuse_public("0.0.0.0")


def test_a_port_in_use_is_refused_before_the_database_is_touched(at_home: Path, say: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = say("serve", "main:chat", "--port", port)
    assert code == 3
    assert f"Port {port} on 127.0.0.1 is in use by another process." in err
    assert not (at_home / "chat.db").exists()


def test_a_host_that_is_not_of_this_machine_is_refused(at_home: Path, say: Any) -> None:
    code, _, err = say("serve", "main:guarded", "--host", "192.0.2.1")
    assert code == 3
    assert "Cannot listen on 192.0.2.1 port 8000" in err


def test_a_port_that_is_none_is_a_usage_error(at_home: Path, say: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for port in ("70000", "-1", "http", "8_0"):
        with pytest.raises(SystemExit) as caught:
            say("serve", "main:chat", "--port", port)
        assert caught.value.code == 2
        assert "is not a number from 0 to 65535" in capsys.readouterr().err


def test_a_strandline_without_an_agent_does_not_start(here: Path) -> None:
    (here / "idle.py").write_text(
        "from strandline import Strandline, open_on_loopback as o\nchat = Strandline('i.db', auth=o())"
    )
    ended = run("serve", "idle:chat", "--port", "0", "--log-level", "error", cwd=here)
    assert ended.returncode == 3
    assert ended.stderr == "strandline: There is no agent. Decorate the function that answers with @chat.agent.\n"


def test_an_application_that_fails_at_its_start_shows_why(here: Path) -> None:
    (here / "late.py").write_text(
        "from contextlib import asynccontextmanager\nfrom fastapi import FastAPI\n"
        "@asynccontextmanager\nasync def life(app):\n    raise RuntimeError('no mail server')\n    yield\n"
        "app = FastAPI(lifespan=life)\n"
    )
    ended = run("serve", "late:app", "--port", "0", cwd=here)
    assert ended.returncode == 3
    assert "RuntimeError: no mail server" in ended.stderr
    assert ended.stderr.endswith("strandline: The application did not start; the reason is in the lines above.\n")


def test_a_second_process_on_one_file_is_refused_and_names_the_first(here: Path) -> None:
    with server("serve", "main:chat", cwd=here) as first:
        second = run("serve", "main:app", "--port", "0", "--log-level", "error", cwd=here, STRANDLINE_LOCK_WAIT="0")
        assert second.returncode == 3
        assert second.stdout == ""
        assert second.stderr.startswith(f"strandline: chat.db is in use by process {first.process.pid}")
        assert "run one worker" in second.stderr
        assert second.stderr.count("\n") == 1


def test_sigterm_lets_a_reply_finish_and_ends_as_uvicorn_does(here: Path, say: Any) -> None:
    with server("serve", "main:chat", cwd=here) as started:
        post(started.api, "s", "m", "15")
        until("the first number", lambda: reply_in(shown(say, here / "chat.db", "s")))
        assert started.end(signal.SIGTERM) == -signal.SIGTERM
        assert "Traceback" not in started.err
    picture = shown(say, here / "chat.db", "s")
    assert picture["runs"][-1]["status"] == "completed"
    assert reply_in(picture) == "".join(f"{number} " for number in range(1, 16))


def test_sigterm_ends_within_the_grace_and_keeps_what_was_written(here: Path, say: Any) -> None:
    with server("serve", "main:chat", cwd=here, STRANDLINE_SHUTDOWN_GRACE="0.3") as started:
        post(started.api, "s", "m", "9999")
        seen = until("the first number", lambda: reply_in(shown(say, here / "chat.db", "s")))
        began = time.monotonic()
        assert started.end(signal.SIGTERM) == -signal.SIGTERM
        assert time.monotonic() - began < 5.3
    picture = shown(say, here / "chat.db", "s")
    assert (picture["runs"][-1]["status"], picture["runs"][-1]["reason"]) == ("lost", "shutdown")
    assert reply_in(picture).startswith(seen)


def test_a_second_ctrl_c_does_not_wait_and_loses_nothing(here: Path, say: Any) -> None:
    with server("serve", "main:chat", cwd=here) as started:
        post(started.api, "s", "m", "9999")
        seen = until("the first number", lambda: reply_in(shown(say, here / "chat.db", "s")))
        started.process.send_signal(signal.SIGINT)
        until("the shutdown", lambda: "Shutting down" in started.err)
        assert started.end(signal.SIGINT, patience=5) == 130
        assert "Ended at once." in started.err and "Traceback" not in started.err
    assert reply_in(shown(say, here / "chat.db", "s")).startswith(seen)


def test_the_module_can_be_run(here: Path) -> None:
    ended = run("--version", cwd=here)
    assert (ended.returncode, ended.stdout.split()[0]) == (0, "strandline")
