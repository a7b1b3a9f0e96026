"""What the store refuses though it is there: a row that contradicts another one, or whatever a defect has made of it.

A batch holds what many sessions have. One that was refused is written again in ever smaller parts, until what is
refused stands alone in a transaction of its own. Everybody else's events are committed as they would have been, once
and in order. From then on the session that was refused is kept apart, so that it costs others nothing, until a commit
of it is taken or it has had nothing to write for a while.
"""

from __future__ import annotations

from collections.abc import Sequence

from strandline.errors import NotStored
from strandline.runtime.live import LiveSession
from strandline.runtime.segments import Plan
from strandline.runtime.work import Work, refuse

_AGAIN = 10.0
"""Seconds after which it is tried again to end runs whose ends were refused. Whatever else is to be stored in their
session tries it at once."""

Part = tuple[Sequence[Work], Plan]


def smaller(works: Sequence[Work], plan: Plan) -> list[Part]:
    """The parts of a batch that was refused, in the order in which they have to be written; none if it has none. In
    halves: one session among a thousand is found in twenty commits, and the others do not wait for a thousand."""
    if works and not plan.empty:
        # Segments hold what was said before this batch; what its work erases, it erases from them as well.
        return [((), plan), (works, Plan())]
    if not works:
        return [((), part) for part in plan.parts()] if plan.trim is not None else []
    middle = len(works) // 2
    return [(works[:middle], plan), (works[middle:], plan)] if middle else []


def renumber(works: Sequence[Work], number: int) -> tuple[int, int]:
    """Have the work committed under another number, which segments and trimming go by; return its chunks and bytes."""
    size = 0
    for work in works:
        for entry in work.entries:
            entry.batch = number
            size += len(entry.blob)
    return sum(work.chunks for work in works), size


class Suspects:
    """The ``sessions`` whose last commit was refused, and the time (monotonic) of that."""

    def __init__(self) -> None:
        self.sessions: dict[LiveSession, float] = {}

    def add(self, session: LiveSession, now: float) -> bool:
        """Keep a session apart; True if it was, which is to say that nothing of it was taken in between."""
        again = session in self.sessions
        self.sessions[session] = now
        return again

    def clear(self) -> None:
        """Everything has failed: nobody is to blame any more."""
        self.sessions.clear()

    def taken(self, session: LiveSession) -> None:
        """A commit of this session has succeeded: its readers may come back."""
        if self.sessions.pop(session, None) is not None and session.feed.failure is not None:
            session.feed.fail(None)

    def due(self, now: float) -> list[LiveSession]:
        """Those whose ends should be tried again. Who has had nothing to write for so long is forgotten."""
        late = [session for session, since in self.sessions.items() if now - since >= _AGAIN]
        for session in late:
            if session.commands:
                self.sessions[session] = now
            else:
                del self.sessions[session]
        return [session for session in late if session.commands]


def drop(session: LiveSession, works: Sequence[Work], *, again: bool) -> None:
    """Tell everybody who waits for work of this session that it was refused; ``again``: and who waits for anything else
    in it."""
    commands = [work.command for work in works if work.command is not None]
    for work in works:
        if work.decided is not None:
            work.decided.dropped()
    if again:
        commands += session.commands
        session.commands.clear()
    for command in commands:
        refuse(command, NotStored("The store refuses what was to be written; nothing of it was stored. Try again."))
