"""Processes that die while they delete: really killed, before, in and after the commit that does it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deleting_child import epoch, event
from store_samples import entry, events, segment, session

from strandline.stores import SqliteStore, schema
from strandline.stores.inspect import Inspector
from strandline.stores.port import Batch, Outline

CHILD = Path(__file__).with_name("deleting_child.py")
EVER = 2**62


def killed(path: Path, lines: int, pause: float) -> list[str]:
    """Start a child, read some lines, wait a moment, ``kill -9``; every line that it got out."""
    child = subprocess.Popen([sys.executable, str(CHILD), str(path)], stdout=subprocess.PIPE, text=True, bufsize=1)
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(lines)]
    time.sleep(pause)
    child.kill()
    said += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    return [line.strip() for line in said if line.endswith("\n")]


async def check_whole(store: SqliteStore, number: int) -> None:
    """After batch ``number`` all of the round's session is there, or nothing, and nothing of an earlier round."""
    life, step = (number - 1) // 4 + 1, (number - 1) % 4
    record, found = await store.session("s"), await store.events("s", 0, EVER)
    if step == 3:
        assert record is None
        assert found == []
        assert await store.outline("s") == Outline()
        assert [*(await store.outline("s")).runs] == []
    else:
        assert record is not None
        assert record.epoch == epoch(life)
        assert found == [(seq, event(life, seq)) for seq in range(1, 2 * step + 3)]
        assert [message.parts for message in await store.messages("s", [f"v{life}"])] == [({"life": life},)]
        assert [message.version for message in (await store.outline("s")).messages] == [f"v{life}"]
        assert [run.id for run in (await store.outline("s")).runs] == [f"run-{life}"]
    kept = await store.events("kept", 0, EVER)
    assert kept == [(seq, event(0, seq)) for seq in range(1, len(kept) + 1)]
    assert len(kept) == (await store.session("kept")).last_seq  # type: ignore[union-attr]


async def test_a_kill_around_a_deletion_leaves_all_of_a_session_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    dice = random.Random(11)
    steps = set()
    for _ in range(8):
        acknowledged = int(killed(path, dice.randint(2, 40), dice.random() * 0.004)[-1].split()[-1])
        store = SqliteStore(path)
        number = await store.open()
        assert number in (acknowledged, acknowledged + 1) or (acknowledged % 4 and number == acknowledged + 4)
        await check_whole(store, number)
        steps.add(number % 4)
        await store.close()
    assert len(steps) > 1, "the kills came at different moments"


async def test_a_start_that_ends_between_two_slices_does_not_bring_a_deleted_session_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "chat.db")
    await store.open()
    for number in range(1, 21):
        both = (entry("s1", number * 10 - 9, number * 10), entry("s2", number * 10 - 9, number * 10))
        await store.commit(Batch(number, entries=both, sessions=(session("s1"), session("s2"))))
    # The deletion is in a later slice than what it makes void; what came after it is in a segment already, in part.
    await store.commit(Batch(21, entries=(entry("s2", 201, 210),), deleted=("s1",)))
    await store.commit(Batch(22, entries=(entry("s1", 1, 10, "new"),), sessions=(session("s1"),)))
    await store.commit(Batch(23, entries=(entry("s1", 11, 20, "new"),), segments=(segment("s1", range(1, 6), "new"),)))
    await store.close()

    monkeypatch.setattr(schema, "_SLICE_BYTES", 2000)
    settle, calls = schema._settle, []

    def settle_and_die(*args: object) -> None:
        settle(*args)  # type: ignore[arg-type]
        calls.append(args)
        if len(calls) == 3:
            raise SystemExit

    monkeypatch.setattr(schema, "_settle", settle_and_die)
    for _ in range(3):
        calls.clear()
        with pytest.raises(SystemExit):
            schema.prepare(store.path, "full")
        with Inspector(store.path) as inspector:
            assert inspector.events("s1") == events(range(1, 21), "new")
            assert inspector.events("s2") == events(range(1, 211))

    monkeypatch.setattr(schema, "_settle", settle)
    assert await store.open() == 23
    assert await store.events("s1", 0, EVER) == events(range(1, 21), "new")
    assert await store.events("s2", 0, EVER) == events(range(1, 211))
    await store.close()
