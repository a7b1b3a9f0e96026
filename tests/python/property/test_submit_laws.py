"""The laws of submitting and steering (PROTOCOL §14), over random things that two devices and the agents do, often at
the same moment: one order, which both devices are shown; nothing of a reply after its end; no note lost or said twice;
nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from chunk_lists import BOUNDED
from hypothesis import given, settings
from hypothesis import strategies as st

from rig import Answer, Client, Rig, running
from strandline import PublicError, Run
from strandline.core.policy import POLICIES
from strandline.testing import ScriptedCall, until

S = "/api/sessions"
CLOSERS = ("text-end", "finish-step")

Act = tuple[str, Any]

devices = st.integers(0, 1)
acts = st.one_of(
    st.tuples(st.just("submit"), st.tuples(devices, st.sampled_from(POLICIES))),
    st.tuples(st.just("steer"), devices),
    st.tuples(st.just("stop"), st.sampled_from([{}, {"all": True}, {"agent": "scripted"}, "newest", "queued"])),
    st.tuples(st.sampled_from(["say", "take", "finish", "fail"]), st.integers(0, 3)),
)
scripts = st.lists(st.lists(acts, min_size=1, max_size=3), min_size=1, max_size=10)


class Scene:
    """One session, two devices, and everything that they do."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.devices = [Client(rig.app, {"Strandline-Device": name}) for name in ("laptop", "phone")]
        self.sent = 0
        self.runs: list[str] = []

    async def act(self, kind: str, what: Any) -> None:
        if kind == "submit":
            device, policy = what
            await self.send(self.devices[device], "messages", {"submit": policy})
        elif kind == "steer":
            await self.send(self.devices[what], "steer", {})
        elif kind == "stop":
            await self.stop(what)
        else:
            self.play(kind, what)

    async def send(self, device: Client, route: str, more: dict[str, Any]) -> None:
        self.sent += 1
        message = {"id": f"u{self.sent}", "role": "user", "parts": [{"type": "text", "text": f"message {self.sent}"}]}
        answer = await device.ask("POST", f"{S}/c/{route}", {"message": message, **more})
        assert answer.status in (202, 404, 409), answer.body
        if answer.status == 202:
            self.runs.append(answer.json["run"])

    async def stop(self, what: Any) -> None:
        body = (
            what if isinstance(what, dict) else {"run": self.runs[-1 if what == "newest" else 0]} if self.runs else {}
        )
        answer = await self.devices[0].ask("POST", f"{S}/c/stop", body)
        assert answer.status in (200, 404), answer.body

    def play(self, kind: str, index: int) -> None:
        calls = [call for call in self.rig.agent.calls if not call.closed]
        if calls:
            self.tell(calls[index % len(calls)], kind)

    def tell(self, call: ScriptedCall, kind: str) -> None:
        if kind == "say":
            call.say("word ")
        elif kind == "take":
            call.do(take)
        elif kind == "finish":
            call.finish()
        else:
            call.fail(PublicError("The script says so."))

    async def rest(self) -> None:
        """Everybody finishes: nothing may be left."""
        session = await self.rig.sessions.find("c")
        if session is None:
            return

        def over() -> bool:
            for call in self.rig.agent.calls:
                if not call.closed:
                    call.finish()
            return not session.live and not session.commands

        await until(over)


async def take(run: Run) -> None:
    run.take_steering()


async def played(script: Sequence[Sequence[Act]]) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """The log after the script, and what the two devices were shown."""
    async with running() as rig:
        await rig.ask("POST", S, {"id": "c"})
        scene = Scene(rig)
        feeds: list[Answer] = [await device.open("GET", f"{S}/c/events") for device in scene.devices]
        for together in script:
            await asyncio.gather(*(scene.act(kind, what) for kind, what in together))
        await scene.rest()
        log = await rig.log()
        shown = []
        for feed in feeds:
            await feed.until(lambda feed=feed: place(feed) == len(log))
            shown.append([frame.chunk for frame in feed.frames if "seq" in frame.chunk])
        return log, shown


def place(feed: Answer) -> int:
    """The number of the newest event that the device has."""
    return int(feed.cursor.split(".")[1]) if feed.cursor is not None else 0


@given(scripts)
@settings(BOUNDED, max_examples=60)
def test_there_is_one_order_and_nothing_is_lost_stuck_or_late(script: list[list[Act]]) -> None:
    log, shown = asyncio.run(played(script))
    check_feeds(log, shown)
    check_runs(log)
    check_turns(log)
    check_notes(log)
    check_path(log)


def check_feeds(log: list[dict[str, Any]], shown: list[list[dict[str, Any]]]) -> None:
    assert shown[0] == shown[1]
    assert [event["seq"] for event in shown[0]] == list(range(len(log) - len(shown[0]) + 1, len(log) + 1))
    kept = [{name: event[name] for name in event if name != "seq"} for event in shown[0]]
    assert kept == [
        {name: value for name, value in event.items() if name != "body"} for event in log[len(log) - len(kept) :]
    ]


def check_runs(log: list[dict[str, Any]]) -> None:
    """Every run is queued, then started once at most, then ended once; nothing of it comes after, and between a stop
    and the end there are only the closers of what was open."""
    history: dict[str, list[dict[str, Any]]] = {}
    for event in log:
        if "run" in event:
            history.setdefault(event["run"], []).append(event)
    for events in history.values():
        types = [event["type"] for event in events]
        assert types[0] == "run-queued" and types[-1] == "run-ended"
        assert types.count("run-queued") == types.count("run-ended") == 1
        assert types.count("run-started") <= 1
        assert not {"appended", "steered"} & set(types) or types[1] == "run-started"
        if "stop-requested" in types:
            late = events[types.index("stop-requested") + 1 : -1]
            assert {chunk["type"] for event in late for chunk in event["chunks"]} <= set(CLOSERS)


def check_turns(log: list[dict[str, Any]]) -> None:
    """What has waited starts when nothing before it is active."""
    active: list[str] = []
    for before, event in zip([{}, *log], log, strict=False):
        if event["type"] == "run-queued":
            active.append(event["run"])
        elif event["type"] == "run-ended":
            active.remove(event["run"])
        elif event["type"] == "run-started" and (before["type"], before.get("run")) != ("run-queued", event["run"]):
            assert active[0] == event["run"]
    assert active == []


def check_notes(log: list[dict[str, Any]]) -> None:
    """Every note was either acknowledged or became a message, once; and that not before the end of its run."""
    notes = {event["message_id"]: event["run"] for event in log if event["type"] == "steered"}
    found: dict[str, int] = dict.fromkeys(notes, 0)
    ended: set[str] = set()
    for event in log:
        for chunk in event.get("chunks", ()):
            if chunk["type"] == "steering-message":
                assert event["run"] == notes[chunk["id"]]
                found[chunk["id"]] += 1
        if event["type"] == "run-ended":
            ended.add(event["run"])
        if event["type"] == "message-created" and event["message_id"] in notes:
            assert notes[event["message_id"]] in ended
            found[event["message_id"]] += 1
    assert set(found.values()) <= {1}


def check_path(log: list[dict[str, Any]]) -> None:
    """Without edits there is one conversation: everything comes after what was there before."""
    leaf = None
    for event in log:
        if event["type"] in ("message-created", "run-queued"):
            assert event.get("parent") == leaf
            leaf = event["message"]
