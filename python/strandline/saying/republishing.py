"""A message that its agent says anew: what it says from then on, as the chunks that say it.

Those chunks are one step to everybody who reads. How they get into the log is for ``_say_anew`` to do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from strandline.core.chunks import STEERING, ChunkInvalid, check, complaint
from strandline.core.events import Chunk
from strandline.core.message import FoldError, FoldState
from strandline.core.parts import notes_in
from strandline.core.unfold import unfold_message
from strandline.errors import ChunkRefused
from strandline.saying.composing import DELTAS, Composing, split

MOST_PARTS = 1000
"""Parts of one replacement, where it comes over the agent wire."""

Content = str | list[Any]
"""A text, or the parts of a UIMessage: a copy that nobody else changes."""


class Republishing(Composing):
    """A message that can be taken back as a whole, while it is being written."""

    @abstractmethod
    async def _say_anew(self, content: Content | None) -> None:
        """Let the message say ``content``, or with None what it said before this run; and in front of that, or after
        that, what its agent was told and has taken. One decision, after everything that was added before it."""

    async def restart(self) -> None:
        """Throw away what this run has said so far, by a logged event, and begin again (R15). What it was told and has
        taken stays, and comes first. Open AI SDK streams cannot show this; they end with ``resync`` and load the
        message anew."""
        await self._say_anew(None)

    async def replace(self, content: str | Iterable[Mapping[str, Any]]) -> None:
        """Let the message say this instead: a text, or the parts of a UIMessage. In one step: nobody sees neither, or
        both. What is added afterwards follows it; the message's metadata stays, and what its agent was told and has
        taken comes before it, unless it is among the parts."""
        await self._say_anew(content if isinstance(content, str) else _copied(content))

    def _anew(self, first: Sequence[Chunk], rest: Sequence[Chunk]) -> tuple[tuple[Chunk, ...], FoldState]:
        """``first``, then what the agent has taken of what it was told, then ``rest``: the chunks, and what the message
        says after them."""
        named = {chunk["id"] for chunk in (*first, *rest) if chunk["type"] == STEERING}
        notes = (note for note in notes_in(self._fold.entries) if note["id"] not in named)
        chunks, fold = (*first, *notes, *rest), FoldState(self._fold.message_id)
        for chunk in chunks:
            fold.push(chunk)
        return chunks, fold

    def _turn_to(self, fold: FoldState) -> None:
        """The message says this from now on."""
        self._fold = fold
        self._asked.clear()
        self._renamed.clear()
        self._open = self._finish_reason = None
        self._tools_answered = self._own_steps = False

    def _chunks_of(self, content: Content) -> list[Chunk]:
        """The chunks that say it after a ``start``, checked like any others. Raises ChunkRefused."""
        said: list[Chunk] = []
        if self._fold.metadata is not None:
            said.append({"type": "message-metadata", "messageMetadata": self._fold.metadata})
        if isinstance(content, str):
            part = self._mint("t")
            text = [{"type": "text-start", "id": part}, {"type": "text-delta", "id": part, "delta": content}]
            said += [{"type": "start-step"}, *text, {"type": "text-end", "id": part}] if content else []
        else:
            said += _unfolded(content)
        found: list[Chunk] = []
        fold = FoldState()
        for chunk in said:
            try:
                check(chunk)
                found += self._bounded(chunk)
                fold.push(chunk)
            except (ChunkInvalid, FoldError) as exc:
                raise ChunkRefused(str(exc)) from exc
        if not isinstance(content, str) and len(fold.entries) != len(content):
            raise ChunkRefused("One of the parts is of a type that the AI SDK does not know.")
        return found

    def _bounded(self, chunk: Chunk) -> list[Chunk]:
        size = len(orjson.dumps(chunk))
        self._spend(size)
        name = DELTAS.get(chunk["type"])
        if name is None:
            self._check_size(chunk["type"], size)
            return [chunk]
        return [{**chunk, name: piece} for piece in split(chunk[name], self._delta_limit)]


def _copied(content: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The agent may go on using its objects, and what was logged must stay as it was."""
    try:
        copied: list[Any] = orjson.loads(orjson.dumps(list(content)))
    except TypeError as exc:
        raise ChunkRefused(f"The parts are not JSON: {exc}") from exc
    return copied


def _unfolded(parts: list[Any]) -> list[Chunk]:
    """The chunks that say these parts. Texts are complete."""
    done = [
        {**part, "state": "done"} if isinstance(part, dict) and part.get("type") in ("text", "reasoning") else part
        for part in parts
    ]
    try:
        for part in done:
            if (wrong := complaint(part)) is not None:
                raise ChunkRefused(f"One of the parts{wrong}.")
            if part["type"] in ("text", "reasoning") and not isinstance(part["text"], str):
                raise TypeError("text")
        return [*unfold_message("", done)[1:]]
    except (AttributeError, KeyError, TypeError) as exc:
        raise ChunkRefused(f"The parts are not those of a UIMessage: {exc!r:.200}") from exc
