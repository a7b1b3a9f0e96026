"""A process that fills sessions and deletes them until it is killed, and says on stdout what was acknowledged
(test_crash_deletion.py).

Round n makes the session ``s`` anew with epoch n in three commits of two events each, packing some of them into
segments, beside another session that stays; then it deletes ``s``. Every event says which round it is of.
"""

from __future__ import annotations

import asyncio
import sys

import orjson

from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.core.run import Status
from strandline.stores import Batch, Entry, Segment, SqliteStore, sqlite


def event(life: int, seq: int) -> bytes:
    return orjson.dumps({"type": "appended", "at": seq, "run": f"run-{life}", "life": life, "text": f"{seq} " * 200})


def epoch(life: int) -> str:
    return f"{life:08}"


def batches(life: int, number: int, kept: int) -> list[Batch]:
    """What round ``life`` commits, from batch ``number`` on; ``kept`` is the last event of the session that stays."""
    run = RunRecord(f"run-{life}", "s", f"v{life}", "m", None, "a", "u", Status.RUNNING, 0, 1, key="k")
    found = []
    for step in range(3):
        upto = 2 * step + 2
        found.append(
            Batch(
                number + step,
                entries=(
                    Entry("s", upto - 1, (event(life, upto - 1), event(life, upto))),
                    Entry("kept", kept + step + 1, (event(0, kept + step + 1),)),
                ),
                sessions=(
                    SessionRecord("s", epoch(life), "ann", 0, life, upto),
                    SessionRecord("kept", epoch(0), "ann", 0, life, kept + step + 1),
                ),
                messages=(MessageRecord("s", f"v{life}", "m", None, "assistant", "a", 0, parts=({"life": life},)),),
                runs=(run,),
                segments=(Segment("s", run.id, upto, ((1, event(life, 1)), (2, event(life, 2)))),) if step == 2 else (),
            )
        )
    return [*found, Batch(number + 3, deleted=("s",))]


async def main(path: str) -> None:
    store = SqliteStore(path, lock_wait=30)
    number = await store.open()
    kept = await store.session("kept")
    last = kept.last_seq if kept is not None else 0
    if number % 4:
        # The last process died in the middle of a round.
        await store.commit(Batch(number - number % 4 + 4, deleted=("s",)))
    sys.stdout.write(f"open {number}\n")
    sys.stdout.flush()
    number += -number % 4
    while True:
        for batch in batches(life := number // 4 + 1, number + 1, last):
            await store.commit(batch)
            number = batch.number
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
        last += 3
        if life % 5 == 0:
            await store.checkpoint()


if __name__ == "__main__":
    sqlite._SWEEPS = 1  # every call is a checkpoint that a kill can hit
    asyncio.run(main(sys.argv[1]))
