"""What a remote run has said and the server has not confirmed yet: gathered for a moment, sent in order, one request at
a time, each until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from strandline.core.coalesce import Coalescer
from strandline.remote.asking import Refused, Server, Unreachable

GATHER = 0.04
"""Seconds for which deltas are gathered before they are sent."""
_LIMIT = 262_144
_PER_REQUEST = 1000
_JOINED = 65_536


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
        self._closing = False
        self._said = False
        self.over = False
        self.why: object = None
        self.ended = asyncio.Event()
        """Set with ``over``."""

    def add(self, chunk: Mapping[str, Any], size: int) -> None:
        """Take a chunk."""
        self._unsent.add(chunk, size, _JOINED)
        self._said = True
        self._something.set()

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
            if not self._closing:
                await asyncio.sleep(GATHER)
            self._something.clear()
            chunks = self._unsent.take()
            for start in range(0, len(chunks), _PER_REQUEST):
                self._sequence += 1
                await self._ask("append", {"sequence": self._sequence, "chunks": chunks[start : start + _PER_REQUEST]})
                if self.over:
                    return
            self._emptied.set()
            if self._closing and not self._unsent:
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

    async def _ask(self, question: str, body: Mapping[str, Any]) -> None:
        try:
            answer = await self._server.ask(f"runs/{self._run}/{question}", {"producer": self._producer, **body})
        except (Refused, Unreachable) as exc:
            self.stop(exc)
        else:
            if answer["state"] == "over":
                self.stop(answer)
