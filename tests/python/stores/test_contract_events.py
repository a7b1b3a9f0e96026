"""What every store promises about events: the journal, segments, trimming, retention (stores/port.py)."""

from __future__ import annotations

import asyncio

import pytest
from store_samples import entry, event, events, message, reopen, run, segment, session

from strandline.core.run import Status
from strandline.stores import Store
from strandline.stores.port import Batch, Entry, Segment

EVER = 2**62


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


# ------------------------------------------------------------------------------------------------ events


async def test_events_are_read_by_range_and_by_run_across_overlapping_segments(store: Store) -> None:
    odd, even, own = [3, 5, 7, 11], [2, 4, 8, 10], [1, 6, 9]
    await store.commit(
        Batch(
            1,
            segments=(
                segment("s1", odd, "r1"),
                segment("s1", even, "r2"),
                segment("s1", own, None),
                segment("s2", [1, 2], "r3"),
            ),
        )
    )
    everything = sorted(events(odd, "r1") + events(even, "r2") + events(own, None))
    assert await store.events("s1", 0, EVER) == everything
    assert await store.events("s1", 4, 8) == everything[3:8]
    assert await store.events("s1", 4, 8, "r1") == events([5, 7], "r1")
    assert await store.events("s1", 6, 6) == events([6], None)
    assert await store.events("s1", 6, 6, "r1") == []
    assert await store.events("s1", 12, EVER) == []
    assert await store.events("s1", 1, EVER, "r3") == []


async def test_the_journal_of_an_earlier_process_becomes_segments_without_duplicates(store: Store) -> None:
    await store.commit(Batch(1, entries=(entry("s1", 1, 2, "r1"), entry("s2", 1, 4, "r9"))))
    await store.commit(Batch(2, entries=(entry("s1", 3, 4, "r2"),)))
    await store.commit(Batch(3, entries=(entry("s1", 5, 5, None), entry("s2", 5, 5, "r9"))))
    # Some of it was packed already, but not trimmed: the last process ended between the two.
    await store.commit(Batch(4, segments=(segment("s1", [1, 3]), segment("s2", [1, 2, 3, 4, 5], "r9"))))
    assert await store.events("s1", 0, EVER) == events([1, 3])

    assert await reopen(store) == 4
    first = await store.events("s1", 0, EVER)
    assert [seq for seq, _ in first] == [1, 2, 3, 4, 5]
    assert await store.events("s1", 1, 5, None) == first
    assert await store.events("s1", 1, 5, "r2") == events([4], "r2")
    assert await store.events("s2", 1, 5, "r9") == events([1, 2, 3, 4, 5], "r9")

    assert await reopen(store) == 4
    assert await store.events("s1", 0, EVER) == first


async def test_a_session_row_that_the_journal_had_overtaken_is_caught_up(store: Store) -> None:
    await store.commit(Batch(1, sessions=(session(last_seq=2), session("s2", last_seq=99))))
    await store.commit(Batch(2, entries=(entry("s1", 3, 8), entry("s2", 98, 99), entry("s3", 1, 1))))
    await reopen(store)
    assert [(await store.session(id)) for id in ("s1", "s2", "s3")] == [
        session(last_seq=8),
        session("s2", last_seq=99),
        None,
    ]


async def test_a_long_journal_becomes_several_segments_of_one_run(store: Store) -> None:
    long = tuple(b'{"run":"r1","at":%d,"text":"%s"}' % (n, b"x" * 9000) for n in range(100))
    await store.commit(Batch(1, entries=(Entry("s1", 1, long),)))
    await reopen(store)
    assert await store.events("s1", 0, EVER) == list(enumerate(long, 1))
    assert await store.expire(50) == 1
    assert await store.expire(EVER) == 3
    assert await store.events("s1", 0, EVER) == []


async def test_trimming_ends_what_a_restart_reads(store: Store) -> None:
    for number in range(1, 5):
        await store.commit(Batch(number, entries=(entry("s1", number, number),)))
    await store.commit(Batch(5, segments=(segment("s1", [1, 2]),), trim=2))
    await store.commit(Batch(6, trim=3))  # event 3 is in no segment: the caller gave it up
    await reopen(store)
    assert await store.events("s1", 0, EVER) == events([1, 2, 4])


