"""A Strandline inside the test process, and a client that reads its streams byte by byte (httpx cannot: its ASGI
transport waits for the whole response)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request

from strandline import Strandline
from strandline.http.auth import Auth
from strandline.settings import Settings
from strandline.stores import MemoryStore, SqliteStore
from strandline.stores.port import Batch, Store
from strandline.testing import FailingStore, Frame, FrameReader, ManualClock, ScriptedAgent, fold_frames, until

EMPTY: dict[str, Any] = {
    "messages": [],
    "activeRun": None,
    "cursor": None,
    "runs": {},
    "branches": {},
    "annotations": {},
    "authors": {},
}
"""The history of a session that does not exist, or that the caller may not see (PROTOCOL §6.7)."""

SHIM = {"Strandline-Client": "shim/0.1.0; ai=7"}


async def user_of(request: Request) -> str:
    return request.headers.get("x-user", "ann")


class Answer:
    """A response that is still coming, or has come."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.over = False
        self.reader = FrameReader()
        self.task: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    @property
    def frames(self) -> list[Frame]:
        return self.reader.frames

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json", self.body
        return str(self.json["code"])

    @property
    def cursor(self) -> str | None:
        return next((frame.cursor for frame in reversed(self.frames) if frame.cursor is not None), None)

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in fold_frames(self.frames).parts() if part["type"] == "text")

    @property
    def types(self) -> list[str]:
        return ["[DONE]" if frame.done else frame.chunk["type"] for frame in self.frames]

    async def until(self, condition: Callable[[], Any]) -> Answer:
        await until(condition)
        return self

    async def until_text(self, text: str) -> Answer:
        return await self.until(lambda: text in self.text)

    async def end(self, timeout: float = 10.0) -> Answer:
        await until(lambda: self.over, timeout)
        return self

    async def drop(self) -> None:
        """The client goes away."""
        self._gone.set()
        assert self.task is not None
        await asyncio.wait({self.task}, timeout=5)
        assert self.task.done()


