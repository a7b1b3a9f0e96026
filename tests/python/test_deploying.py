"""docs/deploying.md: the commands of the Dockerfile and of the unit start what the page shows, and their times fit."""

from __future__ import annotations

import configparser
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from server_process import ServerProcess
from strandline.cli.serving import _BEYOND_GRACE
from strandline.runtime.journal import _STOP_PATIENCE
from strandline.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploying.md").read_text("utf-8")
SYSTEM = ("/srv/chat", "/var/lib/chat")
"""The folders that exist where it is deployed; here they are below the folder of the test."""

SLOWLY = """\
    import asyncio
    for number in range(1, 41):
        yield f"{number} "
        await asyncio.sleep(0.025)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def block(language: str, name: str) -> str:
    """The one that begins with this comment."""
    (found,) = [each for each in blocks(language) if each.startswith(f"# {name}")]
    return found


def instructions() -> dict[str, list[str]]:
    """What follows each keyword of the Dockerfile, by keyword."""
    found: dict[str, list[str]] = {}
    (text,) = blocks("dockerfile")
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            keyword, _, rest = line.partition(" ")
            found.setdefault(keyword, []).append(rest.strip())
    return found


def health_check() -> list[str]:
    (text,) = instructions()["HEALTHCHECK"]
    words: list[str] = json.loads(text.split(" CMD ")[1])
    return words


def unit() -> configparser.SectionProxy:
    parsed = configparser.ConfigParser(interpolation=None, delimiters="=")
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(block("ini", "/etc/systemd/system/chat.service"))
    return parsed["Service"]


def variables() -> dict[str, str]:
    """Those of chat.env, read as both readers do."""
    lines = [line for line in block("ini", "chat.env").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Z_]+=[^\s'\"]*", line) for line in lines)
    return dict(line.split("=", 1) for line in lines)


def shell(program: str) -> list[list[str]]:
    """The commands of the page's shell that call a program."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))[:1] == [program]]


def commands() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Each way to start it: the words, and the variables that are set beside those of chat.env."""
    found = instructions()
    (image,) = found["CMD"]
    assert "ENTRYPOINT" not in found
    container = dict(line.split("=", 1) for line in found["ENV"])
    (alone,) = shell("uvicorn")
    return {
        "container": (json.loads(image), container),
        "systemd": (shlex.split(unit()["ExecStart"]), {}),
        "uvicorn": (alone, {}),
    }


class Machine:
    """A folder that has what the page puts on a machine, and its programs, all run by this interpreter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (*SYSTEM, "/bin"):
            self.at(name).mkdir(parents=True)
        for name, words in (("python", ""), ("strandline", "-m strandline "), ("uvicorn", "-m uvicorn ")):
            program = self.at(f"/bin/{name}")
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words}"$@"\n')
            program.chmod(0o755)

    def at(self, path: str) -> Path:
        return self.folder / path.lstrip("/")

    def words(self, words: list[str], port: int) -> list[str]:
        program = f"/bin/{Path(words[0]).name}"
        return [str(self.at(program)), *(re.sub(r"\b8000\b", str(port), each) for each in words[1:])]

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        """Nothing but what the page gives."""
        local = {name: str(self.at(text)) if text.startswith(SYSTEM) else text for name, text in given.items()}
        code = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
        return {"PATH": f"{self.at('/bin')}:/bin:/usr/bin", **code, **local}


class Deployed(ServerProcess):
    path = "/api/healthz"

    def __init__(self, machine: Machine, words: list[str], given: dict[str, str]) -> None:
        self.machine, self.documented, self.given = machine, words, given
        super().__init__(machine.folder, wait=False)

    def launch(self) -> Any:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.machine.words(self.documented, self.port),
                cwd=self.machine.at("/srv/chat"),
                env=self.machine.environment(self.given),
                stdout=log,
                stderr=log,
            )

    def healthy(self) -> bool:
        """What the HEALTHCHECK says."""
        words = self.machine.words(health_check(), self.port)
        checked = subprocess.run(words, env=self.machine.environment({}), capture_output=True, timeout=20)
        return checked.returncode == 0


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployed]]:
    started: list[Deployed] = []

    def start(way: str, **given: str) -> Deployed:
        machine = Machine(tmp_path)
        code = block("python", "main.py")
        assert code.count('    yield "Good day."') == 1
        machine.at("/srv/chat/main.py").write_text(re.sub(r'    yield "Good day.".*\n', SLOWLY, code))
        words, beside = commands()[way]
        started.append(Deployed(machine, words, {**beside, **variables(), **given}))
        started[-1].wait_ready()
        return started[-1]

    yield start
    for server in started:
        server.kill()


