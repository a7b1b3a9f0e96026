"""How a command ends. Scripts rely on these numbers; ``docs/cli.md`` and ``--help`` list them."""

from __future__ import annotations

OK = 0
NEGATIVE = 1
USAGE = 2
REFUSED = 3
UNREACHABLE = 4
UNFIT = 5
DEFECT = 70
INTERRUPTED = 130
BROKEN_PIPE = 141

MEANINGS = {
    OK: "done",
    NEGATIVE: "the answer is no: no such session or run, nothing to stop",
    USAGE: "the command was not written correctly",
    REFUSED: "refused: the database file, the port, the application or the sign-in does not allow it",
    UNREACHABLE: "no Strandline server can be reached there",
    UNFIT: "`doctor` found something on the way to the server that breaks streams",
    INTERRUPTED: "ended with Ctrl-C",
}


class Failure(Exception):
    """An expected failure: what happened and what to do, on one line, and the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code
