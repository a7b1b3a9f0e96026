"""The laws of the session feed, over generated replies (PROTOCOL §8.8-8.10): whoever joins anywhere, with whatever
filter and for whatever major version, ends with what a reader that looks at the end is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chunk_lists import BOUNDED, chunk_lists
from hypothesis import example, given
from hypothesis import strategies as st

from strandline.codecs import native
from strandline.codecs.filters import Filter
from strandline.codecs.gating import RESYNC, gate
from strandline.core.events import Appended
from strandline.core.message import FoldState, fold
from strandline.core.unfold import unfold
from strandline.testing import read_frames

Chunks = list[dict[str, Any]]

filters = st.builds(Filter, major=st.sampled_from([5, 6, 7]), reasoning=st.booleans())

RESET: Chunks = [
    {"type": "start", "messageId": "m1"},
    {"type": "start-step"},
    {"type": "reasoning-start", "id": "r"},
    {"type": "text-start", "id": "t"},
    {"type": "reset-step"},
    {"type": "start-step"},
    {"type": "text-start", "id": "t"},
]


def is_reasoning(part: Mapping[str, Any]) -> bool:
    return part["type"] in ("reasoning", "reasoning-file")


def events_of(chunks: Chunks, size: int) -> list[Appended]:
    return [Appended(0, "r", "v", tuple(chunks[at : at + size])) for at in range(0, len(chunks), size)]


class Client:
    """What a page does with what it is sent."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.state = FoldState()

    def join(self, state: FoldState) -> None:
        """The ``active`` chunks of a snapshot."""
        chunks = self.wanted.chunks(unfold(state))
        assert chunks is not RESYNC, "or it would be told to join again for ever"
        self.state = fold(chunks)

    def take(self, data: Iterable[bytes], now: FoldState) -> None:
        for frame in read_frames(b"".join(data)):
            if frame.chunk["type"] == "resync":
                self.join(now)
            else:
                for chunk in frame.chunk["chunks"]:
                    self.state.push(chunk)


def plain(state: FoldState, chunks: Chunks, major: int) -> tuple[Any, ...]:
    parts = state.parts()
    if major < 7 and any("approval" in chunk["type"] or "denied" in chunk["type"] for chunk in chunks):
        # Clients below 7 are not told all about approvals, so what they know of a call depends on when they came.
        known = ("type", "toolCallId")
        parts = [{name: part[name] for name in known} if "toolCallId" in part else part for part in parts]
    return state.message_id, state.metadata, parts


@BOUNDED
@given(chunk_lists(), st.integers(1, 5), st.integers(0, 40), filters)
@example(RESET, 1, 4, Filter(6))
@example(RESET, 3, 4, Filter(7, reasoning=False))
def test_who_joins_anywhere_ends_with_what_is_shown_at_the_end(
    chunks: Chunks, size: int, joined: int, wanted: Filter
) -> None:
    client, at_the_end = Client(wanted), Client(wanted)
    joined = min(joined, len(chunks))
    seen = joined % size
    client.join(fold(chunks[:joined]))
    for seq, event in enumerate(events_of(chunks, size), 1):
        if seq * size > joined:
            skip = seen if seq - 1 == joined // size else 0
            client.take(native.filtered("abcd", seq, event, wanted, skip), fold(chunks[: seq * size]))
    at_the_end.join(fold(chunks))
    assert plain(client.state, chunks, wanted.major) == plain(at_the_end.state, chunks, wanted.major)


@BOUNDED
@given(chunk_lists(), st.booleans())
def test_a_client_of_7_is_shown_the_whole_message_but_what_it_does_not_want(chunks: Chunks, reasoning: bool) -> None:
    state = fold(chunks)
    client = Client(Filter(7, reasoning=reasoning))
    client.join(state)
    expected = [part for part in state.parts() if reasoning or not is_reasoning(part)]
    assert client.state.parts() == expected == client.wanted.parts(state.parts())


@BOUNDED
@given(chunk_lists(), filters)
def test_no_frame_has_a_chunk_that_its_reader_is_better_off_without(chunks: Chunks, wanted: Filter) -> None:
    for seq, event in enumerate(events_of(chunks, 3), 1):
        for frame in read_frames(b"".join(native.filtered("abcd", seq, event, wanted))):
            assert frame.cursor == f"abcd.{seq}.{len(event.chunks)}"
            for chunk in frame.chunk.get("chunks", ()):
                assert gate(chunk, wanted.major) == chunk
                assert wanted.reasoning or not chunk["type"].startswith("reasoning")


@BOUNDED
@given(chunk_lists())
def test_who_wants_everything_is_sent_what_nobody_filters(chunks: Chunks) -> None:
    assert Filter().changes_nothing
    for seq, event in enumerate(events_of(chunks, 3), 1):
        assert native.filtered("abcd", seq, event, Filter()) == native.frames("abcd", seq, event)
