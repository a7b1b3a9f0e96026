"""``strandline doctor`` through a real nginx: it has nothing to say about the documented configuration, and where one
setting is wrong it names that one and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from nginx_process import Nginx

from server_process import ServerProcess
from strandline.cli import doctor, main

HEARTBEAT = 0.3
OBEYED = "proxy_http_version 1.1;"
IGNORED = f"{OBEYED} proxy_ignore_headers X-Accel-Buffering;"
GZIP = "gzip on; gzip_types text/event-stream;"


@dataclass
class Way:
    """A way to the server, what is bad about it, and words of what the report must say to change."""

    location: str
    bad: set[str]
    says: tuple[str, ...]
    server: str = ""
    behind: str = ""
    tls: bool = True


WRONG = {
    "buffering that cannot be turned off": Way(
        IGNORED, {"streaming", "heartbeats"}, ("proxy_buffering off", "proxy_ignore_headers X-Accel-Buffering")
    ),
    "the same with compression": Way(
        IGNORED, {"streaming", "heartbeats", "compression"}, ("gzip off", "proxy_buffering off"), GZIP
    ),
    "two nginx in a row": Way(
        OBEYED, {"streaming", "heartbeats"}, ("proxy_pass_header X-Accel-Buffering",), behind="inner"
    ),
    "a small body limit": Way(
        f"{OBEYED} client_max_body_size 10k;", {"body size"}, ("client_max_body_size", "413", "4 KiB get through")
    ),
    "a stripped cursor": Way(
        f'{OBEYED} proxy_set_header Last-Event-ID "";', {"request headers", "resume"}, ("Last-Event-ID",)
    ),
    "a rewritten Cache-Control": Way(
        f'{OBEYED} proxy_hide_header Cache-Control; add_header Cache-Control "public, max-age=60";',
        {"response headers"},
        ("Cache-Control: public, max-age=60", "proxy_hide_header Cache-Control"),
    ),
    "a cache": Way(
        f"{IGNORED} proxy_cache cache; proxy_cache_valid any 1m; proxy_ignore_headers Cache-Control;",
        {"caching"},
        ("from a cache",),
        tls=False,
    ),
}


@pytest.fixture(scope="module")
def ports(nginx: Nginx, launch: Callable[..., ServerProcess]) -> dict[str, int]:
    server = launch(env={"STRANDLINE_HEARTBEAT": str(HEARTBEAT)})
    quiet = launch(env={"STRANDLINE_HEARTBEAT": "30"})
    behind = {"": server.port, "inner": nginx.before(server.port, OBEYED, tls=False)}
    found = {
        name: nginx.before(behind[way.behind], way.location, server=way.server, tls=way.tls)
        for name, way in WRONG.items()
    }
    generous = nginx.before(server.port, f"{OBEYED} proxy_pass_header X-Accel-Buffering;", tls=False)
    found |= {
        "documented": nginx.as_documented(server.port),
        "two nginx, mended": nginx.before(generous, OBEYED),
        "compressed but flowing": nginx.before(server.port, f"{OBEYED} client_max_body_size 1m;", server=GZIP),
        "a short read timeout": nginx.before(quiet.port, f"{OBEYED} proxy_read_timeout 1s;"),
        "a longer one": nginx.before(server.port, f"{OBEYED} proxy_read_timeout 1s;"),
        "HTTP/1.0": nginx.before(server.port),
    }
    nginx.start()
    return found


Examined = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def examined(
    ports: dict[str, int], nginx: Nginx, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Examined:
    """Run the command against one of the ways: its exit code, its findings by check, and all of their words."""
    monkeypatch.setenv("SSL_CERT_FILE", str(nginx.certificate))
    monkeypatch.setattr(doctor, "FRAMES", 12)
    monkeypatch.setattr(doctor, "BEYOND", 1.5)

    def run(way: str, *args: str) -> tuple[int, dict[str, Any], str]:
        scheme = "https" if way not in WRONG or WRONG[way].tls else "http"
        code = main(["doctor", f"{scheme}://127.0.0.1:{ports[way]}/api", "--json", *args])
        report = json.loads(capsys.readouterr().out)
        findings = {each["check"]: each for each in report["findings"]}
        return code, findings, " ".join(f"{each['said']} {each['change']}" for each in findings.values())

    return run


def with_verdict(findings: dict[str, Any], verdict: str) -> set[str]:
    return {name for name, each in findings.items() if each["verdict"] == verdict}


def test_the_documented_configuration_is_fine(examined: Examined) -> None:
    code, findings, words = examined("documented")
    assert code == 0, words
    # "streaming" may be uneven on a machine that is busy with other tests; it must not be bad.
    assert with_verdict(findings, "ok") >= findings.keys() - {"streaming"}, words
    assert "TLSv1" in words
    assert findings["connection"]["measured"]["http2"] is True
    assert findings["body size"]["measured"]["largest"] == 4 * 1024 * 1024


def test_a_certificate_that_nobody_knows(
    ports: dict[str, int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert main(["doctor", f"https://127.0.0.1:{ports['documented']}/api"]) == 4
    assert "SSL_CERT_FILE names a certificate to trust" in capsys.readouterr().err


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_and_nothing_else(examined: Examined, name: str) -> None:
    code, findings, words = examined(name)
    assert with_verdict(findings, "bad") == WRONG[name].bad, words
    assert code == 5
    for said in WRONG[name].says:
        assert said in words, words
    assert all(each["change"] for each in findings.values() if each["verdict"] == "bad")


def test_a_read_timeout_below_the_heartbeat(examined: Examined) -> None:
    code, findings, words = examined("a short read timeout")
    assert (code, with_verdict(findings, "bad")) == (5, {"heartbeats"}), words
    assert "with a heartbeat every 30 s" in findings["heartbeats"]["said"]
    assert "proxy_read_timeout" in findings["heartbeats"]["change"]
    assert 0.9 < findings["heartbeats"]["measured"]["cut"] < 10


def test_how_long_silence_may_last(examined: Examined) -> None:
    code, findings, words = examined("a longer one", "--quiet-for", "5")
    assert code == 0, words
    assert findings["heartbeats"]["verdict"] == "ok"
    assert findings["silence"]["verdict"] == "ok", "cut, but later than two heartbeats"
    assert 0.9 < findings["silence"]["measured"]["cutAfter"] < 4
    code, findings, words = examined("documented", "--quiet-for", "2")
    assert (code, findings["silence"]["measured"]["cutAfter"]) == (0, None), words


def test_the_inner_of_two_nginx_can_hand_the_header_on(examined: Examined) -> None:
    code, findings, words = examined("two nginx, mended")
    assert code == 0, words
    assert findings["streaming"]["verdict"] != "bad"


def test_what_works_but_could_be_better(examined: Examined) -> None:
    code, findings, words = examined("compressed but flowing")
    assert code == 0, words
    assert with_verdict(findings, "warn") - {"streaming"} == {"compression", "body size"}
    assert "1 MiB get through, more does not (status 413)" in findings["body size"]["said"]
    assert findings["compression"]["measured"]["encoding"] == "gzip"
    _, findings, words = examined("HTTP/1.0")
    assert findings["last hop"]["verdict"] == "warn"
    assert "proxy_http_version 1.1" in words
