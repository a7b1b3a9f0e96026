"""What a person sees, and what a script reads.

Everything that comes out of a database or from a server passes through here: text that others have written must not
be able to move the cursor, change colours, retitle the window or reorder a line (bidirectional overrides).
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROLS}]")
_UNSAFE_IN_LINE = re.compile(f"[{_CONTROLS}]| *[\\t\\n][ \\t\\n]*")
_LEAST_TITLE = 12


class _Line:
    """Whether the last thing written ended its line: a reply that is still growing does not."""

    open = False


def prepare() -> None:
    """A character that the terminal's encoding lacks is shown as an escape; it must not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str = "") -> None:
    """One or more lines on stdout, at once also into a pipe."""
    write(f"{text}\n")


def write(text: str) -> None:
    """A piece of text on stdout, as it is."""
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()
        _Line.open = not text.endswith("\n")


def fresh_line() -> None:
    """End the line if it has begun."""
    if _Line.open:
        write("\n")


def note(text: str) -> None:
    """A remark on stderr, which is not part of the answer."""
    fresh_line()
    sys.stderr.write(f"{safe(text)}\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """An error on stderr."""
    note(f"strandline: {text}")


def safe(text: str) -> str:
    """Text that others have written, with line breaks kept and every other control character made visible."""
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def line(text: str, limit: int | None = None) -> str:
    """The same on one line; at most ``limit`` columns wide."""
    flat = _UNSAFE_IN_LINE.sub(lambda match: " " if match[0][-1] in " \t\n" else _escaped(match), text)
    return flat if limit is None else clipped(flat, limit)


def json_text(value: Any, *, pretty: bool = False) -> str:
    """JSON for scripts. Readable in any script of the world, and as harmless on a terminal as ``safe``."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=not unicode, indent=2 if pretty else None)
    # Outside of strings JSON has none of these characters but the line breaks, which the pattern leaves out.
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def compact(value: Any) -> str:
    """A JSON value in passing, on one line."""
    return line(json.dumps(value, ensure_ascii=False))


def when(at: int | None) -> str:
    """A stored time (ms since 1970) on the clock of whoever looks."""
    if at is None:
        return "-"
    try:
        return datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "?"


def width(text: str) -> int:
    """Columns that a terminal needs: East Asian wide characters take two, combining ones none."""
    return sum(map(_columns, text))


def clipped(text: str, limit: int) -> str:
    """At most ``limit`` columns of a line, with an ellipsis where something is missing."""
    if width(text) <= limit:
        return text
    taken = 0
    for index, char in enumerate(text):
        taken += _columns(char)
        if taken > limit - 1:
            return text[:index] + "…"
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, give: int) -> str:
    """Columns under a head. On a terminal the column number ``give`` gives way; in a pipe nothing is cut off."""
    cells = [[line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(head))]
    if sys.stdout.isatty():
        over = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
        widths[give] = min(widths[give], max(_LEAST_TITLE, widths[give] - max(over, 0)))
    lines = [
        "  ".join(_padded(clipped(cell, room), room) for cell, room in zip(row, widths, strict=True)) for row in cells
    ]
    return "\n".join(each.rstrip() for each in lines)


def indented(text: str) -> str:
    """Every line that is not empty, two columns to the right."""
    return "\n".join(f"  {each}" if each else "" for each in text.split("\n"))


def _padded(text: str, room: int) -> str:
    return text + " " * (room - width(text))


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
