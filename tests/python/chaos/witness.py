"""What clients of a server saw and were promised before it died, and whether all of it is true afterwards.

Compared are bytes: the frames that each reader was shown, those that it gets when it comes back with its last cursor,
those that a reader of the whole gets after the crash, and the events in the file, read past the server.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from crash_readers import Reading, Visitor

from strandline.core.message import FoldState
from strandline.core.offset import parse
from strandline.stores.inspect import Inspector
from strandline.testing import until

ENDS = ("completed", "stopped", "failed", "lost")


def framed(body: bytes) -> list[tuple[str, bytes]]:
    """The whole frames of a stream that carry a cursor: the cursor, and the frame's data as it came."""
    found = []
    for block in body.split(b"\n\n")[:-1]:
        lines = [line for line in block.split(b"\n") if line.startswith((b"data: ", b"id: "))]
        if len(lines) == 2:
            data, cursor = lines
            found.append((cursor[4:].decode(), data[6:]))
    return found


@dataclass(slots=True)
class Acknowledged:
    """What the server has answered: user messages with their runs, and stops with the cursor of the end."""

    submits: list[tuple[str, str, str, str]] = field(default_factory=list)
    stops: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """How much has been checked; ``hit``: in which statements servers have died."""

    events: int = 0
    frames: int = 0
    acknowledged: int = 0
    hit: Counter[str] = field(default_factory=Counter)


class Log:
    """The log of one session as the file has it, checked in itself: gapless, every run with one end, its last word."""

    def __init__(self, path: str, chat: str) -> None:
        with Inspector(path) as inspector:
            lines = inspector.events(chat)
            record = inspector.session(chat)
            runs = inspector.runs(chat)
        self.chat = chat
        self.there = record is not None
        self.lines = lines
        self.events: list[dict[str, Any]] = [orjson.loads(line) for _, line in lines]
        assert [seq for seq, _ in lines] == list(range(1, len(lines) + 1)), f"{chat}: a hole, or a number twice"
        self.folds: dict[str, FoldState] = {}
        self.ends: dict[str, dict[str, Any]] = {}
        self.queued: dict[str, dict[str, Any]] = {}
        self.users: dict[str, dict[str, Any]] = {}
        for event in self.events:
            self._take(event)
        assert set(self.ends) == set(self.queued), f"{chat}: a run without an end"
        assert {run.id: run.status.value for run in runs} == {run: end["status"] for run, end in self.ends.items()}

    def _take(self, event: dict[str, Any]) -> None:
        run = event.get("run")
        assert run not in self.ends, f"{self.chat}: something after the end of {run}: {event}"
        match event["type"]:
            case "message-created":
                self.users[event["message_id"]] = event
            case "run-queued":
                self.queued[event["run"]] = event
            case "run-started":
                self.folds[event["run"]] = FoldState()
                self.folds[event["run"]].push({"type": "start", "messageId": event["message_id"]})
            case "appended":
                for chunk in event["chunks"]:
                    self.folds[event["run"]].push(chunk)
            case "run-ended":
                assert event["status"] in ENDS
                self.ends[event["run"]] = event

    def has_frame(self, cursor: str, data: bytes, *, feed: bool) -> None:
        """Fails unless this frame, which somebody was shown, is what the log has at its cursor."""
        at = parse(cursor)
        assert at.seq <= len(self.events), f"{self.chat}: event {at.seq} was shown and is lost"
        event, shown = self.events[at.seq - 1], orjson.loads(data)
        if feed:
            assert shown.pop("seq") == at.seq
            assert orjson.dumps(shown) == self.lines[at.seq - 1][1], f"{self.chat}: event {at.seq} is another one now"
        elif event["type"] == "appended":
            assert shown == event["chunks"][at.frame - 1], f"{self.chat}: {cursor} says something else now"
        else:
            assert (event["type"], shown["type"]) in (
                ("run-started", "start"),
                *(("run-ended", kind) for kind in ("finish", "abort", "error")),
            )


