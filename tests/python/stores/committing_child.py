"""A process that commits until it is killed, and says on stdout which batches were acknowledged (test_crash.py).

Batch n appends events 2n-1 and 2n to each of three sessions and writes n into the rows of all of them, so a batch
that is only half there shows.
"""

from __future__ import annotations

import asyncio
import sys

import orjson

from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.core.run import Status
from strandline.stores import Batch, Entry, Segment, SqliteStore, sqlite

SESSIONS = ("s0", "s1", "s2")
EVER = 2**62


def event(session: str, seq: int) -> bytes:
    return orjson.dumps({"type": "appended", "at": seq, "run": f"run-{session}", "text": f"{session}:{seq} " * 40})


def batch(number: int, packed: int) -> Batch:
    upto = 2 * number
    segments: tuple[Segment, ...] = ()
    if number % 7 == 0:
        segments = tuple(
            Segment(s, f"run-{s}", upto, tuple((seq, event(s, seq)) for seq in range(2 * packed + 1, upto + 1)))
            for s in SESSIONS
        )
    return Batch(
        number,
        entries=tuple(Entry(s, upto - 1, (event(s, upto - 1), event(s, upto))) for s in SESSIONS),
        sessions=tuple(SessionRecord(s, "abcd1234", "ann", 0, number, upto) for s in SESSIONS),
        messages=tuple(
            MessageRecord(s, f"v-{s}", f"m-{s}", None, "assistant", "agent:a", 0, parts=({"n": number},))
            for s in SESSIONS
        ),
        runs=tuple(
            RunRecord(f"run-{s}", s, f"v-{s}", "m", None, "a", "u", Status.RUNNING, 0, 1, last_seq=number)
            for s in SESSIONS
        ),
        segments=segments,
        # Trims later than it packs, so that a kill also finds events in both places.
        trim=packed if number % 7 == 3 else None,
    )


async def check_whole(store: SqliteStore, number: int) -> None:
    """Every batch up to ``number`` is there with all of its parts, and nothing of a later one."""
    upto = 2 * number
    if number == 0:
        assert await store.sessions() == []
        return
    for name in SESSIONS:
        found = await store.events(name, 0, EVER)
        assert found == [(seq, event(name, seq)) for seq in range(1, upto + 1)]
        record = await store.session(name)
        assert record is not None
        assert (record.last_seq, record.updated_at) == (upto, number)
        assert [message.parts for message in await store.messages(name, [f"v-{name}"])] == [({"n": number},)]
        assert [run.last_seq for run in (await store.outline(name)).runs] == [number]


async def main(path: str, durability: str) -> None:
    store = SqliteStore(path, durability="normal" if durability == "normal" else "full", lock_wait=30)
    number = packed = await store.open()
    sys.stdout.write(f"open {number}\n")
    sys.stdout.flush()
    while True:
        number += 1
        await store.commit(batch(number, packed))
        if number % 7 == 0:
            packed = number
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        if number % 5 == 0:
            await store.checkpoint()


if __name__ == "__main__":
    sqlite._SWEEPS = 1  # every call is a checkpoint that a kill can hit
    asyncio.run(main(sys.argv[1], sys.argv[2]))
