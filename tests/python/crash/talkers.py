"""People who do everything that one can do in a conversation, until the server dies, and write down what it has
answered. What was not answered is sent again to the next process, as a client does."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from asking import answering

POLICIES = ("interrupt", "queue", "concurrent", "steer", "reject")
AGENTS = ("reply", "again", "onward")

REFUSALS = {
    "already-decided",
    "busy",
    "message-active",
    "not-pending",
    "not-running",
    "too-many",
    "too-many-notes",
    "too-many-queued",
    "unknown-message",
}
"""What an act may be answered that comes too late, or too often."""


class Cut(Exception):
    """The server is gone."""


@dataclass(slots=True)
class Wish:
    """One request that changes something. ``answer``: what it was answered, as soon as it was; ``about``: the message,
    decision or annotation; ``says``: the value of the decision."""

    kind: str
    about: str
    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    says: dict[str, Any] | None = None

    @property
    def granted(self) -> bool:
        return 200 <= self.status < 300


class Ledger:
    """What was wished in one conversation, in the order of each talker, and what came of it.

    policies: what its people may ask for. secrets: words that were in messages, by message id, those that must be gone
    by now in ``erased``.
    """

    def __init__(self, chat: str, policies: Sequence[str] = POLICIES) -> None:
        self.chat = chat
        self.policies = policies
        self.wishes: list[Wish] = []
        self.said: dict[str, str] = {}
        self.erased: dict[str, str] = {}
        self.asked: dict[str, str] = {}
        """By decision, the message that asked."""

    def granted(self, *kinds: str) -> list[Wish]:
        return [wish for wish in self.wishes if wish.kind in kinds and wish.granted]

    @property
    def removed(self) -> set[str]:
        return {wish.about for wish in self.granted("delete")}


class Client:
    """Everybody's connections to one server, whichever process it is."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=30)

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str) -> Any:
        try:
            answer = await self._http.get(path)
        except httpx.TransportError:
            raise Cut from None
        assert answer.status_code in (200, 404), (path, answer.text)
        return answer.json() if answer.status_code == 200 else None

    async def grant(self, wish: Wish) -> Wish:
        """Send a wish (again)."""
        try:
            request = self._http.stream(wish.method, wish.path, json=wish.body, headers=wish.headers)
            async with request as answer:
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    # The first of a stream says that it is done.
                    told = {"run": answer.headers.get("strandline-run")}
                else:
                    content = await answer.aread()
                    told = json.loads(content) if content else {}
        except httpx.TransportError:
            raise Cut from None
        wish.status, wish.answer = answer.status_code, told
        if not wish.granted:
            if wish.kind in ("decide", "resume", "take back") and wish.status == 404:
                return wish  # it went with its message
            assert wish.status in (409, 429) and wish.answer["code"] in REFUSALS, (wish, "was refused")
        return wish


