"""``strandline doctor`` against a real server: what it prints, and how it ends when nothing can be measured."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli_processes import Server, server

from strandline.cli import diagnosis, doctor


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few frames, little waiting, and no verdict that a busy machine could change: see test_diagnosis.py."""
    monkeypatch.setattr(doctor, "FRAMES", 3)
    monkeypatch.setattr(doctor, "BEYOND", 1.2)
    monkeypatch.setattr(diagnosis, "TOGETHER", 0.0)
    monkeypatch.setattr(diagnosis, "SLOW", 60.0)
    monkeypatch.setattr(diagnosis, "LATE", 60.0)


@pytest.fixture(scope="module")
def beating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cwd = tmp_path_factory.mktemp("beating")
    with server("demo", "--no-browser", "--db", "d.db", cwd=cwd, STRANDLINE_HEARTBEAT="0.2") as started:
        yield started


@contextmanager
def answering(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Iterator[str]:
    """A server that is not Strandline."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    foreign = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=foreign.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{foreign.server_port}/api"
    finally:
        foreign.shutdown()
        thread.join()
        foreign.server_close()


def test_a_person_reads_one_line_per_check(beating: Server, say: Any, quick: None) -> None:
    code, out, err = say("doctor", beating.api)
    lines = out.splitlines()
    assert code == 0, out
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * (len(lines) - 1)
    assert lines[-1] == f"All {len(lines) - 1} checks are fine."
    assert err == "(waiting 1.4 s for heartbeats)\n"
    assert "\x1b" not in out


def test_what_is_bad_comes_with_what_to_change(beating: Server, say: Any, quick: None) -> None:
    code, out, _ = say("doctor", f"{beating.api}/", "--origin", "http://localhost:3000", "--quiet-for", "1")
    assert code == 5
    assert (
        "bad   cross-origin       the preflight does not allow http://localhost:3000 (status 404)\n      → Allow" in out
    )
    assert "ok    silence" in out
    assert out.endswith("1 bad, of 12 checks.\n")


def test_a_script_reads_one_object(beating: Server, say: Any, quick: None) -> None:
    code, out, err = say("doctor", beating.api, "--json")
    report = json.loads(out)
    assert (code, report["verdict"], report["url"]) == (0, "ok", beating.api)
    assert {frozenset(each) for each in report["findings"]} == {
        frozenset({"check", "verdict", "said", "change", "measured"})
    }
    assert "Traceback" not in err


def test_every_check_is_documented(beating: Server, say: Any, quick: None) -> None:
    text = (Path(__file__).parents[3] / "docs" / "cli.md").read_text("utf-8")
    _, out, _ = say("doctor", beating.api, "--json", "--origin", "http://localhost:3000", "--quiet-for", "0.2")
    checks = [each["check"] for each in json.loads(out)["findings"]]
    assert len(checks) == len(set(checks)) == 12
    for check in checks:
        assert f"\n| {check} | " in text


def test_a_token_or_a_header_is_asked_for_and_sent(
    here: Path, say: Any, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    with server("serve", "main:guarded", cwd=here, STRANDLINE_HEARTBEAT="0.2") as started:
        code, out, err = say("doctor", started.api)
        assert (code, out) == (3, "")
        assert "--token or STRANDLINE_TOKEN" in err and "--header" in err
        assert say("doctor", started.api, "--token", "wrong")[0] == 3
        assert say("doctor", started.api, "--header", "Authorization: Bearer s3cret")[0] == 0
        monkeypatch.setenv("STRANDLINE_TOKEN", "s3cret")
        assert say("doctor", started.api)[0] == 0


PROBLEM = {"Content-Type": "application/problem+json"}
LOOPBACK = b'{"code": "open-beyond-loopback", "detail": "It answers only requests made on this machine."}'


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "said"),
    [
        (200, {}, b"<html>", 4, "must end with the prefix of the API"),
        (404, {}, b"", 4, "must end with the prefix of the API"),
        (502, {"Server": "nginx"}, b"", 4, "does not reach the server behind it"),
        (308, {"Location": "https://x/api/doctor"}, b"", 4, "redirects to https://x/api/doctor"),
        (401, {"Server": "nginx"}, b"", 3, "nginx"),
        (403, {}, b"", 3, "something before the server"),
        (403, PROBLEM, LOOPBACK, 3, "only requests made on this machine"),
        (503, PROBLEM, b'{"code": "not-started", "detail": "Not running."}', 4, "Not running. (not-started)"),
    ],
)
def test_who_cannot_be_measured(
    say: Any, status: int, headers: dict[str, str], body: bytes, code: int, said: str
) -> None:
    with answering(status, headers, body) as url:
        found, out, err = say("doctor", url)
    assert (found, out) == (code, "")
    assert said in err and "Traceback" not in err


def test_nobody_is_there(say: Any) -> None:
    code, out, err = say("doctor", "http://127.0.0.1:1/api")
    assert (code, out) == (4, "")
    assert "Nothing answers at http://127.0.0.1:1/api" in err


def test_tls_that_fails(say: Any, beating: Server) -> None:
    code, _, err = say("doctor", beating.api.replace("http:", "https:"))
    assert code == 4
    assert "Nothing answers" in err and "SSL" in err


@pytest.mark.parametrize(
    "args",
    [
        ("http://x/api", "--header", "no colon"),
        ("http://x/api", "--header", "bad name: x"),
        ("http://x/api", "--header", "A: b\r\nC: d"),
        ("http://x/api", "--quiet-for", "301"),
        ("http://x/api", "--timeout", "soon"),
        (),
    ],
)
def test_what_is_written_wrongly_is_a_usage_error(say: Callable[..., Any], args: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        say("doctor", *args)
    assert ended.value.code == 2


@pytest.mark.parametrize("url", ["ftp://x/api", "nonsense", "http://"])
def test_what_is_not_the_url_of_an_api(say: Any, url: str) -> None:
    code, _, err = say("doctor", url)
    assert code == 2
    assert "must look like" in err