class Client:
    """Speaks ASGI to the application."""

    def __init__(self, app: Any, headers: Mapping[str, str] | None = None) -> None:
        self.app = app
        self.headers = dict(headers or {})

    async def open(
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None, *, raw: bool = False
    ) -> Answer:
        """Send a request; returns when the headers have come."""
        answer = Answer()
        answer.reader.id_first = url.startswith("/api/tanstack")
        parts = urlsplit(url)
        sent = {"host": "localhost", **self.headers, **(headers or {})}
        content = b"" if body is None else body if raw else json.dumps(body).encode()
        if body is not None:
            sent.setdefault("content-type", "application/json")
            sent["content-length"] = str(len(content))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": _decoded(parts.path),
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        unread = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Any:
            if unread:
                return unread.pop()
            await answer._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            else:
                data = message.get("body", b"")
                answer.body += data
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    answer.reader.feed(data)
                answer.over = not message.get("more_body", False)

        async def call() -> None:
            try:
                await self.app(scope, receive, send)
            finally:
                answer.over = True

        answer.task = asyncio.create_task(call())
        await until(lambda: answer.status or answer.task.done())
        if answer.task.done():
            answer.task.result()
        return answer

    async def ask(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """The whole response."""
        answer = await self.open(method, url, body, headers)
        await answer.end()
        assert answer.task is not None
        await answer.task
        return answer

    async def post(
        self,
        chat: str,
        text: str = "hello",
        id: str = "u1",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Answer:
        """Send a user message as the AI SDK does."""
        message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
        named = {"Idempotency-Key": key} if key is not None else {}
        whole = {"id": chat, "messages": [message], "trigger": "submit-message", **body}
        return await self.open("POST", "/api/chat", whole, {**named, **(headers or {})})

    async def resume(
        self, chat: str, cursor: str | None = None, *, shim: bool = False, query: str = "", **headers: str
    ) -> Answer:
        sent = {**({"Last-Event-ID": cursor} if cursor is not None else {}), **(SHIM if shim else {}), **headers}
        return await self.open("GET", f"/api/chat/{chat}/stream{query}", headers=sent)

    async def stop(self, chat: str, **body: Any) -> Answer:
        return await self.ask("POST", f"/api/chat/{chat}/stop", body)

    async def history(self, chat: str) -> Any:
        answer = await self.ask("GET", f"/api/chat/{chat}/messages")
        assert answer.status == 200
        return answer.json

    def as_user(self, user: str) -> Client:
        return Client(self.app, {**self.headers, "x-user": user})


def _decoded(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)


class Rig(Client):
    """A running Strandline with everything that a test may want to hold."""

    def __init__(self, chat: Strandline, app: Any, store: FailingStore, clock: Any, agent: Any) -> None:
        super().__init__(app)
        self.chat = chat
        self.store = store
        self.clock = clock
        self.agent: ScriptedAgent = agent

    @property
    def sessions(self) -> Any:
        return self.chat.service.sessions

    async def begun(self, chat: str = "c", text: str = "hello", id: str = "u1", **more: Any) -> tuple[Answer, Any]:
        """A POST and the call of the agent that it caused."""
        before = len(self.agent.calls)
        answer = await self.post(chat, text, id, **more)
        assert answer.status == 200, answer.body
        return answer, await self.agent.called(before + 1)

    async def ended(self, chat: str = "c") -> None:
        session = await self.sessions.find(chat)
        await until(lambda: not session.live)

    async def ended_run(self, run: str, chat: str = "c") -> None:
        session = await self.sessions.find(chat)
        await until(lambda: run not in session.live)

    async def go_cold(self, chat: str = "c") -> None:
        """Make the session leave memory, so that everything is read from the store."""
        await self.clock.jump(self.chat.settings.segment_age + 1)
        await self.passing(lambda: self.sessions._live[chat].idle if chat in self.sessions._live else True)
        await self.clock.jump(self.chat.settings.session_idle + 1)
        await self.passing(lambda: chat not in self.sessions._live)
        self.sessions._held.pop(chat, None)

    async def passing(self, condition: Callable[[], Any]) -> None:
        """Let time pass until the condition is true."""
        for _ in range(2000):
            if condition():
                return
            await self.clock.advance(0.5)
            await asyncio.sleep(0.001)
        raise TimeoutError("what the test waits for did not happen")

    def kinds(self, batch: Batch) -> list[str]:
        """The kinds of the events of a batch, in order."""
        return [json.loads(blob)["type"] for entry in batch.entries for blob in entry.events]

    async def log(self, chat: str = "c") -> list[dict[str, Any]]:
        """Every event of a session, warm or cold, by the session feed's own eyes."""
        found: dict[int, dict[str, Any]] = {}
        for batch in self.store.committed:
            for entry in batch.entries:
                if entry.session == chat:
                    for seq, blob in enumerate(entry.events, entry.first_seq):
                        assert seq not in found, "two events with one number"
                        found[seq] = json.loads(blob)
        assert sorted(found) == list(range(1, len(found) + 1))
        return [found[seq] for seq in sorted(found)]

    async def log_from_store(self, chat: str = "c") -> list[dict[str, Any]]:
        """The same, with what an earlier process has written."""
        found = dict(await self.store.events(chat, 1, 2**62))
        session = await self.sessions.find(chat)
        found |= {row[0]: row[2] for row in session.feed.rows(1)}
        assert sorted(found) == list(range(1, len(found) + 1))
        return [json.loads(found[seq]) for seq in sorted(found)]


async def at_once(rig: Rig, *asks: Coroutine[Any, Any, Any], under_way: bool = False) -> list[Any]:
    """What is asked while the writer is busy, one after the other, and then decided in this order. ``under_way``: the
    first of it is what the writer is busy with; else a session ``blocker`` is, which there has to be."""
    before, tasks = rig.store.attempts, []
    rig.store.hang()
    if not under_way:
        asks = (rig.ask("PATCH", "/api/sessions/blocker", {"title": f"{before}"}), *asks)
    for number, each in enumerate(asks):
        tasks.append(task := asyncio.create_task(each))
        if number == 0:
            await until(lambda task=task: rig.store.attempts > before or task.done())
        for _ in range(20):
            await asyncio.sleep(0)
    rig.store.mend()
    answers = [await task for task in tasks]
    return answers if under_way else answers[1:]


FAST = {"first_window": 0.0, "max_window": 0.0, "shutdown_grace": 0.0}


@asynccontextmanager
async def running(
    path: Path | None = None,
    *,
    agent: Any = None,
    store: Store | None = None,
    clock: Any = None,
    wrap: Callable[[Any], Any] | None = None,
    auth: Any = None,
    prepare: Callable[[Strandline], Any] | None = None,
    recover: Any = None,
    more: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """A Strandline over memory, or over a SQLite file at ``path``; ``wrap`` puts middleware around the application,
    ``prepare`` is called with it before it serves, ``more`` are other agents by name."""
    clock = clock or ManualClock()
    failing = (
        store
        if isinstance(store, FailingStore)
        else FailingStore(store or (SqliteStore(path, lock_wait=0) if path is not None else MemoryStore()))
    )
    agent = agent if agent is not None else ScriptedAgent()
    chat = Strandline(failing, auth=auth or Auth(user_of), clock=clock, settings=Settings(**{**FAST, **settings}))
    chat.agent(recover=recover)(agent)
    for name, other in (more or {}).items():
        chat.agent(name=name)(other)
    if prepare is not None:
        prepare(chat)
    app: Any = FastAPI()
    app.include_router(chat.router, prefix="/api")
    async with chat.lifespan():
        yield Rig(chat, wrap(app) if wrap is not None else app, failing, clock, agent)
