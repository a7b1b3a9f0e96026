"""How message metadata from several chunks becomes one value (``ai@7.0.173 src/util/merge-objects.ts``)."""

from __future__ import annotations

from typing import Any

from strandline.core.parts import FoldError

_SKIPPED = frozenset({"__proto__", "constructor", "prototype"})


def merged(base: Any, over: Any) -> Any:
    """``over`` merged into ``base``: objects deeply, everything else replaced. None stands for no metadata.

    Raises FoldError when both are given and one of them is not an object; upstream makes nonsense of that.
    """
    if base is None or over is None:
        return base if over is None else over
    if not (isinstance(base, dict) and isinstance(over, dict)):
        raise FoldError("message metadata can only be merged when it is an object")
    result = dict(base)
    for key, value in over.items():
        if key not in _SKIPPED:
            below = result.get(key)
            both = isinstance(below, dict) and isinstance(value, dict)
            result[key] = merged(below, value) if both else value
    return result


def changed(base: Any, over: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``merged(base, over)`` that ``over`` names, each with all that is in it: for clients that merge
    the top level only."""
    whole = merged(base, over)
    return {name: whole[name] for name in over if name in whole}
