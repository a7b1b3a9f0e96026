"""How records, journal entries and segments look in the database. Pure: bytes and tuples in, values out.

A journal blob is lines: ``["session",first_seq,count]`` and then that many events, entry after entry; a long one is
compressed, which its first byte says. A segment blob is the compressed text of ``stores.lines``. Events are JSON
without a line break, which is checked when packing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import orjson

from strandline.core.erasing import Erasure, TakenBack, without
from strandline.core.records import (
    AnnotationRecord,
    DecisionRecord,
    MessageRecord,
    ReceiptRecord,
    RunRecord,
    SessionRecord,
)
from strandline.core.run import Status
from strandline.stores import lines
from strandline.stores.port import Entry, Segment

Row = tuple[Any, ...]

_LEVEL = 6
"""zlib's level for what is kept. It is mostly words, and level 9 is no better at those."""

_JOURNAL_LEVEL = 1
"""zlib's level for the journal: most of it are ids, at which no level is better, and a commit waits for it."""

_PLAIN_BYTES = 16_384
"""A journal blob up to this size is written as it is: a few pages, and compressing it costs as much as a commit."""

_PARTS_BYTES = range(1024, 65_537)
"""Parts of this many bytes are compressed: a reply of common length then leaves room for another on its page. A short
message has a page with others anyway; a long one fills its pages, and is often a picture, which does not compress."""

_SEGMENT_BYTES = 256 * 1024
"""Segments made from a journal are closed at about this size, so that a read of a few events unpacks little."""


def inflate(blob: bytes) -> bytes:
    """Uncompress a segment, or the parts of a message. Runs inside SQLite, in the connection's thread."""
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
        record.submit,
    )


def session_from(row: Row) -> SessionRecord:
    *fields, archived, submit = row
    return SessionRecord(*[*fields, bool(archived), submit])


def message_row(record: MessageRecord) -> Row:
    """To be called in the connection's thread where it matters: parts of common length are compressed."""
    return (
        record.session,
        record.version,
        record.message_id,
        record.parent,
        record.role,
        record.author,
        record.created_at,
        record.run,
        _packed(record.parts),
        _json(record.metadata),
        int(record.deleted),
        int(record.spawned),
        record.editor,
    )


def message_from(row: Row) -> MessageRecord:
    """The message of a row whose parts the query has inflated."""
    *rest, parts, metadata, deleted, spawned, editor = row
    content = None if parts is None else tuple(orjson.loads(parts))
    return MessageRecord(*[*rest, content, _value(metadata), bool(deleted), bool(spawned), editor])


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
        int(record.spawned),
        record.attempt,
        record.producer,
        _json(record.body),
    )


def run_from(row: Row) -> RunRecord:
    *before, usage, ended_at, spawned, attempt, producer, body = row
    before[7] = Status(before[7])
    return RunRecord(*[*before, _value(usage), ended_at, bool(spawned), attempt, producer, _value(body)])


def decision_row(record: DecisionRecord) -> Row:
    return (
        record.session,
        record.id,
        record.run,
        record.message,
        record.message_id,
        record.kind,
        record.tool_call,
        record.tool,
        record.created_at,
        _json(record.input),
        _json(record.roles),
        record.expires_at,
        record.outcome,
        _json(record.value),
        record.decided_at,
        record.decided_by,
    )


def decision_from(row: Row) -> DecisionRecord:
    *before, known, roles, expires_at, outcome, value, decided_at, decided_by = row
    who = None if roles is None else tuple(orjson.loads(roles))
    return DecisionRecord(*[*before, _value(known), who, expires_at, outcome, _value(value), decided_at, decided_by])


def annotation_row(record: AnnotationRecord) -> Row:
    return (
        record.session,
        record.id,
        record.message,
        record.message_id,
        record.kind,
        record.author,
        record.created_at,
        record.name,
        _json(record.data),
        _json(record.range),
    )


def annotation_from(row: Row) -> AnnotationRecord:
    *before, data, place = row
    return AnnotationRecord(*[*before, _value(data), _value(place)])


def receipt_row(record: ReceiptRecord) -> Row:
    return (record.session, record.message_id, record.run, record.seq, record.digest, record.key)


