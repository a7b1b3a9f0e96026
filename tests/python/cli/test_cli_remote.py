"""``tail`` and ``stop``: over HTTP, over drops, and what a script can tell from the exit code."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_processes import Server, command, post, server, until

from strandline.cli.remote import TryAgain, refusal


def frames(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_tail_goes_on_after_a_restart_without_gap_or_repetition(tmp_path: Path) -> None:
    serve = ("demo", "--no-browser", "--db", "d.db")
    with server(*serve, cwd=tmp_path) as first:
        post(first.api, "s", "m1", "count to 5000 every 20 ms")
        with command("tail", "s", "--url", first.api, "--json", cwd=tmp_path) as tail:
            until("some numbers", lambda: tail.out.count('"appended"') > 3)
            first.process.kill()
            first.process.wait()
            until("the drop is noticed", lambda: "connection lost" in tail.err)
            with server(*serve, cwd=tmp_path, port=first.port) as second:
                post(second.api, "s", "m2", "count to 3 every 1 ms", whole=True)
                until("the second reply's end", lambda: tail.out.count('"run-ended"') == 2)
                assert tail.end(signal.SIGINT) == 130
    assert "Traceback" not in tail.err and "connected again" in tail.err
    found = frames(tail.out)
    assert found[0]["type"] == "snapshot"
    assert [each["type"] for each in found].count("snapshot") == 1
    seqs = [each["seq"] for each in found if "seq" in each]
    taken_at = int(found[0]["cursor"].split(".")[1])
    assert seqs == list(range(taken_at + 1, taken_at + 1 + len(seqs)))
    assert all(each["cursor"] for each in found)
    ends = [(each["status"], each["type"]) for each in found if each["type"] == "run-ended"]
    assert ends == [("lost", "run-ended"), ("completed", "run-ended")]


def test_tail_prints_text_as_it_comes(demo: Server, tmp_path: Path) -> None:
    post(demo.api, "text", "m0", "say nothing", whole=True)
    with command("tail", "text", "--url", demo.api, cwd=tmp_path) as tail:
        until("the snapshot", lambda: "── assistant" in tail.out)
        post(demo.api, "text", "m1", "count to 5000 every 20 ms")
        tail.says("1 2 3 ")
        assert "run-ended" not in tail.out
        post(demo.api, "text", "m2", "call weather Oslo", whole=True)
        tail.says(r"\d \n── stopped \(interrupted\)|\d \n── stopped")
        tail.says(r'\[tool weather\] \{"city": "Oslo".*\n\[tool weather\] → .*\nIn Oslo it is')
        tail.says(r"weather up\.\)\n── completed\n$")
        assert tail.end(signal.SIGINT) == 130
    assert tail.err == ""


def test_tail_begins_after_a_cursor(demo: Server, say: Any, tmp_path: Path) -> None:
    post(demo.api, "after", "m", "count to 3 every 1 ms", whole=True)
    with command("tail", "after", "--url", demo.api, "--json", cwd=tmp_path) as tail:
        tail.says('"snapshot"')
        whole = frames(tail.out)[0]
    cursor = f"{whole['cursor'].split('.')[0]}.2.1"
    with command("tail", "after", "--url", demo.api, "--json", "--after", cursor, cwd=tmp_path) as tail:
        tail.says('"run-ended"')
        found = frames(tail.out)
    assert next(each["seq"] for each in found if "seq" in each) == 3
    assert "snapshot" not in {each["type"] for each in found}
    with command("tail", "after", "--url", demo.api, "--after", "zzzzzzzz.1.1", cwd=tmp_path) as tail:
        tail.says("── assistant")
        assert "the log cannot be continued from there" in tail.err


def test_tail_ends_when_the_session_is_deleted(demo: Server, tmp_path: Path) -> None:
    post(demo.api, "gone", "m0", "say nothing", whole=True)
    with command("tail", "gone", "--url", demo.api, "--json", cwd=tmp_path) as tail:
        until("the snapshot", lambda: '"snapshot"' in tail.out)
        assert httpx.delete(f"{demo.api}/sessions/gone").status_code == 204
        until("the end", lambda: tail.process.poll() is not None)
        assert tail.process.returncode == 1
    assert frames(tail.out)[-1]["type"] == "session-deleted"
    assert "The session was deleted." in tail.err and "connection lost" not in tail.err


def test_tail_gives_up_in_the_end(tmp_path: Path) -> None:
    with server("demo", "--no-browser", "--db", "d.db", cwd=tmp_path) as started:
        post(started.api, "s", "m", "say nothing", whole=True)
        with command("tail", "s", "--url", started.api, "--give-up", "0.5", cwd=tmp_path) as tail:
            tail.says("── assistant")
            started.process.kill()
            began = time.monotonic()
            assert tail.process.wait(20) == 4
            assert time.monotonic() - began < 10
    assert "Gave up after 0.5 s" in tail.err and "--after" in tail.err


def test_stop_says_what_happened(demo: Server, say: Any) -> None:
    post(demo.api, "stops", "m", "count to 5000 every 20 ms")
    code, out, _ = say("stop", "stops", "--url", demo.api, "--reason", "too long", "--json")
    answer = json.loads(out)
    assert (code, answer["stopped"], answer["status"], answer["reason"]) == (0, True, "stopped", "too long")

    code, out, _ = say("stop", "stops", "--url", demo.api)
    assert (code, out) == (1, "Nothing is running in session stops.\n")
    code, out, _ = say("stop", "stops", "--run", answer["run"], "--url", demo.api)
    assert (code, out) == (0, f"Run {answer['run']} had ended already: stopped (too long).\n")
    code, out, err = say("stop", "stops", "--run", "run_unknown", "--url", demo.api)
    assert (code, out) == (1, "")
    assert "not-found" in err

    post(demo.api, "stops", "m2", "count to 5000 every 20 ms")
    code, out, _ = say("stop", "stops", "--url", f"{demo.api}/")
    assert (code, out.split()[0]) == (0, "Stopped")


@pytest.mark.parametrize("name", ["tail", "stop"])
def test_an_unknown_session_is_a_no(demo: Server, say: Any, name: str) -> None:
    code, out, err = say(name, "nobody", "--url", demo.api)
    assert (code, out) == (1, "")
    assert "(not-found)" in err and "Traceback" not in err


@pytest.mark.parametrize("name", ["tail", "stop"])
def test_no_server_ends_it_at_once(say: Any, name: str) -> None:
    code, out, err = say(name, "s", "--url", "http://127.0.0.1:1/api")
    assert (code, out) == (4, "")
    assert "No server can be reached at http://127.0.0.1:1/api" in err


@pytest.mark.parametrize("name", ["tail", "stop"])
def test_a_wrong_prefix_is_told_from_an_unknown_session(demo: Server, say: Any, name: str) -> None:
    code, _, err = say(name, "s", "--url", f"{demo.url}/wrong")
    assert code == 4
    assert "must end with the prefix of the API" in err


@pytest.mark.parametrize("name", ["tail", "stop"])
@pytest.mark.parametrize(
    "args",
    [
        ("a/b",),
        ("..",),
        ("a b",),
        ("é",),
        ("s", "--url", "ftp://x/api"),
        ("s", "--url", "nonsense"),
        ("s", "--token", "ü"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(say: Any, name: str, args: tuple[str, ...]) -> None:
    code, out, err = say(name, *args)
    assert (code, out) == (2, "")
    assert err.startswith("strandline: ") and "Traceback" not in err


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [(400, 2, False), (401, 3, False), (403, 3, False), (404, 1, False), (409, 1, False), (422, 2, False)]
    + [(status, 4, True) for status in (429, 500, 502, 503, 504)],
)
def test_a_refusal_has_the_exit_code_of_its_meaning(status: int, code: int, again: bool) -> None:
    problem = {"title": "No", "status": status, "detail": "No, because.", "code": "some-code"}
    answer = httpx.Response(status, json=problem, headers={"Content-Type": "application/problem+json"})
    failure = refusal(answer, "http://x/api")
    assert (failure.code, isinstance(failure, TryAgain)) == (code, again)
    assert str(failure).startswith("No, because. (some-code)")
    bare = refusal(httpx.Response(status, text="<html>"), "http://x/api")
    assert (bare.code, isinstance(bare, TryAgain)) == (4, again)


def test_a_token_is_asked_for_and_sent(here: Path, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with server("serve", "main:guarded", cwd=here) as started:
        post(started.api, "s", "m", "5000", token="s3cret")
        for name in ("tail", "stop"):
            code, _, err = say(name, "s", "--url", started.api)
            assert code == 3
            assert "STRANDLINE_TOKEN" in err
        code, _, err = say("stop", "s", "--url", started.api, "--token", "wrong")
        assert code == 3
        monkeypatch.setenv("STRANDLINE_TOKEN", "s3cret")
        code, _out, err = say("stop", "s", "--url", started.api)
        assert code == 0, err
        with command("tail", "s", "--url", started.api, "--token", "s3cret", cwd=here) as tail:
            tail.says("── assistant")
