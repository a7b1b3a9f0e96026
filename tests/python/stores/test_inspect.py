"""Looking into a database file from outside (stores/inspect.py)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import entry, event, events, message, run, segment, session, whole_batch

from strandline.errors import StoreDamaged, StoreInUse, StoreRefused, StoreTooNew
from strandline.stores import SqliteStore, schema
from strandline.stores.inspect import Inspector, renew_epochs
from strandline.stores.port import Batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def content_of(path: Path) -> bytes:
    return path.read_bytes()


async def test_beside_a_running_server_everything_committed_is_seen(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    batch = whole_batch()
    await store.commit(batch)
    with Inspector(path) as inspector:
        assert inspector.sessions() == list(batch.sessions)
        assert inspector.session("s1") == batch.sessions[0]
        assert inspector.session("s2") is None
        assert inspector.messages("s1") == list(batch.messages)
        assert inspector.runs("s1") == list(batch.runs)
        assert inspector.events("s1") == events([1, 2, 3])
        await store.commit(Batch(2, entries=(entry("s1", 4, 5, "r2"),), sessions=(session("s2", updated_at=9),)))
        assert [record.id for record in inspector.sessions(limit=1)] == ["s1"]
        assert inspector.events("s1") == sorted(events([1, 2, 3]) + events([4, 5], "r2"))
        await store.checkpoint(truncate=True)
        assert inspector.events("s1", "r2") == events([4, 5], "r2")
    await store.close()


async def test_events_of_log_and_journal_are_merged_once_each(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.commit(Batch(1, entries=(entry("s1", 1, 4, "r1"), entry("s2", 1, 9))))
    await store.commit(Batch(2, segments=(segment("s1", [1, 3]),)))
    await store.commit(Batch(3, entries=(entry("s1", 5, 6, None),)))
    with Inspector(path) as inspector:
        assert inspector.events("s1") == [(seq, event(seq, "r1" if seq < 5 else None)) for seq in range(1, 7)]
        assert inspector.events("s1", "r1") == events([1, 2, 3, 4])
        assert inspector.events("s3") == []
    await store.close()


async def test_a_file_at_rest_is_read_without_leaving_anything_beside_it(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.commit(Batch(1, messages=(message("v2"), message("v1")), runs=(run(),), entries=(entry("s1", 1, 2),)))
    await store.close()
    before = content_of(path)
    inspector = Inspector(path)
    assert inspector.messages("s1") == [message("v2"), message("v1")]
    assert inspector.events("s1") == events([1, 2])
    inspector.close()
    inspector.close()
    assert content_of(path) == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["chat.db", "chat.db.lock"]


def test_files_that_cannot_be_inspected_are_refused_with_a_reason(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="no database file"):
        Inspector(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreRefused, match="is empty"):
        Inspector(path)
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreDamaged):
        Inspector(path)
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE recipes (name)")
    with pytest.raises(StoreDamaged, match="another application"):
        Inspector(foreign)
    newer = tmp_path / "newer.db"
    schema.prepare(newer, "full")
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 9999")
    with pytest.raises(StoreTooNew):
        Inspector(newer)


async def test_renewing_epochs_gives_every_session_its_own_and_needs_the_file_alone(path: Path) -> None:
    with pytest.raises(StoreRefused, match="no database file"):
        renew_epochs(path)
    store = SqliteStore(path)
    await store.open()
    await store.commit(Batch(1, sessions=tuple(session(f"s{n}") for n in range(20)), entries=(entry("s1", 1, 2),)))
    with pytest.raises(StoreInUse, match="in use by process"):
        renew_epochs(path)
    await store.close()
    assert renew_epochs(path) == 20
    assert await store.open() == 1
    epochs = {record.epoch for record in await store.sessions()}
    assert len(epochs | {"abcd1234"}) == 21
    assert await store.events("s1", 1, 2) == events([1, 2])
    await store.close()


async def test_a_deleted_session_is_not_shown_from_the_journal(store: SqliteStore, path: Path) -> None:
    await store.commit(Batch(1, entries=(entry("s1", 1, 2), entry("s2", 1, 2)), sessions=(session(), session("s2"))))
    with Inspector(path) as inspector:
        assert inspector.events("s1") == events([1, 2])
        await store.commit(Batch(2, deleted=("s1",)))
        assert inspector.events("s1") == []
        assert [record.id for record in inspector.sessions()] == ["s2"]
        assert inspector.events("s2") == events([1, 2])
        await store.commit(Batch(3, entries=(entry("s1", 1, 1, "new"),), sessions=(session(),)))
        assert inspector.events("s1") == events([1], "new")


def test_renewing_epochs_refuses_what_is_not_ours(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreDamaged):
        renew_epochs(path)
    # The lock was given back.
    path.unlink()
    schema.prepare(path, "full")
    assert renew_epochs(path) == 0
