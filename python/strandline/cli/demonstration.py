"""``strandline demo``: the page, the agent without a key, and a database to come back to."""

from __future__ import annotations

import os
import socket
import sys
import threading
import webbrowser
from argparse import Namespace
from pathlib import Path

from strandline.cli import terminal
from strandline.cli.exits import REFUSED, USAGE, Failure
from strandline.cli.serving import PortInUse, address_of, listen, run
from strandline.demo.site import COMMANDS, demo_app, page_is_built
from strandline.errors import StoreInUse
from strandline.http.loopback import is_loopback
from strandline.settings import Settings

PORT = 8123
_PORTS_TRIED = 10


def demo(args: Namespace) -> int:
    """Serve the demo until Ctrl-C."""
    if not is_loopback(args.host):
        raise Failure(
            f"The demo lets everyone in who reaches it, so it listens on this machine only, not on {args.host!r}."
            " Use --host 127.0.0.1. To serve others, write an application with an auth and use `strandline serve`.",
            USAGE,
        )
    database = args.db or str(_default_database())
    settings = Settings.from_env()
    sockets = _free(args.host, args.port)
    address = address_of(args.host, sockets)
    if args.port is None and sockets[0].getsockname()[1] != PORT and args.log_format == "text":
        terminal.note(f"Port {PORT} is in use, so this is another one.")

    def ready() -> None:
        terminal.say(_welcome(address, database))
        if not args.no_browser and _has_display():
            # Some platforms wait until the browser has started.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    try:
        return run(
            demo_app(database, settings=settings),
            sockets,
            grace=settings.shutdown_grace,
            log_level="warning",
            log_format=args.log_format,
            access_log=False,
            ready=ready,
        )
    except StoreInUse as error:
        raise Failure(
            f"{error.detail}\nIs another `strandline demo` running? Use that one, or give this one --db PATH.", REFUSED
        ) from error


def _free(host: str, port: int | None) -> list[socket.socket]:
    if port is not None:
        return listen(host, port)
    for candidate in range(PORT, PORT + _PORTS_TRIED):
        try:
            return listen(host, candidate)
        except PortInUse:
            continue
    raise Failure(f"The ports {PORT} to {PORT + _PORTS_TRIED - 1} are all in use: give --port.", REFUSED)


def _default_database() -> Path:
    """Where the platform keeps an application's data, so that the demo remembers wherever it is started."""
    if sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    else:
        root = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    try:
        (root / "strandline").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"Cannot make {root / 'strandline'} ({error.strerror}): give --db PATH.", REFUSED) from error
    return root / "strandline" / "demo.db"


def _welcome(address: str, database: str) -> str:
    wide = max(len(command) for command, _ in COMMANDS)
    commands = "\n".join(f"  {command:<{wide}}   {what}" for command, what in COMMANDS)
    stored = "in memory only" if database == "memory:" else f"in {terminal.line(database)}"
    built = "" if page_is_built() else "\nThe page is not built in this install; the address says how to build it.\n"
    look = "" if database == "memory:" else f"\nLook into it: strandline sessions --db {terminal.line(database)}"
    return (
        f"The Strandline demo runs on {address}\n{built}\n"
        f"What its agent understands:\n{commands}\n  {'anything else':<{wide}}   explains how Strandline works\n\n"
        f"Conversations are kept {stored}{look}\nCtrl-C ends it."
    )


def _has_display() -> bool:
    """On a machine without a screen a browser in the terminal would take the terminal over."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
