"""``strandline serve``: an application of the user's own."""

from __future__ import annotations

from argparse import Namespace

from strandline.cli import terminal
from strandline.cli.application import load
from strandline.cli.serving import address_of, listen, run


def serve(args: Namespace) -> int:
    """Load, check, take the port, serve. What can be refused is refused before a port or a file is touched."""
    application = load(args.target)
    application.refuse_public(args.host)
    sockets = listen(args.host, args.port)
    address = address_of(args.host, sockets)
    return run(
        application.app,
        sockets,
        grace=application.grace,
        log_level=args.log_level,
        log_format=args.log_format,
        ready=lambda: terminal.say(f"Serving {args.target} on {address} (Ctrl-C ends it)"),
    )
