"""``strandline agent``: answers for a remote agent with a function of the user's own."""

from __future__ import annotations

import asyncio
import contextlib
from argparse import Namespace

import httpx

from strandline.cli import terminal
from strandline.cli.application import named
from strandline.cli.exits import OK, USAGE, Failure
from strandline.cli.remote import address_of, headers_of, trusts_environment
from strandline.core.ids import check_id
from strandline.remote import serve_agent


def agent(args: Namespace) -> int:
    """Work until Ctrl-C. What is being written then ends as lost with its lease, or is taken again by the same
    holder."""
    url = address_of(args)
    _, _, function = named(args.target, "`async def answer(run)`", "answer")
    if not callable(function):
        raise Failure(f"{args.target} is not a function.", USAGE)
    name = check_id(args.name or getattr(function, "__name__", ""), "--name")
    terminal.say(f"Asking {url} for the runs of {name} (Ctrl-C ends it)")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_work(args, url, name, function))
    return OK


async def _work(args: Namespace, url: httpx.URL, name: str, function: object) -> None:
    assert callable(function)
    limits = httpx.Limits(max_connections=None)
    verify = httpx.create_ssl_context()
    async with httpx.AsyncClient(limits=limits, trust_env=trusts_environment(url), verify=verify) as client:
        wire = f"{str(url).rstrip('/')}/agents"
        await serve_agent(wire, name, function, headers=headers_of(args), holder=args.holder, client=client)
