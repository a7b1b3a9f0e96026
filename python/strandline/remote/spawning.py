"""Agents that a remote agent starts beside itself (PROTOCOL §18.13)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strandline.core.chunks import complaint
from strandline.errors import RunOver, TooMany
from strandline.remote.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Spawned:
    """A run that was spawned: its id, that of the message which it writes, and its agent's name."""

    id: str
    message_id: str
    agent: str


class Spawner:
    """The run of an agent that may start others."""

    _spawned: list[Spawned]
    _outbox: Outbox

    @property
    def spawned(self) -> list[Spawned]:
        """What this run has started beside itself, by whichever worker: the newest 50 of before, and what came since,
        oldest first."""
        return list(self._spawned)

    async def spawn(
        self, agent: str, *, prompt: str | Iterable[Mapping[str, Any]] | None = None, **body: Any
    ) -> Spawned:
        """Start one of the application's agents beside this one, with a message of its own. It is given ``prompt``: a
        text, a list of messages, or None for what this run was asked; and ``body`` as ``run.body``.

        When this run ends other than by returning, what it has spawned is stopped. Raises TooMany where too much goes
        on already, Refused (``unknown-agent``, ``prompt-too-long``), and TypeError for what is not JSON."""
        given: dict[str, Any] = {"agent": agent, "body": body}
        if prompt is not None:
            given["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        wrong = complaint(given)
        if wrong is not None:
            raise TypeError(f"what is given to {agent}{wrong}")
        answer = await asyncio.shield(self._outbox.ask("spawn", given))
        if answer is None:
            raise RunOver("The run has ended.")
        if answer["spawned"] is None:
            raise TooMany("Too many agents are at work in this session, or too deep.", code="too-many-spawned")
        begun = spawned(answer["spawned"])
        self._spawned.append(begun)
        return begun


def spawned(plain: Mapping[str, Any]) -> Spawned:
    """A spawned run as the server tells it."""
    return Spawned(plain["run"], plain["messageId"], plain["agent"])