class Witness:
    """Checks, after a crash and a start on the same file, what was seen and promised before."""

    def __init__(self, visitor: Visitor, path: str, tally: Tally) -> None:
        self._visitor = visitor
        self._path = path
        self._tally = tally

    async def confirm(self, chat: str, readings: list[Reading], feeds: list[Reading], said: Acknowledged) -> Log:
        """Everything about one session; ``readings`` are its streams of replies."""
        log = Log(self._path, chat)
        self._promised(log, said)
        for reading in readings:
            await self._goes_on(log, reading, feed=False)
        for reading in feeds:
            await self._goes_on(log, reading, feed=True)
        if log.there:
            await self._history(log)
        else:
            assert not log.lines
        self._tally.events += len(log.lines)
        return log

    def _promised(self, log: Log, said: Acknowledged) -> None:
        for chat, message, text, run in said.submits:
            if chat == log.chat:
                assert log.users[message]["parts"] == [{"type": "text", "text": text}], (
                    "an acknowledged message is lost"
                )
                assert log.queued[run]["parent"] == log.users[message]["message"]
                self._tally.acknowledged += 1
        for chat, answer in said.stops:
            if chat == log.chat and answer["run"] is not None:
                end = log.ends[answer["run"]]
                assert (end["status"], end["reason"]) == (answer["status"], answer["reason"]), "a stop was taken back"
                assert log.events[parse(answer["cursor"]).seq - 1] == end
                self._tally.acknowledged += 1

    async def _goes_on(self, log: Log, reading: Reading, *, feed: bool) -> None:
        shown = framed(reading.body) if reading.status == 200 else []
        if not shown:
            return
        (first, _), *later = shown
        # A snapshot ends with a frame that is not the event at its cursor; everything after it is.
        snapshot = feed or reading.headers["strandline-replay"] != "tail"
        for cursor, data in later if snapshot else shown:
            log.has_frame(cursor, data, feed=feed)
        rest = await self._from(log, shown[-1][0], feed=feed)
        whole = await self._from(log, first, feed=feed)
        assert later + rest == whole, f"{log.chat}: {reading.headers}: going on does not give exactly the rest"
        self._tally.frames += len(shown)

    async def _from(self, log: Log, cursor: str, *, feed: bool) -> list[tuple[str, bytes]]:
        if feed:
            reading = self._visitor.watch(log.chat, cursor)
            await until(lambda: reading.over or b'"type":"readers"' in reading.body)
            await reading.drop()
            found = framed(reading.body)
            assert parse(found[-1][0] if found else cursor).seq == len(log.lines)
            return found
        reading = await self._visitor.resume(log.chat, cursor).end()
        if reading.status == 204:
            assert log.events[parse(cursor).seq - 1]["type"] == "run-ended", "nothing more, before the end"
            return []
        assert (reading.status, reading.headers["strandline-replay"]) == (200, "tail")
        found = framed(reading.body)
        assert log.events[parse(found[-1][0]).seq - 1]["type"] == "run-ended"
        assert reading.body.endswith(b"data: [DONE]\n\n"), "nobody is left waiting"
        return found

    async def _history(self, log: Log) -> None:
        history = await self._visitor.history(log.chat)
        assert (history["activeRun"], history["cursor"]) == (None, None)
        folds = {event["message_id"]: log.folds[run] for run, event in log.queued.items() if run in log.folds}
        for message in history["messages"]:
            if message["role"] == "user":
                assert message["parts"] == log.users[message["id"]]["parts"]
            elif message["id"] in folds:
                assert message["parts"] == list(folds[message["id"]].parts()), "history is not the fold of the log"
        ends = {end["message_id"]: (end["status"], end["reason"]) for end in log.ends.values()}
        assert {message: (run["status"], run["reason"]) for message, run in history["runs"].items()} == ends
        assert {message["id"] for message in history["messages"]} == {*log.users, *ends}
