"""The Python and the shell of the docs do what the docs say, against a real server."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server_process import ServerProcess
from strandline import open_on_loopback

DOCS = Path(__file__).parents[2] / "docs"
ADDRESS = "http://127.0.0.1:8123"
Serve = Callable[..., ServerProcess]


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{page} has no {language}"
    return found


def printed(code: str, **names: Any) -> str:
    """Run a script; what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "snippet.py", "exec"), {"__name__": "__main__", **names})
    return out.getvalue()


def counted(to: int) -> str:
    return "".join(f"{number} " for number in range(1, to + 1))


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"]({page.name}" in index, page.name


# ---------------------------------------------------------------------- Python


def test_the_ag_ui_script_prints_the_reply(serve: Serve) -> None:
    (code,) = blocks("ag-ui.md", "python")
    assert printed(code.replace(ADDRESS, serve().url)) == counted(5)


@pytest.mark.parametrize("cut_after", [None, 8, 15])
def test_the_script_that_follows_prints_the_reply_over_cut_connections(
    serve: Serve, cut_after: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[httpx.Headers] = []
    stream = httpx.stream

    @contextlib.contextmanager
    def cutting(*args: Any, **more: Any) -> Iterator[httpx.Response]:
        """A connection that dies after so many lines; the first one gets further, or it would bring nothing at all."""
        with stream(*args, **more) as answer:
            lines, number = answer.iter_lines(), len(connections)
            connections.append(answer.request.headers)
            assert number < 100

            def some() -> Iterator[str]:
                for count, line in enumerate(lines):
                    if cut_after is not None and count == cut_after + (6 if number == 0 else 0):
                        raise httpx.ReadError("cut")
                    yield line

            monkeypatch.setattr(answer, "iter_lines", some)
            yield answer

    (code,) = blocks("plain-sse.md", "python")
    monkeypatch.setattr(httpx, "stream", cutting)
    code = code.replace(ADDRESS, serve().url).replace("sleep(0.5)", "sleep(0.01)")
    assert printed(code) == counted(10)
    assert cut_after is None or len(connections) > 2
    assert all("last-event-id" in headers for headers in connections[1:])


def test_the_script_that_deletes_everything_of_somebody_does(serve: Serve) -> None:
    (code,) = blocks("sessions.md", "python")
    url = serve().url
    with httpx.Client(base_url=f"{url}/api") as client:
        for number in range(60):
            client.post("/sessions", json={"id": f"c{number}"})
        client.patch("/sessions/c1", json={"archived": True})
        printed(code.replace(ADDRESS, url))
        assert client.get("/sessions", params={"archived": "any"}).json()["sessions"] == []


class Completions:
    """As much of an OpenAI client as the page uses."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.closed = False
        self.chat = types.SimpleNamespace(completions=self)

    async def create(self, **asked: Any) -> Completions:
        self.asked = asked
        return self

    async def __aenter__(self) -> Completions:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def __aiter__(self) -> AsyncIterator[Any]:
        for word in ("Good ", None, "day"):
            delta = types.SimpleNamespace(content=word)
            yield types.SimpleNamespace(choices=[types.SimpleNamespace(delta=delta)])


async def test_the_agent_and_the_import_of_the_moving_page_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    agent, importing = blocks("moving-from-resumable-stream.md", "python")
    client = Completions()
    module = types.ModuleType("chat")
    monkeypatch.setitem(sys.modules, "chat", module)
    module.__dict__.update(client=client, current_user=open_on_loopback("ann"))
    exec(compile(agent, "chat.py", "exec"), module.__dict__)
    old = [{"id": f"m{i}", "role": role, "parts": [{"type": "text", "text": f"{role} {i}"}]}
           for i, role in enumerate(("user", "assistant"))]  # fmt: skip
    names = {"chat": module.chat, "chat_id": "c1", "messages": old, "user_id": "ann"}
    asked = {"id": "u2", "role": "user", "parts": [{"type": "text", "text": "and now?"}]}
    async with module.chat.lifespan():
        exec(compile(f"async def imported():\n    {importing}", "import.py", "exec"), names)
        await names["imported"]()
        transport = httpx.ASGITransport(module.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            await http.post("/api/chat", json={"id": "c1", "messages": [asked]})
            history = (await http.get("/api/chat/c1/messages")).json()
    assert [message["role"] for message in history["messages"]] == ["user", "assistant"] * 2
    assert history["messages"][-1]["parts"][-1]["text"] == "Good day"
    assert [message["content"] for message in client.asked["messages"]] == ["user 0", "assistant 1", "and now?"]
    assert client.closed


# ---------------------------------------------------------------------- curl


def curl(command: str, server: str) -> tuple[httpx.Request, bool]:
    """The request that a curl command line makes, to this server, and whether it reads a stream. (curl itself need not
    be installed.)"""
    words = shlex.split(command.split("  #")[0])
    assert words.pop(0) == "curl"
    method, headers, data, url, stream = None, {}, None, "", False
    while words:
        word = words.pop(0)
        if word in ("-s", "-sN"):
            stream = "N" in word
        elif word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = words.pop(0)
            json.loads(data)
        else:
            assert word.startswith(ADDRESS) and not url, word
            url = word.replace(ADDRESS, server)
    return httpx.Request(method or ("GET" if data is None else "POST"), url, headers=headers, content=data), stream


def commands(page: str) -> list[str]:
    """Every curl of a page; a command goes on over a line that ends with a backslash or inside a quotation."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [each.strip() for each in re.split(r"^(?=curl )", text, flags=re.MULTILINE) if each.strip()]


@pytest.mark.parametrize("page", ["sessions.md", "plain-sse.md", "branches.md", "several-agents.md"])
def test_every_curl_of_the_page_is_answered_as_it_says(page: str, serve: Serve) -> None:
    url, answers = serve().url, []
    assert len(commands(page)) >= (1 if page == "several-agents.md" else 4)
    with httpx.Client(timeout=20) as client:
        if page in ("branches.md", "several-agents.md"):  # they go on in a conversation that is there
            asked = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "count to 2 every 1 ms"}]}
            client.post(f"{url}/api/chat", json={"id": "c1", "messages": [asked]}).raise_for_status()
        for command in commands(page):
            request, stream = curl(command, url)
            answer = client.send(request, stream=True)
            lines = answer.iter_lines()
            if stream:
                first = next(line for line in lines if line.startswith("data: "))
                answers.append((request, answer.status_code, json.loads(first[6:])))
            else:
                text = "".join(lines)
                answers.append((request, answer.status_code, json.loads(text) if text else None))
            answer.close()
    for request, status, body in answers:
        assert status in (200, 201, 202, 204), (request.method, request.url, body)
    if page == "sessions.md":
        check_sessions([(request.method, request.url.path, status, body) for request, status, body in answers])


