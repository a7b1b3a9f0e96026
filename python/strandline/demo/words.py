"""How the demo agent speaks, and what it says about Strandline."""

from __future__ import annotations

import asyncio
import re

from strandline.agents.run import Run

PACE = 0.03
"""Seconds from one word to the next."""

_REPLY = """\
You asked: *{asked}*

I am a demo agent without a model behind me, so let me tell you what is happening while you read this.

## Where these words are

Every word went into a **durable session log** before your browser saw it. The browser is only a *reader* of that log:

1. the agent yields a word;
2. the journal puts everything that waits into one commit, and the disk says that it is safe;
3. every reader of this session is woken and sent what is new.

So you can do rude things to this reply and it will not mind:

- **Refresh the page.** The reply goes on where it was, without a gap and without a word twice.
- **Drop the connection** with the button above. Watch the log on the side: the next frame follows the last cursor.
- **Open the chat in a second tab**, or on your phone, and press *Stop* there. It stops here as well.
- **Kill the server** with `kill -9` and start it again. What you have read is there, and the reply is marked as lost.

## What it costs

| step | what it takes |
|---|---|
| append | one row per commit, for all sessions together |
| resume | one snapshot, then the live tail |
| stop | one commit, ordered with the words around it |

## Things to type

```text
count to 50 every 100 ms
fail after 7
think 5
call weather Lisbon
say nothing
delete report.pdf
plan 10 days in Lisbon
research tides
```

A connection is only a reader. That one sentence is the whole idea; the rest is taking it seriously.
"""


def about_strandline(asked: str) -> str:
    """A long reply in Markdown."""
    shown = asked if len(asked) <= 120 else asked[:119] + "…"
    return _REPLY.format(asked=shown.replace("*", "\\*") or "(nothing)")


def pieces(text: str) -> list[str]:
    """Text as a model would send it: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


async def say(run: Run, text: str, beats: int = 1) -> None:
    """Add text to the reply, word by word."""
    for piece in pieces(text):
        await run.text(piece)
        await pause(beats)


async def pause(beats: int = 1) -> None:
    """Take so many times as long as a word does."""
    await asyncio.sleep(PACE * beats)
