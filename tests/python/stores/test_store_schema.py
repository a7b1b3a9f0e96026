"""Which files the SQLite store takes, how their schema grows, and its SQL."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import (
    OLD_SESSION,
    appended,
    content_of,
    events,
    made_and_closed,
    put_old,
    session,
    sql,
    whole_batch,
    written,
)

from strandline.errors import StoreDamaged, StoreRefused, StoreTooNew, StoreUnavailable
from strandline.stores import SqliteStore, schema
from strandline.stores.inspect import Inspector
from strandline.stores.port import Batch, Segment
from strandline.stores.queries import MIGRATIONS, SQL, Migration, read_queries
from strandline.stores.rows import inflate, journal_row

EVER = 2**62


# ------------------------------------------------------------------------------------------------ which file


async def test_the_file_is_marked_as_ours_and_is_in_wal_mode(store: SqliteStore, path: Path) -> None:
    (application,), (version,), (mode,) = sql(
        path, "PRAGMA application_id", "PRAGMA user_version", "PRAGMA journal_mode"
    )
    assert (application, version, mode) == (schema.APPLICATION_ID, MIGRATIONS[-1].version, "wal")


async def test_a_clean_end_leaves_one_file_and_the_lock_file(path: Path) -> None:
    await made_and_closed(path, whole_batch())
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["chat.db", "chat.db.lock"]


async def test_an_empty_file_becomes_a_database(path: Path) -> None:
    written(path, b"")
    await made_and_closed(path, whole_batch())


async def test_a_schema_from_the_future_is_refused_and_left_alone(path: Path) -> None:
    await made_and_closed(path, whole_batch())
    sql(path, "PRAGMA user_version = 9999")
    before = content_of(path)
    with pytest.raises(StoreTooNew, match=r"schema 9999.*newer strandline"):
        await SqliteStore(path).open()
    assert content_of(path) == before


async def test_another_applications_database_is_refused_and_left_alone(path: Path) -> None:
    sql(path, "CREATE TABLE recipes (name)", "INSERT INTO recipes VALUES ('soup')")
    before = content_of(path)
    with pytest.raises(StoreDamaged, match="another application"):
        await SqliteStore(path).open()
    assert content_of(path) == before
    sql(path, "DROP TABLE recipes", "PRAGMA application_id = 1")
    with pytest.raises(StoreDamaged, match="another application"):
        await SqliteStore(path).open()


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 8000])
async def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    written(path, content)
    with pytest.raises(StoreDamaged, match="not a usable SQLite database"):
        await SqliteStore(path).open()
    assert content_of(path) == content


async def test_a_missing_directory_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="directory must exist"):
        await SqliteStore(tmp_path / "no" / "chat.db").open()
    (tmp_path / "dir").mkdir()
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await SqliteStore(tmp_path / "dir").open()


# ------------------------------------------------------------------------------------------------ migrations


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [step.version for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize("version", range(len(MIGRATIONS) + 1))
def test_every_earlier_schema_is_brought_forward(path: Path, version: int) -> None:
    with closing(schema.connect(path)) as db:
        schema.migrate(db, 0, MIGRATIONS[:version])
    schema.prepare(path, "full")
    with closing(sqlite3.connect(path)) as fresh:
        schema.migrate(fresh, MIGRATIONS[-1].version)
        assert fresh.execute("PRAGMA user_version").fetchone() == (MIGRATIONS[-1].version,)


async def test_what_a_file_of_the_first_schema_holds_is_all_there_afterwards(path: Path) -> None:
    batch = replace(whole_batch(1), sessions=())
    with closing(schema.connect(path)) as db:
        schema.migrate(db, 0, MIGRATIONS[:1])
        for name in ("s1", "s2"):
            db.execute(OLD_SESSION, (name,))
        put_old(db, batch.messages[0], batch.runs[0])
        db.execute(SQL["put_journal"], journal_row(1, batch.entries))
    with pytest.raises(StoreRefused, match=r"schema 1.*start the server once"):
        Inspector(path)
    store = SqliteStore(path)
    assert await store.open() == 1
    whole = session(last_seq=3, leaf="v1", title="A title", archived=False)
    assert await store.sessions("ann", archived=False) == [whole, replace(whole, id="s2")]
    assert await store.sessions(archived=True) == []
    assert await store.messages("s1", ["v1"]) == list(batch.messages)
    assert list((await store.outline("s1")).runs) == list(batch.runs)
    assert await store.events("s1", 0, EVER) == events([1, 2, 3])
    await store.commit(Batch(2, sessions=(replace(whole, archived=True),), deleted=("s2",)))
    assert await store.sessions() == [replace(whole, archived=True)]
    await store.close()
    with Inspector(path) as inspector:
        assert inspector.sessions() == [replace(whole, archived=True)]


async def test_segments_of_the_second_schema_are_read_and_an_older_strandline_refuses_the_new_ones(path: Path) -> None:
    texts = [appended(seq, f"word {seq}") for seq in range(1, 6)]
    with closing(schema.connect(path)) as db:
        schema.migrate(db, 0, MIGRATIONS[:2])
        full = b"\n".join(b"%d %b" % pair for pair in enumerate(texts[:3], 1))
        db.execute(SQL["put_segment"], ("s1", 1, 3, "r1", 5000, zlib.compress(full, 3)))
        plain = b'["s1",3,2]\n' + b"\n".join(texts[2:4])
        db.execute(SQL["put_journal"], (7, plain))
    store = SqliteStore(path)
    assert await store.open() == 7
    await store.commit(Batch(8, segments=(Segment("s1", "r1", 5000, ((5, texts[4]), (6, texts[4]))),)))
    assert await store.events("s1", 0, EVER) == [*enumerate(texts, 1), (6, texts[4])]
    await store.close()
    with closing(schema.connect(path)) as db:
        blobs = [inflate(blob) for (blob,) in db.execute("SELECT blob FROM log ORDER BY first_seq")]
    assert blobs == [full, b"4 " + texts[3], b"5 " + texts[4] + b"\n+0\nword 5"]
    # What a Strandline that knows two schemas says to this file.
    with closing(schema.connect(path)) as db, pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", MIGRATIONS[:2])
        with pytest.raises(
            StoreTooNew, match=rf"schema {MIGRATIONS[-1].version}, this Strandline knows schemas up to 2"
        ):
            schema.admit(db, path)


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    schema.prepare(path, "full")
    newest = MIGRATIONS[-1].version
    broken = Migration(newest + 1, "broken", "CREATE TABLE extra (a); INSERT INTO nowhere VALUES (1);")
    with closing(schema.connect(path)) as db:
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            schema.migrate(db, newest, (*MIGRATIONS, broken))
        assert db.execute("PRAGMA user_version").fetchone() == (newest,)
        assert not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'extra'").fetchall()


# ------------------------------------------------------------------------------------------------ queries


def test_every_query_is_one_commented_statement() -> None:
    for name, text in SQL.items():
        assert sqlite3.complete_statement(text), name
        assert text.count(";") == 1, name
    with pytest.raises(ValueError, match="twice"):
        read_queries("-- a --\nSELECT 1;\n-- a --\nSELECT 2;\n")


@pytest.mark.parametrize(
    ("name", "values", "index"),
    [
        ("list_sessions_of_owner", (EVER, "", 0, 10, "ann"), "sessions_by_owner"),
        ("list_sessions", (EVER, "", None, 10), "sessions_by_time"),
        ("erase_messages", ("s1",), "messages_by_session"),
        ("erase_runs", ("s1",), "runs_by_session"),
        ("erase_log", ("s1",), "log_by_session"),
        ("outline", ("s1",), "messages_by_session"),
        ("list_runs", ("s1",), "runs_by_session"),
        ("unfinished_runs", (), "runs_unfinished"),
        ("list_decisions", ("s1",), "decisions_by_session"),
        ("count_pending", ('["s1"]',), "decisions_pending"),
        ("due_decisions", (EVER, 10), "decisions_due"),
        ("list_annotations", ("s1",), "annotations_by_session"),
        ("erase_decisions", ("s1",), "decisions"),
        ("erase_annotations", ("s1",), "annotations"),
        ("read_log", ("s1", 0, EVER), "log_by_session"),
        ("read_log_of_run", ("s1", 0, EVER, "r1"), "log_by_session"),
        ("expire_log", (0, 10), "log_by_age"),
    ],
)
def test_queries_use_their_indexes(path: Path, name: str, values: tuple[object, ...], index: str) -> None:
    schema.prepare(path, "full")
    with closing(schema.connect(path)) as db:
        plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values))
    assert index in plan
    assert "TEMP B-TREE" not in plan
