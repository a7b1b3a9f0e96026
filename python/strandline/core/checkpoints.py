"""Which checkpoints of a run count, from its events (PROTOCOL §17.4). Pure."""

from __future__ import annotations

from strandline.core.events import Checkpointed, Event, MessageReset, RunRecovered


class Checkpoints:
    """What a run has passed. ``names`` in order, each once; ``seq`` is the number of the newest ``Checkpointed`` event,
    named or not: what the run had said up to there is settled.

    A reset of the message forgets them, for what they settled is gone. The one exception is the reset that takes a run
    back to its newest checkpoint: it comes right after ``RunRecovered``.
    """

    __slots__ = ("_recovered_at", "names", "seq")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seq: int | None = None
        self._recovered_at = 0

    def take(self, seq: int, event: Event) -> None:
        """The next event of the run; those that only append may be left out."""
        if isinstance(event, Checkpointed):
            self.seq = seq
            if event.name is not None and event.name not in self.names:
                self.names.append(event.name)
        elif isinstance(event, RunRecovered):
            self._recovered_at = seq
        elif isinstance(event, MessageReset) and self._recovered_at != seq - 1:
            self.names = []
            self.seq = None