def key() -> str:
    """What the comment in chat.env says to do prints."""
    (code,) = re.findall(r"python3 -c '(.*)'", block("ini", "chat.env"))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


@pytest.mark.parametrize("way", commands())
def test_the_command_serves_what_the_page_shows_and_ends_gracefully(way: str, deploy: Callable[..., Deployed]) -> None:
    secret = key()
    server = deploy(way, CHAT_KEY=secret)
    assert server.healthy()
    body = {"id": "c", "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "Good day"}]}]}
    assert httpx.post(f"{server.url}/api/chat", json=body).status_code == 401
    token = jwt.encode({"sub": "ann", "exp": 32503680000}, secret)
    sent = {"json": body, "headers": {"Authorization": f"Bearer {token}"}, "timeout": 20}
    with httpx.stream("POST", f"{server.url}/api/chat", **sent) as answer:
        lines = answer.iter_lines()
        assert any('"delta":"3 "' in line for line in lines)
        server.process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert any('"delta":"40 "' in line for line in rest), "the reply was said to its end"
    assert rest[-2] == "data: [DONE]"
    assert server.process.wait(stop_time()) in (0, -signal.SIGTERM), server.said()
    assert "Traceback" not in server.said()
    assert not server.healthy()
    assert {path.name for path in server.machine.at("/var/lib/chat").iterdir()} == {"chat.db", "chat.db.lock"}
    assert [path.name for path in server.machine.at("/srv/chat").glob("chat.*")] == []


def test_a_file_of_variables_that_nobody_has_filled_in_is_refused(deploy: Callable[..., Deployed]) -> None:
    with pytest.raises(AssertionError, match=r"jwt_bearer: .* key must not be empty"):
        deploy("systemd")


# ---------------------------------------------------------------------- what the pages agree about


def stop_time() -> int:
    return int(unit()["TimeoutStopSec"])


def test_whoever_stops_it_waits_for_as_long_as_it_may_take() -> None:
    settings = Settings(shutdown_grace=float(variables()["STRANDLINE_SHUTDOWN_GRACE"]))
    assert settings.shutdown_grace == Settings().shutdown_grace
    drained = math.ceil(settings.shutdown_grace + _BEYOND_GRACE)
    (alone,) = shell("uvicorn")
    assert alone[alone.index("--timeout-graceful-shutdown") + 1] == str(drained)
    needed = drained + settings.commit_patience + _STOP_PATIENCE
    given = re.findall(
        r"(?:--stop-timeout |TimeoutStopSec=|stop_grace_period: |terminationGracePeriodSeconds: )(\d+)",
        PAGE + (ROOT / "docs" / "operations.md").read_text("utf-8"),
    )
    assert len(given) >= 5
    assert {int(seconds) for seconds in given} == {needed}


def test_the_container_is_nobody_s_root_and_keeps_its_file_in_its_volume() -> None:
    found = instructions()
    assert list(found).index("USER") < list(found).index("CMD") and found["USER"] == ["chat"]
    assert "0.0.0.0" in json.loads(found["CMD"][0]), "from outside the container"
    assert any("useradd" in line and line.count(found["VOLUME"][0]) == 1 for line in found["RUN"])
    (run,) = [words for words in shell("docker") if words[1] == "run"]
    assert run[run.index("-v") + 1].split(":")[1:] == found["VOLUME"]
    assert run[run.index("-p") + 1].split(":")[-1:] == found["EXPOSE"]
    environment = dict(line.split("=", 1) for line in found["ENV"])
    assert environment["CHAT_DB"] == variables()["CHAT_DB"]
    assert [str(Path(environment["CHAT_DB"]).parent)] == found["VOLUME"] == [f"/var/lib/{unit()['StateDirectory']}"]
    assert found["STOPSIGNAL"] == ["SIGTERM"]
    assert unit()["User"] in (words[-1] for words in shell("useradd"))


def test_what_is_installed_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = re.findall(r'pip install (?:--no-cache-dir )?"strandline\[([\w,]+)\]"', PAGE)
    assert len(named) >= 2
    assert {extra for each in named for extra in each.split(",")} <= set(project["optional-dependencies"])
    (python,) = re.findall(r"^FROM python:3\.(\d+)-slim$", blocks("dockerfile")[0], re.MULTILINE)
    assert int(python) >= int(project["requires-python"].removeprefix(">=3."))
