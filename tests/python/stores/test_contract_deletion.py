"""What every store promises about sessions that are deleted (stores/port.py). One suite, each implementation."""

from __future__ import annotations

import pytest
from store_samples import annotation, decision, entry, event, events, message, receipt, reopen, run, segment, session

from strandline.errors import Conflict
from strandline.stores import Store
from strandline.stores.port import Batch, Outline

EVER = 2**62


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


def both(number: int = 1) -> Batch:
    """Two sessions with one of everything, in one journal row."""
    return Batch(
        number,
        entries=(entry("s1", 1, 3), entry("s2", 1, 3, "r2")),
        sessions=(session("s1", last_seq=3), session("s2", last_seq=3)),
        messages=(message("v1"), message("v2", session="s2")),
        runs=(run("r1", key="k"), run("r2", session="s2", key="k")),
        segments=(segment("s1", [1, 2]), segment("s2", [1, 2], "r2")),
        decisions=(decision(), decision(session="s2")),
        annotations=(annotation(), annotation(session="s2")),
        receipts=(receipt(), receipt(session="s2")),
    )


async def of(store: Store, id: str) -> list[object]:
    """Everything that the store has of a session."""
    versions = ["v1", "v2"]
    return [
        await store.session(id),
        await store.outline(id),
        await store.messages(id, versions),
        await store.events(id, 0, EVER),
    ]


NOTHING: list[object] = [None, Outline(), [], []]


async def test_nothing_is_left_of_a_deleted_session_and_everything_of_the_others(store: Store) -> None:
    await store.commit(both())
    other = await of(store, "s2")
    await store.commit(Batch(2, deleted=("s1",)))
    assert await of(store, "s1") == NOTHING
    assert await store.run("r1") is None
    assert [record.id for record in await store.unfinished()] == ["r2"]
    assert [record.id for record in await store.sessions()] == ["s2"]
    assert await of(store, "s2") == other


async def test_what_the_journal_still_holds_of_a_deleted_session_is_void_after_a_restart(store: Store) -> None:
    await store.commit(both())
    await store.commit(Batch(2, deleted=("s1",)))
    for _ in range(2):
        assert await reopen(store) == 2
        assert await of(store, "s1") == NOTHING
        assert await store.events("s2", 0, EVER) == events([1, 2, 3], "r2")


async def test_the_id_of_a_deleted_session_can_be_used_again(store: Store) -> None:
    await store.commit(both())
    await store.commit(Batch(2, entries=(entry("s2", 4, 4, "r2"),), deleted=("s1",)))
    again = session("s1", epoch="zzzz9999", owner="bob", last_seq=1)
    new = run("r1", key="k", author="user:bob")
    await store.commit(Batch(3, entries=(entry("s1", 1, 1, "new"),), sessions=(again,), runs=(new,)))
    assert await reopen(store) == 3
    assert await store.session("s1") == again
    assert [*(await store.outline("s1")).runs] == [new]
    assert await store.events("s1", 0, EVER) == [(1, event(1, "new"))]
    assert await store.events("s2", 0, EVER) == events([1, 2, 3, 4], "r2")


async def test_a_session_is_deleted_as_often_as_it_is_made(store: Store) -> None:
    for number in range(1, 9, 2):
        await store.commit(Batch(number, entries=(entry("s1", 1, number),), sessions=(session(),)))
        await store.commit(Batch(number + 1, deleted=("s1",)))
    await store.commit(Batch(9, entries=(entry("s1", 1, 2),), sessions=(session(last_seq=2),)))
    assert await reopen(store) == 9
    assert await store.events("s1", 0, EVER) == events([1, 2])


async def test_what_a_batch_writes_and_deletes_is_deleted(store: Store) -> None:
    await store.commit(both())
    await store.commit(
        Batch(2, sessions=(session(last_seq=3),), segments=(segment("s1", [3]),), trim=1, deleted=("s1",))
    )
    assert await of(store, "s1") == NOTHING
    assert await reopen(store) == 2
    assert await of(store, "s1") == NOTHING


async def test_the_keys_and_run_ids_of_a_deleted_session_are_free(store: Store) -> None:
    await store.commit(both())
    await store.commit(Batch(2, deleted=("s1",)))
    await store.commit(Batch(3, sessions=(session("s3"),), runs=(run("r1", session="s3", key="k"),)))
    assert (await store.run("r1")) == run("r1", session="s3", key="k")
    await store.commit(Batch(4, sessions=(session("s1"),), runs=(run("r9", key="k"),)))
    with pytest.raises(Conflict):
        await store.commit(Batch(5, runs=(run("r10", session="s2", key="k"),)))


async def test_deleting_what_is_not_there_changes_nothing(store: Store) -> None:
    await store.commit(both())
    await store.commit(Batch(2, deleted=("nobody",)))
    assert await reopen(store) == 2
    assert len(await store.sessions()) == 2


async def test_a_deletion_that_fails_has_deleted_nothing(store: Store) -> None:
    await store.commit(both())
    before = await of(store, "s1")
    with pytest.raises(Conflict):
        await store.commit(Batch(2, runs=(run("r3", session="s2", key="k"),), deleted=("s1",)))
    assert await of(store, "s1") == before
    await reopen(store)
    assert await store.events("s1", 0, EVER) == events([1, 2, 3])
