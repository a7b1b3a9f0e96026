"""How what a remote agent says gets into the log: the same checks as for an agent that is called here, but whole
requests at a time, and nothing in memory that the log does not know (PROTOCOL §18.4).

A server that has died in the middle of a run is followed by one that has only the log: all that decides what the next
request means is made anew from what the message says so far.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from strandline.agents.republishing import Republisher
from strandline.agents.steering import Steered
from strandline.core.chunks import ChunkInvalid, check
from strandline.core.events import Chunk
from strandline.core.message import FoldState
from strandline.core.records import RunRecord
from strandline.errors import ChunkRefused, Unprocessable
from strandline.runtime.ending import Ending
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import LiveRun, Note
from strandline.runtime.session import Sessions
from strandline.saying.composing import DELTAS, size_of, split
from strandline.saying.decision import Terms
from strandline.saying.republishing import Content
from strandline.settings import Settings

SAID = "strandline-text"
"""How the ids of text parts begin that are opened for ``{"text"}``: agents give their own parts other ids."""

_RENAMED = re.compile(r"(.+)-[0-9]+")


@dataclass(frozen=True, slots=True)
class Taking:
    """A request that takes what the agent was told: the oldest ``most`` notes, and no more than fit one answer."""

    most: int


@dataclass(frozen=True, slots=True)
class Anew:
    """A request to say something else: this, or with None what the message said before its run."""

    content: Content | None


Request = str | Sequence[Chunk] | Taking | Anew


class Relayed(Republisher, Steered):
    """The writing side of a run that one producer writes from elsewhere. ``taken``: its newest request's number."""

    def __init__(
        self, sessions: Sessions, settings: Settings, session: LiveSession, live: LiveRun, record: RunRecord
    ) -> None:
        super().__init__(sessions, settings, session, live, record, [])
        assert live.claimed is not None
        self.producer = live.claimed.producer
        self.taken = live.claimed.sent
        self._open = None  # the parts that are open are the agent's to close
        self._renamed = _renamed(self._fold)

    async def take(self, sequence: int, said: Request) -> None:
        """Add one request. In one step, so that it is in one commit with its number; that of ``Anew`` is waited for.
        Raises ChunkRefused, and then a part of it may have been added; RunOver once the run has ended."""
        if isinstance(said, Anew):
            await self._say_anew(said.content, sequence)
            self.taken = sequence
            return
        if isinstance(said, Taking):
            self._hear(said.most)
        elif isinstance(said, str):
            self._say(said)
        else:
            for chunk in said:
                self._add(chunk)
        self.taken = self._live.pending.sent = sequence
        self._sessions.journal.mark(self._session)

    def returned(
        self, asked: Mapping[str, Terms], finish_reason: str | None, usage: Mapping[str, Any] | None
    ) -> Ending:
        """The agent has returned. ``asked``: the calls, by id, that it leaves to be decided. Raises Unprocessable for a
        call that the reply does not have."""
        for call in asked:
            if self._fold.tool(call) is None:
                raise Unprocessable(f"The reply has no tool call {call!r:.60}.", code="invalid-request")
        self._asked = dict(asked)
        return self._returned(finish_reason or self._finish_reason, usage)

    def _add(self, chunk: Chunk) -> None:
        try:
            check(chunk)
        except ChunkInvalid as exc:
            raise ChunkRefused(str(exc)) from exc
        kind = chunk["type"]
        if kind in ("error", "abort"):
            raise ChunkRefused(f"A remote agent does not send {kind!r}: the end of a run is a request of its own.")
        if kind != "message-metadata" and not chunk.get("transient"):
            self._close_said()
        name = DELTAS.get(kind)
        if name is None:
            size = len(orjson.dumps(chunk))
            self._check_size(kind, size)
            self._append(kind, chunk, size)
            return
        for piece in split(chunk[name], self._settings.delta_limit):
            self._append(kind, {**chunk, name: piece}, size_of(piece))

    def _hear(self, most: int) -> None:
        size = 0
        notes: list[Note] = []
        for note in self._untaken()[:most]:
            size += len(orjson.dumps((note.parts, note.metadata)))
            if notes and size > self._settings.chunk_limit:
                break
            notes.append(note)
        if notes:
            self._close_said()
        self._take(notes)

    def _say(self, text: str) -> None:
        if not text:
            return
        part = self._said()
        if part is None:
            if not self._fold.step_open:
                self._put({"type": "start-step"})
            part = self._mint(SAID)
            self._put({"type": "text-start", "id": part})
        for piece in split(text, self._settings.delta_limit):
            self._put({"type": "text-delta", "id": part, "delta": piece}, size_of(piece))

    def _said(self) -> str | None:
        """The open part of ``{"text"}`` requests."""
        return next((part for part in self._fold.open_text if part.startswith(f"{SAID}-")), None)

    def _close_said(self) -> None:
        part = self._said()
        if part is not None:
            self._put({"type": "text-end", "id": part})


def _renamed(fold: FoldState) -> dict[tuple[str, str], str]:
    """Which open parts have another id than their agent knows: those whose id was taken, and got a number (``Writer``).
    An agent that has given such an id itself is understood as well, for its own id comes first."""
    found: dict[tuple[str, str], str] = {}
    for family, parts in (("text", fold.open_text), ("reasoning", fold.open_reasoning)):
        for part in parts:
            named = _RENAMED.fullmatch(part)
            if named is not None and named[1] in fold.used_ids() and named[1] not in parts:
                found[(family, named[1])] = part
    return found


def shown(fold: FoldState) -> dict[str, Any]:
    """What a message says, as a UIMessage."""
    message: dict[str, Any] = {"id": fold.message_id, "role": "assistant", "parts": fold.parts()}
    return message if fold.metadata is None else {**message, "metadata": fold.metadata}
