"""A database file that refuses what a test says it does, and a writer that is held back meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from rig import Rig
from strandline.stores.port import Batch
from strandline.testing import ScriptedCall, until

POISON = "poison"
SAID = f"journal WHEN instr(CAST(NEW.entries AS TEXT), '{POISON}')"
"""Whatever holds that word, in whichever session."""


def rows_of(table: str, session: str = "bad") -> str:
    return f"{table} WHEN NEW.session = '{session}'"


async def sql(path: Path, *statements: str) -> list[str]:
    """In a thread: the writer may have to finish first, and needs the loop for that."""

    def execute() -> list[str]:
        with closing(sqlite3.connect(path, timeout=5)) as db, db:
            return [str(first) for statement in statements for first, *_ in db.execute(statement)]

    return await asyncio.to_thread(execute)


async def poison(path: Path, where: str, *, act: str = "INSERT") -> None:
    """From now on the file refuses such rows, whoever writes them."""
    name = f"no_{where.split()[0]}_{act}"
    await sql(path, f"CREATE TRIGGER {name} BEFORE {act} ON {where} BEGIN SELECT RAISE(ABORT, 'refused'); END")


async def cure(path: Path) -> None:
    names = await sql(path, "SELECT name FROM sqlite_schema WHERE type = 'trigger'")
    await sql(path, *(f"DROP TRIGGER {name}" for name in names))


def refusals(rig: Rig) -> list[Batch]:
    """The batches that the file refuses from now on."""
    refused: list[Batch] = []
    commit = rig.store.inner.commit

    async def watched(batch: Batch) -> None:
        try:
            await commit(batch)
        except Exception:
            refused.append(batch)
            raise

    rig.store.inner.commit = watched  # type: ignore[method-assign]
    return refused


async def hold(rig: Rig, call: ScriptedCall) -> None:
    """Keep the writer busy, so that what comes now is one batch."""
    before = rig.store.attempts
    rig.store.hang()
    call.say(".")
    await until(lambda: rig.store.attempts > before)


async def release(rig: Rig, sessions: int) -> None:
    """Let the writer go on, once something waits in so many sessions."""
    await until(lambda: len(rig.sessions.journal._dirty) >= sessions)
    for _ in range(200):
        await asyncio.sleep(0)
    rig.store.mend()


async def last(rig: Rig, chat: str) -> tuple[str, str]:
    """How the newest run of a session has ended."""
    run = list((await rig.history(chat))["runs"].values())[-1]
    return run["status"], run["reason"]
