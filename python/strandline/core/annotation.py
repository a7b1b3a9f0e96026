"""Annotations of a message: what they may look like, and what is left of many of them: a summary. Pure.

An annotation says something about a message, or about a range of it, without changing it: a citation, a reaction, a
rating. Readers are told the summary of each kind (PROTOCOL §19), and load the single ones where they want them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from strandline.core.records import AnnotationRecord

_KIND = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_FURTHEST = 2**31 - 1
_LONGEST_NAME = 100

MOST_NAMES = 20
"""As many names does a summary list, the most frequent ones; the others are counted together."""


def kind_complaint(kind: Any) -> str | None:
    """What is wrong with a kind, or None."""
    if isinstance(kind, str) and _KIND.fullmatch(kind):
        return None
    return "`type` must be 1 to 64 characters: a lower-case letter, then lower-case letters, digits, `_.:-`."


def range_complaint(place: Any) -> str | None:
    """What is wrong with a range, or None. ``part`` counts the parts of the message, ``start`` and ``end`` UTF-16 code
    units of that part's text, as strings of JavaScript do; both or neither."""
    if not isinstance(place, Mapping) or not set(place) <= {"part", "start", "end"} or "part" not in place:
        return '`range` must be {"part"} or {"part", "start", "end"}.'
    if not all(type(number) is int and 0 <= number <= _FURTHEST for number in place.values()):
        return "The numbers of `range` must be whole and not negative."
    if ("start" in place) != ("end" in place) or place.get("start", 0) > place.get("end", 0):
        return "`range` needs both `start` and `end`, in that order."
    return None


def name_of(data: Any) -> str | None:
    """What a summary counts an annotation under: its ``name``, or the host of its ``url``; None for neither."""
    if not isinstance(data, Mapping):
        return None
    name, url = data.get("name"), data.get("url")
    if isinstance(name, str) and name:
        return name[:_LONGEST_NAME]
    if isinstance(url, str):
        try:
            return (urlsplit(url).hostname or "")[:_LONGEST_NAME] or None
        except ValueError:
            return None
    return None


def summary(annotations: Iterable[AnnotationRecord]) -> dict[str, Any]:
    """What is told of the annotations of one kind of one message: ``{"count", "names"?, "others"?}``. ``names`` are in
    order of frequency, then of the alphabet."""
    count = 0
    names: Counter[str] = Counter()
    for annotation in annotations:
        count += 1
        if annotation.name is not None:
            names[annotation.name] += 1
    found: dict[str, Any] = {"count": count}
    if names:
        ranked = sorted(names.items(), key=lambda item: (-item[1], item[0]))
        found["names"] = dict(ranked[:MOST_NAMES])
        if len(ranked) > MOST_NAMES:
            found["others"] = sum(number for _, number in ranked[MOST_NAMES:])
    return found


def summaries(annotations: Iterable[AnnotationRecord]) -> dict[str, dict[str, dict[str, Any]]]:
    """The summaries of a session: by message version, by kind."""
    grouped: dict[str, dict[str, list[AnnotationRecord]]] = {}
    for annotation in annotations:
        grouped.setdefault(annotation.message, {}).setdefault(annotation.kind, []).append(annotation)
    return {
        version: {kind: summary(of_kind) for kind, of_kind in sorted(kinds.items())}
        for version, kinds in grouped.items()
    }
