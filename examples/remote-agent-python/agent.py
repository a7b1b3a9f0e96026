"""The agent, in a process of its own: start as many as you like, wherever they can reach the server.

python agent.py --url http://127.0.0.1:8000/api/agents
"""

import argparse
import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from strandline.remote import RemoteRun, serve_agent

FAR = 100_000


async def count(run: RemoteRun) -> AsyncIterator[str]:
    """Your model goes here: ``run.prompt()`` is what an OpenAI-style client takes, and what you yield is the reply."""
    asked = wish(str([message for message in run.prompt() if message["role"] == "user"][-1]["content"]))
    if asked is None:
        yield "Ask me to count to 50 every 100 ms."
        return
    if asked[0] > FAR and not run.decisions:
        await run.request_approval("count", {"to": asked[0]}, reason="That takes long.")
        return  # the run is suspended; some worker is given it when somebody has decided
    for decision in run.decisions:
        if not decision.approved:
            yield "Then not."
            return
        await run.tool_result(decision.tool_call, "counting")
    to, every = asked
    number = 0
    while number < to:
        number += 1
        yield f"{number} "
        await asyncio.sleep(every / 1000)
        for note in await run.take_steering():  # what somebody says meanwhile: "count to 20"
            to = (wish(note.text) or (to, every))[0]
            yield f"(to {to}) "


def wish(text: str) -> tuple[int, int] | None:
    """How far to count, and how many milliseconds apart."""
    match = re.search(r"count to (\d+)(?: every (\d+) ms)?", text)
    return None if match is None else (int(match[1]), int(match[2] or 50))


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers for the remote agent `counter`.")
    parser.add_argument("--url", default="http://127.0.0.1:8000/api/agents")
    # With the name that it had before, a worker that was restarted takes its own replies again at once.
    parser.add_argument("--holder", help="what this worker calls itself, for example the name of its pod")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_agent(args.url, "counter", count, holder=args.holder))


if __name__ == "__main__":
    main()
