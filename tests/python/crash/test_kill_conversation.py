"""``kill -9`` at random moments in everything that people do in a conversation: policies and steering, decisions,
branches, edits and deletes, annotations, agents that are called again. Nothing that was acknowledged is taken back,
nothing happens twice, nothing is stuck, and whoever looks on, on whichever wire, was shown what the log says and ends
with it (DESIGN §1.2–§1.7; PROTOCOL §14–§17, §19)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from auditor import DECIDING, Auditor, Log
from forking import Aim, Nursery
from mortal import MortalServer
from onlookers import Gallery, Onlooker
from talkers import Client, Ledger, Talker, Wish

from strandline.testing import until

KILLS_PER_FILE = 8
ENV = {"STRANDLINE_LOCK_WAIT": "5", "STRANDLINE_SEGMENT_AGE": "0.2", "STRANDLINE_MAX_ATTEMPTS": "1000"}
ONE_AT_A_TIME = ("interrupt", "queue", "steer", "reject")
AIMS = ("COMMIT", "INSERT INTO", "UPDATE", "DELETE FROM")
"""Where some of the servers die by themselves."""


class Life:
    """One database file with two conversations, through many deaths."""

    def __init__(
        self, server: MortalServer, client: Client, gallery: Gallery, chance: random.Random, done: Counter[str]
    ) -> None:
        self._server = server
        self._client = client
        self._chance = chance
        self._done = done
        self._ledgers = [Ledger("one"), Ledger("two", ONE_AT_A_TIME)]
        self._onlookers = {
            ledger.chat: Onlooker(gallery, client, f"{server.db} {ledger.chat}", ledger.chat)
            for ledger in self._ledgers
        }

    async def begin(self) -> None:
        for ledger in self._ledgers:
            await self._client.grant(Wish("create", ledger.chat, "POST", "/api/sessions", {"id": ledger.chat}))
            await self._onlookers[ledger.chat].open(self._server.url, live=ledger.policies == ONE_AT_A_TIME)

    async def trial(self, number: int) -> None:
        """Everybody talks until the server dies; then the next one is asked about all of it."""
        chance, server = self._chance, self._server
        talkers = [
            Talker(f"{number}{name}", self._client, ledger, random.Random(chance.random()), self._done)
            for ledger in self._ledgers
            for name in "ab"
        ]
        tasks = [asyncio.create_task(talker.talk()) for talker in talkers]
        await asyncio.sleep(chance.uniform(0.02, 0.3))  # the random moment
        server.arm()
        with contextlib.suppress(TimeoutError):
            if server.aimed is not None:
                await until(lambda: server.process.poll() is not None, 0.3)
                server.buried()
        await asyncio.to_thread(server.kill)
        await asyncio.gather(*tasks)
        aim = Aim(chance.choice(AIMS), chance.randint(1, 4), chance.choice([0.0, 0.001]), armed=False)
        server.aim = aim if chance.random() < 0.4 else None
        await asyncio.to_thread(server.start)
        await self._audit(quiet=chance.random() < 0.3)

    async def _audit(self, *, quiet: bool) -> None:
        for ledger in self._ledgers:
            auditor = Auditor(self._client, self._server.db, ledger)
            if quiet:
                await auditor.settle()  # also where nobody asks again
            await auditor.ask_again()
            answered = ledger.granted("send", "steer", *DECIDING, "regenerate", "edit")
            for wish in self._chance.sample(answered, min(3, len(answered))):
                await auditor.repeat(wish)
            if quiet:
                # Of what waits behind a decision nothing moves either.
                await auditor.still()
                await self._onlookers[ledger.chat].agrees()
                await auditor.settle()
            await auditor.audit(quiet=quiet)
            if quiet:
                await self._onlookers[ledger.chat].agrees()

    async def end(self) -> None:
        await self._audit(quiet=True)
        for ledger in self._ledgers:
            log = Log(self._server.db, ledger.chat)
            self._done["shown"] += await self._onlookers[ledger.chat].close(log, ledger)


async def live(nursery: Nursery, gallery: Gallery, folder: Path, seed: int, done: Counter[str]) -> int:
    """One file from its first server to its last; how many were killed."""
    server = MortalServer(folder, nursery, app="conversation", db=f"{seed}.db", env=ENV)
    client = Client(server.url)
    try:
        life = Life(server, client, gallery, random.Random(seed), done)
        await life.begin()
        for trial in range(KILLS_PER_FILE):
            await life.trial(trial)
        await life.end()
        assert server.kills == KILLS_PER_FILE
        assert "Traceback" not in server.said()
    except BaseException as error:
        error.add_note(f"CHAOS_SEED={seed}, in {folder}; the server said: {server.said()[-3000:]}")
        raise
    finally:
        await client.close()
        server.kill()
    return KILLS_PER_FILE


async def test_no_kill_takes_back_doubles_or_stops_anything_in_a_conversation(
    nursery: Nursery, tmp_path: Path, scale: Callable[[int, int], int], seed: int
) -> None:
    done: Counter[str] = Counter()
    kills, number, wanted = 0, 0, scale(200, 2000)
    gallery = await Gallery.opened()
    try:
        while kills < wanted:
            # One that starts has a core for itself, and so has one that works.
            async with asyncio.TaskGroup() as pair:
                seeds = (seed + number, seed + number + 1)
                lives = [pair.create_task(live(nursery, gallery, tmp_path, each, done)) for each in seeds]
            kills += sum(each.result() for each in lives)
            number += 2
    finally:
        await gallery.close()
    assert min(done.values()) > 0 and len(done) == 14, done
