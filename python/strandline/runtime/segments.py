"""When events leave the journal for good: log segments and the trimming of the journal (DESIGN §6).

A segment is written when a run has ended, when the session's part of the tail has reached its bound, or when its
oldest event is old. A few sessions per commit, never a burst.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from strandline.core.records import SessionRecord
from strandline.runtime.feed import Row
from strandline.runtime.live import LiveSession
from strandline.settings import Settings
from strandline.stores.port import Segment

_PER_COMMIT = 8


@dataclass(slots=True)
class Plan:
    """What one batch writes of segments. ``upto`` is the last event of each session that is in one afterwards."""

    segments: tuple[Segment, ...] = ()
    trim: int | None = None
    upto: dict[LiveSession, int] = field(default_factory=dict)
    more: bool = False

    @property
    def empty(self) -> bool:
        """True when there is nothing to write."""
        return not self.upto and self.trim is None

    def parts(self) -> list[Plan]:
        """Each session by itself; the journal is trimmed another time."""
        return [
            Plan(tuple(segment for segment in self.segments if segment.session == session.id), None, {session: upto})
            for session, upto in self.upto.items()
        ]

    @property
    def sessions(self) -> list[SessionRecord]:
        return [session.state.row for session in self.upto]


class Segments:
    """Which sessions hold events that are in no segment yet, and which of them are due."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[LiveSession, None] = {}
        self._due: dict[LiveSession, None] = {}
        self._to_trim: int | None = None

    def due(self) -> bool:
        """True when a segment should be written, or the journal trimmed."""
        return bool(self._due) or self._to_trim is not None

    def settle(self, upto: int) -> None:
        """What the batches up to this number have committed is to leave the journal now."""
        self._due.update(self._open)
        self._to_trim = upto if self._to_trim is None else max(upto, self._to_trim)

    @property
    def settled(self) -> bool:
        """True when that has happened."""
        return self._to_trim is None

    def flush_all(self) -> None:
        """Everything is due: the process is about to end."""
        self._due.update(self._open)

    def age(self, now: float) -> None:
        """Make those sessions due whose oldest event is too old. The oldest is always first."""
        for session in self._open:
            if session.oldest_at is None or now - session.oldest_at < self._settings.segment_age:
                return
            self._due[session] = None

    def appended(self, session: LiveSession, now: float, *, ended: bool) -> None:
        """Events of ``session`` were published."""
        if session not in self._open:
            session.oldest_at = now
            self._open[session] = None
        if ended or session.feed.size >= self._settings.tail_limit:
            self._due[session] = None

    def plan(self, number: int) -> Plan:
        """Segments for batch ``number``, of what was published before it."""
        if not self.due():
            return Plan()
        chosen = list(islice(self._due, _PER_COMMIT))
        plan = Plan(more=len(chosen) < len(self._due))
        segments: list[Segment] = []
        for session in chosen:
            rows = session.unsegmented()
            segments.extend(_segments(session.id, rows))
            plan.upto[session] = rows[-1][0]
        plan.segments = tuple(segments)
        rest = [session.oldest_batch() for session in self._open if session not in plan.upto]
        plan.trim = min([number, *rest]) - 1
        return plan

    def forget(self, session: LiveSession) -> None:
        """The session was deleted: its events need no place any more."""
        self._open.pop(session, None)
        self._due.pop(session, None)

    def refused(self, plan: Plan, now: float) -> None:
        """The store takes nothing of this plan: its sessions are set aside, as if their events were new. They stay in
        memory and in the journal meanwhile."""
        self._to_trim = None
        for session in plan.upto:
            session.oldest_at = now
            del self._open[session]
            self._open[session] = None
            self._due.pop(session, None)

    def written(self, plan: Plan, now: float) -> None:
        """The batch with this plan was committed, and published."""
        if plan.trim is not None and self._to_trim is not None and plan.trim >= self._to_trim:
            self._to_trim = None
        for session, upto in plan.upto.items():
            if session.feed.deleted:
                continue
            session.segmented = upto
            del self._open[session]
            del self._due[session]
            session.feed.evict(upto, self._settings.tail_limit // 2)
            if session.feed.last_seq > upto:
                self.appended(session, now, ended=not session.live)


def _segments(session_id: str, rows: list[Row]) -> list[Segment]:
    by_run: dict[str | None, list[Row]] = {}
    for row in rows:
        by_run.setdefault(row[1], []).append(row)
    return [
        Segment(session_id, run, max(at for *_, at in group), tuple((seq, blob) for seq, _, blob, *_ in group))
        for run, group in by_run.items()
    ]
