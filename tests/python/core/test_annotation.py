"""Summaries of annotations, and what an annotation may look like (PROTOCOL §19.1, §19.3)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strandline.core.annotation import MOST_NAMES, kind_complaint, name_of, range_complaint, summaries, summary
from strandline.core.records import AnnotationRecord


def record(number: int, kind: str = "reaction", name: str | None = "ok", message: str = "v") -> AnnotationRecord:
    return AnnotationRecord("s", f"a{number}", message, "m", kind, "user:ann", 1, name)


def test_a_summary_counts_names_the_most_frequent_first() -> None:
    found = summary([record(1, name="b"), record(2, name="a"), record(3, name="b"), record(4, name=None)])
    assert found == {"count": 4, "names": {"b": 2, "a": 1}}
    assert list(found["names"]) == ["b", "a"]
    assert summary([]) == {"count": 0}
    assert summary([record(1, name=None)]) == {"count": 1}


@given(st.lists(st.integers(0, 40)))
def test_nothing_is_lost_in_a_summary_however_many_names_there_are(names: list[int]) -> None:
    found = summary(record(number, name=str(name)) for number, name in enumerate(names))
    shown = found.get("names", {})
    assert found["count"] == len(names) == sum(shown.values()) + found.get("others", 0)
    assert len(shown) == min(MOST_NAMES, len(set(names)))
    assert all(Counter(map(str, names))[name] == count for name, count in shown.items())


def test_summaries_are_kept_apart_by_message_and_kind() -> None:
    records = [record(1), record(2, "citation", "a.example"), record(3, message="w"), record(4)]
    assert summaries(records) == {
        "v": {
            "citation": {"count": 1, "names": {"a.example": 1}},
            "reaction": {"count": 2, "names": {"ok": 2}},
        },
        "w": {"reaction": {"count": 1, "names": {"ok": 1}}},
    }


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"name": "👍"}, "👍"),
        ({"name": "x" * 300}, "x" * 100),
        ({"url": "https://EN.example:80/path"}, "en.example"),
        ({"name": "", "url": "https://a.example"}, "a.example"),
        ({"url": "no url"}, None),
        ({"url": "http://[broken"}, None),
        ({"name": 5}, None),
        ("name", None),
        (None, None),
    ],
)
def test_the_name_that_an_annotation_is_counted_under(data: Any, name: str | None) -> None:
    assert name_of(data) == name


@pytest.mark.parametrize("kind", ["a", "citations:multiple.v1", "my-kind_2"])
def test_kinds_that_may_be(kind: str) -> None:
    assert kind_complaint(kind) is None


@pytest.mark.parametrize("kind", ["", "A", "1a", "a b", "a" * 65, None, 5, "a\n"])
def test_kinds_that_may_not_be(kind: Any) -> None:
    assert kind_complaint(kind) is not None


@pytest.mark.parametrize("place", [{"part": 0}, {"part": 3, "start": 0, "end": 0}, {"part": 0, "start": 2, "end": 9}])
def test_ranges_that_may_be(place: Any) -> None:
    assert range_complaint(place) is None


@pytest.mark.parametrize(
    "place",
    [
        {},
        [],
        {"start": 1, "end": 2},
        {"part": 0, "start": 1},
        {"part": 0, "end": 1},
        {"part": 0, "start": 2, "end": 1},
        {"part": -1},
        {"part": True},
        {"part": 1.0},
        {"part": 2**31},
        {"part": 0, "more": 1},
    ],
)
def test_ranges_that_may_not_be(place: Any) -> None:
    assert range_complaint(place) is not None