def check_sessions(answers: list[tuple[str, str, int, Any]]) -> None:
    made, listed, renamed, archived, every = answers[:5]
    assert made[2] == 201 and made[3]["session"]["title"] == "Tides"
    assert [each["id"] for each in listed[3]["sessions"]] == ["c1"]
    assert renamed[3]["session"]["title"] == "High tides"
    assert archived[3]["session"]["archived"] is True
    assert [each["id"] for each in every[3]["sessions"]] == ["c1"]
    (sent,) = [each for each in answers if each[2] == 202]
    assert set(sent[3]) == {"run", "messageId", "cursor"}
    (stopped,) = [each for each in answers if each[1].endswith("/stop")]
    assert stopped[3]["stopped"] is True
    feeds = [each[3] for each in answers if each[1].endswith("/events")]
    assert [feed["type"] for feed in feeds] == ["snapshot"] * 2
    newest, earlier, lean = [each[3] for each in answers if each[0] == "GET" and each[1].endswith("/messages")]
    assert [message["role"] for message in newest["messages"]] == ["user", "assistant"]
    assert earlier["messages"] == [] and earlier["page"]["before"] is None
    assert [message["id"] for message in lean["messages"]] == [message["id"] for message in newest["messages"]]
    assert isinstance(next(each[3] for each in answers if each[1].endswith("/readers"))["readers"], list)
    assert answers[-1][:3] == ("DELETE", "/api/sessions/c1", 204)
