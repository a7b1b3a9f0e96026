"""What every store promises about decisions, annotations and receipts (stores/port.py): one suite for each of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_samples import annotation, decision, message, receipt, reopen, run, session

from strandline.core.erasing import Erasure
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


async def test_sessions_that_wait_are_found_and_how_much_they_wait_for(store: Store) -> None:
    times = {"s1": 30, "s2": 20, "s3": 20, "s4": 10}
    sessions = [session(id, updated_at=at, owner="bob" if id == "s3" else "ann") for id, at in times.items()]
    made = decision("d3", session="s2", outcome="denied", value={"approved": False})
    asked = [decision("d1"), decision("d2"), decision("d1", session="s3"), decision("d1", session="s4"), made]
    await store.commit(Batch(1, sessions=tuple(sessions), decisions=tuple(asked)))
    await reopen(store)

    async def waiting(*which: object, **named: object) -> list[str]:
        return [each.id for each in await store.sessions(*which, waiting=True, **named)]  # type: ignore[arg-type]

    assert await waiting() == ["s1", "s3", "s4"]
    assert await waiting("ann") == ["s1", "s4"]
    assert await waiting(None, 1) == ["s1"]
    assert await waiting(None, 9, (30, "s1")) == ["s3", "s4"]
    assert await waiting(archived=True) == []
    assert await store.pending(["s1", "s2", "s3", "nobody"]) == {"s1": 2, "s3": 1}
    assert await store.pending([]) == {}
    await store.commit(Batch(2, decisions=tuple(replace(each, outcome="approved") for each in asked[:3])))
    assert await waiting() == ["s4"]
    assert await store.pending(list(times)) == {"s4": 1}


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


# ------------------------------------------------------------------------------------------------ receipts


async def test_receipts_are_kept_in_order_also_two_of_one_message(store: Store) -> None:
    first, again = receipt(seq=2), receipt(seq=9, key=None, digest="34cd")
    await store.commit(Batch(1, receipts=(first, receipt("n2", session="s2"))))
    await store.commit(Batch(2, receipts=(again,)))
    await reopen(store)
    assert await store.outline("s1") == Outline(receipts=(first, again))


@pytest.mark.parametrize("deleted", [True, False])
async def test_of_what_was_told_and_is_erased_only_the_digest_goes(store: Store, deleted: bool) -> None:
    taken, became, other = (
        receipt("n1", seq=2),
        receipt("n2", seq=3, key="k2"),
        receipt("n3", run="r2", seq=4, key="k3"),
    )
    messages = (message("v-r1", role="assistant"), message("v-n2", message_id="n2"))
    await store.commit(Batch(1, messages=messages, receipts=(taken, became, other, receipt(session="s2"))))
    reply = Erasure("s1", "v-r1", "m-v-r1", ("r1",), (), 9, deleted)
    await store.commit(Batch(2, erased=(reply,)))
    assert (await store.outline("s1")).receipts == (replace(taken, digest=None), became, other)
    note = Erasure("s1", "v-n2", "n2", (), (), 9, deleted)
    await store.commit(Batch(3, erased=(note,)))
    await reopen(store)
    assert (await store.outline("s1")).receipts == (replace(taken, digest=None), replace(became, digest=None), other)
    assert (await store.outline("s2")).receipts == (receipt(session="s2"),)
