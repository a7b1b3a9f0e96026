"""After ``chat.purge()`` what was deleted is not on the disk any more: neither in a row of any table, nor as bytes of
the file and its WAL, plain or compressed (docs/operations.md)."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rig import Rig, running
from strandline.errors import ShuttingDown, StoreUnavailable
from strandline.stores.rows import unpack_journal

SECRET = "the word is tamarind"
LONG = " ".join([SECRET, *(str(Random(number).random()) for number in range(200)), SECRET])
"""Long enough to be compressed wherever it is kept."""


def in_wal(path: Path) -> bytes:
    wal = Path(f"{path}-wal")
    return wal.read_bytes() if wal.exists() else b""


def on_disk(path: Path) -> bytes:
    return path.read_bytes() + in_wal(path)


def cells(path: Path) -> list[tuple[str, bytes]]:
    """Every value of every row, as it is and unpacked."""
    found: list[tuple[str, bytes]] = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            for row in db.execute(f"SELECT * FROM {table}"):
                for value in row:
                    blob = value if isinstance(value, bytes) else str(value).encode()
                    found += [(table, blob), (table, unpacked(table, blob))]
    return found


def unpacked(table: str, blob: bytes) -> bytes:
    if table == "journal" and not blob.isdigit():
        return b"".join(event for entry in unpack_journal(blob) for event in entry.events)
    try:
        return zlib.decompress(blob)
    except zlib.error:
        return b""


def traces(path: Path) -> set[bytes]:
    """What of the secret can be found in the raw bytes: itself, and pieces of compressed cells that hold it."""
    needles = {SECRET.encode()}
    for _, blob in cells(path):
        if blob and SECRET.encode() not in blob and SECRET.encode() in (unpacked("", blob) or b""):
            needles |= {blob[at : at + 24] for at in range(0, len(blob) - 24, 24)}
    return needles


def at_first(rig: Rig) -> dict[str, str]:
    """The place after the first event of the session."""
    return {"Last-Event-ID": f"{rig.sessions._live['c'].state.record.epoch}.1.1"}


async def said(rig: Rig, text: str, id: str, reply: str) -> Any:
    answer, call = await rig.begun(text=text, id=id)
    for word in (reply, " and more"):
        call.say(word)
        await answer.until_text(word)
    call.finish()
    await answer.end()
    await rig.ended()
    return call


async def in_segments(rig: Rig) -> None:
    """What was said is in log segments, and not in the journal alone."""
    await rig.clock.jump(rig.chat.settings.segment_age + 1)
    session = await rig.sessions.find("c")
    await rig.passing(lambda: session.segmented == session.feed.last_seq)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("what", ["delete", "edit"])
async def test_the_bytes_are_gone_from_the_file(tmp_path: Path, settled: bool, what: str) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        await said(rig, "one", "u1", "first")
        call = await said(rig, LONG, "u2", LONG)
        await said(rig, SECRET, "u3", "third")
        if settled:
            await in_segments(rig)
        needles = traces(path)
        assert any(needle in on_disk(path) for needle in needles)
        assert len(needles) > 10, "some of it is compressed"
        for id in ("u2", "u3"):
            if what == "delete":
                assert (await rig.ask("DELETE", f"/api/sessions/c/messages/{id}")).status == 204
            else:
                body = {"parts": [{"type": "text", "text": "never mind"}]}
                assert (await rig.ask("PATCH", f"/api/sessions/c/messages/{id}", body)).status == 200
        if what == "delete":
            await rig.chat.delete_message("c", call.run.message_id)
        else:
            await rig.chat.replace_message("c", call.run.message_id, [{"type": "text", "text": "never mind"}])
        assert await rig.chat.purge()
        assert not [table for table, cell in cells(path) if SECRET.encode() in cell]
        left = on_disk(path)
        assert not [needle for needle in needles if needle in left]
        assert in_wal(path) == b""
        history = await rig.history("c")
        assert history["messages"][0]["parts"] == [{"type": "text", "text": "one"}]
        # It goes on from here.
        await said(rig, "four", "u4", "fourth")
    async with running(path) as rig:
        assert (await rig.history("c"))["messages"][-1]["parts"][-1]["text"] == "fourth and more"


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("what", ["taken back", "replaced", "of another kind", "message deleted", "both"])
async def test_what_an_annotation_said_goes_with_it(tmp_path: Path, settled: bool, what: str) -> None:
    path, one = tmp_path / "chat.db", "/api/sessions/c/annotations"
    note = {"message": "u1", "type": "note", "id": "a1", "data": {"name": SECRET, "text": LONG}}
    async with running(path) as rig:
        await said(rig, "one", "u1", "first")
        other = {"message": "u1", "type": "note", "id": "a2", "data": {"name": "kept"}}
        for body in (other, note, {**note, "id": "a3"}):
            assert (await rig.ask("POST", one, body)).status == 201
        if settled:
            await in_segments(rig)
        needles = traces(path)
        assert any(needle in on_disk(path) for needle in needles)
        following = await rig.open("GET", "/api/sessions/c/events?annotations=all")
        await following.until(lambda: "readers" in following.types)
        for id in ("a1", "a3"):
            if what in ("taken back", "both"):
                assert (await rig.ask("DELETE", f"{one}/{id}")).status == 204
            elif what != "message deleted":
                kind = "note" if what == "replaced" else "mark"
                body = {**note, "id": id, "type": kind, "data": {"name": "other"}}
                assert (await rig.ask("POST", one, body)).status == 201
        if what in ("message deleted", "both"):
            assert (await rig.ask("DELETE", "/api/sessions/c/messages/u1")).status == 204
        else:
            shown = (await rig.ask("GET", "/api/sessions/c")).json["annotations"]["u1"]
            names = {"kept": 1, **({"other": 2} if what == "replaced" else {})}
            assert shown["note"]["names"] == names
            from_the_start = await rig.open("GET", "/api/sessions/c/events?annotations=all", headers=at_first(rig))
            await from_the_start.until(lambda: "readers" in from_the_start.types)
            await following.until(lambda: sum("annot" in kind for kind in following.types) >= 2)
            told = [frame.chunk for frame in from_the_start.frames if "annot" in frame.chunk["type"]]
            assert len(told) == (7 if what == "of another kind" else 5), "the events stay"
            assert told[-1]["summary"] == shown[told[-1]["kind"]]
            assert SECRET not in from_the_start.body.decode()
            for reader in (following, from_the_start):
                assert "resync" not in reader.types, "nobody has to begin again"
                await reader.drop()
        session = await rig.sessions.find("c")
        assert session.feed.erasures == ("deleted" in what or what == "both"), "who reads what was said reads on"
        assert not [row for row in session.feed.rows(1) if SECRET.encode() in row[2]]
        assert await rig.chat.purge()
        assert not [table for table, cell in cells(path) if SECRET.encode() in cell]
        left = on_disk(path)
        assert not [needle for needle in needles if needle in left]


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("before", ["taken back", "replaced"])
async def test_what_was_left_of_another_annotation_does_not_go_on_naming_one(
    tmp_path: Path, settled: bool, before: str
) -> None:
    """What one was taken back from says from then on what was left: also what came later."""
    path, one = tmp_path / "chat.db", "/api/sessions/c/annotations"
    async with running(path) as rig:
        await said(rig, "one", "u1", "first")

        async def annotate(id: str, name: str) -> None:
            body = {"message": "u1", "type": "note", "id": id, "data": {"name": name}}
            assert (await rig.ask("POST", one, body)).status == 201
            await rig.clock.advance(1)

        await annotate("a1", "first")
        await annotate("a2", "kept")
        if before == "taken back":
            await annotate("a3", SECRET)
        if settled:
            await in_segments(rig)
        if before == "taken back":
            assert (await rig.ask("DELETE", f"{one}/a1")).status == 204
        else:
            await annotate("a1", SECRET)
        await rig.clock.advance(1)
        last = "a3" if before == "taken back" else "a1"
        assert (await rig.ask("DELETE", f"{one}/{last}")).status == 204
        assert SECRET not in str(await rig.log_from_store())
        from_the_start = await rig.open("GET", "/api/sessions/c/events", headers=at_first(rig))
        await from_the_start.until(lambda: from_the_start.types.count("annotation-removed") > 0)
        assert SECRET not in from_the_start.body.decode()
        await from_the_start.drop()
        assert await rig.chat.purge()
        assert not [table for table, cell in cells(path) if SECRET.encode() in cell]


async def test_a_clean_end_of_the_server_does_the_same(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        call = await said(rig, SECRET, "u1", LONG)
        needles = traces(path)
        for id in ("u1", call.run.message_id):
            await rig.ask("DELETE", f"/api/sessions/c/messages/{id}")
    assert not [table for table, cell in cells(path) if SECRET.encode() in cell]
    assert not [needle for needle in needles if needle in on_disk(path)]


async def test_a_deleted_session_is_purged_too(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        answer, call = await rig.begun(text=SECRET)
        call.say(LONG)
        await answer.until_text(LONG)
        needles = traces(path)
        await rig.ask("DELETE", "/api/sessions/c")
        assert any(SECRET.encode() in cell for _, cell in cells(path)), "the journal has it, until it is trimmed"
        assert await rig.chat.purge()
        assert not [table for table, cell in cells(path) if SECRET.encode() in cell]
        assert not [needle for needle in needles if needle in on_disk(path)]


async def test_purging_waits_for_sessions_that_are_being_written(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        calls = []
        for number in range(20):
            answer, call = await rig.begun(f"busy-{number}", id=f"u{number}")
            call.say("busy")
            await answer.until_text("busy")
            calls.append(call)
        await said(rig, SECRET, "u", LONG)
        await rig.ask("DELETE", "/api/sessions/c/messages/u")
        assert await rig.chat.purge()
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            assert db.execute("SELECT count(*) FROM journal").fetchone() == (0,)
            assert db.execute("SELECT count(*) FROM erasures").fetchone() == (0,)
        for call in calls:
            call.say(" still").finish()
        for number in range(20):
            await rig.ended(f"busy-{number}")
        assert (await rig.history("busy-7"))["messages"][-1]["parts"][-1]["text"] == "busy still"


async def test_somebody_who_reads_the_file_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strandline.stores.schema.BUSY_SECONDS", 0.05)
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        await said(rig, SECRET, "u1", "first")
        with closing(sqlite3.connect(path, isolation_level=None)) as backup:
            backup.execute("BEGIN")
            backup.execute("SELECT count(*) FROM messages").fetchone()
            await rig.ask("DELETE", "/api/sessions/c/messages/u1")
            assert not await rig.chat.purge()
        assert await rig.chat.purge()


async def test_a_store_that_fails_is_no_purge(tmp_path: Path) -> None:
    async with running(tmp_path / "chat.db", commit_patience=0.0) as rig:
        await said(rig, SECRET, "u1", "first")
        rig.store.fail()
        purging = asyncio.create_task(rig.chat.purge())
        await rig.passing(purging.done)
        assert isinstance(purging.exception(), StoreUnavailable)
        with pytest.raises(StoreUnavailable):
            await rig.chat.purge()
        rig.store.mend()
        await rig.passing(lambda: rig.sessions.journal.healthy)
        assert await rig.chat.purge()
        journal = rig.sessions.journal
    with pytest.raises(ShuttingDown):
        await journal.settle()
