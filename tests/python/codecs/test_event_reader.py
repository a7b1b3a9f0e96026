"""The reader of other people's server-sent events: what the HTML standard says, cut anywhere, within a bound."""

from __future__ import annotations

from itertools import pairwise

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given, settings
from hypothesis import strategies as st

from strandline.codecs.sse import EventReader

LINES = st.sampled_from(
    ["data: a", "data:b", "data:  c", "data", "data:", ": comment", "id: 3", "event: x", "retry: 1", "dat: a", "", "",
     "", "data: größer 🦩", 'data: {"a": "\u2028"}', "data: tail\u0085"]
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(lambda lines: "".join(line + end for line, end in lines))


def read(pieces: list[bytes] | list[str]) -> list[str]:
    reader = EventReader()
    return [data for piece in pieces for data in reader.feed(piece)]


@settings(derandomize=True, deadline=None, database=None)
@given(STREAMS, st.lists(st.integers(0, 400), max_size=12))
def test_it_reads_the_same_however_the_stream_is_cut(text: str, cuts: list[int]) -> None:
    whole = text.encode()
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    assert read(pieces) == read([whole]) == read([text]) == read(list(text))


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(LINES.filter(lambda line: "\u2028" not in line and "\u0085" not in line), max_size=30))
def test_it_reads_what_httpx_sse_reads(lines: list[str]) -> None:
    # Its line decoder also breaks lines at U+2028 and the like, which no standard says.
    text = "".join(line + "\n" for line in lines)
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text.encode())
    theirs = [event.data for event in EventSource(response).iter_sse()]
    assert [data for data in read([text]) if data] == [data for data in theirs if data]


def test_the_examples_of_the_standard() -> None:
    assert read(["data: YHOO\ndata: +2\ndata: 10\n\n"]) == ["YHOO\n+2\n10"]
    stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    assert read([stream]) == ["first event", "second event", " third event"]
    assert read(["data\n\ndata\ndata\n\ndata:"]) == ["", "\n"]
    assert read(["\ufeffdata: after a byte order mark\n\n".encode()]) == ["after a byte order mark"]


@pytest.mark.parametrize("rest", ["data: a", "data: a\n", "da", "data: a\r", "\ndata: x"])
def test_it_knows_that_it_is_in_the_middle_of_an_event(rest: str) -> None:
    reader = EventReader()
    reader.feed("data: whole\n\n")
    assert not reader.inside
    reader.feed(rest)
    assert reader.inside


@pytest.mark.parametrize("rest", [": comment\n", "id: 3\n", "\n\n", "data: x\r\r", "data: x\r\n\r"])
def test_what_is_no_event_or_a_whole_one_is_not_the_middle(rest: str) -> None:
    reader = EventReader()
    reader.feed(rest)
    assert not reader.inside


def test_half_a_character_is_the_middle() -> None:
    reader = EventReader()
    reader.feed(b"\xf0\x9f")
    assert reader.inside


@pytest.mark.parametrize("piece", ["data: " + "x" * 20, "x" * 20, "data: x\n" * 3, "data: 1234\n" + "x" * 10])
def test_an_event_over_the_limit_is_refused_before_it_is_whole(piece: str) -> None:
    EventReader(limit=15).feed("data: 123456789\n\n: 123456789\nid: 12345678\n\n" * 3)
    with pytest.raises(ValueError, match="longer than 15"):
        EventReader(limit=15).feed(piece)
    with pytest.raises(ValueError, match="longer than 15"):
        reader = EventReader(limit=15)
        for letter in piece:
            reader.feed(letter)


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        EventReader().feed(b"data: \xff\n\n")
