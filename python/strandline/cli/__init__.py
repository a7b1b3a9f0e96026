"""The command ``strandline``: serve, look into a database file, follow and stop over HTTP (``docs/cli.md``).

Every command is a function from parsed arguments to an exit code. What can be expected to go wrong is a ``Failure``
or a StrandlineError: one line on stderr that says what to do, and an exit code that scripts can rely on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from strandline.cli import terminal
from strandline.cli.arguments import parser
from strandline.cli.exits import BROKEN_PIPE, DEFECT, INTERRUPTED, NEGATIVE, REFUSED, USAGE, Failure
from strandline.cli.json_lines import log_as_json
from strandline.core.ids import InvalidId
from strandline.errors import NotFound, StrandlineError

__all__ = ["main"]

logger = logging.getLogger("strandline.cli")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises SystemExit for ``--help``, ``--version`` and bad usage."""
    terminal.prepare()
    args = parser().parse_args(argv)
    as_json = getattr(args, "log_format", None) == "json"
    if as_json:
        log_as_json()
    try:
        code = int(args.command(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        terminal.fresh_line()
        return INTERRUPTED
    except BrokenPipeError:
        # `strandline show … | head`: nobody reads any more. Python would complain once more while it exits.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (Failure, InvalidId, StrandlineError) as error:
        if as_json:
            logger.critical("%s", error, exc_info=args.debug, extra={"action": "refused"})
            return _code(error)
        if args.debug:
            traceback.print_exc()
        terminal.complain(str(error))
        return _code(error)
    except Exception:
        if as_json:
            said = "This is a defect of strandline, please report it."
            logger.critical(said, exc_info=True, extra={"action": "defect"})
            return DEFECT
        traceback.print_exc()
        terminal.complain("This is a defect of strandline, please report it with the lines above.")
        return DEFECT


def _code(error: Failure | InvalidId | StrandlineError) -> int:
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, InvalidId):
        return USAGE
    return NEGATIVE if isinstance(error, NotFound) else REFUSED
