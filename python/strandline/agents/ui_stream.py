"""``ui_stream``: whatever already speaks the AI SDK's UI message stream, as chunks to yield.

Takes chunk dicts, chunk objects (pydantic models and dataclasses, as pydantic-ai and the ``ai`` package make them) and
SSE text or bytes, from an async or plain iterator. SSE may be cut anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from strandline.codecs.sse import EventReader
from strandline.core.chunks import DATA_PREFIX
from strandline.errors import ChunkRefused, ProducerFailed
from strandline.saying.composing import aclose


async def ui_stream(
    source: AsyncIterable[Any] | Iterable[Any], *, until_done: bool = False
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield the chunks of ``source``; ``until_done``: not what follows [DONE], nor the end of ``source``. Raises
    ChunkRefused for an item that is neither chunk nor SSE, and ProducerFailed for SSE that ends in the middle of an
    event."""
    found = objects(source, until_done=until_done)
    try:
        async for chunk in found:
            if chunk.get("type") != "done":  # pydantic-ai's object for [DONE]
                yield _whole(chunk)
    finally:
        await aclose(found)


async def objects(
    source: AsyncIterable[Any] | Iterable[Any], *, until_done: bool = False
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield everything in ``source`` as plain objects, be it SSE or not."""
    reader = EventReader()
    iterator = aiter(source) if isinstance(source, AsyncIterable) else _in_turn(source)
    try:
        async for item in iterator:
            if isinstance(item, str | bytes | bytearray):
                for data in _data(reader, item):
                    if data != "[DONE]":
                        yield _parsed(data)
                    elif until_done:
                        return
            else:
                yield _plain(item)
        if reader.inside:
            raise ProducerFailed("The stream was cut in the middle of an event.")
    finally:
        await aclose(iterator)
        await aclose(source)


async def _in_turn(source: Iterable[Any]) -> AsyncIterator[Any]:
    for item in source:
        yield item


def _data(reader: EventReader, piece: str | bytes | bytearray) -> list[str]:
    try:
        return reader.feed(piece)
    except ValueError as exc:
        raise ProducerFailed(f"The stream cannot be read: {exc}.") from exc


def _parsed(data: str) -> Mapping[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise ChunkRefused(f"The stream has an event whose data is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise ChunkRefused("The stream has an event whose data is not an object.")
    return found


def _plain(item: Any) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return item
    if hasattr(item, "model_dump"):
        dumped: Mapping[str, Any] = item.model_dump(mode="json", by_alias=True, exclude_none=True)
        return dumped
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        fields = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
        if "data_type" in fields:  # the data chunk of the ``ai`` package works its type out
            fields["type"] = f"{DATA_PREFIX}{fields.pop('data_type')}"
        return {
            _camel(name): to_jsonable_python(value, by_alias=True)
            for name, value in fields.items()
            if value is not None
        }
    raise ChunkRefused(
        f"A {type(item).__name__} cannot be read as part of a stream; dicts, their objects and SSE text can."
    )


def _whole(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """Producers in Python leave out what is None, also where null is a value: the output of a tool, for instance."""
    kind = str(chunk.get("type"))
    name = _VALUES.get(kind) or ("data" if kind.startswith(DATA_PREFIX) else None)
    return chunk if name is None or name in chunk else {**chunk, name: None}


_VALUES = {"tool-input-available": "input", "tool-input-error": "input", "tool-output-available": "output"}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
