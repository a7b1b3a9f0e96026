"""What every store promises (stores/port.py). One suite, each implementation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_samples import entry, events, message, reopen, run, segment, session, whole_batch

from strandline.core.records import SessionRecord
from strandline.core.run import Status
from strandline.errors import Conflict, StoreInUse, StoreUnavailable
from strandline.stores import MemoryStore, SqliteStore, Store, open_store
from strandline.stores.port import Batch, Outline

EVER = 2**62


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


# ------------------------------------------------------------------------------------------------ open and close


async def test_a_new_store_is_empty_and_numbers_start_after_zero(store: Store) -> None:
    assert await reopen(store) == 0
    assert await store.sessions() == []
    assert await store.session("s1") is None
    assert await store.run("r1") is None
    assert (await store.outline("s1"), await store.unfinished()) == (Outline(), [])
    assert await store.events("s1", 0, EVER) == []


async def test_a_store_that_is_open_cannot_be_opened_again(store: Store) -> None:
    with pytest.raises(StoreInUse, match="open already"):
        await store.open()
    await store.commit(whole_batch())


async def test_closing_twice_is_the_same_as_closing_once(store: Store) -> None:
    await store.close()
    await store.close()
    assert await store.open() == 0


async def test_a_closed_store_answers_unavailable(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.commit(whole_batch())
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.session("s1")
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.expire(1)
    await store.checkpoint()


async def test_everything_survives_a_restart(store: Store) -> None:
    batch = whole_batch(7)
    await store.commit(batch)
    assert await reopen(store) == 7
    assert await store.session("s1") == batch.sessions[0]
    assert await store.messages("s1", ["v1"]) == list(batch.messages)
    assert await store.run("r1") == batch.runs[0]
    assert await store.events("s1", 1, 3) == events([1, 2, 3])


# ------------------------------------------------------------------------------------------------ commit


async def test_a_batch_that_cannot_be_written_leaves_nothing_and_can_be_mended(store: Store) -> None:
    await store.commit(Batch(1, runs=(run("r1", key="k1"),)))
    bad = replace(whole_batch(2), runs=(run("r2", key="k2", first_seq=2), run("r3", key="k1", first_seq=3)))
    with pytest.raises(Conflict):
        await store.commit(bad)
    assert await store.session("s1") is None
    assert await store.outline("s1") == Outline(runs=(run("r1", key="k1"),))
    assert await store.events("s1", 0, EVER) == []

    assert await reopen(store) == 1
    assert await store.events("s1", 0, EVER) == []

    await store.commit(replace(bad, runs=(run("r2", key="k2", first_seq=2),)))
    assert [record.id for record in (await store.outline("s1")).runs] == ["r1", "r2"]
    assert await store.events("s1", 0, EVER) == events([1, 2, 3])


async def test_a_key_belongs_to_one_run_of_a_session_but_sessions_do_not_share_keys(store: Store) -> None:
    await store.commit(Batch(1, runs=(run("r1", key="k"), run("r2", session="s2", key="k"), run("r3"), run("r4"))))
    await store.commit(Batch(2, runs=(run("r1", key="k", status=Status.COMPLETED),)))
    with pytest.raises(Conflict):
        await store.commit(Batch(3, runs=(run("r5", session="s2", key="k"),)))


async def test_the_same_number_again_changes_nothing(store: Store) -> None:
    batch = replace(whole_batch(4), segments=())
    await store.commit(batch)
    await store.commit(batch)
    await store.commit(replace(batch, sessions=(session(title="other"),), entries=(entry("s1", 4, 9),)))
    assert await store.session("s1") == batch.sessions[0]
    assert await reopen(store) == 4
    assert await store.events("s1", 0, EVER) == events([1, 2, 3])
    await store.commit(batch)
    assert await store.events("s1", 0, EVER) == events([1, 2, 3])


async def test_the_number_is_remembered_without_entries_and_when_the_journal_is_empty(store: Store) -> None:
    await store.commit(Batch(1, entries=(entry("s1", 1, 1),)))
    await store.commit(Batch(2, segments=(segment("s1", [1]),), trim=1))
    assert await reopen(store) == 2
    await store.commit(Batch(3, sessions=(session(),)))
    assert await reopen(store) == 3
    await store.commit(Batch(4, entries=(entry("s1", 2, 2),), segments=(segment("s1", [2]),), trim=4))
    assert await reopen(store) == 4
    await store.commit(Batch(4, sessions=(session(title="late"),)))
    assert (await store.session("s1")) == session(last_seq=0)
    await store.commit(Batch(9))
    assert await reopen(store) == 9


async def test_rows_are_replaced_as_a_whole(store: Store) -> None:
    await store.commit(
        Batch(
            1,
            sessions=(session(title="old", leaf="v1"),),
            messages=(message(metadata={"a": 1}, run="r1"),),
            runs=(run(key="k", usage={"inputTokens": 1}, reason="x"),),
        )
    )
    new_run = run(status=Status.FAILED, last_seq=9, error="boom", ended_at=77, finish_reason="error")
    await store.commit(
        Batch(
            2,
            sessions=(session(owner="bob", epoch="zzzz9999", last_seq=9),),
            messages=(message(parts=None, role="assistant"),),
            runs=(new_run,),
        )
    )
    assert await store.session("s1") == session(owner="bob", epoch="zzzz9999", last_seq=9)
    assert await store.messages("s1", ["v1"]) == [message(parts=None, role="assistant")]
    assert [*(await store.outline("s1")).runs] == [new_run]


async def test_many_rows_in_one_batch(store: Store) -> None:
    messages = tuple(message(f"v{n:03}", created_at=n) for n in range(150))
    runs = tuple(run(f"r{n:03}", first_seq=n, usage={"n": n}) for n in range(77))
    sessions = tuple(session(f"s{n:03}", updated_at=n) for n in range(73))
    await store.commit(Batch(1, sessions=sessions, messages=messages, runs=runs))
    assert await store.messages("s1", [m.version for m in messages]) == list(messages)
    assert list((await store.outline("s1")).runs) == list(runs)
    assert await store.sessions() == list(reversed(sessions))


async def test_values_come_back_exactly(store: Store) -> None:
    parts = ({"type": "text", "text": 'quote " \\ \n \x00 ✓ 𝄞'}, {"type": "data-x", "data": {"f": 1.0, "n": None}})
    record = message(parts=parts, metadata="text", parent="v0", run="r9")
    empty = message("v2", parts=(), metadata=False)
    await store.commit(Batch(1, messages=(record, empty), sessions=(session(title="\x00 'x' ✓"),)))
    assert await store.messages("s1", ["v1", "v2"]) == [record, empty]
    assert (await store.sessions())[0].title == "\x00 'x' ✓"
    full = run(
        message_id="m", parent=None, status=Status.SUSPENDED, last_seq=5, parent_run="r0", key="k", reason="a",
        error="b", finish_reason="stop", usage={"totalTokens": 3}, ended_at=9,
    )  # fmt: skip
    await store.commit(Batch(2, runs=(full,)))
    assert await store.run("r1") == full


# ------------------------------------------------------------------------------------------------ rows


async def test_sessions_come_newest_first_in_pages_and_by_owner(store: Store) -> None:
    records = [session(f"s{n}", updated_at=n, owner="ann" if n % 2 else "bob") for n in range(1, 11)]
    await store.commit(Batch(1, sessions=tuple(records)))
    assert [r.updated_at for r in await paged(store, 3)] == list(range(10, 0, -1))
    assert [r.updated_at for r in await store.sessions("ann")] == [9, 7, 5, 3, 1]
    assert [r.updated_at for r in await store.sessions("ann", limit=2, before=(7, "s7"))] == [5, 3]
    assert await store.sessions("nobody") == []
    assert await store.sessions(limit=0) == []


async def paged(store: Store, limit: int, owner: str | None = None, **named: Any) -> list[SessionRecord]:
    """Every page, one after the other."""
    seen: list[SessionRecord] = []
    before = None
    while page := await store.sessions(owner, limit, before, **named):
        assert len(page) <= limit
        seen += page
        before = (page[-1].updated_at, page[-1].id)
    return seen


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_sessions_of_the_same_time_are_neither_skipped_nor_repeated_between_pages(
    store: Store, limit: int
) -> None:
    times = {"a": 5, "b": 7, "c": 7, "d": 7, "e": 7, "f": 9, "g": 1}
    await store.commit(
        Batch(1, sessions=tuple(session(id, updated_at=at, archived=id in "cdg") for id, at in times.items()))
    )
    assert [record.id for record in await paged(store, limit)] == ["f", "b", "c", "d", "e", "a", "g"]
    for owner in (None, "ann"):
        assert [record.id for record in await paged(store, limit, owner, archived=False)] == ["f", "b", "e", "a"]
        assert [record.id for record in await paged(store, limit, owner, archived=True)] == ["c", "d", "g"]
    assert await paged(store, limit, "bob") == []
    # A place need not be that of a session which is still there.
    assert [record.id for record in await store.sessions(before=(7, "cc"))] == ["d", "e", "a", "g"]


async def test_an_outline_has_every_version_in_order_of_creation_and_no_content(store: Store) -> None:
    await store.commit(Batch(1, messages=(message("v2"), message("v1", parent="v2", metadata=[1]))))
    await store.commit(Batch(2, messages=(message("v3", parent="v2"), message("x1", session="s2"))))
    await store.commit(Batch(3, messages=(message("v2", author="agent:a"),)))
    outline = [*(await store.outline("s1")).messages]
    assert outline == [
        message("v2", author="agent:a", parts=None),
        message("v1", parent="v2", metadata=[1], parts=None),
        message("v3", parent="v2", parts=None),
    ]


async def test_messages_come_in_the_order_asked_for_and_only_of_the_session(store: Store) -> None:
    await store.commit(Batch(1, messages=(message("v1"), message("v2"), message("x1", session="s2"))))
    assert await store.messages("s1", ["v2", "gone", "x1", "v1"]) == [message("v2"), message("v1")]
    assert await store.messages("s1", []) == []
    assert await store.messages("s2", ["v1"]) == []


async def test_runs_come_in_order_and_unfinished_ones_are_found_in_every_session(store: Store) -> None:
    done = [status for status in Status if status not in (Status.QUEUED, Status.RUNNING)]
    finished = tuple(run(f"done-{status}", first_seq=50 + n, status=status) for n, status in enumerate(done))
    active = (
        run("b", session="s2", first_seq=4),
        run("c", first_seq=30, status=Status.QUEUED),
        run("a", first_seq=2),
    )
    await store.commit(Batch(1, runs=(*active, *finished)))
    assert await store.unfinished() == [active[2], active[1], active[0]]
    assert [record.id for record in (await store.outline("s1")).runs] == ["a", "c", *(record.id for record in finished)]
    assert await store.run("b") == active[0]
    await store.commit(Batch(2, runs=(replace(active[2], status=Status.LOST),)))
    assert await store.unfinished() == [active[1], active[0]]


# ------------------------------------------------------------------------------------------------ open_store


def test_open_store_takes_a_name_a_path_or_a_store(tmp_path: Path) -> None:
    memory = open_store("memory:")
    assert isinstance(memory, MemoryStore)
    assert open_store(memory) is memory
    file = open_store(tmp_path / "x.db")
    assert isinstance(file, SqliteStore)
    assert file.path == tmp_path / "x.db"
    assert not file.path.exists()
