"""Whether a conversation is what its people were told, and agrees with itself: after a crash, and when all is quiet.

Read are the file, past the server, and what the server answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
from talkers import Client, Ledger, Wish

from log_tree import LogTree
from replies import counted, text_of
from strandline.core.message import FoldState
from strandline.core.offset import parse
from strandline.core.records import MessageRecord, RunRecord
from strandline.stores.inspect import Inspector

AGAIN = (
    "send",
    "steer",
    "decide",
    "answer",
    "resume",
    "regenerate",
    "edit",
    "patch",
    "delete",
    "annotate",
    "take back",
)
"""What a client sends again that was not answered. A stop and a switch would mean another thing by now."""

DECIDING = ("decide", "answer", "resume")
OUTCOMES = {"approved", "denied", "output", "error"}
"""Of what somebody has decided."""


class Log:
    """The events of one conversation in the file, with its rows."""

    def __init__(self, path: str, chat: str) -> None:
        with Inspector(path) as inspector:
            while True:
                self.lines = inspector.events(chat)
                self.messages: dict[str, MessageRecord] = {each.version: each for each in inspector.messages(chat)}
                self.runs: dict[str, RunRecord] = {each.id: each for each in inspector.runs(chat)}
                record = inspector.session(chat)
                assert record is not None
                if record.last_seq <= len(self.lines):
                    break  # else a row was written after the events were read
        self.leaf = record.leaf
        self.events: list[dict[str, Any]] = [orjson.loads(line) for _, line in self.lines]
        self.folds: dict[str, FoldState] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.queued: dict[str, int] = {}
        self.started: dict[str, int] = {}
        self.made: Counter[str] = Counter()
        self.created: Counter[str] = Counter()
        self.erased: set[str] = set()
        self.said: dict[str, list[dict[str, Any]]] = {}
        """What the message of a run said when that ended."""
        self.decided: dict[str, list[list[dict[str, Any]]]] = {}
        """The same, and what it said after each decision about it."""
        self.reset: set[str] = set()
        assert [seq for seq, _ in self.lines] == list(range(1, len(self.lines) + 1)), "a hole, or a number twice"
        self.tree = self.tree_at(0)
        self.leaves: list[str | None] = []
        """Where the path led after each event."""
        for (seq, _), event in zip(self.lines, self.events, strict=True):
            self._take(seq, event)
            self.tree.take(event)
            self.leaves.append(self.tree.leaf)

    def tree_at(self, seq: int) -> LogTree:
        """The branches as they were after this event."""
        tree = LogTree({each.version: (each.parent, each.role) for each in self.messages.values()})
        for event in self.events[:seq]:
            tree.take(event)
        return tree

    def goes_on(self, run: RunRecord) -> bool:
        """Whether it goes on with the message of its parent."""
        return run.parent_run is not None and self.runs[run.parent_run].message == run.message

    def _take(self, seq: int, event: dict[str, Any]) -> None:
        run, message = event.get("run"), event.get("message")
        match event["type"]:
            case "erased":
                self.erased.add(str(run))
                return
            case "message-created":
                self.created[event["message"]] += 1
            case "run-queued":
                assert run not in self.queued, f"{run} began twice"
                self.queued[event["run"]] = seq
            case "run-started":
                self.started[event["run"]] = seq
            case "message-reset":
                self.folds[event["message"]] = FoldState()
                self.reset.add(event["message"])
            case "decision-made":
                self.made[event["decision"]] += 1
        if event["type"] in ("appended", "decision-made"):
            for chunk in event["chunks"]:
                self.folds.setdefault(str(message), FoldState()).push(chunk)
        if run is not None and event["type"] != "annotated":
            assert run not in self.ended, f"something after the end of {run}: {event}"
        if event["type"] == "run-ended":
            self.ended[event["run"]] = event
            self.said[event["run"]] = list(self.folds.get(str(message), FoldState()).parts())
            self.decided[event["run"]] = [self.said[event["run"]]]
        if event["type"] == "decision-made" and str(message) in self.folds:  # else it was erased
            self.decided.setdefault(event["asked_by"], []).append(list(self.folds[str(message)].parts()))

    def takes_back(self, run: str) -> bool:
        """Whether something that the message of a run has said was taken back, and logged so."""
        message = self.messages[self.runs[run].message]
        writers = {each.id for each in self.runs.values() if each.message == message.version}
        return message.deleted or message.version in self.reset or bool(self.erased & writers)


class Auditor:
    """Checks one conversation."""

    def __init__(self, client: Client, path: str, ledger: Ledger) -> None:
        self._client = client
        self._path = path
        self._ledger = ledger
        self._url = f"/api/sessions/{ledger.chat}"

    async def ask_again(self) -> None:
        """What was not answered before the crash is wished again, and is answered now."""
        for wish in [each for each in self._ledger.wishes if not each.status and each.kind in AGAIN]:
            await self._client.grant(wish)
            if wish.granted and wish.kind == "patch":
                self._ledger.erased[self._ledger.said[wish.about]] = wish.about
                assert wish.body is not None
                self._ledger.said[wish.about] = json.loads(wish.body["parts"][0]["text"])["note"]
            elif wish.granted and wish.kind == "delete" and wish.about in self._ledger.said:
                self._ledger.erased[self._ledger.said[wish.about]] = wish.about

    async def repeat(self, wish: Wish) -> None:
        """Something that was answered, once more: it is answered the same."""
        if wish.answer.get("messageId") in self._ledger.removed or wish.about in self._ledger.removed:
            return
        before = wish.answer
        again = await self._client.grant(Wish(wish.kind, wish.about, wish.method, wish.path, wish.body, wish.headers))
        if again.status in (404, 409) and wish.kind in DECIDING:
            message = before.get("messageId") or self._ledger.asked[wish.about]
            assert message in self._removed(Log(self._path, self._ledger.chat)), (wish, again)
            return
        assert again.granted, (wish, again)
        if "steered" in before:
            assert again.answer == before, (wish, again)
        elif wish.kind not in DECIDING or before.get("run") is not None:
            assert again.answer["run"] == before["run"], (wish, again)

    def _removed(self, log: Log) -> set[str]:
        """What was deleted, and with it what was spawned beside it."""
        beside = {message.message_id for message in log.messages.values() if message.spawned and message.deleted}
        return self._ledger.removed | beside

    async def still(self) -> None:
        """Until nobody writes, and nothing waits that has expired; what waits behind a decision does not begin."""
        deadline = asyncio.get_running_loop().time() + 20
        while True:
            seen = await self._client.get(self._url)
            running = any(run["status"] == "running" for run in seen["runs"])
            overdue = any((each["expiresAt"] or 2**63) <= time.time() * 1000 for each in seen["decisions"])
            if not running and not overdue and (seen["decisions"] or not seen["active"]):
                return
            assert asyncio.get_running_loop().time() < deadline, (
                "stuck",
                seen["active"],
                seen["decisions"],
                seen["runs"],
            )
            await asyncio.sleep(0.005)

    async def settle(self) -> None:
        """Decide what waits until nothing does: nothing stays at work for ever, or waits for nothing."""
        deadline = asyncio.get_running_loop().time() + 20
        while True:
            seen = await self._client.get(self._url)
            if not (seen["active"] or seen["decisions"]):
                return
            for each in seen["decisions"]:
                answer = {"approved": True} if each["kind"] == "approval" else {"output": 1}
                path = f"{self._url}/decisions/{each['id']}"
                await self._client.grant(Wish("decide", each["id"], "POST", path, answer))
            assert asyncio.get_running_loop().time() < deadline, ("stuck", seen["active"], seen["decisions"])
            await asyncio.sleep(0.005)

    async def audit(self, *, quiet: bool) -> None:
        """``quiet``: everything has ended that was going on."""
        seen = await self._client.get(self._url)
        assert seen is not None, "a conversation is lost"
        history = await self._client.get(f"/api/chat/{self._ledger.chat}/messages")
        log = Log(self._path, self._ledger.chat)
        self._once(log, seen)
        self._paths(log, seen, history, quiet=quiet)
        self._texts(log, quiet=quiet)
        self._gone(log, [seen, history])
        self._sent(log)
        self._stopped(log)
        await self._decided(log, quiet=quiet)
        await self._annotated(seen)
        if quiet:
            self._ended(log)
            self._told(log)

    # ------------------------------------------------------------------ what holds

    def _once(self, log: Log, seen: Any) -> None:
        ids = [message["id"] for message in seen["messages"]]
        assert len(ids) == len(set(ids)), f"a message twice: {ids}"
        assert max(log.created.values(), default=0) <= 1
        keys = Counter(run.key for run in log.runs.values() if run.key is not None)
        assert max(keys.values(), default=0) <= 1, "two runs for one request"
        beginnings = Counter(run.parent_run for run in log.runs.values() if log.goes_on(run))
        assert max(beginnings.values(), default=0) <= 1, "a reply went on twice"

    def _paths(self, log: Log, seen: Any, history: Any, *, quiet: bool) -> None:
        """The path, and what stands beside each message of it, are what the log says; a switch that was answered is in
        it."""
        ids = {message.version: message.message_id for message in log.messages.values()}
        assert log.leaf == log.tree.leaf, "the path leads elsewhere than the log says"
        tree = log.tree_at(parse(seen["cursor"]).seq)
        path = tree.path()
        shown = [seen["versions"].get(message["id"], message["id"]) for message in seen["messages"]]
        assert shown == path, "another path than the log says"
        groups = [(version, tree.beside(version)) for version in path]
        assert seen["branches"] == {
            ids[version]: {"index": beside.index(version), "count": len(beside), "versions": beside[-100:]}
            for version, beside in groups
            if len(beside) > 1
        }
        settled, whole = [message["id"] for message in history["messages"]], [ids[each] for each in log.tree.path()]
        assert settled == whole[: len(settled)]
        if quiet:
            assert settled == whole and history["branches"] == seen["branches"]
        for wish in self._ledger.granted("select"):
            assert log.leaves[parse(wish.answer["cursor"]).seq - 1] == wish.answer["leaf"], (wish, "was taken back")

    def _stopped(self, log: Log) -> None:
        """A run whose end was told has that end (and says nothing after it: ``Log``), and does not go on."""
        for wish in self._ledger.granted("stop"):
            for told in wish.answer.get("runs", [wish.answer]):
                if told["run"] is None:
                    continue
                end = log.ended.get(told["run"])
                assert end is not None, (wish, "is at work again")
                assert (end["status"], end.get("reason")) == (told["status"], told["reason"]), (wish, end)
                assert log.events[parse(told["cursor"]).seq - 1] is end
        stopped = {run for run, end in log.ended.items() if end["status"] == "stopped"}
        assert not stopped & {run.parent_run for run in log.runs.values() if log.goes_on(run)}

    def _texts(self, log: Log, *, quiet: bool) -> None:
        """Each reply counts without a hole or a word twice, and its row is the fold of the log."""
        changed = {wish.about for wish in self._ledger.wishes if wish.kind == "patch"}
        active = {run.message for run in log.runs.values() if run.id not in log.ended}
        for message in log.messages.values():
            if message.role != "assistant" or message.version in active or message.deleted:
                continue
            parts = list(message.parts or ())
            upto = counted(text_of({"parts": parts}))
            runs = [run for run in log.runs.values() if run.message == message.version]
            if not log.erased & {run.id for run in runs}:
                fold = log.folds.get(message.version)
                assert parts == ([] if fold is None else list(fold.parts())), "a row is not the fold of its log"
            last = runs[-1]
            if last.spawned:
                assert upto == (3 if last.status.value == "suspended" else 5) or last.status.value in (
                    "lost",
                    "stopped",
                ), (upto, last)
            asked = log.messages.get(last.parent or "")
            if last.spawned or asked is None or asked.deleted or last.status.value != "completed":
                continue
            if asked.message_id in changed:
                continue
            wish = json.loads((asked.parts or ())[0]["text"])
            assert upto == wish["count"] + (wish["more"] if len(runs) > 1 else 0), (upto, wish, runs)

    def _gone(self, log: Log, answers: list[Any]) -> None:
        everything = "".join(map(json.dumps, answers)).encode() + b"".join(line for _, line in log.lines)
        rows = [message for message in log.messages.values() if not message.deleted]
        everything += b"".join(orjson.dumps(message.parts) for message in rows)
        for secret, about in self._ledger.erased.items():
            assert secret.encode() not in everything, f"{about} is there still"
        shown = {message["id"] for answer in answers for message in answer["messages"]}
        assert not shown & self._ledger.removed

    def _sent(self, log: Log) -> None:
        users = {message.message_id for message in log.messages.values() if message.role == "user"}
        for wish in self._ledger.granted("send", "regenerate", "edit"):
            assert wish.answer["run"] in log.runs, (wish, "is lost")
            run = log.runs[wish.answer["run"]]
            assert run.message_id == wish.answer["messageId"]
            if "steered" not in wish.answer:
                assert wish.about in users
        for patch in self._ledger.granted("patch"):
            if patch.about not in self._ledger.removed:
                (row,) = (each for each in log.messages.values() if each.message_id == patch.about)
                assert self._ledger.said[patch.about] in (row.parts or ())[0]["text"]

    async def _decided(self, log: Log, *, quiet: bool) -> None:
        assert max(log.made.values(), default=0) <= 1, "decided twice"
        listed = (await self._client.get(f"{self._url}/decisions?all=true"))["decisions"]
        known = {each["id"]: each for each in listed}
        for wish in self._ledger.granted(*DECIDING):
            kept = known.get(wish.about)
            if kept is not None and kept["messageId"] not in self._ledger.removed:
                assert kept["outcome"] in OUTCOMES and kept["value"] == wish.says, (wish, kept)
                # While something else of the message is pending there is no such run.
                went_on = log.runs.get(wish.answer.get("run") or wish.answer.get("runId", ""))
                assert went_on is None or went_on.parent_run == kept["run"], (wish, went_on)
        for wish in self._ledger.wishes:
            if wish.kind != "decide" or not wish.status:
                continue
            told = wish.answer.get("decision")
            if told is None:
                continue
            if told["messageId"] in self._removed(log):
                continue
            kept = known[wish.about]
            assert (kept["outcome"], kept["value"]) == (told["outcome"], told["value"]), (wish, kept)
            if wish.granted and wish.answer["run"] is not None:
                assert log.runs[wish.answer["run"]].parent_run == kept["run"]
        for each in listed:
            assert each["outcome"] != "expired" or each["expiresAt"] <= each["at"], f"{each} has expired too early"
        if not quiet:
            return
        went_on = {run.parent_run for run in log.runs.values() if log.goes_on(run)}
        for run in log.runs.values():
            outcomes = {each["outcome"] for each in listed if each["run"] == run.id}
            if outcomes & OUTCOMES and outcomes <= {*OUTCOMES, "expired"}:
                assert run.id in went_on, f"{run} was decided and did not go on"
            elif outcomes == {"expired"}:
                assert run.id not in went_on, f"nobody has decided, and {run} went on"

    async def _annotated(self, seen: Any) -> None:
        taken = {wish.about for wish in self._ledger.wishes if wish.kind == "take back"}
        wanted: dict[str, dict[str, Mapping[str, Any]]] = {}
        for wish in self._ledger.granted("annotate"):
            assert wish.body is not None
            if wish.about not in taken:
                wanted.setdefault(wish.body["message"], {})[wish.about] = wish.body
        for message, bodies in wanted.items():
            page = await self._client.get(f"{self._url}/annotations?message={message}&limit=200")
            if page is None:
                assert message in self._ledger.removed, f"{message} and its annotations are lost"
                continue
            listed = {each["id"]: each for each in page["annotations"]}
            if message in self._edited:
                continue
            assert bodies.keys() == listed.keys(), message
            for id, body in bodies.items():
                assert (listed[id]["type"], listed[id]["data"]) == (body["type"], body["data"])
            if any(each["id"] == message for each in seen["messages"]):
                counts = Counter(body["type"] for body in bodies.values())
                told = {kind: each["count"] for kind, each in seen["annotations"][message].items()}
                assert told == dict(counts), message

    @property
    def _edited(self) -> set[str]:
        """Messages that have another side, which has none of the annotations of the first."""
        return {wish.about for wish in self._ledger.wishes if wish.kind == "edit"}

    def _ended(self, log: Log) -> None:
        assert log.ended.keys() == log.queued.keys() == log.runs.keys(), "a run without an end"
        for run in log.runs.values():
            assert run.status.value == log.ended[run.id]["status"]
            if run.agent in ("again", "onward"):
                assert run.status.value not in ("lost", "failed"), f"{run} was not called again"
        waited = [wish.answer["run"] for wish in self._ledger.granted("send") if _waited(wish)]
        begun = sorted((run for run in waited if run in log.started), key=lambda run: log.queued[run])
        assert begun == sorted(begun, key=lambda run: log.started[run]), "out of turn"

    def _told(self, log: Log) -> None:
        """What an agent was told is in a reply, or a message of its own: once."""
        found: Counter[str] = Counter()
        for message in log.messages.values():
            if message.role == "user":
                found[message.message_id] += 1
            for part in message.parts or ():
                if part["type"] == "steering-message":
                    found[part["id"]] += 1
        for wish in self._ledger.granted("steer", "send"):
            if "steered" in wish.answer and wish.answer["messageId"] not in self._ledger.removed:
                assert found[wish.about] == 1, (wish, found[wish.about], log.runs[wish.answer["run"]])


def _waited(wish: Wish) -> bool:
    return wish.body is not None and wish.body["submit"] == "queue" and "steered" not in wish.answer
