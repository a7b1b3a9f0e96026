"""``ui_stream``: whatever already speaks the AI SDK's UI message stream, as chunks to yield.

Takes chunk dicts, chunk objects (pydantic models and dataclasses, as pydantic-ai and the ``ai`` package make them) and
SSE text or bytes, from an async or plain iterator. SSE may be cut anywhere.
"""

from __future__ import annotations

import dataclasses
from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any

import orjson

from strandline.agents.writing import aclose
from strandline.core.chunks import DATA_PREFIX
from strandline.errors import ChunkRefused


async def ui_stream(source: AsyncIterable[Any] | Iterable[Any]) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield the chunks of ``source``. Raises ChunkRefused for an item that is neither chunk nor SSE."""
    lines = _Lines()
    iterator = aiter(source) if isinstance(source, AsyncIterable) else _in_turn(source)
    try:
        async for item in iterator:
            found = lines.feed(item) if isinstance(item, str | bytes | bytearray) else (_plain(item),)
            for chunk in found:
                if chunk.get("type") != "done":  # pydantic-ai's object for [DONE]
                    yield _whole(chunk)
    finally:
        await aclose(iterator)
        await aclose(source)


async def _in_turn(source: Iterable[Any]) -> AsyncIterator[Any]:
    for item in source:
        yield item


def _plain(item: Any) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return item
    if hasattr(item, "model_dump"):
        dumped: Mapping[str, Any] = item.model_dump(mode="json", by_alias=True, exclude_none=True)
        return dumped
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {_camel(name): value for name, value in dataclasses.asdict(item).items() if value is not None}
    raise ChunkRefused(f"ui_stream cannot read a {type(item).__name__}; it takes chunks and SSE text.")


def _whole(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """Producers in Python leave out what is None, also where null is a value: the output of a tool, for instance."""
    kind = str(chunk.get("type"))
    name = _VALUES.get(kind) or ("data" if kind.startswith(DATA_PREFIX) else None)
    return chunk if name is None or name in chunk else {**chunk, name: None}


_VALUES = {"tool-input-available": "input", "tool-input-error": "input", "tool-output-available": "output"}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


class _Lines:
    """The data lines of SSE text that may be cut anywhere; one line is one chunk on this wire."""

    def __init__(self) -> None:
        self._rest = ""
        self._decoder = getincrementaldecoder("utf-8")()

    def feed(self, piece: str | bytes | bytearray) -> Iterable[Mapping[str, Any]]:
        text = piece if isinstance(piece, str) else self._decoder.decode(bytes(piece))
        *lines, self._rest = (self._rest + text).replace("\r\n", "\n").split("\n")
        for line in lines:
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if not data or data == "[DONE]":
                continue
            try:
                chunk = orjson.loads(data)
            except orjson.JSONDecodeError as exc:
                raise ChunkRefused(f"ui_stream met a data line that is not JSON: {exc}") from exc
            if not isinstance(chunk, Mapping):
                raise ChunkRefused("ui_stream met a data line that is not a chunk object.")
            yield chunk
