"""One uvicorn in this process, with errors that say what to do instead of tracebacks.

One worker, always: a SQLite store is served by exactly one process (DESIGN §6). The port is taken before the store is
opened, so a port that is in use is noticed without touching a file, and clients that come back during a restart wait
in the queue of the socket instead of being refused.
"""

from __future__ import annotations

import copy
import errno
import logging
import math
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import LOG_LEVELS, LOGGING_CONFIG

from strandline.cli.application import Asgi
from strandline.cli.exits import INTERRUPTED, OK, REFUSED, Failure
from strandline.cli.json_lines import JsonLines, json_line
from strandline.errors import StrandlineError

LEVELS = tuple(LOG_LEVELS)
FORMATS = ("text", "json")

_BEYOND_GRACE = 5.0
"""Seconds that open responses get after the grace, to send how their run ended."""

_BACKLOG = 2048

_FAREWELL = "Ended at once. Replies that were running end as lost at the next start."


class PortInUse(Failure):
    """Another process listens there."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of ``host``. Port 0: a free one. Raises Failure."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise Failure(f"--host {host}: {error.strerror}. Give an address of this machine.", REFUSED) from error
    sockets: list[socket.socket] = []
    refusal: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        place = (address[0], sockets[0].getsockname()[1], *address[2:]) if sockets else address
        try:
            sockets.append(_bound(family, place))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                for each in sockets:
                    each.close()
                raise PortInUse(
                    f"Port {port} on {host} is in use by another process. End that one, or give another --port.",
                    REFUSED,
                ) from error
            refusal = error
    if not sockets:
        said = refusal.strerror if refusal is not None else "it has no address"
        raise Failure(f"Cannot listen on {host} port {port}: {said}. Give another --host or --port.", REFUSED)
    return sockets


def address_of(host: str, sockets: list[socket.socket]) -> str:
    """The URL of the server, without a path."""
    host, port = host.strip("[]"), sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    app: Asgi,
    sockets: list[socket.socket],
    *,
    grace: float,
    log_level: str,
    log_format: str = "text",
    access_log: bool = True,
    ready: Callable[[], None],
) -> int:
    """Serve until a signal comes. ``ready`` is called once requests are answered.

    Ends like uvicorn does: 0 after Ctrl-C; after SIGTERM, once everything is settled, by that signal (a shell says
    143). Raises Failure or StrandlineError when the application does not start.
    """
    watched = _Watched(app)
    config = uvicorn.Config(
        watched,
        log_level=log_level,
        log_config=_log_config(log_level, log_format),
        access_log=access_log,
        timeout_graceful_shutdown=math.ceil(grace + _BEYOND_GRACE),
    )
    logging.getLogger("uvicorn.error").addFilter(watched.keep)
    server = _Server(config, ready, log_format)
    try:
        server.run(sockets)
    except KeyboardInterrupt:
        return OK if server.started else INTERRUPTED
    except SystemExit:
        if server.started:
            raise
    finally:
        for each in sockets:
            each.close()
    if watched.refusal is not None and not server.started:
        raise watched.refusal
    if not server.started and not server.should_exit:
        raise Failure("The application did not start; the reason is in the lines above.", REFUSED)
    return OK


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], log_format: str) -> None:
        super().__init__(config)
        self._ready = ready
        self._log_format = log_format

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            # uvicorn would stop waiting for connections, and the end of the lifespan would then wait out the grace.
            # A store is made for processes that die: nothing acknowledged is lost, the next start settles the rest.
            # Not through sys.stderr: this is a signal handler, which may have interrupted a write to it.
            said = json_line(logging.WARNING, _FAREWELL, action="ended-at-once")
            os.write(2, said if self._log_format == "json" else f"{_FAREWELL}\n".encode())
            os._exit(INTERRUPTED)
        super().handle_exit(sig, frame)


class _Watched:
    """The application, with an eye on how its start fails: uvicorn only has the text of a traceback."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self.refusal: StrandlineError | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            return await self._app(scope, receive, send)
        failed: list[Any] = []

        async def held_back(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                failed.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, held_back)
        except StrandlineError as error:
            if failed:
                self.refusal = error
                failed[0] = {**failed[0], "message": ""}
            raise
        finally:
            if failed:
                await send(failed[0])

    def keep(self, record: logging.LogRecord) -> bool:
        """A log filter: what this command says itself, uvicorn does not say too."""
        return self.refusal is None or record.levelno < logging.ERROR


def _bound(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        # Now, not when the server starts: two processes can be bound to one port as long as neither listens.
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _log_config(level: str, log_format: str) -> dict[str, Any]:
    """uvicorn's logging, and ours with it, unless the application has set up its own."""
    config = copy.deepcopy(LOGGING_CONFIG)
    as_json = log_format == "json"
    if as_json:
        config["formatters"] = {name: {"()": JsonLines} for name in config["formatters"]}
        for handler in config["handlers"].values():
            handler["stream"] = "ext://sys.stderr"
    if (as_json or not logging.getLogger().handlers) and not logging.getLogger("strandline").handlers:
        config["loggers"]["strandline"] = {"handlers": ["default"], "level": LOG_LEVELS[level], "propagate": False}
    return config
