"""Who the writer tells what has become of a commit. The runner is the one; ``journal.py`` knows only this."""

from __future__ import annotations

from typing import Protocol

from strandline.core.session import Change
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import LiveRun


class Listener(Protocol):
    """Who is told, in the same step, that a commit was published or has finally failed."""

    def published(self, session: LiveSession, change: Change) -> None:
        """Runs of ``change`` have started or ended, or decisions were made."""

    def deleted(self, session: LiveSession) -> None:
        """The session is gone."""

    def gave_up(self) -> None:
        """Commits fail and were given up: every active run has to end as lost once the store is back."""

    def recovered(self) -> None:
        """Commits succeed again."""

    def refused(self, session: LiveSession, *, again: bool) -> None:
        """The store takes what others have, but not what this session had (a defect), and that was dropped: its runs
        have to end. ``again``: it has not taken their ends either, if that is what it was."""

    def unwritable(self, session: LiveSession, live: LiveRun) -> None:
        """What ``live`` had pending cannot be written down (a defect) and was dropped: the run has to end."""
