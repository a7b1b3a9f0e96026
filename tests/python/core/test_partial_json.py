"""What truncated JSON means. That ai@7 reads it the same way is tested by ``property/test_fold_differential.py``."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.core.partial_json import ABSENT, parse_partial


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('{"a": [1, 2', {"a": [1, 2]}),
        ('{"a": "b\\', {"a": "b"}),
        ('{"a": "b\\u00', {"a": "b"}),
        ('{"a": "\\ud83d\\ude00', {"a": "😀"}),
        ('{"a": tr', {"a": True}),
        ('{"a": 1, "b', {"a": 1}),
        ('{"a": 1, "b":', {"a": 1}),
        ('{"a": 1.', {"a": 1}),
        ("[nul", [None]),
        ('["a",', ["a"]),
        ('"half', "half"),
        ("-", ABSENT),
        ("[]", []),
        ("[[], {}", [[], {}]),
        ('{"a": {}, "b": []', {"a": {}, "b": []}),
        ("[1 , tru", [1, True]),
        ("[1x, 2", ABSENT),
        ('{"a": 1 what', {"a": 1}),
        ('{"a" "b": 1, ', ABSENT),
        ('["a" , 12', ["a", 12]),
        ('{"a": nothing, "b": 2', ABSENT),
        ('{what "a', {}),
        ("[1}", [1]),
        ("1, 2", 1),
        ("", ABSENT),
        ("no JSON", ABSENT),
        ("[1] and more", [1]),
        ("NaN", ABSENT),
    ],
)
def test_what_is_open_is_closed_and_what_is_incomplete_is_dropped(text: str, value: Any) -> None:
    assert parse_partial(text) == value


@pytest.mark.parametrize(
    "text", ['{"__proto__": 1}', '{"a": {"\\u005f_proto__": 1}}', '{"constructor": {"prototype": 1}}']
)
def test_what_clients_refuse_to_parse_has_no_value(text: str) -> None:
    assert parse_partial(text) is ABSENT


def test_every_value_can_be_stored_as_json_again() -> None:
    assert parse_partial('["\\ud83d"]') == ["\ufffd"]
    assert parse_partial("[1e999]") == [None]
    assert parse_partial("[123456789012345678901234567890]") == [1.2345678901234568e29]
    assert parse_partial("[" * 200) is ABSENT
    assert parse_partial("[" * 100_000) is ABSENT


def test_reading_takes_linear_time_for_long_inputs() -> None:
    text = '{"text": "' + "word \\n " * 50_000
    assert len(parse_partial(text)["text"]) == 50_000 * 7