class Talker:
    """Does one thing after the other in one conversation. What it edits and deletes are messages of its own."""

    def __init__(self, name: str, client: Client, ledger: Ledger, chance: random.Random, done: Counter[str]) -> None:
        self._name = name
        self._client = client
        self._ledger = ledger
        self._chance = chance
        self._done = done
        self._made = 0
        self._plain: dict[str, str] = {}
        """Its messages with the ids of their replies, of which nothing was asked but to be answered."""
        self._patched: list[str] = []
        self._annotated: dict[str, str] = {}

    async def talk(self) -> None:
        try:
            while True:
                await self._act()
                await asyncio.sleep(self._chance.choice([0, 0, 0.002, 0.01]))
        except Cut:
            return

    async def _act(self) -> None:
        acts = {
            self._send: 6,
            self._steer: 4,
            self._decide: 6,
            self._answer: 4,
            self._regenerate: 2,
            self._edit: 2,
            self._select: 2,
            self._patch: 2,
            self._delete: 2,
            self._annotate: 3,
            self._take_back: 2,
            self._stop: 1,
        }
        await self._chance.choices(list(acts), list(acts.values()))[0]()

    # ------------------------------------------------------------------ acts

    async def _send(self) -> None:
        policy = self._chance.choice(self._ledger.policies)
        message = self._message(self._name_one("u"))
        wish = await self._wish("send", message["id"], "POST", "messages", {"message": message, "submit": policy})
        if wish.granted and "steered" not in wish.answer:
            self._plain[message["id"]] = wish.answer["messageId"]

    async def _steer(self) -> None:
        message = self._message(self._name_one("n"))
        await self._wish("steer", message["id"], "POST", "steer", {"message": message})

    async def _decide(self) -> None:
        """From two devices at once, which do not agree."""
        seen = await self._seen()
        if not seen["decisions"]:
            return
        asked = self._chance.choice(seen["decisions"])
        answers = (
            [{"approved": True}, {"approved": False}]
            if asked["kind"] == "approval"
            else [{"output": self._chance.random()}, {"errorText": "nobody knows"}]
        )
        self._chance.shuffle(answers)
        path = f"decisions/{asked['id']}"
        devices = [self._wish("decide", asked["id"], "POST", path, answer, says=answer) for answer in answers]
        ends = await asyncio.gather(*devices, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _answer(self) -> None:
        """As the chats of either library do: with the whole reply, or with what it was interrupted for."""
        seen = await self._seen()
        pending = {(each["messageId"], each["toolCallId"]): each for each in seen["decisions"]}
        waiting = [
            (message, pending[message["id"], part["toolCallId"]])
            for message in seen["messages"]
            for part in message["parts"]
            if (message["id"], part.get("toolCallId")) in pending
        ]
        if not waiting:
            return
        message, asked = waiting[0]
        self._ledger.asked[asked["id"]] = message["id"]
        approves = asked["kind"] == "approval"
        says = {"approved": self._chance.random() < 0.5} if approves else {"output": self._name_one("o")}
        if self._chance.random() < 0.5:
            copy = answering(message, says)
            body = {"id": self._ledger.chat, "messages": [copy], "messageId": message["id"]}
            body["trigger"] = "submit-message"
            await self._wish("answer", asked["id"], "POST", "/api/chat", body, says=says)
        else:
            payload = says if approves else says["output"]
            entry = {"interruptId": asked["id"], "status": "resolved", "payload": payload}
            body = {
                "threadId": self._ledger.chat,
                "runId": self._name_one(self._ledger.chat),
                "messages": [],
                "resume": [entry],
            }
            await self._wish("resume", asked["id"], "POST", "/api/tanstack", body, says=says)

    async def _regenerate(self) -> None:
        if self._plain:
            about = self._chance.choice(list(self._plain))
            body = {"trigger": "regenerate-message", "messageId": self._plain[about], "submit": self._policy()}
            await self._wish("regenerate", about, "POST", "messages", body)

    async def _edit(self) -> None:
        """Ask otherwise; what was asked before stays on its side."""
        if self._plain:
            about = self._chance.choice(list(self._plain))
            del self._plain[about]
            body = {"message": self._message(about), "messageId": about, "submit": self._policy()}
            await self._wish("edit", about, "POST", "messages", body)

    async def _select(self) -> None:
        seen = await self._seen()
        if seen["branches"]:
            message = self._chance.choice(list(seen["branches"]))
            index = self._chance.randrange(seen["branches"][message]["count"])
            await self._wish("select", message, "POST", "branch", {"message": message, "index": index})

    async def _patch(self) -> None:
        if self._plain:
            about = self._chance.choice(list(self._plain))
            del self._plain[about]
            self._patched.append(about)
        elif self._patched:
            about = self._chance.choice(self._patched)
        else:
            return
        before = self._ledger.said[about]
        parts = self._message(about)["parts"]
        after = self._ledger.said[about]
        # Until it is answered either may be there.
        self._ledger.said[about] = before
        if (await self._wish("patch", about, "PATCH", f"messages/{about}", {"parts": parts})).granted:
            self._ledger.erased[before] = about
            self._ledger.said[about] = after

    async def _delete(self) -> None:
        mine = [*self._plain, *self._patched]
        if not mine:
            return
        about = self._chance.choice(mine)
        reply = self._plain.pop(about, None)
        if about in self._patched:
            self._patched.remove(about)
        if reply is not None and self._chance.random() < 0.5:
            await self._wish("delete", reply, "DELETE", f"messages/{reply}")
        elif (await self._wish("delete", about, "DELETE", f"messages/{about}")).granted:
            self._ledger.erased[self._ledger.said[about]] = about

    async def _annotate(self) -> None:
        if self._plain:
            message, id = self._chance.choice(list(self._plain)), self._name_one("a")
            kind = self._chance.choice(["reaction", "citation"])
            data = {"name": "good"} if kind == "reaction" else {"url": f"https://{self._name}.example/"}
            body = {"message": message, "type": kind, "data": data, "id": id}
            if (await self._wish("annotate", id, "POST", "annotations", body)).granted:
                self._annotated[id] = message

    async def _take_back(self) -> None:
        if self._annotated:
            id = self._chance.choice(list(self._annotated))
            del self._annotated[id]
            await self._wish("take back", id, "DELETE", f"annotations/{id}")

    async def _stop(self) -> None:
        """The newest one, one that was seen at work, or all."""
        active = (await self._seen())["active"]
        named = [{"run": self._chance.choice(active)["run"]}] if active else []
        await self._wish("stop", "", "POST", "stop", self._chance.choice([{}, {"all": True}, *named, *named]))

    # ------------------------------------------------------------------ how

    async def _wish(
        self, kind: str, about: str, method: str, path: str, body: Any = None, says: dict[str, Any] | None = None
    ) -> Wish:
        """``path``: below the session, or with a leading slash of another wire."""
        headers = {"Idempotency-Key": self._name_one("k"), "Strandline-Agent": self._chance.choice(AGENTS)}
        if kind == "resume":
            headers["Prefer"] = "respond-async"
        whole = path if path.startswith("/") else f"/api/sessions/{self._ledger.chat}/{path}"
        wish = Wish(kind, about, method, whole, body, headers, says=says)
        self._ledger.wishes.append(wish)
        await self._client.grant(wish)
        self._done[kind] += wish.granted
        return wish

    async def _seen(self) -> Any:
        return await self._client.get(f"/api/sessions/{self._ledger.chat}")

    def _message(self, id: str) -> dict[str, Any]:
        chance = self._chance
        secret = f"secret-{self._name_one('s')}-"
        self._ledger.said[id] = secret
        asks = chance.choice([0, 0, 1, 2, 3])
        wish = {"note": secret, "count": chance.randint(1, 16), "pause": chance.choice([0, 1, 3, 8]), "ask": asks}
        text = json.dumps({**wish, "more": 5, "expires": chance.choice([None, None, 0.2, 60]), "beside": asks == 1})
        return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}

    def _policy(self) -> str:
        return self._chance.choice([each for each in self._ledger.policies if each not in ("steer", "reject")])

    def _name_one(self, what: str) -> str:
        self._made += 1
        return f"{what}-{self._name}-{self._made}"
