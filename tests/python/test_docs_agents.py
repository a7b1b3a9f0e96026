"""The agents, policies and calls that the docs show, run as they stand there, do what the page says."""

from __future__ import annotations

import asyncio
import re
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import strandline
from strandline import Identity, Strandline
from strandline.http.auth import Action, Auth
from strandline.testing import until

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```py(?:thon)?\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def executed(code: str, **names: Any) -> types.ModuleType:
    """The module that a page's code is. ``names``: what the page leaves to its reader."""
    module = types.ModuleType("page")
    module.__dict__.update(names)
    exec(compile(code, "page.py", "exec", dont_inherit=True), module.__dict__)
    return module


async def awaited(code: str, module: types.ModuleType) -> Any:
    """Run code that awaits, with the names of the module; what it sets are names of the module then."""
    names = re.findall(r"^(\w+) = ", code, re.MULTILINE)
    head = f"global {', '.join(names)}" if names else "pass"
    body = "".join(f"    {line}\n" for line in [head, *code.splitlines()])
    exec(compile(f"async def _code():\n{body}", "page.py", "exec", dont_inherit=True), module.__dict__)
    return await module.__dict__["_code"]()


async def my_llm(prompt: list[dict[str, str]]) -> AsyncIterator[str]:
    """The reader's own model."""
    for word in ("You ", "said: ", prompt[-1]["content"]):
        yield word


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Printed(list[str]):
    """In the place of ``print``."""

    def __call__(self, *words: object) -> None:
        self.append(" ".join(map(str, words)))


class Client:
    """Somebody who asks over HTTP."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def ask(self, text: str, id: str = "u1", **headers: str) -> dict[str, Any]:
        """The reply to a message, when it is over."""
        message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
        await self.http.post("/api/chat", json={"id": "c1", "messages": [message]}, headers=headers)
        async with asyncio.timeout(20):  # an open stream cannot show a reply that is said anew: read until it is over
            while (await self.http.get("/api/chat/c1/stream")).status_code != 204:
                pass
        return await self.last()

    async def last(self) -> dict[str, Any]:
        message: dict[str, Any] = (await self.http.get("/api/chat/c1/messages")).json()["messages"][-1]
        return message

    async def pending(self) -> dict[str, Any]:
        (found,) = (await self.http.get("/api/sessions/c1/decisions")).json()["decisions"]
        return dict(found)


@asynccontextmanager
async def served(chat: Strandline, app: Any = None) -> AsyncIterator[Client]:
    async with chat.lifespan():
        transport = httpx.ASGITransport(app or chat.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield Client(http)


def said(message: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in message["parts"])


# ---------------------------------------------------------------------- agents.md


async def test_writing_an_agent() -> None:
    printed = Printed()
    agent, ending, speaking, importing, including = blocks("agents.md")
    old = [{"id": "m0", "role": "user", "parts": [{"type": "text", "text": "Long ago"}]}]
    page = executed(f"{agent}\n{ending}\n{including}", my_llm=my_llm, FastAPI=FastAPI, messages=old, print=printed)
    herald, call = speaking.rsplit("\n\n", 1)
    exec(compile(herald, "page.py", "exec"), page.__dict__)
    async with served(page.chat, page.app) as client:
        assert said(await client.ask("good day")) == "Hello You said: good day"
        await until(lambda: any(line.startswith("c1 completed [") for line in printed))
        with pytest.raises(strandline.StrandlineError) as refused:
            await awaited(call, page)
        assert refused.value.code == "not-found", "the session has to exist"
        await awaited(importing, page)
        unseen = (await client.http.get("/api/chat/chat-1/messages")).json()
        assert unseen["messages"] == [], "they are alice's"
        first, second = await awaited(f"return {call}", page), await awaited(f"return {call}", page)
        assert first == second
        await until(lambda: any("The Beagle is in." in line for line in printed))


# ---------------------------------------------------------------------- approvals.md


async def test_approvals() -> None:
    printed = Printed()
    asking, telling, _ = blocks("approvals.md")
    refunds: list[int] = []

    async def refund(order: int) -> str:
        refunds.append(order)
        return "done"

    start = "from strandline import Run, Strandline, open_on_loopback\n"
    start += 'chat = Strandline("chat.db", auth=open_on_loopback())\n'
    page = executed(start + asking + telling, refund=refund, print=printed)
    async with served(page.chat) as client:
        before = await client.ask("I want my money back")
        waiting = await client.pending()
        await until(lambda: printed == [f"refund({{'order': 42}})? c1 {waiting['id']}"])
        await page.clicked("c1", waiting["id"], "bob", ())
        await client.http.get("/api/chat/c1/stream")
        after = await client.last()
    assert (after["id"], refunds) == (before["id"], [42])
    tool, text = (part for part in after["parts"] if part["type"] != "step-start")
    assert (tool["output"], text["text"]) == ("done", "That is settled.")


@pytest.mark.parametrize(
    ("page", "name", "role", "actions"),
    [
        ("approvals.md", "may", "support", {"read", "decide"}),
        ("branches.md", "team", "team", {"read", "submit", "stop", "edit"}),
    ],
)
def test_the_policies_let_pass_what_the_page_says(page: str, name: str, role: str, actions: set[str]) -> None:
    (code,) = [each for each in blocks(page) if f"def {name}(" in each]
    policy = executed(code).__dict__[name]
    session = types.SimpleNamespace(owner="ann")
    assert Auth(lambda: "ann", policy=policy).policy is policy
    for action in Action:
        assert policy(Identity("ann"), session, action)
        assert policy(Identity("bob", roles=(role,)), None, action), "a session that does not exist yet"
        assert policy(Identity("bob", roles=(role,)), session, action) is (action in actions)
        assert not policy(Identity("bob"), session, action)


# ---------------------------------------------------------------------- auth.md, settings.md


def test_every_way_to_say_who_is_calling_is_accepted() -> None:
    ways, origins = blocks("auth.md")
    names = {name: getattr(strandline, name) for name in strandline.__all__}
    executed(ways, key="k" * 32, current_user=lambda: "ann", may=lambda *_: True, **names)
    app = FastAPI()
    executed(origins, app=app, cors=strandline.cors)
    assert len(app.user_middleware) == 1


def test_settings_are_made_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRANDLINE_HEARTBEAT", "20")
    (code,) = blocks("settings.md")
    assert executed(code).settings.heartbeat == 10


# ---------------------------------------------------------------------- recovery.md


async def test_saying_it_anew_and_agents_that_recover() -> None:
    anew, recovering, checkpoints = blocks("recovery.md")
    async with served(executed(anew).chat) as client:
        assert said(await client.ask("write")) == "A better answer. And more."
    async with served(executed(recovering, my_llm=my_llm).chat) as client:
        assert said(await client.ask("one", "u2")) == "You said: one"
        headers = {"Strandline-Agent": "essay"}
        assert said(await client.ask("two", "u3", **headers)) == "You said: two"
    async with served(executed(checkpoints, my_llm=my_llm).chat) as client:
        assert said(await client.ask("three", "u4")) == "You said: three" * 3


# ---------------------------------------------------------------------- several-agents.md


async def test_several_agents() -> None:
    (code,) = blocks("several-agents.md")
    async with served(executed(code).chat) as client:
        reply = await client.ask("How do tides work?")
        assert said(reply) == "I have asked two colleagues. Fact 1. Fact 2. "
        (shown,) = (await client.http.get("/api/chat/c1/messages")).json()["messages"][1:]
        assert shown == reply, "what they say is beside the conversation"
        runs = (await client.http.get("/api/sessions/c1")).json()["runs"]
        assert sorted(run["agent"] for run in runs) == ["critic", "lead", "researcher"]


# ---------------------------------------------------------------------- annotations.md, branches.md, operations.md


async def test_annotations() -> None:
    citing, grade = blocks("annotations.md")
    async with served(executed(citing).chat) as client:
        reply = await client.ask("Who wrote the first program?")
        answer = await client.http.get("/api/sessions/c1/annotations", params={"message": reply["id"]})
        (found,) = answer.json()["annotations"]
        at = found["range"]
        assert reply["parts"][at["part"]]["text"][at["start"] : at["end"]] == "Ada Lovelace"
    page = executed(grade)
    page.chat.agent(my_agent)
    async with served(page.chat) as client:
        reply = await client.ask("And now?", "u2")
        for points, status in (("ten", 422), (10, 201)):
            body = {"message": reply["id"], "type": "grade", "data": {"points": points}}
            assert (await client.http.post("/api/sessions/c1/annotations", json=body)).status_code == status


async def my_agent(run: strandline.Run) -> AsyncIterator[str]:
    yield "Good day."


async def test_who_said_what_and_what_an_application_may_replace_and_purge() -> None:
    printed = Printed()
    replacing, _, authors = blocks("branches.md")
    (purging, _) = blocks("operations.md")
    start = "from strandline import Run, Strandline, open_on_loopback\n"
    start += 'chat = Strandline("chat.db", auth=open_on_loopback("ann"))\n'
    page = executed(start + authors, print=printed)
    async with served(page.chat) as client:
        reply = await client.ask("good day")
        assert printed == ["user:ann [{'type': 'text', 'text': 'good day'}]"]
        page.__dict__["message_id"] = reply["id"]
        await awaited(replacing, page)
        assert said(await client.last()) == "[removed]"
        await awaited(purging, page)
        assert page.gone is True
