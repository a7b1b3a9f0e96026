"""Run ids that clients mint (AG-UI) are unique in the store, whatever two requests do at the same moment.

One process owns a store, so a claim in memory closes the gap between looking an id up and committing its run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from strandline.errors import Conflict
from strandline.stores.port import Store

_T = TypeVar("_T")


class RunIds:
    """The ids that are being used for the first time just now."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[str, int]] = {}

    async def using(
        self, store: Store, session_id: str, run_id: str, work: Callable[[], Coroutine[Any, Any, _T]]
    ) -> _T:
        """Do ``work``, which may start run ``run_id`` in this session; raise Conflict if another session has it.

        Goes on to its end even if the caller is cancelled: until then the id is claimed.
        """
        return await asyncio.shield(asyncio.ensure_future(self._using(store, session_id, run_id, work)))

    async def _using(
        self, store: Store, session_id: str, run_id: str, work: Callable[[], Coroutine[Any, Any, _T]]
    ) -> _T:
        holder, count = self._claims.get(run_id, (session_id, 0))
        if holder != session_id:
            raise _taken(run_id)
        self._claims[run_id] = (session_id, count + 1)
        try:
            known = await store.run(run_id)
            if known is not None and known.session != session_id:
                raise _taken(run_id)
            return await work()
        finally:
            _, count = self._claims.pop(run_id)
            if count > 1:
                self._claims[run_id] = (session_id, count - 1)


def _taken(run_id: str) -> Conflict:
    return Conflict(f"The run id {run_id!r} is taken. A new run needs a new id.", code="run-exists")
