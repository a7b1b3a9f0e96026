"""A worker of the remote agent ``far``: ``python remote_worker.py URL HOLDER``. What it does, it says on its stdout."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from strandline.remote import RemoteRun, serve_agent


def done(*what: str) -> None:
    sys.stdout.write(" ".join(what) + "\n")
    sys.stdout.flush()


async def agent(run: RemoteRun) -> AsyncIterator[str]:
    """Asks for an approval where it is told to ``ask``; else takes a note. It gets no further than to have it in its
    hands: that is for who comes after it."""
    if run.decisions:
        for decision in run.decisions:
            done("decided", decision.outcome)
            if run.attempt == 1:
                await asyncio.Event().wait()
            await run.tool_result(decision.tool_call, "done")
        yield "settled"
    elif run.prompt()[-1]["content"] == "ask":
        await run.request_approval("refund", {"order": 42})
        yield "please"
    elif run.partial is None:
        yield "begun "
        async for note in run.steering():
            done("took", note.id)
            await asyncio.Event().wait()
    else:
        taken = [part["id"] for part in run.partial["parts"] if part["type"] == "steering-message"]
        yield f"again, after {taken} and {[note.id for note in await run.take_steering()]}"


if __name__ == "__main__":
    headers = {"x-agent": "far"}
    asyncio.run(serve_agent(sys.argv[1], "far", agent, headers=headers, holder=sys.argv[2]))
