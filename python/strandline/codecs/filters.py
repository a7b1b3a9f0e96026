"""What a reader of the session feed wants to be told of an event (PROTOCOL §8.9, §8.10): chunks for its major version
of ``ai``, with or without reasoning, with or without the content of messages.

A filter sees one event and no state, so that readers with the same filter share their frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strandline.codecs.gating import RESYNC, Resync, gate
from strandline.core.coalesce import PROGRESS
from strandline.core.events import (
    Annotated,
    Appended,
    DecisionMade,
    DecisionRequested,
    Erased,
    Event,
    MessageCreated,
    MessageDeleted,
    MessageReplaced,
    MessageReset,
    RunEnded,
    RunQueued,
    RunRecovered,
    RunStarted,
    Steered,
    run_of,
)
from strandline.core.plain import shown, to_plain

Objects = Iterable[Mapping[str, Any]]

_OF_PROGRESS = (
    RunQueued,
    RunStarted,
    Appended,
    MessageReset,
    RunRecovered,
    RunEnded,
    MessageReplaced,
    MessageDeleted,
    Erased,
)
"""What a reader of progress alone is told of."""

_UNGATED = 7
"""The major version that the log is written in: it needs no gate."""


@dataclass(frozen=True, slots=True)
class Filter:
    """``major``: 5, 6 or 7. ``reasoning``: False without ``reasoning-*`` chunks and parts. ``content``: False without
    the content of messages. ``progress``: True for runs and their progress alone. ``annotations``: True with each of
    them, not only their summaries. ``runs``: only events of these; None: of all, and of the session."""

    major: int = _UNGATED
    reasoning: bool = True
    content: bool = True
    progress: bool = False
    annotations: bool = False
    runs: frozenset[str] | None = None

    @property
    def key(self) -> str:
        """The name of the frames that readers with this filter share; which runs they follow does not matter."""
        if not self.content:
            return "native-state"
        if self.progress:
            return "native-progress"
        more = ("" if self.reasoning else "-plain") + ("-annotations" if self.annotations else "")
        return f"native{self.major}{more}"

    @property
    def changes_nothing(self) -> bool:
        """True when an event that is for this reader reaches it as it is."""
        everything = self.reasoning and self.content and not self.progress
        return self.major == _UNGATED and everything and not self.annotations

    def wants(self, event: Event) -> bool:
        """Whether events of this run, or of the session, are for this reader at all."""
        return self.runs is None or run_of(event) in self.runs

    def plain(self, event: Event) -> dict[str, Any] | None:
        """The JSON object of an event without ``seq``, or None when nothing of it is left. An event that this major
        version cannot be told becomes a ``resync``."""
        if self.progress and not isinstance(event, _OF_PROGRESS):
            return None
        match event:
            case Appended():
                chunks = self.chunks(event.chunks) if self.content else []
                if isinstance(chunks, Resync):
                    return {"type": "resync", "at": event.at, "run": event.run}
                return {**shown(event), "chunks": chunks} if chunks else None
            case MessageCreated() | MessageReplaced() | Steered():
                plain = shown(event)
                if not self.content:
                    del plain["parts"]
                elif self.progress or not self.reasoning:
                    plain["parts"] = self.parts(event.parts)
                return plain
            case DecisionMade():
                # Not gated: what they change is a message that has ended, and messages are shown as they are stored.
                return {**shown(event), "chunks": event.chunks if self.content else ()}
            case DecisionRequested():
                plain = shown(event)
                if not self.content:
                    plain.pop("input", None)
                return plain
            case Annotated() if self.annotations and self.content:
                return to_plain(event)
            case _:
                return shown(event)

    def chunks(self, chunks: Objects) -> Sequence[Mapping[str, Any]] | Resync:
        """What is left of a list of chunks; RESYNC when this major version cannot be told one of them."""
        left = []
        for chunk in chunks:
            if not self.reasoning and _is_reasoning(chunk):
                continue
            if self.progress and chunk["type"] not in (PROGRESS, "start"):
                if chunk["type"] == "reset-step":
                    return RESYNC  # which of the progress it takes away only the rest would say
                continue
            gated = gate(chunk, self.major)
            if gated is RESYNC:
                return gated
            if gated is not None:
                left.append(gated)
        return left

    def parts(self, parts: Objects) -> list[Mapping[str, Any]]:
        """What is left of the parts of a message."""
        if self.progress:
            return [part for part in parts if part["type"] == PROGRESS]
        return [part for part in parts if self.reasoning or not _is_reasoning(part)]


def _is_reasoning(item: Mapping[str, Any]) -> bool:
    kind: str = item["type"]
    return kind == "reasoning" or kind.startswith("reasoning-")