def receipt_from(row: Row) -> ReceiptRecord:
    return ReceiptRecord(*row)


def journal_row(number: int, entries: Iterable[Entry]) -> Row:
    """The row of one commit. Raises ValueError for an event with a line break.

    To be called in the connection's thread, like ``segment_row``: zlib gives the GIL back while it compresses.
    """
    written: list[bytes] = []
    for entry in entries:
        written.append(orjson.dumps((entry.session, entry.first_seq, len(entry.events))))
        written.extend(entry.events)
    blob = b"\n".join(written)
    if blob.count(b"\n") != len(written) - 1:
        raise ValueError("an event must be JSON on one line")
    return (number, blob if len(blob) <= _PLAIN_BYTES else zlib.compress(blob, _JOURNAL_LEVEL))


def unpack_journal(blob: bytes) -> Iterator[Entry]:
    """The entries of one commit. Raises ValueError or TypeError for a blob that is no journal row's."""
    if not blob.startswith(b"["):
        try:
            blob = zlib.decompress(blob)
        except zlib.error as error:
            raise ValueError(str(error)) from error
    rows = iter(blob.split(b"\n"))
    for header in rows:
        session, first_seq, count = orjson.loads(header)
        yield Entry(session, first_seq, tuple(islice(rows, count)))


def segment_row(segment: Segment) -> Row:
    """The row of a segment. Raises ValueError for an event with a line break."""
    blob = zlib.compress(lines.pack(segment.events), _LEVEL)
    return (segment.session, segment.first_seq, segment.last_seq, segment.run, segment.at, blob)


def merged(segments: Iterable[Iterable[tuple[int, bytes]]], first_seq: int, last_seq: int) -> list[tuple[int, bytes]]:
    """Events ``first_seq..last_seq`` of overlapping segments, in order, each number once."""
    by_seq = {seq: event for seq, event in chain.from_iterable(segments) if first_seq <= seq <= last_seq}
    return sorted(by_seq.items())


def run_and_time(event: bytes) -> tuple[str | None, int]:
    """Which run an encoded event belongs to, and when it happened (``core.plain.to_plain`` writes both).

    Tolerant: an event that says neither is the session's own and old, it must not keep a service from starting.
    """
    try:
        plain = orjson.loads(event)
    except ValueError:
        plain = None
    if not isinstance(plain, Mapping):
        return None, 0
    return plain.get("run"), plain.get("at", 0)


def erasure_text(what: Erasure | TakenBack) -> str:
    """An erasure as its row, and the function ``erase``, know it."""
    return orjson.dumps(what).decode()


def erasure_from(text: str) -> Erasure | TakenBack:
    fields = orjson.loads(text)
    if "annotation" in fields:
        return TakenBack(**fields)
    return Erasure(**{**fields, "runs": tuple(fields["runs"]), "near": tuple(fields["near"])})


def erase(blob: bytes, text: str) -> bytes:
    """A segment without what an erasure names; runs inside SQLite, in the writer's thread. One that cannot be read
    stays as it is: nobody else can read it either, and it must not keep the commit from being made."""
    try:
        events = dict(lines.unpack(zlib.decompress(blob)))
    except (ValueError, zlib.error):
        return blob
    left = erased(events, erasure_from(text))
    return blob if left is events else zlib.compress(lines.pack(left.items()), _LEVEL)


def erased(events: Mapping[int, bytes], what: Erasure | TakenBack) -> Mapping[int, bytes]:
    """Events of the erasure's session without what it names; the same object when there is nothing of it."""
    changed: dict[int, bytes] = {}
    for seq, event in events.items():
        try:
            plain = orjson.loads(event)
        except ValueError:
            continue
        left = without(plain, seq, what) if isinstance(plain, Mapping) else None
        if left is not None:
            changed[seq] = orjson.dumps(left)
    return {**events, **changed} if changed else events


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


def _packed(parts: Any) -> str | bytes | None:
    text = _json(parts)
    if text is None or len(text) not in _PARTS_BYTES:
        return text
    return zlib.compress(text.encode(), _LEVEL)


def _value(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
