"""What stored messages say, for a decision that depends on it: read before its turn, and only good until then.

A decision is taken in one step and cannot read. It raises ``NeedContents`` for what it does not have, and is asked
again with it; what has been read is of no use any more once the structure of the session has changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from strandline.core.message import FoldState
from strandline.core.session import SessionState
from strandline.core.unfold import revive
from strandline.runtime.live import LiveSession
from strandline.stores.port import Store


class NeedContents(Exception):
    """A decision has to know what these message versions say."""

    def __init__(self, versions: Iterable[str]) -> None:
        self.versions = list(versions)
        super().__init__(self.versions)


class Contents:
    """What has been read for one request."""

    def __init__(self) -> None:
        self._read: dict[str, FoldState] = {}
        self._stamp = -1

    async def fetch(self, session: LiveSession, store: Store, need: NeedContents) -> None:
        """Read what a decision has asked for."""
        stamp = session.state.record.last_seq
        if stamp != self._stamp:
            self._read.clear()
        found = {message.version: message for message in await store.messages(session.id, need.versions)}
        for version in need.versions:
            message = found.get(version)
            parts, metadata = (message.parts or (), message.metadata) if message is not None else ((), None)
            self._read[version] = revive(session.state.messages[version].message_id, parts, metadata)
        self._stamp = stamp

    def folds(self, state: SessionState, versions: Iterable[str]) -> dict[str, FoldState]:
        """The states of these messages, for the caller to change. Raises NeedContents."""
        wanted = list(dict.fromkeys(versions))
        if wanted and (self._stamp != state.record.last_seq or any(each not in self._read for each in wanted)):
            raise NeedContents(wanted)
        return {version: self._read[version].fork() for version in wanted}