async def test_a_hundred_runs_over_many_batches_lose_nothing(store: Store) -> None:
    runs = {f"r{n}": 0 for n in range(100)}
    kept: dict[str, list[tuple[int, bytes]]] = {name: [] for name in runs}
    written: dict[str, list[tuple[int, bytes]]] = {name: [] for name in runs}
    for number in range(1, 41):
        entries = []
        for name, seq in runs.items():
            new = tuple(event(n, name) for n in range(seq + 1, seq + 4))
            entries.append(Entry(f"s-{name}", seq + 1, new))
            kept[name] += enumerate(new, seq + 1)
            runs[name] = seq + 3
        packed: tuple[Segment, ...] = ()
        trim = None
        if number % 8 == 0:
            packed = tuple(Segment(f"s-{name}", name, 5000, tuple(items)) for name, items in kept.items())
            trim = number - 1
            for name, items in kept.items():
                written[name] += items
                items.clear()
        await store.commit(Batch(number, entries=tuple(entries), segments=packed, trim=trim))
    await store.commit(Batch(41, entries=(entry("s-r0", 121, 125, "r0"),)))
    assert await store.events("s-r7", 0, EVER) == written["r7"]
    await reopen(store)
    for name in runs:
        found = await store.events(f"s-{name}", 0, EVER, name)
        assert [seq for seq, _ in found] == list(range(1, 126 if name == "r0" else 121))
        assert found[:120] == events(range(1, 121), name)


async def test_expiry_counts_from_the_newest_event_and_spares_unfinished_runs(store: Store) -> None:
    await store.commit(
        Batch(
            1,
            sessions=(session(),),
            messages=(message(),),
            runs=(
                run("done", status=Status.COMPLETED),
                run("going", first_seq=2),
                run("waiting", first_seq=3, status=Status.QUEUED),
            ),
            segments=(
                segment("s1", [1, 2], "done", at=100),
                segment("s1", [3], "done", at=200),
                segment("s1", [4], "going", at=100),
                segment("s1", [5], None, at=100),
                segment("s1", [6], "waiting", at=100),
                segment("s1", [7], "unheard of", at=199),
            ),
        )
    )
    assert await store.expire(100) == 0
    assert await store.expire(200) == 3
    assert [seq for seq, _ in await store.events("s1", 0, EVER)] == [3, 4, 6]
    await store.commit(Batch(2, runs=(run("going", status=Status.LOST, first_seq=2),)))
    assert await store.expire(200) == 1
    assert [seq for seq, _ in await store.events("s1", 0, EVER)] == [3, 6]
    assert len((await store.outline("s1")).runs) == 3
    assert (await store.outline("s1")).messages
    assert await store.session("s1")


async def test_expiring_very_many_segments_is_one_call(store: Store) -> None:
    await store.commit(Batch(1, segments=tuple(segment("s1", [n]) for n in range(1, 502))))
    assert await store.expire(5001) == 501
    assert await store.events("s1", 0, EVER) == []


async def test_reading_beside_the_writer_sees_whole_batches_only(store: Store) -> None:
    async def write() -> None:
        for number in range(1, 60):
            await store.commit(
                Batch(
                    number,
                    sessions=tuple(session(f"s{n}", last_seq=number) for n in range(5)),
                    segments=(segment("s", [2 * number, 2 * number + 1]),),
                )
            )

    writing = asyncio.create_task(write())
    while not writing.done():
        assert len({record.last_seq for record in await store.sessions()}) <= 1
        assert len(await store.events("s", 0, EVER)) % 2 == 0
        await store.checkpoint()
        await asyncio.sleep(0)
    await writing
    await store.checkpoint(truncate=True)
    assert len(await store.events("s", 0, EVER)) == 118


async def test_the_log_of_a_run_goes_as_a_whole_once_its_end_is_old_enough(store: Store) -> None:
    await store.commit(
        Batch(
            1,
            sessions=(session(),),
            messages=(message(),),
            runs=(run("long", status=Status.COMPLETED, ended_at=250),),
            segments=(segment("s1", [1, 2], "long", at=100), segment("s1", [3], "long", at=250)),
        )
    )
    assert await store.expire(200) == 0
    assert await store.expire(250) == 0
    assert [seq for seq, _ in await store.events("s1", 0, EVER)] == [1, 2, 3]
    assert await store.expire(251) == 2
    assert await store.events("s1", 0, EVER) == []
