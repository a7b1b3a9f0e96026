"""How one batch is written to SQLite: its statements, in their order. The transaction around them is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import starmap
from typing import TypeVar

import aiosqlite
import orjson

from strandline.core.erasing import Erasure, TakenBack
from strandline.stores.port import Batch
from strandline.stores.queries import SQL, in_blocks
from strandline.stores.rows import (
    Row,
    annotation_row,
    decision_row,
    erasure_text,
    journal_row,
    message_row,
    receipt_row,
    run_row,
    segment_row,
    session_row,
)

_T = TypeVar("_T")

_ERASURE = (
    "erase_messages",
    "erase_runs",
    "erase_log",
    "erase_decisions",
    "erase_annotations",
    "erase_receipts",
    "erase_erasures",
    "erase_session",
)


async def write(db: aiosqlite.Connection, batch: Batch) -> None:
    """Everything of a batch, and its number where the journal does not say it."""
    if batch.trim is not None:
        # First, so that what follows is written over the pages which this has wiped: they reach the disk once.
        await db.execute_fetchall(SQL["trim_journal"], (batch.trim,))
        await db.execute_fetchall(SQL["trim_erased"], (batch.trim,))
        await db.execute_fetchall(SQL["trim_erasures"], (batch.trim,))
    if batch.entries and (batch.trim is None or batch.trim < batch.number):
        await put_entries(db, batch)
    await _put(db, "put_sessions", batch.sessions, session_row)
    await _put(db, "put_messages", batch.messages, message_row)
    await _put(db, "put_runs", batch.runs, run_row)
    await _put(db, "put_decisions", batch.decisions, decision_row)
    await _put(db, "put_annotations", batch.annotations, annotation_row)
    await _put(db, "put_receipts", batch.receipts, receipt_row)
    if batch.unannotated:
        await db.executemany(SQL["drop_annotation"], batch.unannotated)
    if batch.segments:
        # A lazy map: rows are packed and compressed in the writer's thread.
        await db.executemany(SQL["put_segment"], map(segment_row, batch.segments))
    for what in batch.erased:
        await _erase(db, batch.number, what)
    for session_id in batch.deleted:
        for name in _ERASURE:
            await db.execute_fetchall(SQL[name], (session_id,))
        await db.execute_fetchall(SQL["put_erased"], (session_id, batch.number))
    if batch.trim is not None or not batch.entries:
        await db.execute_fetchall(SQL["put_meta"], ("last_batch", batch.number))


async def _erase(db: aiosqlite.Connection, number: int, what: Erasure | TakenBack) -> None:
    place, text = (what.session, what.message), erasure_text(what)
    if isinstance(what, TakenBack):
        await db.execute_fetchall(SQL["erase_annotated"], (what.session, text, what.before))
        await db.execute_fetchall(SQL["put_erasure"], (number, what.session, text))
        return
    runs = orjson.dumps(what.runs + what.near).decode()
    await db.execute_fetchall(SQL["erase_content"], (what.session, text, what.before, runs))
    await db.execute_fetchall(SQL["erase_decisions_of_message"], place)
    written = orjson.dumps(what.runs).decode()
    await db.execute_fetchall(SQL["erase_digests"], (what.session, what.message_id, written))
    if what.deleted:
        await db.execute_fetchall(SQL["erase_annotations_of_message"], place)
        await db.execute_fetchall(SQL["erase_bodies"], place)
    await db.execute_fetchall(SQL["put_erasure"], (number, what.session, text))


async def put_entries(db: aiosqlite.Connection, batch: Batch) -> None:
    """One call; like the segments, the row is made in the writer's thread."""
    await db.executemany(SQL["put_journal"], starmap(journal_row, ((batch.number, batch.entries),)))


async def _put(db: aiosqlite.Connection, name: str, records: Sequence[_T], row: Callable[[_T], Row]) -> None:
    for statement, values in in_blocks(name, records, row):
        await db.executemany(statement, values)
