"""JSON Patch (RFC 6902), as AG-UI's STATE_DELTA and ACTIVITY_DELTA carry it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any


def patched(document: Any, patch: Iterable[Mapping[str, Any]]) -> Any:
    """A copy of ``document`` with all operations applied. Raises ValueError for one that cannot be."""
    result = copy.deepcopy(document)
    for operation in patch:
        try:
            result = _applied(result, operation)
        except (KeyError, IndexError, TypeError, ValueError) as exc:
            raise ValueError(f"the operation {dict(operation)!r:.200} does not fit the document") from exc
    return result


def _applied(document: Any, operation: Mapping[str, Any]) -> Any:
    kind, path = operation["op"], _keys(operation["path"])
    value = copy.deepcopy(operation.get("value"))
    match kind:
        case "add":
            return _add(document, path, value)
        case "remove":
            return _remove(document, path)
        case "replace":
            _at(document, path)
            return _add(_remove(document, path), path, value)
        case "move":
            origin = _keys(operation["from"])
            if path[: len(origin)] == origin and path != origin:
                raise ValueError("a value cannot be moved into itself")
            moved = _at(document, origin)
            return _add(_remove(document, origin), path, moved)
        case "copy":
            return _add(document, path, copy.deepcopy(_at(document, _keys(operation["from"]))))
        case "test" if _same(_at(document, path), value):
            return document
        case _:
            raise ValueError(kind)


def _keys(pointer: str) -> list[str]:
    """A JSON Pointer (RFC 6901)."""
    if not pointer:
        return []
    if not pointer.startswith("/"):
        raise ValueError(pointer)
    return [key.replace("~1", "/").replace("~0", "~") for key in pointer[1:].split("/")]


def _at(document: Any, path: list[str]) -> Any:
    for key in path:
        document = document[_index(key, len(document) - 1)] if isinstance(document, list) else document[key]
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, key = _at(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if key == "-" else _index(key, len(parent)), value)
    else:
        parent[key] = value
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        return None
    parent, key = _at(document, path[:-1]), path[-1]
    del parent[_index(key, len(parent) - 1) if isinstance(parent, list) else key]
    return document


def _index(key: str, most: int) -> int:
    if not (key.isascii() and key.isdigit()) or (key != "0" and key.startswith("0")) or int(key) > most:
        raise IndexError(key)
    return int(key)


def _same(one: Any, other: Any) -> bool:
    """Python takes True for 1, JSON does not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)
