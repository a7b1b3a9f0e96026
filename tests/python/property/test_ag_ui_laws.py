"""Laws of the AG-UI codec over generated replies: valid, balanced, numbered alike wherever a reader comes in."""

from __future__ import annotations

from typing import Any

from ag_ui.core import Event as AgUiEvent
from chunk_lists import BOUNDED, chunk_lists
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ag_ui_logs import EPOCH, THREAD, Log, cursor_of, event_of, frames_of, log_of, whole
from strandline.codecs.ag_ui import RESYNC_FRAME, Encoder
from strandline.codecs.ag_ui_chunks import recap
from strandline.core.message import FoldState
from strandline.core.offset import parse
from strandline.core.run import Status

_ENDS = st.sampled_from([Status.COMPLETED, Status.STOPPED, Status.FAILED, Status.LOST, Status.SUSPENDED])
_EVENT: TypeAdapter[Any] = TypeAdapter(AgUiEvent)
_PAIRS = {
    "TEXT_MESSAGE_START": ("TEXT_MESSAGE_END", "messageId"),
    "REASONING_START": ("REASONING_END", "messageId"),
    "REASONING_MESSAGE_START": ("REASONING_MESSAGE_END", "messageId"),
    "TOOL_CALL_START": ("TOOL_CALL_END", "toolCallId"),
    "STEP_STARTED": ("STEP_FINISHED", "stepName"),
}
_ENDED_BY = {end: (start, name) for start, (end, name) in _PAIRS.items()}
_INSIDE = {
    "TEXT_MESSAGE_CONTENT": ("TEXT_MESSAGE_START", "messageId"),
    "REASONING_MESSAGE_CONTENT": ("REASONING_MESSAGE_START", "messageId"),
    "TOOL_CALL_ARGS": ("TOOL_CALL_START", "toolCallId"),
}


@st.composite
def logs(draw: st.DrawFn) -> Log:
    status = draw(_ENDS)
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    log, _ = log_of(draw(chunk_lists()), sizes, status, close=status is not Status.SUSPENDED)
    return log


def check_balanced(events: list[dict[str, Any]]) -> None:
    opened: set[tuple[str, str]] = set()
    for event in events:
        kind = event["type"]
        if kind in _PAIRS:
            bracket = (kind, event[_PAIRS[kind][1]])
            assert bracket not in opened, event
            opened.add(bracket)
        elif kind in _ENDED_BY:
            start, name = _ENDED_BY[kind]
            opened.remove((start, event[name]))
        elif kind in _INSIDE:
            start, name = _INSIDE[kind]
            assert (start, event[name]) in opened, event
    assert opened == set()
    kinds = [event["type"] for event in events]
    assert kinds[0] == "RUN_STARTED"
    assert kinds.count("RUN_STARTED") == 1
    assert kinds[-1] in ("RUN_FINISHED", "RUN_ERROR")
    assert not {"RUN_FINISHED", "RUN_ERROR"} & set(kinds[:-1])


@settings(BOUNDED, max_examples=300)
@given(logs())
def test_every_event_is_one_of_ag_ui_and_every_bracket_is_closed(log: Log) -> None:
    events = [event_of(frame) for frame in whole(log)]
    for event in events:
        _EVENT.validate_python(event)
    check_balanced(events)


@BOUNDED
@given(logs())
def test_ids_are_distinct_and_in_order(log: Log) -> None:
    cursors = []
    for seq, frames in frames_of(log):
        for number, frame in enumerate(frames, 1):
            if frame is RESYNC_FRAME:
                assert number == len(frames)
                continue
            cursor = parse(cursor_of(frame) or "")
            assert (cursor.epoch, cursor.seq, cursor.frame) == (EPOCH, seq, number)
            cursors.append((cursor.seq, cursor.frame))
    assert cursors == sorted(set(cursors))


@BOUNDED
@given(logs(), st.data())
def test_a_reader_that_comes_in_anywhere_is_sent_the_same_frames(log: Log, data: st.DataObject) -> None:
    once = frames_of(log)
    at = data.draw(st.integers(0, len(log)))
    later = Encoder(THREAD, str)
    for index, (seq, event) in enumerate(log):
        # Warm: the frames are there already, and the encoder is only brought up to date. Cold: they are made again.
        known = once[index][1] if index < at else None
        assert later.frames(EPOCH, seq, event, known) == once[index][1]


@BOUNDED
@given(chunk_lists())
def test_a_recap_says_the_same_message_and_can_be_gone_on_from(chunks: list[dict[str, Any]]) -> None:
    fold = FoldState("m1")
    for chunk in chunks:
        fold.push(chunk)
    translator, events = recap(fold.message_id or "m1", fold)
    finished = [{"type": "RUN_STARTED"}, *events, *translator.finish(), {"type": "RUN_FINISHED"}]
    check_balanced(finished)
    assert translator.fold == fold
    for kind, name in (("text", "TEXT_MESSAGE_CONTENT"), ("reasoning", "REASONING_MESSAGE_CONTENT")):
        ours = "".join(part["text"] for part in fold.parts() if part["type"] == kind)
        assert "".join(event["delta"] for event in events if event["type"] == name) == ours
