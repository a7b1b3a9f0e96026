"""The little that a chunk may have to say differently, so that clients of every major version understand it.

What ai@7.0.173 works out from its state, ai@5.0.277 and ai@6.0.326 must be told in the chunk, and the gate has no
state. So this is done where the state is known: before a chunk is appended. For ai@7 it makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline.core.message import FoldState

_INPUTS = frozenset({"tool-input-start", "tool-input-available", "tool-input-error"})
_RESULTS = frozenset({"tool-output-available", "tool-output-error", "tool-output-denied"})


def portable(state: FoldState, chunk: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The chunk to append to ``state`` in place of this one: the same object where it will do, or None for nothing.

    ``dynamic`` is made to say what the tool call is: ai@5 does not find it otherwise. A ``finish-step`` is left out
    while text or reasoning is open: before 7 it makes clients forget the open part and die of its next delta.
    """
    kind = chunk["type"]
    if kind == "finish-step":
        return None if state.open_text or state.open_reasoning else chunk
    if kind in _RESULTS or kind in _INPUTS:
        tool = state.tool(chunk["toolCallId"])
        if tool is not None and (kind in _RESULTS or state.in_current_step(tool)):
            return _marked(chunk, tool.dynamic)
    return chunk


def _marked(chunk: Mapping[str, Any], dynamic: bool) -> Mapping[str, Any]:
    if bool(chunk.get("dynamic")) is dynamic:
        return chunk
    if dynamic:
        return {**chunk, "dynamic": True}
    return {name: value for name, value in chunk.items() if name != "dynamic"}
