"""Events that are written short come back as the same bytes (stores/lines.py), and the journal's rows (rows.py)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from store_samples import appended

from strandline.codecs import native
from strandline.core.events import Appended, MessageReset
from strandline.stores import lines
from strandline.stores.port import Entry
from strandline.stores.rows import journal_row, unpack_journal

words = st.one_of(
    st.text(max_size=12), st.sampled_from(['"', '"}]}', "\\", "\n+1", "+1\n", '","delta":"', "\r", "\u2028", "😀", ""])
)
ids = st.sampled_from(["a", "b", 'c","delta":"', "+", "é"])


def delta(kind: str, id: str, text: str) -> dict[str, Any]:
    if kind == "tool-input-delta":
        return {"type": kind, "toolCallId": id, "inputTextDelta": text}
    return {"type": kind, "id": id, "delta": text}


deltas = st.builds(delta, st.sampled_from(["text-delta", "reasoning-delta", "tool-input-delta"]), ids, words)
others = st.fixed_dictionaries({"type": st.just("data-x"), "data": words}) | st.builds(
    lambda chunk: {**chunk, "providerMetadata": {"x": 1}}, deltas
)
times = st.one_of(st.integers(0, 60), st.integers(-5, 2**63 - 1))
written = st.builds(
    lambda at, run, chunks: native.encode(Appended(at, run, "m", tuple(chunks))),
    times,
    ids,
    st.lists(deltas, min_size=1, max_size=1) | st.lists(deltas | others, max_size=3),
)
# Not written by this version, but JSON on one line: whitespace, other numbers, another order.
foreign = st.sampled_from(
    [
        b'{"type":"appended","at":0000000000007,"run":"a","message":"m","chunks":[{"type":"text-delta","id":"a","delta":"x"}]}',
        b'{"type":"appended","at":7,"run":"a","message":"m","chunks":[{"type":"text-delta","id":"a","delta":"}]}',
        b'{"type":"appended","at":7,"run":"a","message":"m","chunks":[{"type":"text-delta","id":"a","delta":"x"}]}',
        b'{"type":"appended","at":07,"run":"a","message":"m","chunks":[{"type":"text-delta","id":"a","delta":"x"}]}',
        b'{"type":"appended","at":1e3,"run":"a","message":"m","chunks":[{"type":"text-delta","id":"a","delta":"x"}]}',
        b'{"type":"appended","at": 7,"run":"a","message":"m","chunks":[{"type":"text-delta","id":"a","delta":"x"}]}',
        b'{"type":"appended","at":7,"run":"a","message":"m","chunks":[{"type":"text-delta","id":"a","delta":"x"}]} ',
        b'{"at":7,"type":"appended","run":"a","message":"m","chunks":[{"type":"text-delta","id":"a","delta":"x"}]}',
        native.encode(MessageReset(7, "server", "a", "m", "i")),
        b"null",
    ]
)
logs = st.lists(st.tuples(st.integers(-3, 3) | st.just(1), written | written | foreign), max_size=30)


def token(at: str, rest: str = 'x"}]}') -> bytes:
    start = f'{{"type":"appended","at":{at},"run":"r","message":"m","chunks":[{{"type":"text-delta","id":"i","delta":"'
    return f"{start}{rest}".encode()


@given(logs, st.integers(0, 2**53))
@example([(1, appended(5, "a")), (1, appended(3, "b")), (2, appended(3, ""))], 0)
@example([(1, token(at)) for at in ("17", "07", "17", "1e", "17", "1 ", "17", "-7", "17")], 0)
@example([(1, token("17")), (1, token("18").replace(b"appended", b"appendix")), (1, token("19"))], 0)
@example([(1, token("17")), (1, token("18", "}]}")), (1, token("19")), (1, token("0")), (1, token("5"))], 0)
def test_every_event_comes_back_as_the_same_bytes(steps: list[tuple[int, bytes]], seq: int) -> None:
    events = []
    for step, event in steps:
        seq += step
        events.append((seq, event))
    if events:
        assert list(lines.unpack(lines.pack(events))) == events


def test_tokens_of_one_part_are_a_full_line_and_two_columns() -> None:
    events = [
        (10, appended(1000, "A ")),
        (11, appended(1020, 'q"')),
        (12, appended(1015, "")),
        (15, appended(1015, "é")),
    ]
    assert lines.pack(events) == b'10 %b\n+20 -5 0/3\nq\\"\n\n\xc3\xa9' % events[0][1]


def test_whatever_interrupts_a_part_is_in_full_and_so_is_what_follows_it() -> None:
    odd = orjson.dumps({"type": "run-started", "at": 3})
    events = list(
        enumerate([appended(1, "a"), odd, appended(2, "b"), appended(3, "c", "r2"), appended(4, "d", "r2")], 1)
    )
    full = [b"%d %b" % pair for pair in events[:4]]
    assert lines.pack(events) == b"\n".join([*full, b"+1", b"d"])


def test_full_lines_alone_are_read_as_before() -> None:
    events = [(1, appended(1, "a")), (2, appended(2, "b")), (9, b"{}")]
    assert list(lines.unpack(b"\n".join(b"%d %b" % pair for pair in events))) == events


def test_an_event_of_many_chunks_is_looked_at_once() -> None:
    chunks = ({"type": "text-delta", "id": "i", "delta": "x"},) * 20_000
    event = native.encode(Appended(1, "r", "m", (*chunks, {"type": "data-x", "data": {"y": "z"}})))
    assert lines.pack([(1, event)]) == b"1 " + event


@pytest.mark.parametrize("event", [b"{\n}", appended(1, "x").replace(b"x", b"\n"), appended(1, "x") + b"\n"])
def test_an_event_with_a_line_break_is_refused(event: bytes) -> None:
    with pytest.raises(ValueError, match="one line"):
        lines.pack([(1, appended(1, "a")), (2, event)])
    with pytest.raises(ValueError, match="one line"):
        journal_row(1, (Entry("s1", 1, (event,)),))


@pytest.mark.parametrize("raw", [b"", b"+1\na", b"1 {}\n+1\na", b"1 " + appended(1, "a") + b"\n+1 2\nonly one"])
def test_what_was_not_written_by_pack_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(lines.unpack(raw))


@pytest.mark.parametrize(("count", "first"), [(3, b"["), (200, b"\x78")])
def test_a_long_journal_row_is_compressed_and_a_short_one_is_not(count: int, first: bytes) -> None:
    entries = tuple(Entry(f"s{n}", n, (appended(n, f"word {n}"), appended(n, "✓"))) for n in range(count))
    number, blob = journal_row(7, entries)
    assert (number, blob[:1]) == (7, first)
    assert tuple(unpack_journal(blob)) == entries
    assert (len(blob) < sum(len(event) for entry in entries for event in entry.events) / 2) == (first == b"\x78")


def test_a_journal_row_that_is_cut_is_no_journal_row() -> None:
    _, blob = journal_row(1, (Entry("s1", 1, tuple(appended(n, "word") for n in range(999))),))
    with pytest.raises(ValueError, match="incomplete"):
        list(unpack_journal(blob[:-9]))
