"""How a remote agent takes back what it has said: by a numbered request of its own (PROTOCOL §18.12)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from strandline.core.unfold import revive
from strandline.errors import ChunkRefused
from strandline.remote.outbox import Outbox
from strandline.saying.republishing import MOST_PARTS, Content, Republishing

LONGEST = 4_000_000
"""Bytes of JSON: a replacement is one request, and a server takes 4 MiB at a time unless it was told otherwise."""


class Republisher(Republishing):
    """The message of one run, said anew. What it says then is known when the server has answered."""

    _outbox: Outbox

    async def _say_anew(self, content: Content | None) -> None:
        rest = [] if content is None else self._chunks_of(content)
        if content is not None and len(orjson.dumps(content)) > LONGEST:
            raise ChunkRefused(f"A replacement is at most {LONGEST} bytes: begin with less, and add the rest to it.")
        if isinstance(content, list) and len(content) > MOST_PARTS:
            raise ChunkRefused(f"A replacement has at most {MOST_PARTS} parts: begin with these, and add the rest.")

        def ask() -> asyncio.Future[Mapping[str, Any] | None]:
            fold = self._anew([], rest)[1]

            def said(answer: asyncio.Future[Mapping[str, Any] | None]) -> None:
                if answer.cancelled() or (told := answer.result()) is None:
                    return
                if content is None:
                    partial = told["partial"] or {"parts": ()}
                    self._turn_to(revive(self._fold.message_id or "", partial["parts"], partial.get("metadata")))
                else:
                    self._turn_to(fold)

            kind = "text" if isinstance(content, str) else "parts"
            question, body = ("restart", {}) if content is None else ("replace", {kind: content})
            asked = self._outbox.ask(question, body)
            asked.add_done_callback(said)
            return asked

        await self._alone(ask)
