"""Laws of the AG-UI source: it is the inverse of the AG-UI codec, as far as that wire can carry a reply."""

from __future__ import annotations

import json
from typing import Any

from chunk_lists import BOUNDED, chunk_lists
from hypothesis import example, given
from hypothesis import strategies as st

from ag_ui_logs import Log, event_of, log_of, whole
from strandline.agents.sources.ag_ui import Receiver
from strandline.core.chunks import check
from strandline.core.message import FoldState
from strandline.core.parts import Tool
from strandline.core.run import Status

_words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def orderly(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A reply as well-behaved producers write it: in steps, one thing after the other, every call answered."""
    chunks: list[dict[str, Any]] = []
    for step in range(draw(st.integers(1, 3))):
        chunks.append({"type": "start-step"})
        for number in range(draw(st.integers(1, 3))):
            name = f"{step}-{number}"
            kind = draw(st.sampled_from(["text", "reasoning", "tool", "streamed", "data", "source", "metadata"]))
            if kind in ("text", "reasoning"):
                chunks.append({"type": f"{kind}-start", "id": name})
                chunks += [
                    {"type": f"{kind}-delta", "id": name, "delta": draw(_words)} for _ in range(draw(st.integers(1, 3)))
                ]
                chunks.append({"type": f"{kind}-end", "id": name})
            elif kind in ("tool", "streamed"):
                value, call = draw(_values), {"toolCallId": name, "toolName": "search"}
                if kind == "streamed":
                    text = json.dumps(value)
                    at = draw(st.integers(0, len(text)))
                    chunks.append({"type": "tool-input-start", **call})
                    for piece in filter(None, (text[:at], text[at:])):
                        chunks.append({"type": "tool-input-delta", "toolCallId": name, "inputTextDelta": piece})
                chunks.append({"type": "tool-input-available", **call, "input": value})
                if draw(st.booleans()):
                    chunks.append({"type": "tool-output-available", "toolCallId": name, "output": draw(_values)})
                else:
                    chunks.append({"type": "tool-output-error", "toolCallId": name, "errorText": draw(_words)})
            elif kind == "data":
                chunks.append({"type": "data-mark", "id": draw(st.sampled_from("xy")), "data": draw(_values)})
            elif kind == "source":
                chunks.append({"type": "source-url", "sourceId": name, "url": "https://example.org/", "title": "T"})
            else:
                metadata = draw(st.dictionaries(st.sampled_from("abc"), _values, max_size=2))
                chunks.append({"type": "message-metadata", "messageMetadata": metadata})
        chunks.append({"type": "finish-step"})
    return chunks


def received(log: Log) -> list[dict[str, Any]]:
    receiver = Receiver()
    chunks: list[dict[str, Any]] = []
    for frame in whole(log):
        for chunk in receiver.take(event_of(frame)):
            check(chunk)
            chunks.append(chunk)
    assert receiver.over
    return chunks


def folded(chunks: list[dict[str, Any]]) -> FoldState:
    state = FoldState("m1")
    for chunk in chunks:
        state.push(chunk)
    return state


def shown(state: FoldState) -> list[dict[str, Any]]:
    """The parts without the ids that each side makes up for itself."""
    return [
        {name: value for name, value in part.items() if not (name == "id" and part["type"] == "reasoning")}
        | ({"toolCallId": part["toolCallId"].rpartition(":")[2]} if "toolCallId" in part else {})
        for part in state.parts()
    ]


@BOUNDED
@given(orderly(), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_a_reply_that_went_over_the_wire_is_the_same_message(chunks: list[dict[str, Any]], sizes: list[int]) -> None:
    log, state = log_of(chunks, sizes)
    again = received(log)
    assert again[-1] == {"type": "finish", "finishReason": "stop"}
    there = folded(again)
    assert shown(there) == shown(state)
    assert (there.metadata or {}) == (state.metadata or {})


_CALL: dict[str, Any] = {"toolCallId": "c1", "toolName": "search"}
_BEGUN = {"type": "tool-input-start", **_CALL}
_ASKED = {"type": "tool-approval-request", "approvalId": "a1", "toolCallId": "c1"}
_ANSWERED = {"type": "tool-approval-response", "approvalId": "a1", "approved": True}
_COMPLETE = {"type": "tool-input-available", **_CALL, "input": {"q": "x"}}
_WRONG = {"type": "tool-input-error", **_CALL, "input": "{", "errorText": "No."}


@BOUNDED
@given(chunk_lists(), st.sampled_from(list(Status.__members__.values())[2:]))
@example([_BEGUN, _ASKED, _COMPLETE], Status.COMPLETED)  # asked before the input was complete
@example([_BEGUN, _BEGUN, _ASKED, _ASKED, _COMPLETE], Status.SUSPENDED)
@example([_BEGUN, _ASKED, _ANSWERED, _COMPLETE], Status.COMPLETED)
@example([_BEGUN, _ASKED, _WRONG], Status.STOPPED)
def test_any_reply_at_all_can_be_taken_and_says_as_much(chunks: list[dict[str, Any]], status: Status) -> None:
    log, state = log_of(chunks, (), status, close=status is not Status.SUSPENDED)
    again = received(log)
    ends = {Status.STOPPED: "abort", Status.FAILED: "error", Status.LOST: "error"}
    assert again[-1]["type"] == ends.get(status, "finish")
    there = folded(again)
    for kind in ("text", "reasoning"):
        assert letters(there, kind) == letters(state, kind)
    assert calls(there) == calls(state)


def letters(state: FoldState, kind: str) -> list[str]:
    """The wire breaks a part up where something else was said in the middle of it, so the order is another one."""
    return sorted("".join(part["text"] for part in state.parts() if part["type"] == kind))


def calls(state: FoldState) -> list[str]:
    """Not what stands for an interrupt, of a run that was suspended without saying what it waits for."""
    return sorted(entry.name for entry in state.entries if isinstance(entry, Tool) and entry.name != "interrupt")
