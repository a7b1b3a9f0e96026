"""What every store promises about decisions and annotations (stores/port.py). One suite, each implementation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_samples import annotation, decision, message, reopen, run, session

from strandline.core.records import AnnotationRecord
from strandline.stores import Store
from strandline.stores.port import DUE_AT_ONCE, Batch, Outline


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


async def test_a_decision_is_kept_and_takes_what_was_decided(store: Store) -> None:
    asked = decision(roles=("boss", "clerk"), expires_at=9000)
    await store.commit(Batch(1, sessions=(session(),), decisions=(asked, decision("d2", kind="tool"))))
    await reopen(store)
    assert (await store.outline("s1")).decisions == (asked, decision("d2", kind="tool"))
    made = replace(
        asked, outcome="approved", value={"approved": True, "reason": "ä"}, decided_at=5, decided_by="user:bob"
    )
    await store.commit(Batch(2, decisions=(replace(made, input=None),)))
    await reopen(store)
    assert (await store.outline("s1")).decisions == (replace(made, input=None), decision("d2", kind="tool"))
    assert (await store.outline("s2")).decisions == ()


async def test_decisions_that_are_due_come_oldest_first_and_only_while_they_are_pending(store: Store) -> None:
    asked = [decision(f"d{at}", expires_at=at) for at in (30, 10, 20)]
    others = [decision("never"), decision("made", expires_at=1, outcome="denied", value={"approved": False})]
    await store.commit(Batch(1, decisions=(*asked, *others)))
    assert [each.id for each in await store.due(20)] == ["d10", "d20"]
    assert [each.id for each in await store.due(9)] == []
    await store.commit(Batch(2, decisions=(replace(asked[1], outcome="expired"),)))
    assert await store.due(99) == [asked[2], asked[0]]
    many = [decision(f"m{number:03}", session="s2", expires_at=number) for number in range(1, DUE_AT_ONCE + 20)]
    await store.commit(Batch(3, decisions=tuple(many)))
    found = await store.due(2 * DUE_AT_ONCE)
    assert len(found) == DUE_AT_ONCE
    assert [each.expires_at for each in found] == sorted([*range(1, DUE_AT_ONCE + 20), 20, 30])[:DUE_AT_ONCE]


def bare(record: AnnotationRecord) -> AnnotationRecord:
    return replace(record, data=None, range=None)


async def test_annotations_are_replaced_and_taken_back(store: Store) -> None:
    one, two = annotation(), annotation("a2", data=None, range=None)
    await store.commit(Batch(1, annotations=(one, two, annotation(session="s2"))))
    better = annotation(data={"url": "https://b.example"}, kind="note")
    await store.commit(Batch(2, annotations=(better,)))
    await reopen(store)
    assert (await store.outline("s1")).annotations == (bare(better), two)
    assert await store.annotations("s1", "v1", None, 10, 0) == [better, two]
    assert await store.annotations("s1", "v1", "note", 10, 0) == [better]
    assert await store.annotations("s1", "v1", None, 1, 1) == [two]
    assert await store.annotations("s1", "v2", None, 10, 0) == []
    await store.commit(Batch(3, unannotated=(("s1", "a1"), ("s1", "unknown"))))
    await reopen(store)
    assert await store.outline("s1") == Outline(annotations=(bare(two),))
    assert (await store.outline("s2")).annotations == (bare(annotation(session="s2")),)


async def test_deleted_and_spawned_messages_and_recovered_runs_are_told_apart(store: Store) -> None:
    gone, beside = message(deleted=True, parts=()), message("v2", spawned=True)
    again = run(spawned=True, attempt=3, producer=2, body={"model": "x"})
    await store.commit(Batch(1, sessions=(session(submit="queue"),), messages=(gone, beside), runs=(again,)))
    await reopen(store)
    assert await store.messages("s1", ["v1", "v2"]) == [gone, beside]
    assert [(each.deleted, each.spawned) for each in (await store.outline("s1")).messages] == [
        (True, False),
        (False, True),
    ]
    assert (await store.outline("s1")).runs == (again,)
    assert await store.session("s1") == session(submit="queue")
