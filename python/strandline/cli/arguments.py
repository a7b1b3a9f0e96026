"""The words of the command line. ``docs/cli.md`` explains every one of them; a test keeps the two together."""

from __future__ import annotations

import argparse
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from strandline.cli import database, demonstration, doctor, following, remote, serve, working
from strandline.cli.exits import MEANINGS
from strandline.cli.serving import FORMATS, LEVELS

DEFAULT_URL = "http://127.0.0.1:8000/api"
DEFAULT_SERVE_PORT = 8000

_EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in MEANINGS.items())

_ABOUT = """\
Chat streams that survive refreshes, tabs, phones and crashes.

Begin with `strandline demo`: it needs no key and no code. Then write an agent and serve it with `strandline serve`.
"""

_EXAMPLES = f"""\
examples:
  strandline demo                                a chat in the browser, to try things out
  strandline serve main:chat                     serve `chat = Strandline(...)` of main.py
  strandline agent agent:count --name counter    answer for a remote agent of a running server
  strandline sessions --db chat.db               what is in a database file
  strandline show SESSION --db chat.db           one conversation, also while it is written
  strandline tail SESSION                        follow a conversation on a running server
  strandline stop SESSION                        stop the reply that is running
  strandline doctor https://host/api             does what stands before the server let streams through?

{_EXIT_CODES}

`strandline COMMAND --help` says more about each command.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. ``args.command`` is the function to run."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error as well"
    )
    top = argparse.ArgumentParser(
        prog="strandline",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"strandline {version('strandline')}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error as well")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str, examples: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text.split(".")[0][0].lower() + text.split(".")[0][1:],
            description=text,
            epilog=f"examples:\n{examples}\n\n{_EXIT_CODES}",
            formatter_class=_formatter,
            parents=[shared],
            allow_abbrev=False,
        )
        made.set_defaults(command=run)
        return made

    _serve(command)
    _demo(command)
    _agent(command)
    _sessions(command)
    _show(command)
    _tail(command)
    _stop(command)
    _doctor(command)
    _new_epoch(command)
    return top


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, indent_increment=1)


def _serve(command: Any) -> None:
    made = command(
        "serve",
        serve.serve,
        "Serve an application in this process.\n\n"
        "MODULE:NAME is where it is: NAME in MODULE, found from the working directory. It is a Strandline, a FastAPI\n"
        "application, or any other ASGI application. There is one worker, always: a database file is served by one\n"
        "process. Ctrl-C or SIGTERM lets running replies finish for a while (STRANDLINE_SHUTDOWN_GRACE).",
        "  strandline serve main:chat\n  strandline serve shop.web:app --host 0.0.0.0 --port 80",
    )
    made.add_argument("target", metavar="MODULE:NAME", help="the application, for example main:chat")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    made.add_argument(
        "--port", type=_port, default=DEFAULT_SERVE_PORT, help="port; 0 takes a free one (default: %(default)s)"
    )
    made.add_argument("--log-level", choices=LEVELS, default="info", help="how much is logged (default: %(default)s)")
    _log_format(made)


def _demo(command: Any) -> None:
    made = command(
        "demo",
        demonstration.demo,
        "Serve a chat page with an agent that needs no key.\n\n"
        "Everyone who reaches it would be let in, so it listens on this machine only. Conversations are kept in a\n"
        "database file, which is printed at the start.",
        "  strandline demo\n  strandline demo --port 9000 --db ./try.db --no-browser",
    )
    made.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (default: %(default)s)")
    made.add_argument(
        "--port",
        type=_port,
        default=None,
        help=f"port; 0 takes a free one (default: {demonstration.PORT}, or the next free one)",
    )
    made.add_argument("--db", metavar="PATH", help="database file (default: one in your data directory)")
    made.add_argument("--no-browser", action="store_true", help="do not open a browser")
    _log_format(made)


def _agent(command: Any) -> None:
    made = command(
        "agent",
        working.agent,
        "Answer for a remote agent of a running server.\n\n"
        "MODULE:NAME is an async function or async generator that takes a strandline.remote.RemoteRun. Start as many\n"
        "as you like: every reply is written by one of them. Goes on until Ctrl-C, also over restarts of the server.",
        "  strandline agent agent:count --name counter\n"
        "  strandline agent agent:count --url https://chat.example.com/api --token $TOKEN --holder pod-7",
    )
    made.add_argument("target", metavar="MODULE:NAME", help="the function, for example agent:count")
    made.add_argument("--name", help="the agent, as `chat.remote_agent` calls it (default: the function's name)")
    made.add_argument("--holder", help="what this worker calls itself: the same again takes its own runs again at once")
    _server(made)


def _sessions(command: Any) -> None:
    made = command(
        "sessions",
        database.sessions,
        "List the sessions in a database file.\n\n"
        "Newest first, everybody's. Only reads; a server may be running on the file.",
        "  strandline sessions --db chat.db\n  strandline sessions --db chat.db --limit 5 --json",
    )
    _database(made)
    made.add_argument("--limit", type=_positive, default=50, metavar="N", help="at most so many (default: %(default)s)")
    _json(made, "one JSON object")


def _show(command: Any) -> None:
    made = command(
        "show",
        database.show,
        "Show one session from a database file.\n\n"
        "The messages of the active path, what is being written at this moment included, and how every reply ended.\n"
        "Only reads; a server may be running on the file.",
        "  strandline show SESSION --db chat.db\n  strandline show SESSION --db chat.db --events --json",
    )
    made.add_argument("session", metavar="SESSION", help="id of the session, as `strandline sessions` lists it")
    _database(made)
    made.add_argument("--events", action="store_true", help="the log instead: every retained event with its cursor")
    _json(made, "one JSON object; with --events one per line")


def _tail(command: Any) -> None:
    made = command(
        "tail",
        following.tail,
        "Follow a session on a running server.\n\n"
        "Prints what is written as it comes, until Ctrl-C. A connection that drops is taken up again where it was.",
        "  strandline tail SESSION\n  strandline tail SESSION --url https://chat.example.com/api --token $TOKEN --json",
    )
    made.add_argument("session", metavar="SESSION", help="id of the session")
    _server(made)
    made.add_argument("--after", metavar="CURSOR", help="begin after this position instead of with the session so far")
    made.add_argument(
        "--give-up",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="end when the server stays away for so long (default: %(default)g)",
    )
    _json(made, "one JSON object per line, each with its cursor")


def _stop(command: Any) -> None:
    made = command(
        "stop",
        remote.stop,
        "Stop the reply that is running in a session.\n\nWhat was written until then stays, marked as stopped.",
        "  strandline stop SESSION\n  strandline stop SESSION --run RUN --reason 'too long'",
    )
    made.add_argument("session", metavar="SESSION", help="id of the session")
    made.add_argument("--run", help="this run, instead of the active one")
    _server(made)
    made.add_argument("--reason", help="recorded with the stop (default: user)")
    _json(made, "the server's answer as one JSON object")


def _doctor(command: Any) -> None:
    made = command(
        "doctor",
        doctor.doctor,
        "Measure what stands between a client and a server.\n\n"
        "Run it where your users are, against the public address. It measures buffering, compression, headers that\n"
        "get lost, resuming, idle timeouts and body sizes, and says which setting to change. It takes about\n"
        "25 seconds and touches no session.",
        "  strandline doctor https://chat.example.com/api\n"
        "  strandline doctor https://chat.example.com/api --token $TOKEN --origin https://app.example.com\n"
        '  strandline doctor http://127.0.0.1:8000/api --header "Cookie: session=..." --quiet-for 120 --json',
    )
    made.add_argument("url", metavar="URL", help="the server's API, as browsers reach it: https://host/api")
    made.add_argument(
        "--header",
        action="append",
        type=_header,
        default=[],
        metavar="'NAME: VALUE'",
        help="send this header with every request; may be repeated",
    )
    _token(made)
    made.add_argument("--origin", help="also ask whether pages of this origin may use it (CORS): https://app.example")
    made.add_argument(
        "--quiet-for",
        type=_quiet,
        default=0.0,
        metavar="SECONDS",
        help="also find out whether a connection without a single byte is cut within so long, at most 300",
    )
    made.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for anything that is due (default: %(default)g)",
    )
    _json(made, "one JSON object")


def _new_epoch(command: Any) -> None:
    made = command(
        "new-epoch",
        database.new_epoch,
        "Make every position that clients hold stale.\n\n"
        "Run this once after a database file was restored from a backup, before the server starts: clients may hold\n"
        "positions that the backup does not know. They then fetch their conversation anew.",
        "  strandline new-epoch --db chat.db",
    )
    _database(made)
    _json(made, "one JSON object")


def _log_format(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--log-format",
        choices=FORMATS,
        default="text",
        help="json: everything on stderr is one JSON object per line (default: %(default)s)",
    )


def _database(made: argparse.ArgumentParser) -> None:
    made.add_argument("--db", required=True, type=Path, metavar="FILE", help="the database file")


def _server(made: argparse.ArgumentParser) -> None:
    made.add_argument("--url", default=DEFAULT_URL, help="the server's API (default: %(default)s)")
    _token(made)


def _token(made: argparse.ArgumentParser) -> None:
    made.add_argument("--token", help=f"bearer token; better in the environment variable {remote.TOKEN_VARIABLE}")


def _json(made: argparse.ArgumentParser, shape: str) -> None:
    made.add_argument("--json", action="store_true", help=f"for scripts: {shape}")


def _port(text: str) -> int:
    return _number(text, 0, 65535)


def _positive(text: str) -> int:
    return _number(text, 1, 2**31)


def _number(text: str, low: int, high: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def _quiet(text: str) -> float:
    number = _seconds(text)
    if number > 300:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 300 seconds")
    return number


def _header(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not value.isascii() or not value.strip().isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a header; write 'Name: value'")
    return name, value.strip()
