"""Records, batches and files for store tests: valid, small, and different where it matters."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.core.run import Status
from strandline.stores import SqliteStore, Store
from strandline.stores.port import Batch, Entry, Segment


def session(id: str = "s1", **changes: Any) -> SessionRecord:
    fields: dict[str, Any] = {
        "epoch": "abcd1234", "owner": "ann", "created_at": 1000, "updated_at": 2000, "last_seq": 0,
    }  # fmt: skip
    return SessionRecord(id, **{**fields, **changes})


def message(version: str = "v1", **changes: Any) -> MessageRecord:
    fields: dict[str, Any] = {
        "session": "s1", "message_id": f"m-{version}", "parent": None, "role": "user", "author": "user:ann",
        "created_at": 1000, "parts": ({"type": "text", "text": f"text of {version}"},),
    }  # fmt: skip
    return MessageRecord(version=version, **{**fields, **changes})


def run(id: str = "r1", **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "session": "s1", "message": f"v-{id}", "message_id": f"m-{id}", "parent": "v1", "agent": "reply",
        "author": "user:ann", "status": Status.RUNNING, "created_at": 1000, "first_seq": 1,
    }  # fmt: skip
    return RunRecord(id, **{**fields, **changes})


def event(seq: int, run: str | None = "r1", at: int = 5000) -> bytes:
    plain: dict[str, Any] = {"type": "appended", "at": at, "note": f"event {seq} – ✓"}
    if run is not None:
        plain["run"] = run
    return orjson.dumps(plain)


def entry(session: str, first: int, last: int, run: str | None = "r1", at: int = 5000) -> Entry:
    return Entry(session, first, tuple(event(seq, run, at) for seq in range(first, last + 1)))


def segment(session: str, seqs: Iterable[int], run: str | None = "r1", at: int = 5000) -> Segment:
    return Segment(session, run, at, tuple((seq, event(seq, run, at)) for seq in seqs))


def events(seqs: Iterable[int], run: str | None = "r1", at: int = 5000) -> list[tuple[int, bytes]]:
    return [(seq, event(seq, run, at)) for seq in seqs]


def whole_batch(number: int = 1) -> Batch:
    """One of everything."""
    return Batch(
        number,
        entries=(entry("s1", 1, 3),),
        sessions=(session(last_seq=3, leaf="v1", title="A – ✓\x00"),),
        messages=(message(metadata={"n": [1, None]}),),
        runs=(run(key="k1"),),
        segments=(segment("s1", [1, 2, 3]),),
    )


def sql(path: Path, *statements: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return [row for statement in statements for row in db.execute(statement).fetchall()]


def written(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


async def made_and_closed(path: Path, *batches: Batch) -> None:
    store = SqliteStore(path)
    await store.open()
    for batch in batches:
        await store.commit(batch)
    await store.close()


async def reopen(store: Store) -> int:
    await store.close()
    return await store.open()
