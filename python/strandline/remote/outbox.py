"""What a remote run has said and the server has not confirmed yet: gathered for a moment, sent in order, one request at
a time, each until it is answered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from strandline.core.coalesce import Coalescer
from strandline.remote.asking import Refused, Server, Unreachable

GATHER = 0.04
"""Seconds for which deltas are gathered before they are sent."""
_LIMIT = 262_144
_PER_REQUEST = 1000
_JOINED = 65_536
_HARMLESS = frozenset({"unknown-agent", "prompt-too-long", "invalid-request", "invalid-id", "body-too-large"})
"""Why nothing is spawned: the request has not been counted, and the run goes on."""


class Outbox:
    """The requests of one claimed run. ``over``: nothing is taken any more, ``why`` says why."""

    def __init__(self, server: Server, claimed: Mapping[str, Any]) -> None:
        self._server = server
        self._run: str = claimed["run"]
        self._producer: int = claimed["producer"]
        self._sequence: int = claimed["sequence"]
        self._lease: float = claimed["lease"]
        self._unsent = Coalescer()
        self._something = asyncio.Event()
        self._emptied = asyncio.Event()
        self._questions: deque[tuple[str, Mapping[str, Any], asyncio.Future[Any]]] = deque()
        self._listening: list[asyncio.Future[None]] = []
        self._closing = False
        self._said = False
        self.notes = claimed["notes"] > 0
        """Whether there may be something that the agent was told and has not taken."""
        self.over = False
        self.why: object = None
        self.ended = asyncio.Event()
        """Set with ``over``."""

    def add(self, chunk: Mapping[str, Any], size: int) -> None:
        """Take a chunk."""
        self._unsent.add(chunk, size, _JOINED)
        self._said = True
        self._something.set()

    def ask(self, question: str, body: Mapping[str, Any]) -> asyncio.Future[Any]:
        """A numbered request of its own, after everything that was said before: the answer to it, or None when the run
        is over. It raises Refused where the server cannot make sense of it, which harms nothing else."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.over:
            answer.set_result(None)
        else:
            self._questions.append((question, body, answer))
            self._something.set()
        return answer

    def noted(self) -> None:
        """The agent was told something."""
        self.notes = True
        self._wake()

    async def told(self) -> None:
        """Wait until the agent is told something, or the run is over."""
        if not self.over and not self.notes:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._listening.append(waiter)
            await waiter

    async def room(self) -> None:
        """Wait while too much is on its way; otherwise let others have a turn."""
        await asyncio.sleep(0)
        while self._unsent.size >= _LIMIT and not self.over:
            self._emptied.clear()
            await self._emptied.wait()

    async def send(self) -> None:
        """Send what comes, until ``finish``, or until the run is over."""
        while not self.over:
            await self._something.wait()
            if not self._closing and not self._questions:
                await asyncio.sleep(GATHER)
            self._something.clear()
            questions, self._questions = self._questions, deque()
            chunks = self._unsent.take()
            for start in range(0, len(chunks), _PER_REQUEST):
                self._sequence += 1
                await self._ask("append", {"sequence": self._sequence, "chunks": chunks[start : start + _PER_REQUEST]})
            self._emptied.set()
            for question, body, future in questions:
                answer = await self._ask(question, {"sequence": self._sequence + 1, **body})
                if not isinstance(answer, Refused):
                    self._sequence += 1
                if future.done():
                    continue
                if isinstance(answer, Refused):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
            if self._closing and not self._unsent and not self._questions:
                return

    async def beat(self) -> None:
        """Say every now and then that the worker lives, until cancelled or over."""
        while not self.over:
            await asyncio.sleep(self._lease / 3)
            said, self._said = self._said, False
            await self._ask("heartbeat", {"status": "streaming" if said else "thinking"})

    def finish(self) -> None:
        """Nothing more comes: ``send`` returns when all is sent."""
        self._closing = True
        self._something.set()

    async def end(self, how: Mapping[str, Any]) -> None:
        """Say how the run ends, once all is sent."""
        await self._ask("end", {"sequence": self._sequence, **how})

    def stop(self, why: object) -> None:
        """The run is over."""
        if not self.over:
            self.over, self.why = True, why
            self._unsent.take()
            self.ended.set()
            self._emptied.set()
            self._something.set()
            self._wake()
            while self._questions:
                future = self._questions.popleft()[2]
                if not future.done():
                    future.set_result(None)

    def _wake(self) -> None:
        listening, self._listening = self._listening, []
        for waiter in listening:
            if not waiter.done():
                waiter.set_result(None)

    async def _ask(self, question: str, body: Mapping[str, Any]) -> Mapping[str, Any] | Refused | None:
        if self.over:
            return None
        try:
            answer = await self._server.ask(f"runs/{self._run}/{question}", {"producer": self._producer, **body})
        except (Refused, Unreachable) as exc:
            if isinstance(exc, Refused) and question == "spawn" and exc.code in _HARMLESS:
                return exc
            self.stop(exc)
            return None
        if answer["state"] == "over":
            self.stop(answer)
            return None
        if answer["notes"]:
            self.noted()
        return answer
