"""Pages that look on at a conversation while its servers die: this project's own clients, with the folds and the chats
that users have, on all three wires. Each comes back with the cursor that it holds.

What they were sent is kept byte for byte, and compared with the log; what they show, with what the server says.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
from auditor import Log
from talkers import Client, Ledger

from strandline.core.message import FoldState
from strandline.core.offset import parse
from strandline.testing import Frame, read_frames

TESTS = Path(__file__).parents[2]
TERMINAL = ("finish", "abort", "error")
SECRET = re.compile(r"secret-s-\w+-\d+-")


class Gallery:
    """The Node process where the pages live (tests/js/onlookers.mjs)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    async def opened(cls) -> Gallery:
        pipe = asyncio.subprocess.PIPE
        command = ("node", "js/onlookers.mjs")
        return cls(await asyncio.create_subprocess_exec(*command, cwd=TESTS, stdin=pipe, stdout=pipe, limit=2**28))

    async def ask(self, **order: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            return orjson.loads(await self._process.stdout.readline())

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


class Onlooker:
    """One page for each wire, on one conversation."""

    def __init__(self, gallery: Gallery, client: Client, name: str, chat: str) -> None:
        self._gallery = gallery
        self._client = client
        self._name = name
        self._chat = chat

    async def open(self, url: str, *, live: bool) -> None:
        """``live``: with a live TanStack AI page."""
        self._live = live
        await self._gallery.ask(open=self._name, url=url, chat=self._chat, live=live)

    async def agrees(self) -> None:
        """What is shown is what the server says, as soon as nothing moves: the path, what waits, what is asked."""
        deadline = asyncio.get_running_loop().time() + 15
        while True:
            look = await self._client.get(f"/api/sessions/{self._chat}")
            thread = await self._client.get(f"/api/tanstack?threadId={self._chat}")
            shown = await self._gallery.ask(shown=self._name)
            assert shown["wrong"] == [], f"shown with a gap, or twice: {shown['wrong']}"
            wanted, found = _of_server(look, thread), _of_pages(shown, look)
            differing = [name for name in wanted if wanted[name] != found[name] and (self._live or name != "thread")]
            if not differing:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(
                    "; ".join(f"{name}: {_difference(found[name], wanted[name])}" for name in differing)
                )
            await asyncio.sleep(0.02)

    async def close(self, log: Log, ledger: Ledger) -> int:
        """Everything that was shown is in the log. How many frames that were."""
        told = await self._gallery.ask(close=self._name)
        _Session(log, ledger).take(told["answers"])
        _Thread(log, ledger).take(told["answers"])
        _Chat(log, ledger).take(told["answers"])
        for reply in told["replies"]:
            _read(log, reply)
        return sum(answer["text"].count("\ndata: ") for answer in told["answers"])


def _difference(found: Any, wanted: Any) -> str:
    """From where on they differ."""
    if isinstance(found, dict):
        found, wanted = sorted(found.items()), sorted(wanted.items())
    if not isinstance(found, list):
        return f"{found} for {wanted}"
    alike = next((at for at, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other), len(found))
    return f"from {alike} on {found[alike:][:3]} for {wanted[alike:][:3]}"


def _of_server(look: Any, thread: Any) -> dict[str, Any]:
    return {
        "cursor": look["cursor"],
        "path": look["messages"],
        "queue": sorted(each["run"] for each in look["active"]),
        "runs": {run["id"]: run["status"] for run in look["runs"]},
        "notes": sorted(note["message_id"] for each in look["active"] for note in each["notes"]),
        "decisions": [each["id"] for each in look["decisions"]],
        "branches": look["branches"],
        "annotations": look["annotations"],
        "spawned": [each["message"] for each in look["spawned"]],
        "thread": [_plain(message) for message in thread["messages"]],
    }


def _of_pages(shown: Any, look: Any) -> dict[str, Any]:
    """The same of what the pages show. They also know annotations of messages that are on another branch now."""
    page = shown["session"]
    listed = {message["id"] for message in look["messages"]}
    notes = {id: kinds for id, kinds in page["annotations"].items() if id in listed and kinds}
    spawned = {each["id"] for each in look["runs"] if each["spawned"]}
    active = [each["id"] for each in page["runs"] if each["status"] in ("queued", "running")]
    assert {each["id"] for each in page["activeRuns"]} == set(active) - spawned
    return {
        "cursor": page["cursor"],
        "path": page["messages"],
        "queue": sorted(active),
        "runs": {run["id"]: run["status"] for run in page["runs"]},
        "notes": sorted(note["id"] for note in page["notes"]),
        "decisions": [each["id"] for each in page["decisions"]],
        "branches": page["branches"],
        "annotations": notes,
        "spawned": [each["message"] for each in page["spawned"]],
        "thread": [_plain(message) for message in shown["thread"]],
    }


def _plain(message: Any) -> Any:
    """What a message says: who has seen it come knows more of how (PROTOCOL §11.4)."""
    parts = message["parts"]
    text = "".join(part["content"] for part in parts if part["type"] == "text")
    calls = [
        (part["id"], part["name"], part["state"], part.get("output")) for part in parts if part["type"] == "tool-call"
    ]
    return message["id"], message["role"], text, calls


# ------------------------------------------------------------------------------------------------ against the log


class _Reader:
    """What one page was sent on one wire, in its order. Neither what it saw deleted nor a position comes again."""

    wire = ""

    def __init__(self, log: Log, ledger: Ledger) -> None:
        self.log = log
        self._highest = 0
        self.at: str | None = None
        changes = [
            (str(event["message_id"]), seq)
            for (seq, _), event in zip(log.lines, log.events, strict=True)
            if event["type"] in ("message-replaced", "message-deleted")
        ]
        last = dict(changes)
        self._erased = {secret: last[about] for secret, about in ledger.erased.items() if about in last}
        self._deleted = {about: last[about] for about in ledger.removed if about in last}

    def take(self, answers: Iterable[Any]) -> None:
        for answer in answers:
            if answer["wire"] == self.wire and answer["status"] == 200:
                self.answer(answer)

    def answer(self, answer: Any) -> None:
        self.continues(answer)
        for frame in read_frames(answer["text"].encode(), id_first=self.wire == "tanstack"):
            self.unspoiled(orjson.dumps(frame.chunk).decode(), frame.chunk.get("messages", ()))
            self.frame(frame)
            if frame.cursor is not None:
                self.reach(frame.cursor)

    def continues(self, answer: Any) -> None:
        """It comes back where it was cut."""
        assert answer["cursor"] == self.at, (answer["path"], answer["cursor"], self.at)

    def frame(self, frame: Frame) -> None:
        raise NotImplementedError

    def reach(self, cursor: str) -> None:
        if self.at is not None:
            assert not parse(self.at).covers(parse(cursor)), f"{cursor} after {self.at}: something comes twice"
        self.at = cursor
        self._highest = max(self._highest, parse(cursor).seq)

    def unspoiled(self, text: str, messages: Iterable[Mapping[str, Any]]) -> None:
        for secret in SECRET.findall(text):
            assert self._erased.get(secret, 2**63) > self._highest, f"{secret} was seen to go, and is back: {text}"
        for message in messages:
            assert self._deleted.get(message["id"], 2**63) > self._highest, f"{message['id']} is back"

    def event(self, cursor: str) -> dict[str, Any]:
        seq = parse(cursor).seq
        assert seq <= len(self.log.events), f"event {seq} was shown and is lost"
        return self.log.events[seq - 1]


class _Session(_Reader):
    """Every event, once, as the log has it."""

    wire = "session"

    def answer(self, answer: Any) -> None:
        if "/events" in answer["path"]:
            super().answer(answer)

    def continues(self, answer: Any) -> None:
        if answer["cursor"] is not None:
            super().continues(answer)

    def frame(self, frame: Frame) -> None:
        if frame.cursor is None:
            assert frame.chunk["type"] == "readers", frame
        elif frame.chunk["type"] == "snapshot":
            # What the page did not get to the end of is in it, and what it had, too.
            assert self._highest <= parse(frame.cursor).seq, "it was shown more before"
            self.at = None
        else:
            event = self.event(frame.cursor)
            shown = dict(frame.chunk)
            assert self.at is not None and shown.pop("seq") == parse(frame.cursor).seq == parse(self.at).seq + 1, (
                "a gap"
            )
            hidden = {"annotated": ("data", "range"), "run-queued": ("body",)}.get(shown["type"], ())
            if shown["type"].startswith("annot") and self._recounted(shown, parse(frame.cursor).seq):
                hidden = (*hidden, "summary")
                del shown["summary"]
            event = {name: value for name, value in event.items() if name not in hidden}
            if shown["type"] != "resync" and event["type"] != "erased":
                assert shown == event, f"event {frame.cursor} is another one now"

    def _recounted(self, shown: Mapping[str, Any], seq: int) -> bool:
        """Whether an annotation of this kind was taken back, or replaced, since: then summaries do not name it."""
        known = {event["annotation"] for event in self.log.events[:seq] if event["type"] == "annotated"}
        for event in self.log.events[seq:]:
            if (event.get("message"), event.get("kind")) != (shown["message"], shown["kind"]):
                continue
            if event["type"] == "annotation-removed" or (event["type"] == "annotated" and event["annotation"] in known):
                return True
            known |= {event["annotation"]} if event["type"] == "annotated" else set()
        return False


class _Thread(_Reader):
    """Text as the log has it where the frame says; where it is loaded anew, it goes on from there."""

    wire = "tanstack"

    def answer(self, answer: Any) -> None:
        if "/events" in answer["path"]:
            super().answer(answer)
        elif (found := _loaded(answer["text"])) is not None:
            assert self._highest <= found["seq"], "it was shown more before"
            self._highest = found["seq"]
            self.unspoiled(answer["text"], found["messages"])
            self.at = None
            self._begun = found["cursor"]

    def continues(self, answer: Any) -> None:
        assert answer["cursor"] == (self.at or self._begun)

    def frame(self, frame: Frame) -> None:
        if frame.cursor is None or frame.chunk["type"] != "TEXT_MESSAGE_CONTENT":
            return
        event = self.event(frame.cursor)
        if event["type"] == "erased":
            return
        texts = [each.get("delta", each.get("text")) for each in (*event.get("chunks", ()), *event.get("parts", ()))]
        assert frame.chunk["delta"] in texts, (frame, event)


class _Chat(_Reader):
    """Each chunk is the one that the log has at its cursor; only a snapshot's last one is not. A chat that reads anew
    may be shown a reply again, from its start."""

    wire = "ai-sdk"

    def continues(self, answer: Any) -> None:
        if answer["cursor"] is None:
            self.at = None
        else:
            super().continues(answer)

    def frame(self, frame: Frame) -> None:
        if frame.cursor is None or self.at is None:
            return
        event = self.event(frame.cursor)
        if event["type"] in ("appended", "decision-made"):
            assert frame.chunk == event["chunks"][parse(frame.cursor).frame - 1], "it says something else now"
        elif event["type"] == "run-ended":
            assert frame.chunk["type"] in TERMINAL
        else:
            assert (event["type"], frame.chunk["type"]) in (("run-started", "start"), ("erased", frame.chunk["type"]))


def _loaded(text: str) -> Any:
    """A conversation that came whole."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _read(log: Log, reply: Any) -> None:
    """A chat that read a reply to its end shows what the log says there; others were told to read anew, or closed."""
    run, chunks = reply["run"], reply["chunks"]
    if chunks and chunks[-1]["type"] in TERMINAL:
        message = log.runs[run].message
        if log.erased & {each.id for each in log.runs.values() if each.message == message}:
            return
        state = FoldState()
        for chunk in chunks:
            state.push(chunk)
        # Who is owed a replay reads the message as it is by then.
        assert list(state.parts()) in log.decided[run], f"a chat shows {state.parts()} of {run}, not {log.decided[run]}"
        status = log.ended[run]["status"]
        ends = {"stopped": "abort", "failed": "error", "lost": "error"}
        assert chunks[-1]["type"] == ends.get(status, "finish"), (run, status)
    elif reply["end"] not in ("AbortError", None):
        assert reply["end"] in ("resync", "gone"), reply["end"]
        assert log.takes_back(run), f"{reply['end']} for {run}, and nothing in the log says why"
