"""Damages to a JSON object: what strangers, other versions, careless editors and attackers make of one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

OTHERS: tuple[Any, ...] = (None, True, 0, -1, 1.5, "", "text", [], [0], {}, {"a": 1}, [[]], [None])
HUGE: tuple[Any, ...] = (
    -1, 0, 10**6, 3 * 10**8, 2**31, 2**53, 2**63, -(2**63), 10**30, 10**400, 1e308, 5e-324, 1.0, -0.0,
)  # fmt: skip
WORDS: tuple[str, ...] = (
    "", " ", "\n", "a\nb", "\0", "\x1b[2J", "\udcff", "\ud800", "‮abc", "<script>alert(1)</script>", "../../x",
    "%s%s%n", "nan", "None", "￿", "é" * 300, "'; DROP TABLE", "x" * 100_000, "\n" * 5000,
)  # fmt: skip

Random = np.random.Generator
Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where something stands in a value, its members' members too; not the value itself. Long lists by their ends."""
    if isinstance(value, dict):
        items: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        items = [(k, value[k]) for k in range(len(value)) if k < 3 or k == len(value) - 1]
    else:
        return
    for step, inner in items:
        yield (*at, step)
        yield from places(inner, (*at, step))


def drawn(options: Any, rng: Random) -> Any:
    """One of some things."""
    return options[int(rng.integers(len(options)))]


def holder(value: Any, place: Place) -> Any:
    """What holds the thing at a place."""
    for step in place[:-1]:
        value = value[step]
    return value


def put(value: Any, place: Place, new: Any) -> Any:
    """The value with another thing at a place."""
    made = copy.deepcopy(value)
    holder(made, place)[place[-1]] = new
    return made


def wrong_type(value: Any, rng: Random) -> Any:
    return put(value, drawn(list(places(value)), rng), drawn(OTHERS, rng))


def removed(value: Any, rng: Random) -> Any:
    made, place = copy.deepcopy(value), drawn(list(places(value)), rng)
    del holder(made, place)[place[-1]]
    return made


def unknown(value: Any, rng: Random) -> Any:
    made = copy.deepcopy(value)
    objects = [made, *(holder(made, place)[place[-1]] for place in places(value))]
    target = drawn([item for item in objects if isinstance(item, dict)], rng)
    target[drawn(("more", "__class__", "model_sha256", "content", *WORDS), rng)] = drawn(OTHERS, rng)
    return made


def huge_number(value: Any, rng: Random) -> Any:
    numbers = [place for place in places(value) if isinstance(holder(value, place)[place[-1]], int | float)]
    return put(value, drawn(numbers or list(places(value)), rng), drawn(HUGE, rng))


def odd_text(value: Any, rng: Random) -> Any:
    texts = [place for place in places(value) if isinstance(holder(value, place)[place[-1]], str)]
    return put(value, drawn(texts or list(places(value)), rng), drawn(WORDS, rng))


def long_list(value: Any, rng: Random) -> Any:
    lists = [place for place in places(value) if isinstance(holder(value, place)[place[-1]], list)]
    place = drawn(lists or list(places(value)), rng)
    old = holder(value, place)[place[-1]]
    item = drawn((old[0] if isinstance(old, list) and old else 0, *OTHERS), rng)
    return put(value, place, [item] * drawn((33, 1001, 100_000), rng))


def deep(value: Any, rng: Random) -> Any:
    nest: Any = 0
    for _ in range(drawn((20, 200), rng)):
        nest = [nest] if rng.integers(2) else {"a": nest}
    return put(value, drawn(list(places(value)), rng), nest)


def exchanged(value: Any, rng: Random) -> Any:
    one, two = (drawn(list(places(value)), rng) for _ in range(2))
    first, second = (copy.deepcopy(holder(value, place)[place[-1]]) for place in (one, two))
    made = put(value, one, second)
    apart = one[: len(two)] != two and two[: len(one)] != one
    return put(made, two, first) if apart else made


ON_VALUE: dict[str, Callable[[Any, Random], Any]] = {
    "wrong types": wrong_type,
    "removed members": removed,
    "unknown members": unknown,
    "huge numbers": huge_number,
    "odd texts": odd_text,
    "long lists": long_list,
    "nesting": deep,
    "exchanged members": exchanged,
}


def broken_text(text: bytes, rng: Random) -> bytes:
    """Damages that leave no JSON, or JSON that some readers take."""
    at = int(rng.integers(len(text)))
    return drawn(
        (
            text[:at],
            text[:at] + bytes(rng.integers(0, 256, 3, dtype=np.uint8)) + text[at + 3 :],
            text + b"}",
            b"\xef\xbb\xbf" + text,
            text.replace(b": ", b": NaN, ", 1).replace(b"1", b"NaN", 1),
            text.replace(b"0", b"1e400", 1),
            text.replace(b"1", b"9" * 5000, 1),
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"",
            b"null",
            b"[]",
            text[:1] + b'"format": 1, "format": 99, ' + text[1:],
            text.replace(b'"', b"'"),
            text.decode("utf-8", "replace").encode("utf-16"),
        ),
        rng,
    )


MEMBER_KINDS = (*ON_VALUE, "broken text")


def damaged_json(value: Any, kind: str, rng: Random) -> bytes:
    """A JSON object with damage of a kind, as text."""
    if kind == "broken text":
        return broken_text(json.dumps(value).encode(), rng)
    return json.dumps(ON_VALUE[kind](value, rng)).encode()
