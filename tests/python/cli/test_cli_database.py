"""``sessions``, ``show`` and ``new-epoch``: looking into the file, also beside the server that writes it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_processes import Server, command, environment, post, run, server, until

from strandline.cli import terminal

NASTY = "call weather red \x1b[31m bell \x07 back \x08 c1 \x9b2J override \u202e rtl\r\nnext"


def database(demo: Server) -> Path:
    return demo._out.parent / "demo.db"


def shown(say: Any, db: Path, session: str) -> dict[str, Any]:
    code, out, err = say("show", session, "--db", db, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_reply_is_shown_while_it_is_written(demo: Server, say: Any) -> None:
    db = database(demo)
    post(demo.api, "running", "m", "count to 5000 every 20 ms")

    def some_text() -> str:
        parts = shown(say, db, "running")["messages"][-1]["parts"]
        return "".join(part.get("text", "") for part in parts)

    early = until("the first numbers", lambda: some_text())
    later = until("more numbers", lambda: text if len(text := some_text()) > len(early) else None)
    assert later.startswith(early)
    assert "".join(f"{number} " for number in range(1, 5001)).startswith(later)

    picture = shown(say, db, "running")
    active = picture["session"]["activeRun"]
    assert [run["status"] for run in picture["runs"] if run["id"] == active] == ["running"]
    code, out, _ = say("show", "running", "--db", db)
    assert code == 0
    assert f"run {active} running" in out
    assert re.search(r"^  1 (\d+ )*…$", out, re.MULTILINE)
    code, out, _ = say("sessions", "--db", db, "--json")
    (row,) = [each for each in json.loads(out)["sessions"] if each["id"] == "running"]
    assert (row["activeRun"], row["messages"], row["owner"]) == (active, 2, "you")

    assert say("stop", "running", "--url", demo.api)[0] == 0
    code, out, _ = say("show", "running", "--db", db)
    assert f"run {active} stopped (user)" in out and "…" not in out
    assert "runs: 1 stopped" in out


def test_the_log_is_shown_with_the_cursors_that_the_feed_gives(demo: Server, say: Any, tmp_path: Path) -> None:
    post(demo.api, "logged", "m", "count to 3 every 1 ms", whole=True)
    code, out, _ = say("show", "logged", "--db", database(demo), "--events", "--json")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    epoch = events[0]["cursor"].split(".")[0]
    lasts = [len(event.get("chunks", "1")) for event in events]
    assert [event["cursor"] for event in events] == [f"{epoch}.{seq}.{last}" for seq, last in enumerate(lasts, 1)]
    assert shown(say, database(demo), "logged")["cursor"] == events[-1]["cursor"]
    with command("tail", "logged", "--url", demo.api, "--json", "--after", events[0]["cursor"], cwd=tmp_path) as tail:
        tail.says('"run-ended"')
        assert [json.loads(line) for line in tail.out.splitlines() if '"seq"' in line] == events[1:]
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["message-created", "run-queued", "run-started"] and kinds[-1] == "run-ended"
    code, out, _ = say("show", "logged", "--db", database(demo), "--events")
    assert len(out.splitlines()) == len(events)
    assert out.splitlines()[0].startswith(events[0]["cursor"])


def test_tools_reasoning_and_failures_can_be_read(demo: Server, say: Any) -> None:
    db = database(demo)
    post(demo.api, "mixed", "m1", "call weather Lisbon", whole=True)
    post(demo.api, "mixed", "m2", "think 1", whole=True)
    post(demo.api, "mixed", "m3", "say nothing", whole=True)
    post(demo.api, "mixed", "m4", "fail after 1", whole=True)
    code, out, _ = say("show", "mixed", "--db", db)
    assert code == 0
    assert '  [tool weather] {"city": "Lisbon", "unit": "celsius"}\n  [tool weather] → {' in out
    assert "  [thinking] Step 1 of 1" in out
    assert "  (nothing)" in out
    assert "failed (agent-error): " in out
    assert "runs: 3 completed, 1 failed" in out


def test_stored_control_characters_do_not_reach_the_terminal(demo: Server, say: Any) -> None:
    db = database(demo)
    post(demo.api, "nasty", "m", NASTY, whole=True)
    for args in (
        ("sessions",),
        ("sessions", "--json"),
        ("show", "nasty"),
        ("show", "nasty", "--json"),
        ("show", "nasty", "--events"),
    ):
        code, out, _ = say(*args, "--db", db)
        assert code == 0
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", out), args
    assert "\\x1b[31m bell \\x07" in say("show", "nasty", "--db", db)[1]
    assert shown(say, db, "nasty")["messages"][0]["parts"][0]["text"] == NASTY


def test_sessions_are_a_table_newest_first(demo: Server, say: Any) -> None:
    db = database(demo)
    post(demo.api, "older", "m", "say nothing", whole=True)
    post(demo.api, "newer", "m", "say nothing", whole=True)
    code, out, _ = say("sessions", "--db", db, "--limit", "2")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["ID", "TITLE", "OWNER", "UPDATED", "MESSAGES", "ACTIVE", "RUN", "ARCHIVED"]
    assert [line.split()[0] for line in lines[1:]] == ["newer", "older"]
    assert lines[1].split()[1:4] == ["say", "nothing", "you"]


def test_an_archived_session_is_shown_as_one(demo: Server, say: Any) -> None:
    db = database(demo)
    for name in ("kept", "filed"):
        post(demo.api, name, "m", "say nothing", whole=True)
    answer = httpx.patch(f"{demo.api}/sessions/filed", json={"archived": True}, trust_env=False)
    assert answer.status_code == 200
    lines = {line.split()[0]: line.split()[-1] for line in say("sessions", "--db", db)[1].splitlines()}
    assert (lines["filed"], lines["kept"]) == ("yes", "-")
    rows = json.loads(say("sessions", "--db", db, "--json")[1])["sessions"]
    assert [row["archived"] for row in rows if row["id"] in ("kept", "filed")] == [True, False]
    for name, archived in (("kept", False), ("filed", True)):
        assert shown(say, db, name)["session"]["archived"] is archived
        assert (", archived" in say("show", name, "--db", db)[1].splitlines()[1]) is archived


def test_branches_off_the_path_are_counted(demo: Server, say: Any) -> None:
    post(demo.api, "twice", "m1", "say nothing", whole=True)
    assert "other branches" not in say("show", "twice", "--db", database(demo))[1]
    again = {"id": "twice", "trigger": "regenerate-message", "messages": []}
    httpx.post(f"{demo.api}/chat", json=again, trust_env=False).raise_for_status()
    out = say("show", "twice", "--db", database(demo))[1]
    assert "1 more message version on other branches" in out
    assert "runs: 2 completed" in out


def test_what_is_not_there_is_said(demo: Server, say: Any, tmp_path: Path) -> None:
    code, out, err = say("show", "nobody", "--db", database(demo))
    assert (code, out) == (1, "")
    assert "There is no session 'nobody'" in err and "strandline sessions --db" in err
    for args in (("sessions",), ("show", "s"), ("new-epoch",)):
        code, out, err = say(*args, "--db", tmp_path / "absent.db")
        assert (code, out) == (3, "")
        assert "There is no database file" in err
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_refused(say: Any, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but it is long enough to be looked at" * 20)
    code, _, err = say("sessions", "--db", tmp_path / "text.db")
    assert code == 3
    assert "not a usable SQLite database" in err and "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error(demo: Server, tmp_path: Path) -> None:
    # Far more than a pipe holds (64 KiB): or it might all be written before the reader goes.
    post(demo.api, "long", "m", "count to 20000 every 0 ms", whole=True)
    writer = subprocess.Popen(
        [sys.executable, "-m", "strandline", "show", "long", "--events", "--db", str(database(demo))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
    )
    assert writer.stdout is not None and writer.stderr is not None
    with writer.stdout, writer.stderr:
        writer.stdout.readline()
        writer.stdout.close()
        assert writer.stderr.read() == b""
    assert writer.wait(20) == 141


def test_new_epochs_are_refused_beside_a_server_and_given_without_one(tmp_path: Path, say: Any) -> None:
    db = tmp_path / "d.db"
    with server("demo", "--no-browser", "--db", "d.db", cwd=tmp_path) as started:
        post(started.api, "s", "m", "say nothing", whole=True)
        before = shown(say, db, "s")["cursor"]
        code, _, err = say("new-epoch", "--db", db)
        assert code == 3
        assert f"in use by process {started.process.pid}" in err
        assert started.end(signal.SIGTERM) == -signal.SIGTERM
    ended = run("new-epoch", "--db", "d.db", "--json", cwd=tmp_path)
    assert (ended.returncode, json.loads(ended.stdout)) == (0, {"sessions": 1})
    assert shown(say, db, "s")["cursor"].split(".")[0] != before.split(".")[0]
    assert "1 session in" in say("new-epoch", "--db", db)[1]


@pytest.mark.parametrize(("text", "columns"), [("plain", 5), ("日本", 4), ("e\u0301", 1), ("", 0), ("🌊", 2)])
def test_widths_are_those_of_a_terminal(text: str, columns: int) -> None:
    assert terminal.width(text) == columns
    assert terminal.width(terminal.clipped(text * 20, 8)) <= 8


def test_a_table_stays_aligned_whatever_is_in_it() -> None:
    rows = [["a", "日本語\ttab\nnew", "z"], ["bb", "x", "z"]]
    lines = terminal.table(["A", "B", "C"], rows, give=1).splitlines()
    assert len(lines) == 3
    assert len({terminal.width(line) for line in lines}) == 1


def test_json_text_is_what_was_stored_and_harmless() -> None:
    value = {"text": "a\x1b\x7f\x9b\u202e\u2028é日"}
    text = terminal.json_text(value)
    assert json.loads(text) == value
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e]", text)


def test_times_that_make_no_sense_do_not_end_the_command() -> None:
    assert terminal.when(None) == "-"
    assert terminal.when(10**18) == "?"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", terminal.when(1_700_000_000_000))


def test_what_was_deleted_is_not_shown(demo: Server, say: Any) -> None:
    db = database(demo)
    post(demo.api, "deleted", "m1", "count to 3 every 1 ms", whole=True)
    post(demo.api, "deleted", "m2", "the word is tamarind", whole=True)
    (reply,) = [each["id"] for each in shown(say, db, "deleted")["messages"][-1:]]
    for id in ("m2", reply):
        assert httpx.delete(f"{demo.api}/sessions/deleted/messages/{id}").status_code == 204
    for more in ((), ("--events",), ("--events", "--json"), ("--json",)):
        code, out, err = say("show", "deleted", "--db", db, *more)
        assert (code, err) == (0, "")
        assert "tamarind" not in out
        assert "1 2 3" in out or "--events" in more
        assert "other branches" not in out
    assert '"erased"' in say("show", "deleted", "--db", db, "--events", "--json")[1]


def test_tail_says_what_was_changed(demo: Server, tmp_path: Path) -> None:
    post(demo.api, "changed", "m1", "count to 3 every 1 ms", whole=True)
    session = f"{demo.api}/sessions/changed"
    with command("tail", "changed", "--url", demo.api, cwd=tmp_path) as tail:
        until("the snapshot", lambda: "── assistant" in tail.out)
        first = httpx.get(f"{session}/messages").json()["messages"][-1]["id"]
        again = {"trigger": "regenerate-message"}
        assert httpx.post(f"{session}/messages", json=again).status_code == 202
        tail.says("── completed")
        assert httpx.post(f"{session}/branch", json={"message": first}).status_code == 200
        parts = {"parts": [{"type": "text", "text": "else"}]}
        assert httpx.patch(f"{session}/messages/m1", json=parts).status_code == 200
        assert httpx.delete(f"{session}/messages/m1").status_code == 204
        tail.says(rf"\(another branch is shown, up to message {first}\)\n")
        tail.says(r"\(message m1 says something else now.*\)\n\(message m1 was deleted\)\n$")
        assert tail.end(signal.SIGINT) == 130
