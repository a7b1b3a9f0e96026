"""What a tool's input means while its JSON is still arriving.

Follows ``ai@7.0.173 src/util/parse-partial-json.ts``: text that parses is taken as it is; otherwise everything after
the last complete token is dropped, what is open is closed, and that is parsed. Text that is not JSON at all has no
value. Three values differ, because ours are stored as JSON and must be encodable: integers of more than 18 digits
become floats (in JavaScript every number is one), numbers too large for a float become null, and half of a surrogate
pair becomes U+FFFD.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from math import isfinite
from typing import Any, Final

from strandline.core.chunks import MAX_DEPTH, complaint


class Absent(Enum):
    """JavaScript's ``undefined``: no value, where null is one."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


def parse_partial(text: str) -> Any:
    """The value of complete or truncated JSON, ABSENT when there is none."""
    value = _parse(text)
    return value if value is not ABSENT else _parse(complete(text))


def _integer(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= 18 else _number(digits)


def _number(digits: str) -> float | None:
    value = float(digits)
    return value if isfinite(value) else None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_number, parse_constant=_no_constant)


def _parse(text: str) -> Any:
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            value = _whole_characters(value)
    except (ValueError, RecursionError):
        return ABSENT
    # The quick counts spare nearly every text the walk.
    if "__proto__" in text or "constructor" in text or "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        return ABSENT if complaint(value) else value
    return value


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return value


class _At(Enum):
    """Where in the grammar the reader is, inside the innermost open value; the first character closes that value."""

    ROOT = ""
    END = " "
    FIRST_KEY = "}"
    KEY = "} "
    COLON = "}:"
    MEMBER = "}="
    AFTER_MEMBER = "},"
    FIRST_ITEM = "]"
    ITEM = "] "
    AFTER_ITEM = "],"


_STRING_RUN = re.compile(r'[^"\\]*')
_NUMBER = re.compile(r"[0-9eE.\-]*")
_LITERALS = ("true", "false", "null")
_AFTER = {
    _At.ROOT: _At.END,
    _At.MEMBER: _At.AFTER_MEMBER,
    _At.FIRST_ITEM: _At.AFTER_ITEM,
    _At.ITEM: _At.AFTER_ITEM,
}


def complete(text: str) -> str:
    """The text up to its last complete token, with everything that is still open closed.

    Only truncated JSON is understood; of anything else the result need not be JSON. It decides like upstream's
    ``fix-json.ts`` all the same, so that both sides show the same value for the same broken text.
    """
    stack = [_At.ROOT]
    keep = 0  # text[:keep] ends in a complete token
    tail = ""  # what the scalar that was cut still needs
    i = 0
    while i < len(text):
        at = stack[-1]
        char = text[i]
        i += 1
        if at in _AFTER and char in '"ftn-0123456789{[':
            stack[-1] = _AFTER[at]
            if char != "-":
                keep = i
            if char == "{":
                stack.append(_At.FIRST_KEY)
            elif char == "[":
                stack.append(_At.FIRST_ITEM)
            elif char == '"':
                i, keep, closed = _string(text, i)
                tail = "" if closed else '"'
            elif char in "ftn":
                i, keep, tail = _literal(text, i - 1)
                i, keep = _separator(text, i, keep, stack)
            else:
                i, keep = _number_end(text, i, keep, stack)
        elif at is _At.FIRST_ITEM and char == "]":
            keep = i
            stack.pop()
        elif at in (_At.FIRST_KEY, _At.KEY):
            if char == '"':
                # Upstream's keys end at the next quote, escaped or not.
                end = text.find('"', i)
                i = len(text) if end < 0 else end + 1
                stack[-1] = _At.KEY if end < 0 else _At.COLON
            elif char == "}" and at is _At.FIRST_KEY:
                keep = i
                stack.pop()
        elif at is _At.COLON:
            if char == ":":
                stack[-1] = _At.MEMBER
        elif at in (_At.AFTER_MEMBER, _At.AFTER_ITEM):
            before = keep
            keep = _after_value(char, i, keep, stack)
            if at is _At.AFTER_ITEM and keep == before and stack[-1] is at:
                keep = i
    return text[:keep] + tail + "".join(at.value[:1].strip() for at in reversed(stack))


def _after_value(char: str, i: int, keep: int, stack: list[_At]) -> int:
    """Take the comma or the closing bracket that may follow a value; anything else is passed over."""
    at = stack[-1]
    if (at is _At.AFTER_MEMBER and char == "}") or (at is _At.AFTER_ITEM and char == "]"):
        stack.pop()
        return i
    if char == "," and at is not _At.END:
        stack[-1] = _At.KEY if at is _At.AFTER_MEMBER else _At.ITEM
    return keep


def _separator(text: str, i: int, keep: int, stack: list[_At]) -> tuple[int, int]:
    """The character that ended a number or a literal: it is used up, whatever it is."""
    if i >= len(text):
        return i, keep
    return i + 1, _after_value(text[i], i + 1, keep, stack)


def _number_end(text: str, i: int, keep: int, stack: list[_At]) -> tuple[int, int]:
    match = _NUMBER.match(text, i)
    assert match is not None  # it matches the empty string
    digits = match.group().rstrip("eE.-")
    if digits:
        keep = i + len(digits)
    i = match.end()
    if i < len(text) and text[i] not in ",}]":
        return i + 1, keep
    return _separator(text, i, keep, stack)


def _literal(text: str, start: int) -> tuple[int, int, str]:
    """Scan a literal: where it ends, what of it is kept, and what completes it when the text ends in it."""
    end = start + 1
    while end < len(text) and any(literal.startswith(text[start : end + 1]) for literal in _LITERALS):
        end += 1
    if end < len(text):
        return end, end, ""
    found = text[start:end]
    return end, end, next(literal for literal in _LITERALS if literal.startswith(found))[len(found) :]


def _string(text: str, i: int) -> tuple[int, int, bool]:
    """Scan a string's inside: where it ends, what of it is kept, and whether it was closed."""
    keep = i
    while i < len(text):
        run = _STRING_RUN.match(text, i)
        assert run is not None  # it matches the empty string
        if run.end() > i:
            i = keep = run.end()
            continue
        if text[i] == '"':
            return i + 1, i + 1, True
        i, whole = _escape(text, i + 1)
        if whole:
            keep = i
    return i, keep, False


def _escape(text: str, i: int) -> tuple[int, bool]:
    """Scan what follows a backslash: where it ends and whether it is complete."""
    if i >= len(text):
        return i, False
    if text[i] != "u":
        return i + 1, True
    digits = 0
    i += 1
    while i < len(text) and digits < 4:
        digits += text[i] in "0123456789abcdefABCDEF"
        i += 1
    return i, digits == 4
