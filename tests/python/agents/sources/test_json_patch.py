"""JSON Patch as RFC 6902 has it: the examples of its appendix, and what cannot be applied."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.agents.sources.json_patch import patched


@pytest.mark.parametrize(
    "document, operation, expected",
    [
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "qux"}, {"foo": "bar", "baz": "qux"}),
        ({"foo": ["bar", "baz"]}, {"op": "add", "path": "/foo/1", "value": "qux"}, {"foo": ["bar", "qux", "baz"]}),
        ({"foo": ["bar"]}, {"op": "add", "path": "/foo/-", "value": ["abc"]}, {"foo": ["bar", ["abc"]]}),
        ({"baz": "qux", "foo": "bar"}, {"op": "remove", "path": "/baz"}, {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, {"op": "remove", "path": "/foo/1"}, {"foo": ["bar", "baz"]}),
        ({"baz": "qux"}, {"op": "replace", "path": "/baz", "value": "boo"}, {"baz": "boo"}),
        ({"foo": ["a", "b"]}, {"op": "replace", "path": "/foo/1", "value": "c"}, {"foo": ["a", "c"]}),
        ({"foo": {"a": 1}, "b": {}}, {"op": "move", "from": "/foo/a", "path": "/b/c"}, {"foo": {}, "b": {"c": 1}}),
        ({"foo": [1, 2, 3]}, {"op": "move", "from": "/foo/0", "path": "/foo/2"}, {"foo": [2, 3, 1]}),
        ({"a": [1]}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": [1], "b": [1]}),
        ({"a": [1, {"b": True}]}, {"op": "test", "path": "/a/1", "value": {"b": True}}, {"a": [1, {"b": True}]}),
        ({"/": 9, "~1": 10}, {"op": "replace", "path": "/~01", "value": 11}, {"/": 9, "~1": 11}),
        ({"/": 9, "~1": 10}, {"op": "remove", "path": "/~1"}, {"~1": 10}),
        ({"a": 1}, {"op": "replace", "path": "", "value": [2]}, [2]),
        (None, {"op": "add", "path": "", "value": {}}, {}),
        ({"": {"": 1}}, {"op": "remove", "path": "//"}, {"": {}}),
        ({"a": 1}, {"op": "add", "path": "/b"}, {"a": 1, "b": None}),
    ],
)
def test_an_operation(document: Any, operation: Any, expected: Any) -> None:
    assert patched(document, [operation]) == expected


def test_operations_follow_one_another_and_leave_the_document_alone() -> None:
    document, value = {"list": [1]}, {"x": []}
    patch: list[Any] = [
        {"op": "add", "path": "/list/-", "value": value},
        {"op": "add", "path": "/list/1/x/0", "value": "deep"},
        {"op": "copy", "from": "/list", "path": "/twin"},
        {"op": "remove", "path": "/twin/0"},
    ]
    assert patched(document, patch) == {"list": [1, {"x": ["deep"]}], "twin": [{"x": ["deep"]}]}
    assert (document, value) == ({"list": [1]}, {"x": []})


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/a/b/c", "value": 1},
        {"op": "add", "path": "/list/3", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "/list/x", "value": 1},
        {"op": "add", "path": "list", "value": 1},
        {"op": "add", "path": "/text/0", "value": 1},
        {"op": "remove", "path": "/nothing"},
        {"op": "remove", "path": "/list/-"},
        {"op": "remove", "path": "/list/2"},
        {"op": "replace", "path": "/nothing", "value": 1},
        {"op": "move", "from": "/a", "path": "/a/b"},
        {"op": "test", "path": "/list/0", "value": True},
        {"op": "test", "path": "/list", "value": [1, 3]},
        {"op": "test", "path": "/a", "value": {"z": 1}},
        {"op": "invent", "path": "/a"},
        {"op": "add"},
        {},
    ],
)
def test_an_operation_that_does_not_fit(operation: Any) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        patched({"a": {}, "list": [1, 2], "text": "abc"}, [operation])
