"""What was decided, for the agent that asked for it and is called again."""

from __future__ import annotations

from typing import Any

from strandline.core.decisions import plain
from strandline.core.partial_json import ABSENT
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import LiveRun


def made(session: LiveSession, live: LiveRun) -> list[dict[str, Any]]:
    """What was decided before this run began, which goes on from it, as clients see it (PROTOCOL §15.2); ``input`` is
    the one that was asked about."""
    if live.base is None:
        return []
    asked_by = session.state.runs[live.id].parent_run
    found = []
    for record in session.state.decisions.values():
        if record.run == asked_by and record.outcome is not None:
            tool = live.base.tool(record.tool_call)
            known = tool.input() if tool is not None else ABSENT
            found.append({**plain(record), "input": None if known is ABSENT else known})
    return found
