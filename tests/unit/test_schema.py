"""The schema of what comes from outside: one line that names the member, what was expected, and what came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import pytest

from fsagn_onnx.errors import UsageError
from fsagn_onnx.schema import Meta, Text, Word, checked, one_of, parse_json, shown, within


@dataclass(frozen=True)
class Inner:
    size: Annotated[tuple[Annotated[int, Meta(ge=1)], int], Meta(description="[height, width]")]
    names: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        if self.size[1] == 13:
            raise UsageError("no 13")


@dataclass(frozen=True)
class Outer:
    count: Annotated[int, within(1, 9)]
    kind: Annotated[str, one_of(("a.b", "c"))]
    inner: Inner
    name: Word | None = None
    others: tuple[Inner, ...] = ()
    free: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)


class Open(msgspec.Struct):
    count: int = 0


GOOD: dict[str, Any] = {"count": 1, "kind": "c", "inner": {"size": [2, 3]}}


def test_right_members_become_a_typed_value() -> None:
    more = {"others": [{"size": (4, 5), "names": ["x"]}], "free": {"any": [None]}, "shares": {"a": 1}}
    value = checked({**GOOD, **more}, Outer, UsageError)
    assert value == Outer(1, "c", Inner((2, 3)), None, (Inner((4, 5), ("x",)),), {"any": [None]}, {"a": 1.0})
    assert isinstance(value.shares["a"], float)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 0}, "field 'count' must be a whole number in 1..9, but got 0"),
        ({"count": 10**30}, "field 'count' must be a whole number in 1..9, but got 1000000000000000000000000000000"),
        ({"count": True}, "field 'count' must be a whole number in 1..9, but got True"),
        ({"kind": "aXb"}, "field 'kind' must be one of a.b, c, but got 'aXb'"),
        ({"kind": "c\n"}, "field 'kind' must be one of a.b, c, but got 'c\\n'"),
        ({"kind": "x" * 10**6}, f"field 'kind' must be one of a.b, c, but got '{'x' * 79}..."),
        ({"inner": 5}, "field 'inner' must be an object, but got 5"),
        ({"inner": {}}, "field 'inner.size' is missing"),
        ({"inner": {"size": [0, 1]}}, "field 'inner.size' must be [height, width], but got [0, 1]"),
        ({"inner": {"size": [1, 2], "names": ["a", 7]}}, "field 'inner.names[1]' must be a text, but got 7"),
        ({"inner": {"size": [1, 13]}}, "no 13"),
        ({"others": [{"size": [1, 1]}, {"size": 1}]}, "field 'others[1].size' must be [height, width], but got 1"),
        ({"others": [{"size": [1, 1]}, {"size": [1, 1], "x": 1}]}, "unknown field 'others[1].x'; known: names, size"),
        ({"inner": {"size": [1, 1], "y\n": 1}}, "unknown field 'inner.y\\n'; known: names, size"),
        ({"name": ""}, "field 'name' must be a text of 1 to 10,000 characters or null, but got ''"),
        ({"shares": {"a": "b"}}, "field 'shares' must be a number, but got {'a': 'b'}"),
        ({"free": [1]}, "field 'free' must be an object, but got [1]"),
        ({"inner": {"\ud800": 1}}, "the name of a field is no UTF-8"),
        ({"more": 1}, "unknown field 'more'; known: count, free, inner, kind, name, others, shares"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected_and_what_came(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked({**GOOD, **change}, Outer, UsageError)
    assert str(caught.value) == said


def test_other_values_than_objects_and_open_structs() -> None:
    with pytest.raises(UsageError, match=r"^it must be an object, but got \[1\]$"):
        checked([1], Outer, UsageError)
    with pytest.raises(UsageError, match=r"^field 'count' is missing$"):
        checked({}, Outer, UsageError)
    assert checked({"count": 3, "unknown": 1}, Open, UsageError).count == 3


@pytest.mark.parametrize("text", ["{", "", '{"a": NaN}', '{"a": 1e400}', "[" * 100_000, "9" * 5000, b"\xff", "{}x"])
def test_what_is_no_json_is_one_line(text: str | bytes) -> None:
    with pytest.raises(UsageError, match=r"^broken JSON") as caught:
        parse_json(text, UsageError)
    assert len(str(caught.value)) < 120
    assert "\n" not in str(caught.value)


def test_foreign_words_are_quoted_short_and_printable() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 10**7)) < 100
    assert len(shown({"k" * 10**6: ["v" * 10**6] * 100})) < 100
