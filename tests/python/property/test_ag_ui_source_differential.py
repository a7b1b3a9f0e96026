"""The AG-UI source against a real client of AG-UI: over generated streams of other people's agents, what we store says
what an agent of @ag-ui/client 1.0.0 ends with (``tests/js/read_ag_ui.mjs``)."""

from __future__ import annotations

import json
from typing import Any

from chunk_lists import BOUNDED
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ag_ui_differential import read_with_clients

from strandline.agents.sources.ag_ui import Receiver
from strandline.core.message import FoldState
from strandline.core.parts import Text, Tool

Events = list[dict[str, Any]]

_words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=5)
_objects = st.dictionaries(st.sampled_from("ab"), st.integers(-5, 5) | _words | st.none(), max_size=2)
_patches = st.lists(
    st.fixed_dictionaries({"op": st.just("add"), "path": st.sampled_from(["/a", "/b", "/list/-", "/list/0"]),
                           "value": st.integers(0, 9) | _words})
    | st.fixed_dictionaries({"op": st.just("copy"), "from": st.just("/list"), "path": st.just("/twin")})
    | st.fixed_dictionaries({"op": st.just("replace"), "path": st.just("/list"), "value": st.just([1, [2]])})
    | st.fixed_dictionaries({"op": st.just("move"), "from": st.just("/list"), "path": st.just("/list")}),
    max_size=3,
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> Events:
    """The events of one run, as agents send them: several things may be open at a time."""
    lanes: list[Events] = []
    calls: list[str] = []
    for number in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["text", "user", "reasoning", "call", "chunks", "call-chunks", "state", "aside"]))
        pieces = draw(st.lists(_words, min_size=1, max_size=3))
        lane: Events = []
        about = {"messageId": f"m{number}"}
        if kind in ("text", "user"):
            role = {"role": "assistant" if kind == "text" else "user"}
            lane = [{"type": "TEXT_MESSAGE_START", **about, **role}]
            lane += [{"type": "TEXT_MESSAGE_CONTENT", **about, "delta": piece} for piece in pieces]
            lane += [{"type": "TEXT_MESSAGE_END", **about}]
        elif kind == "reasoning":
            lane = [{"type": "REASONING_START", **about}, {"type": "REASONING_MESSAGE_START", **about}]
            lane[1]["role"] = "reasoning"
            lane += [{"type": "REASONING_MESSAGE_CONTENT", **about, "delta": piece} for piece in pieces]
            lane += [{"type": "REASONING_MESSAGE_END", **about}, {"type": "REASONING_END", **about}]
        elif kind == "call":
            named, text = {"toolCallId": f"c{number}"}, json.dumps(draw(_objects))
            cut = draw(st.integers(0, len(text)))
            lane = [{"type": "TOOL_CALL_START", **named, "toolCallName": "look"}]
            lane += [{"type": "TOOL_CALL_ARGS", **named, "delta": piece} for piece in (text[:cut], text[cut:])]
            lane += [{"type": "TOOL_CALL_END", **named}]
            if draw(st.booleans()):
                result = draw(_words.filter(str.isalpha) | _objects.map(json.dumps))
                lane += [{"type": "TOOL_CALL_RESULT", **named, "messageId": f"r{number}", "content": result}]
            calls.append(f"c{number}")
        elif kind == "chunks":
            family = draw(st.sampled_from(["TEXT", "REASONING"]))
            lane = [{"type": f"{family}_MESSAGE_CHUNK", **about, "delta": piece} for piece in pieces]
        elif kind == "call-chunks":
            first = {"type": "TOOL_CALL_CHUNK", "toolCallId": f"c{number}", "toolCallName": "find", "delta": '{"a":'}
            lane = [first, {"type": "TOOL_CALL_CHUNK", "toolCallId": f"c{number}", "delta": "1}"}]
        elif kind == "state":
            lane = [{"type": "STATE_SNAPSHOT", "snapshot": {**draw(_objects), "list": [0]}}]
            lane += [{"type": "STATE_DELTA", "delta": draw(_patches)}]
        else:
            lane = [draw(st.sampled_from([
                {"type": "RAW", "event": {"any": 1}},
                {"type": "CUSTOM", "name": "note", "value": 1},
                {"type": "ACTIVITY_SNAPSHOT", "messageId": f"p{number}", "activityType": "PLAN", "content": {"a": 1}},
                {"type": "STEP_STARTED", "stepName": f"s{number}"},
            ]))]  # fmt: skip
            if lane[0]["type"] == "STEP_STARTED":
                lane.append({"type": "STEP_FINISHED", "stepName": f"s{number}"})
        lanes.append(lane)
    # The forms without start and end, and the state, are not cut in two: what they mean depends on what went before.
    whole = [lane for lane in lanes if "CHUNK" in lane[0]["type"] or "STATE" in lane[0]["type"]]
    others = [list(lane) for lane in lanes if lane not in whole]
    units: list[Events] = []
    while others:
        lane = draw(st.sampled_from(others))
        units.append([lane.pop(0)])
        if not lane:
            others.remove(lane)
    for lane in whole:
        units.insert(draw(st.integers(0, len(units))), lane)
    mixed = [event for unit in units for event in unit]
    run = {"threadId": "c", "runId": "r1"}
    return [{"type": "RUN_STARTED", **run}, *mixed, {"type": "RUN_FINISHED", **run}]


def of_the_source(events: Events) -> dict[str, Any]:
    state, receiver = FoldState("m"), Receiver()
    for event in events:
        for chunk in receiver.take(event):
            state.push(chunk)
    said: dict[str, dict[str, Any]] = {"text": {}, "reasoning": {}, "calls": {}, "results": {}, "state": {}}
    for entry in state.entries:
        if isinstance(entry, Text):
            said[entry.kind][entry.id] = said[entry.kind].get(entry.id, "") + entry.text()
        elif isinstance(entry, Tool):
            said["calls"][entry.id] = [entry.name, entry.fields["input"]]
            if "output" in entry.fields:
                said["results"][entry.id] = entry.fields["output"]
        elif entry["type"] == "data-state":
            said["state"] = entry["data"]
    return said


def of_the_client(told: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, dict[str, Any]] = {"text": {}, "reasoning": {}, "calls": {}, "results": {}, "state": told["state"]}
    for message in told["agui"]:
        if message["role"] in ("assistant", "reasoning") and message.get("content"):
            said["text" if message["role"] == "assistant" else "reasoning"][message["id"]] = message["content"]
        for call in message.get("toolCalls") or ():
            said["calls"][call["id"]] = [call["function"]["name"], json.loads(call["function"]["arguments"])]
        if message["role"] == "tool":
            content = message["content"]
            said["results"][message["toolCallId"]] = json.loads(content) if content.startswith("{") else content
    return said


def test_what_is_stored_says_what_a_client_of_the_producer_would_have_shown() -> None:
    found: list[Events] = []

    @settings(BOUNDED, max_examples=300)
    @given(streams())
    def collect(events: Events) -> None:
        found.append(events)

    collect()
    answers = read_with_clients(found)
    assert len(answers) == len(found) >= 300
    for events, told in zip(found, answers, strict=True):
        assert "refused" not in told, (told, events)
        assert of_the_source(events) == of_the_client(told), events
