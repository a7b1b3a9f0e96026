"""``kill -9`` again and again: at random moments under load, in the middle of chosen SQL statements (a commit, a
segment, a trim, a checkpoint), and while the next process still recovers. Afterwards everything that anybody was shown
or promised is there, byte for byte (DESIGN §1.2, §1.3, §1.5, §1.6)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from crash_readers import Reading, Visitor
from forking import Aim, Nursery
from mortal import MortalServer
from witness import Acknowledged, Log, Tally, Witness

from replies import numbers
from strandline.testing import until

STATEMENTS = (
    "BEGIN IMMEDIATE",
    "COMMIT",
    "INSERT INTO journal",
    "INSERT INTO log",
    "INSERT INTO messages",
    "INSERT INTO runs",
    "DELETE FROM journal",
    "PRAGMA wal_checkpoint",
)
"""Where a server under load is hit. Segments and trims are frequent: the tail is short, and runs end all the time."""

TRIALS_PER_FILE = 20
ENV = {"STRANDLINE_LOCK_WAIT": "5", "STRANDLINE_SEGMENT_AGE": "0.2"}


class Trial:
    """The load on one server until it dies: long replies with readers, and a client that submits and stops."""

    def __init__(self, visitor: Visitor, name: str, chance: random.Random) -> None:
        self.said = Acknowledged()
        self.readings: dict[str, list[Reading]] = {}
        self.feeds: dict[str, list[Reading]] = {}
        self._visitor = visitor
        self._chance = chance
        self._tasks = [asyncio.create_task(self._listen(f"{name}-{number}")) for number in range(2)]
        self._tasks.append(asyncio.create_task(self._talk(f"{name}-busy")))

    @property
    def chats(self) -> list[str]:
        return list(self.readings)

    async def over(self) -> None:
        """After the kill: every connection has been cut or had ended."""
        await asyncio.gather(*self._tasks)
        for reading in (each for chat in self.chats for each in self.readings[chat] + self.feeds[chat]):
            await reading.end()

    def _ask(self, chat: str, text: str, id: str) -> Reading:
        reading = self._visitor.ask(chat, text, id)
        self.readings.setdefault(chat, []).append(reading)
        self.feeds.setdefault(chat, [])
        return reading

    async def _answered(self, reading: Reading, text: str, id: str) -> bool:
        """True once the server has acknowledged a message; False when it is gone."""
        await until(lambda: reading.status or reading.over, 20)
        if not reading.status:
            return False
        assert reading.status == 200, reading.body
        self.said.submits.append((reading.chat, id, text, reading.headers["strandline-run"]))
        return True

    async def _listen(self, chat: str) -> None:
        text = f"count to 100000 every {self._chance.choice([0, 1, 1, 5])} ms"
        reading = self._ask(chat, text, "u1")
        if await self._answered(reading, text, "u1"):
            self.feeds[chat].append(self._visitor.watch(chat))
            await asyncio.sleep(self._chance.uniform(0, 0.1))
            self.readings[chat].append(self._visitor.resume(chat))

    async def _talk(self, chat: str) -> None:
        for number in range(1, 1000):
            endless = self._chance.random() < 0.6
            text = "count to 100000 every 1 ms" if endless else "count to 5 every 1 ms"
            reading = self._ask(chat, text, f"u{number}")
            if not await self._answered(reading, text, f"u{number}"):
                return
            if number == 1:
                self.feeds[chat].append(self._visitor.watch(chat))
            if endless and self._chance.random() < 0.6:
                await asyncio.sleep(self._chance.uniform(0, 0.02))
                try:
                    answer = await self._visitor.post(f"/api/chat/{chat}/stop", {})
                except Exception:
                    return
                assert answer.status_code == 200
                self.said.stops.append((chat, answer.json()))
            elif not endless:
                await reading.end()


class Life:
    """One database file, through many deaths."""

    def __init__(self, server: MortalServer, visitor: Visitor, chance: random.Random, tally: Tally) -> None:
        self.server = server
        self._visitor = visitor
        self._chance = chance
        self._tally = tally
        self._witness = Witness(visitor, server.db, tally)
        self._kept: dict[str, list[tuple[int, bytes]]] = {}

    async def trial(self, name: str) -> None:
        chance, server = self._chance, self.server
        trial = Trial(self._visitor, name, chance)
        await asyncio.sleep(chance.uniform(0.05, 0.15))
        server.arm()
        await self._die(chance.uniform(0, 0.3) if server.aimed is None else 0.8)
        await trial.over()
        for _ in range(chance.choice([0, 0, 1, 3])):
            await self._die_while_recovering()
        server.env = {**server.env, "STRANDLINE_TAIL_LIMIT": chance.choice(["2000", "1048576"])}
        server.aim = self._next_aim()
        await asyncio.to_thread(server.start)
        for chat in trial.chats:
            log = await self._witness.confirm(chat, trial.readings[chat], trial.feeds[chat], trial.said)
            self._kept[chat] = log.lines
        again = await self._visitor.ask(trial.chats[0], "count to 3 every 0 ms", "again").end()
        assert again.text == numbers(3)
        self._kept[trial.chats[0]] = Log(server.db, trial.chats[0]).lines

    async def end(self) -> None:
        """What was there after each crash is there after all of them."""
        await asyncio.to_thread(self.server.kill)
        for chat, lines in self._kept.items():
            assert Log(self.server.db, chat).lines == lines, chat

    def _next_aim(self) -> Aim | None:
        """Half of the deaths are aimed."""
        chance = self._chance
        if chance.random() < 0.5:
            return None
        after = chance.choice([0.0, chance.uniform(0, 0.0003), chance.uniform(0, 0.003)])
        return Aim(chance.choice(STATEMENTS), chance.randint(1, 3), after, armed=False)

    async def _die_while_recovering(self) -> None:
        chance, server = self._chance, self.server
        server.aim = Aim("", chance.randint(1, 80), chance.choice([0.0, chance.uniform(0, 0.003)]))
        await asyncio.to_thread(server.start, wait=False)
        await self._die(0.5)

    async def _die(self, timeout: float) -> None:
        """By its own aim in this time, or by ours at the end of it."""
        aimed = self.server.aimed
        if await asyncio.to_thread(self.server.dies_within, timeout):
            assert aimed is not None
            self._tally.hit[aimed.sql or "start"] += 1
        else:
            await asyncio.to_thread(self.server.kill)


async def test_nothing_shown_or_promised_is_lost_however_often_the_server_is_killed(
    nursery: Nursery, tmp_path: Path, scale: Callable[[int, int], int], seed: int, say: Callable[[str], None]
) -> None:
    tally, kills, number = Tally(), 0, 0
    while kills < scale(16, 1000):
        folder = tmp_path / f"life-{number}"
        folder.mkdir()
        server = MortalServer(folder, nursery, env=ENV)
        try:
            async with Visitor(server) as visitor:
                life = Life(server, visitor, random.Random(seed + number), tally)
                for _ in range(TRIALS_PER_FILE):
                    try:
                        await life.trial(f"t{number}")
                    except BaseException as error:
                        error.add_note(
                            f"trial {number} of seed {seed}, in {folder}; the server said: {server.said()[-3000:]}"
                        )
                        raise
                    number += 1
                    if kills + server.kills >= scale(16, 1000):
                        break
                await life.end()
        finally:
            server.kill()
        kills += server.kills
    assert scale(1, 0) or set(tally.hit) == {*STATEMENTS, "start"}
    say(
        f"events lost over {kills} kill -9: 0 ({tally.frames} frames that had been shown, {tally.acknowledged} "
        f"acknowledgements and {tally.events} events in the file were compared; {tally.hit.total()} of the kills were "
        f"within a chosen statement: {dict(tally.hit)})"
    )
