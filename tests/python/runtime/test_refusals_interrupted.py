"""Something else happens while what a store refuses is being looked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from poisoned import cure, hold, last, poison, refusals, release, rows_of
from rig import Answer, Rig, running
from strandline.runtime import journal
from strandline.stores.port import Batch
from strandline.testing import until


async def interrupted(rig: Rig, path: Path, act: Any) -> list[asyncio.Task[Answer]]:
    """Five messages in one batch, which is refused; ``act`` is done once the first of its parts was taken."""
    _, blocker = await rig.begun("blocker", id="b")
    await poison(path, rows_of("messages", "c3"))
    refused, inner = refusals(rig), rig.store.inner.commit

    async def commit(batch: Batch) -> None:
        await inner(batch)
        if refused and batch.messages:
            rig.store.inner.commit = inner  # type: ignore[method-assign]
            act()

    await hold(rig, blocker)
    rig.store.inner.commit = commit  # type: ignore[method-assign]
    posts = [asyncio.create_task(rig.post(f"c{number}", id=f"u{number}")) for number in range(5)]
    await release(rig, 5)
    return posts


async def test_an_outage_in_the_middle_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(path) as rig:
        posts = await interrupted(rig, path, rig.store.fail)
        await rig.passing(lambda: not rig.sessions.journal.healthy)
        answers = [await post for post in posts]
        assert [answer.status for answer in answers] == [200, 200, 503, 503, 503]
        assert {answer.code for answer in answers[2:]} == {"store-unavailable"}
        await cure(path)
        rig.store.mend()
        await rig.passing(lambda: rig.sessions.journal.healthy)
        assert await last(rig, "c0") == ("lost", "store-unavailable")
        again, call = await rig.begun("c3", id="u3")
        call.say("fine").finish()
        assert (await again.end()).text == "fine"
        await rig.log("c3")


async def test_a_shutdown_in_the_middle_leaves_nobody_waiting(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(journal, "_STOP_PATIENCE", 0.0)
    path = tmp_path / "chat.db"
    async with asyncio.timeout(30):
        async with running(path, commit_patience=0.0) as rig:
            posts = await interrupted(rig, path, rig.store.hang)
            await until(lambda: posts[0].done())
            clock = rig.clock
        answers = [await post for post in posts]
        assert [answer.status for answer in answers] == [200, 200, 503, 503, 503]
        assert {answer.code for answer in answers[2:]} == {"shutting-down"}
    await cure(path)
    async with running(path, clock=clock) as rig:
        assert await last(rig, "c0") == ("lost", "process-lost")
