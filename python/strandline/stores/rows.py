"""How records, journal entries and segments look in the database. Pure: bytes and tuples in, values out.

A journal blob is lines: ``["session",first_seq,count]`` and then that many events, entry after entry.
A segment blob is lines of ``<seq> <event>``. Events are JSON without a line break, which is checked when packing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import orjson

from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.core.run import Status
from strandline.stores.port import Entry, Segment

Row = tuple[Any, ...]

_LEVEL = 3
"""zlib's level: within a tenth of the size of level 6 for event logs, at a third of its time."""

_SEGMENT_BYTES = 256 * 1024
"""Segments made from a journal are closed at about this size, so that a read of a few events unpacks little."""


def deflate(raw: bytes) -> bytes:
    """Compress a segment. Runs inside SQLite, in the connection's thread."""
    return zlib.compress(raw, _LEVEL)


def inflate(blob: bytes) -> bytes:
    """Undo ``deflate``."""
    return zlib.decompress(blob)


def session_row(record: SessionRecord) -> Row:
    return (
        record.id,
        record.epoch,
        record.owner,
        record.created_at,
        record.updated_at,
        record.last_seq,
        record.leaf,
        record.title,
        int(record.archived),
    )


def session_from(row: Row) -> SessionRecord:
    *fields, archived = row
    return SessionRecord(*[*fields, bool(archived)])


def message_row(record: MessageRecord) -> Row:
    return (
        record.session,
        record.version,
        record.message_id,
        record.parent,
        record.role,
        record.author,
        record.created_at,
        record.run,
        _json(record.parts),
        _json(record.metadata),
    )


def message_from(row: Row) -> MessageRecord:
    *rest, parts, metadata = row
    content = None if parts is None else tuple(orjson.loads(parts))
    return MessageRecord(*[*rest, content, None if metadata is None else orjson.loads(metadata)])


def run_row(record: RunRecord) -> Row:
    return (
        record.id,
        record.session,
        record.message,
        record.message_id,
        record.parent,
        record.agent,
        record.author,
        record.status.value,
        record.created_at,
        record.first_seq,
        record.last_seq,
        record.parent_run,
        record.key,
        record.reason,
        record.error,
        record.finish_reason,
        _json(record.usage),
        record.ended_at,
    )


def run_from(row: Row) -> RunRecord:
    *before, usage, ended_at = row
    before[7] = Status(before[7])
    return RunRecord(*[*before, None if usage is None else orjson.loads(usage), ended_at])


def pack_journal(entries: Iterable[Entry]) -> bytes:
    """The blob of one commit. Raises ValueError for an event with a line break."""
    lines: list[bytes] = []
    for entry in entries:
        lines.append(orjson.dumps((entry.session, entry.first_seq, len(entry.events))))
        lines.extend(entry.events)
    return _joined(lines)


def unpack_journal(blob: bytes) -> Iterator[Entry]:
    """The entries of one commit."""
    lines = iter(blob.split(b"\n"))
    for header in lines:
        session, first_seq, count = orjson.loads(header)
        yield Entry(session, first_seq, tuple(islice(lines, count)))


def segment_row(segment: Segment) -> Row:
    """The row of a segment, its blob not yet deflated. Raises ValueError for an event with a line break."""
    blob = _joined([b"%d %b" % pair for pair in segment.events])
    return (segment.session, segment.first_seq, segment.last_seq, segment.run, segment.at, blob)


def unpack_segment(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The events of an inflated segment."""
    for line in raw.split(b"\n"):
        seq, _, event = line.partition(b" ")
        yield int(seq), event


def merged(segments: Iterable[Iterable[tuple[int, bytes]]], first_seq: int, last_seq: int) -> list[tuple[int, bytes]]:
    """Events ``first_seq..last_seq`` of overlapping segments, in order, each number once."""
    by_seq = {seq: event for seq, event in chain.from_iterable(segments) if first_seq <= seq <= last_seq}
    return sorted(by_seq.items())


def run_and_time(event: bytes) -> tuple[str | None, int]:
    """Which run an encoded event belongs to, and when it happened (``core.events.to_plain`` writes both).

    Tolerant: an event that says neither is the session's own and old, it must not keep a service from starting.
    """
    try:
        plain = orjson.loads(event)
    except ValueError:
        plain = None
    if not isinstance(plain, Mapping):
        return None, 0
    return plain.get("run"), plain.get("at", 0)


def segments_from(session: str, events: Mapping[int, bytes]) -> Iterator[Segment]:
    """Segments for events that were only in the journal: one series per run, each of bounded size."""
    by_run: dict[str | None, list[tuple[int, int, bytes]]] = {}
    for seq, event in sorted(events.items()):
        run, at = run_and_time(event)
        by_run.setdefault(run, []).append((seq, at, event))
    for run, items in by_run.items():
        start = size = 0
        for index, (_, _, event) in enumerate(items, 1):
            size += len(event)
            if size >= _SEGMENT_BYTES or index == len(items):
                piece = items[start:index]
                newest = max(at for _, at, _ in piece)
                yield Segment(session, run, newest, tuple((seq, event) for seq, _, event in piece))
                start, size = index, 0


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _joined(lines: list[bytes]) -> bytes:
    blob = b"\n".join(lines)
    if blob.count(b"\n") != len(lines) - 1:
        raise ValueError("an event must be JSON on one line")
    return blob
