"""The agent, in a process of its own: start as many as you like, wherever they can reach the server.

python agent.py --url http://127.0.0.1:8000/api/agents
"""

import argparse
import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from strandline.remote import RemoteRun, serve_agent


async def count(run: RemoteRun) -> AsyncIterator[str]:
    """Your model goes here: ``run.prompt()`` is what an OpenAI-style client takes, and what you yield is the reply."""
    asked = run.prompt()[-1]["content"]
    match = re.search(r"count to (\d+)(?: every (\d+) ms)?", str(asked))
    if match is None:
        yield "Ask me to count to 50 every 100 ms."
        return
    for number in range(1, int(match[1]) + 1):
        yield f"{number} "
        await asyncio.sleep(int(match[2] or 50) / 1000)


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
