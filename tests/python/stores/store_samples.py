"""Records, batches and files for store tests: valid, small, and different where it matters."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import orjson

from strandline.codecs import native
from strandline.core.events import Appended
from strandline.core.records import (
    AnnotationRecord,
    DecisionRecord,
    MessageRecord,
    ReceiptRecord,
    RunRecord,
    SessionRecord,
)
from strandline.core.run import Status
from strandline.stores import SqliteStore, Store
from strandline.stores.port import Batch, Entry, Segment
from strandline.stores.rows import message_row, run_row

OLD_SESSION = "INSERT INTO sessions VALUES (?, 'abcd1234', 'ann', 1000, 2000, 3, 'v1', 'A title')"
"""A session in the columns of the first schema."""

OLD_MESSAGE = (
    "INSERT INTO messages (session, version, message_id, parent, role, author, created_at, run, parts, metadata)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
OLD_RUN = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def put_old(db: sqlite3.Connection, message: MessageRecord, run: RunRecord) -> None:
    """A message and a run in the columns of the first schema, which later ones have added to at the end."""
    db.execute(OLD_MESSAGE, message_row(message)[: OLD_MESSAGE.count("?")])
    db.execute(OLD_RUN, run_row(run)[: OLD_RUN.count("?")])


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


def receipt(message_id: str = "n1", **changes: Any) -> ReceiptRecord:
    fields: dict[str, Any] = {"session": "s1", "run": "r1", "seq": 2, "digest": "12ab", "key": "k9"}
    return ReceiptRecord(message_id=message_id, **{**fields, **changes})


def decision(id: str = "d1", **changes: Any) -> DecisionRecord:
    fields: dict[str, Any] = {
        "session": "s1", "run": "r1", "message": "v-r1", "message_id": "m-r1", "kind": "approval", "tool_call": "c1",
        "tool": "delete", "created_at": 1000, "input": {"path": "ä"},
    }  # fmt: skip
    return DecisionRecord(id=id, **{**fields, **changes})


def annotation(id: str = "a1", **changes: Any) -> AnnotationRecord:
    fields: dict[str, Any] = {
        "session": "s1", "message": "v1", "message_id": "m-v1", "kind": "citation", "author": "user:ann",
        "created_at": 1000, "name": "a.example", "data": {"url": "https://a.example"},
        "range": {"part": 0, "start": 1, "end": 4},
    }  # fmt: skip
    return AnnotationRecord(id=id, **{**fields, **changes})


def event(seq: int, run: str | None = "r1", at: int = 5000) -> bytes:
    plain: dict[str, Any] = {"type": "appended", "at": at, "note": f"event {seq} – ✓"}
    if run is not None:
        plain["run"] = run
    return orjson.dumps(plain)


def appended(at: int, text: str, run: str = "r1") -> bytes:
    """One token, as the journal writes it."""
    return native.encode(Appended(at, run, f"v-{run}", ({"type": "text-delta", "id": "t0", "delta": text},)))


def noise(number: int, size: int = 40_000) -> bytes:
    """An event of about ``size`` bytes that hardly compresses."""
    return orjson.dumps(b64encode(Random(number).randbytes(size)).decode())


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
        decisions=(decision(),),
        annotations=(annotation(),),
        receipts=(receipt(),),
    )


def sql(path: Path, *statements: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return [row for statement in statements for row in db.execute(statement).fetchall()]


def written(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def copied(path: Path, to: Path) -> Path:
    """A database as a crash would leave it at this moment."""
    for end in ("", "-wal"):
        Path(f"{to}{end}").unlink(missing_ok=True)
        if Path(f"{path}{end}").exists():
            shutil.copyfile(f"{path}{end}", f"{to}{end}")
    return to


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


LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds SQLite's write lock; it lets go when its stdin is closed."""
    other = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other
