"""``kill -9`` at random moments in everything that people do in a conversation: policies and steering, decisions,
branches, edits and deletes, annotations, agents that are called again. Nothing that was acknowledged is taken back,
nothing happens twice, and nothing is stuck (DESIGN §1.2, §1.4, §1.5, §1.7; PROTOCOL §14–§17, §19)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from auditor import Auditor
from forking import Aim, Nursery
from mortal import MortalServer
from talkers import Client, Ledger, Talker, Wish

KILLS_PER_FILE = 8
TALKERS = 2
ENV = {"STRANDLINE_LOCK_WAIT": "5", "STRANDLINE_SEGMENT_AGE": "0.2", "STRANDLINE_MAX_ATTEMPTS": "1000"}
AIMS = ("COMMIT", "INSERT INTO journal", "INSERT INTO messages", "INSERT INTO decisions", "UPDATE log", "DELETE FROM")


class Life:
    """One database file with two conversations, through many deaths."""

    def __init__(self, server: MortalServer, chance: random.Random, done: Counter[str]) -> None:
        self._server = server
        self._chance = chance
        self._done = done
        self._ledgers = [Ledger("one"), Ledger("two")]

    async def begin(self) -> None:
        client = Client(self._server.url)
        for ledger in self._ledgers:
            await client.grant(Wish("create", ledger.chat, "POST", "/api/sessions", {"id": ledger.chat}))
        await client.close()

    async def trial(self, number: int) -> None:
        """Everybody talks until the server dies; then the next one is asked about all of it."""
        chance, server = self._chance, self._server
        client = Client(server.url)
        talkers = [
            Talker(f"{number}{name}", client, ledger, random.Random(chance.random()), self._done)
            for ledger in self._ledgers
            for name in "ab"[:TALKERS]
        ]
        tasks = [asyncio.create_task(talker.talk()) for talker in talkers]
        await asyncio.sleep(chance.uniform(0.02, 0.3))  # the random moment
        server.arm()
        if server.aimed is None or not await asyncio.to_thread(server.dies_within, 0.3):
            await asyncio.to_thread(server.kill)
        await asyncio.gather(*tasks)
        await client.close()
        aim = Aim(chance.choice(AIMS), chance.randint(1, 4), chance.choice([0.0, 0.001]), armed=False)
        server.aim = aim if chance.random() < 0.4 else None
        await asyncio.to_thread(server.start)
        await self._audit(quiet=chance.random() < 0.3)

    async def _audit(self, *, quiet: bool) -> None:
        client = Client(self._server.url)
        try:
            for ledger in self._ledgers:
                auditor = Auditor(client, self._server.db, ledger)
                await auditor.ask_again()
                answered = ledger.granted("decide", "regenerate", "edit")
                for wish in self._chance.sample(answered, min(3, len(answered))):
                    await auditor.repeat(wish)
                if quiet:
                    await auditor.settle()
                await auditor.audit(quiet=quiet)
        finally:
            await client.close()

    async def end(self) -> None:
        await self._audit(quiet=True)


async def test_no_kill_takes_back_doubles_or_stops_anything_in_a_conversation(
    nursery: Nursery, tmp_path: Path, scale: Callable[[int, int], int], seed: int
) -> None:
    done: Counter[str] = Counter()
    kills, number, wanted = 0, 0, scale(200, 2000)
    while kills < wanted:
        folder = tmp_path / f"life-{number}"
        folder.mkdir()
        server = MortalServer(folder, nursery, app="conversation", env=ENV)
        try:
            life = Life(server, random.Random(seed + number), done)
            await life.begin()
            for trial in range(KILLS_PER_FILE):
                await life.trial(trial)
            await life.end()
        except BaseException as error:
            error.add_note(f"life {number} of seed {seed}, in {folder}; the server said: {server.said()[-3000:]}")
            raise
        finally:
            server.kill()
        assert "Traceback" not in server.said(), server.said()
        kills += server.kills
        number += 1
    assert min(done.values()) > 0 and len(done) == 11, done
