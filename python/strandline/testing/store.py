"""A store that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from strandline.core.records import AnnotationRecord, DecisionRecord, MessageRecord, RunRecord, SessionRecord
from strandline.errors import StoreUnavailable
from strandline.stores.port import Batch, Outline, Store


class FailingStore:
    """A store around another one whose commits fail or hang on demand. ``committed`` holds the batches that passed."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.committed: list[Batch] = []
        self.attempts = 0
        self._error: BaseException | None = None
        self._gate = asyncio.Event()
        self._gate.set()
        self._reads_fail = False

    def fail(self, error: BaseException | None = None, *, reads: bool = False) -> None:
        """From now on commits (and with ``reads`` everything else) raise ``error``, by default StoreUnavailable."""
        self._error = error or StoreUnavailable("This store fails because the test says so.")
        self._reads_fail = reads
        self._gate.set()

    def hang(self) -> None:
        """From now on commits wait, until ``mend`` or ``fail``."""
        self._gate.clear()

    def mend(self) -> None:
        """Everything works again; commits that hang go on."""
        self._error, self._reads_fail = None, False
        self._gate.set()

    async def commit(self, batch: Batch) -> None:
        self.attempts += 1
        await self._gate.wait()
        if self._error is not None:
            raise self._error
        await self.inner.commit(batch)
        self.committed.append(batch)

    async def open(self) -> int:
        return await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def session(self, session_id: str) -> SessionRecord | None:
        self._check()
        return await self.inner.session(session_id)

    async def sessions(self, *which: Any, **named: Any) -> list[SessionRecord]:
        self._check()
        return await self.inner.sessions(*which, **named)

    async def pending(self, session_ids: Sequence[str]) -> dict[str, int]:
        self._check()
        return await self.inner.pending(session_ids)

    async def outline(self, session_id: str) -> Outline:
        self._check()
        return await self.inner.outline(session_id)

    async def messages(self, session_id: str, versions: Sequence[str]) -> list[MessageRecord]:
        self._check()
        return await self.inner.messages(session_id, versions)

    async def run(self, run_id: str) -> RunRecord | None:
        self._check()
        return await self.inner.run(run_id)

    async def unfinished(self) -> list[RunRecord]:
        return await self.inner.unfinished()

    async def annotations(self, *which: Any) -> list[AnnotationRecord]:
        self._check()
        return await self.inner.annotations(*which)

    async def due(self, before: int) -> list[DecisionRecord]:
        self._check()
        return await self.inner.due(before)

    async def events(
        self, session_id: str, first_seq: int, last_seq: int, run: str | None = None
    ) -> list[tuple[int, bytes]]:
        self._check()
        return await self.inner.events(session_id, first_seq, last_seq, run)

    async def expire(self, before: int) -> int:
        self._check()
        return await self.inner.expire(before)

    async def checkpoint(self, *, truncate: bool = False) -> bool:
        return await self.inner.checkpoint(truncate=truncate)

    def _check(self) -> None:
        if self._reads_fail and self._error is not None:
            raise self._error
