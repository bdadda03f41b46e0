"""The JSONPath of batch transform's filters."""

from __future__ import annotations

from typing import Any

import pytest

from sagesmith.jsonpath import JsonPath, JsonPathError, PathNotFoundError


@pytest.mark.parametrize(
    ("path", "value", "selected"),
    [
        ("$", [1], [1]),
        ("$[1:]", [1, 2, 3], [2, 3]),
        ("$[:-1]", [1, 2, 3], [1, 2]),
        ("$[0,-1]", [1, 2, 3], [1, 3]),
        ("$[0, 2:]", [1, 2, 3, 4], [1, 3, 4]),
        ("$[1]", [1, 2], 2),
        ("$[5:]", [1, 2], []),
        ("$[*]", [1, 2], [1, 2]),
        ("$.a.b", {"a": {"b": 5}}, 5),
        ("$['a']['b c']", {"a": {"b c": 5}}, 5),
        ("$.['a']", {"a": 1}, 1),
        ("$['id',\"x\"]", {"id": 1, "x": 2, "y": 3}, {"id": 1, "x": 2}),
        ("$['id','absent']", {"id": 1}, {"id": 1}),
        ("$.a[*].b", {"a": [{"b": 1}, {"b": 2}]}, [1, 2]),
        ("$.a[1:].b[0]", {"a": [{"b": [1]}, {"b": [2]}]}, [2]),
        ("$[*][*]", [[1, 2], [3]], [1, 2, 3]),
        ("$.*", {"a": 1, "b": 2}, [1, 2]),
    ],
)
def test_what_a_path_selects(path: str, value: Any, selected: Any) -> None:
    assert JsonPath(path).select(value) == selected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "$..a",
        "$[",
        "$[]",
        "$[?(@.a)]",
        "$['a'",
        "$[1:",
        "$.a b",
        "$[1:2:3]",
        "$['a',1]",
        "$['a','b'].c",
    ],
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(JsonPathError, match="is not a valid JSONPath"):
        JsonPath(path)


@pytest.mark.parametrize(
    ("path", "value"), [("$.a", {}), ("$.a", [1]), ("$[1]", [1]), ("$[0]", {}), ("$.*", 1)]
)
def test_what_is_not_there(path: str, value: Any) -> None:
    with pytest.raises(PathNotFoundError, match="there is"):
        JsonPath(path).select(value)


def test_columns() -> None:
    row = ["a", "b", "c"]
    for path, expected in (("$", row), ("$[*]", row), ("$[1:]", ["b", "c"]), ("$[-1,0]", ["c", "a"])):
        columns = JsonPath(path).columns()
        assert columns is not None
        assert columns(row) == expected
    assert JsonPath("$.a").columns() is None
