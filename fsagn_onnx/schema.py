"""One schema for everything that comes from outside: types with bounds, checked before anything is made of them.

    @dataclass(frozen=True)
    class Settings:
        threads: Annotated[int, within(1, 64)]
        names: Annotated[tuple[str, ...], Meta(max_length=10, description="at most 10 texts")]

    settings = checked(parse_json(text, fail), Settings, fail)

`fail` makes an error of what is wrong, one line that names the member, what was expected, and what came. msgspec
checks; members that a dataclass does not know are refused, those that an msgspec.Struct does not know are passed over.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import reprlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from .errors import FsagnError

__all__ = [
    "MAX_ITEMS",
    "Meta",
    "Text",
    "Word",
    "checked",
    "checked_json",
    "one_of",
    "parse_json",
    "shown",
    "within",
]

T = TypeVar("T")
Fail = Callable[[str], Exception]

SHOWN: Final = 80
"""Characters of foreign words in a message."""
QUOTED: Final = 2**16
"""Bytes of a JSON text up to which an error quotes what came; a longer one is not read a second time for that."""
LONGEST: Final = 10_000
"""Characters of a text such as the name of a value or a class."""
MAX_ITEMS: Final = 2**20
"""Items of a list, where nothing else bounds it."""

Text = Annotated[str, Meta(max_length=LONGEST, description=f"a text of at most {LONGEST:,} characters")]
Word = Annotated[str, Meta(min_length=1, max_length=LONGEST, description=f"a text of 1 to {LONGEST:,} characters")]

_KINDS: Final = {
    "int": "a whole number", "float": "a number", "str": "a text", "array": "a list", "object": "an object",
    "bool": "true or false",
}  # fmt: skip
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")


def within(least: int, most: int) -> Meta:
    """Bounds of a whole number."""
    return Meta(ge=least, le=most, description=f"a whole number in {least}..{most}")


def one_of(words: Sequence[str]) -> Meta:
    """The texts that a member may be."""
    return Meta(pattern=rf"^(?:{'|'.join(map(re.escape, words))})\Z", description=f"one of {', '.join(words)}")


def shown(value: object) -> str:
    """Something foreign as a message quotes it: short, on one line, without what cannot be printed."""
    text = repr(value[: SHOWN + 1]) if isinstance(value, str) else reprlib.repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def parse_json(text: str | bytes, fail: Fail, *, any_names: bool = False) -> Any:
    """The value of a JSON text; NaN, numbers out of range and deep nesting are no JSON here.

    Args:
        text: the JSON.
        fail: makes the error that is raised.
        any_names: take names of files that are no UTF-8, which Python writes as lone surrogates.

    Raises:
        Exception: what ``fail`` makes.
    """
    try:
        if any_names:
            return json.loads(text, parse_constant=_finite, parse_float=_finite)
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise fail(f"broken JSON ({str(error)[:SHOWN]})") from error


def checked_json(text: bytes, kind: type[T], fail: Fail) -> T:
    """Make a typed value of a JSON text, without plain ones between; members of type `msgspec.Raw` stay text.

    Args:
        text: the JSON.
        kind: a msgspec.Struct.
        fail: makes the error that is raised.

    Raises:
        Exception: what ``fail`` makes.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        members = parse_json(text, fail) if len(text) <= QUOTED else None
        raise fail(_words(str(error), members, kind)) from error
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise fail(f"broken JSON ({str(error)[:SHOWN]})") from error


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text:.20} is no number")


def checked(members: object, kind: type[T], fail: Fail) -> T:
    """Make a typed value of plain ones (dicts, lists, texts, numbers).

    Args:
        members: what came.
        kind: a dataclass or msgspec.Struct whose annotations say what may come.
        fail: makes the error that is raised.

    Raises:
        Exception: what ``fail`` makes.
    """
    try:
        value = msgspec.convert(members, kind)
    except msgspec.ValidationError as error:
        raise fail(_words(str(error), members, kind)) from error
    except UnicodeError as error:
        raise fail("the name of a field is no UTF-8") from error
    except (FsagnError, RecursionError) as error:
        raise fail(str(error)) from error
    if unknown := _unknown(members, value):
        raise fail(unknown)
    return value


def _words(said: str, members: object, kind: Any) -> str:
    """What msgspec says about a member, in our words and with what came."""
    said, _, path = said.partition(" - at `")
    path = path.removeprefix("key in `").removeprefix("$").removesuffix("`")
    place, value, expected = "", members, ""
    for step in _STEP.finditer(path):
        name, number = step.groups()
        if name is not None:
            kind = _member(kind, name)
        description = "" if name is None else _description(kind)
        if name is None and (expected or number is None):
            break  # the description is that of the whole list
        place += step.group()
        if value is not None:
            value = value[name] if name is not None else value[int(number)]  # type: ignore[index]
        expected = description
    place = place.removeprefix(".")
    if "required field" in said:
        lacking = f"{place}.{said.partition('field `')[2].rstrip('`')}".removeprefix(".")
        return f"field '{lacking}' is missing"
    name = f"field '{place}'" if place else "it"
    if not said.startswith(("Expected", "Invalid enum")):
        return f"{name}: {said}"
    if not expected:
        expected = re.sub(r", got .*$", "", said.removeprefix("Expected "))
        expected = re.sub(r"`([^`]*)`", lambda found: _alternatives(found.group(1)), expected)
    return f"{name} must be {expected}" + ("" if members is None else f", but got {shown(value)}")


def _alternatives(kinds: str) -> str:
    return " or ".join(_KINDS.get(kind, kind) for kind in kinds.split(" | "))


def _member(kind: Any, name: str) -> Any:
    """The annotation of a member of a dataclass or struct, however deep that is wrapped."""
    for inner in (kind, *get_args(kind)):
        if isinstance(inner, type) and name in getattr(inner, "__annotations__", ()):
            return get_type_hints(inner, include_extras=True)[name]
        if inner is not kind and (found := _member(inner, name)) is not None:
            return found
    return None


def _description(kind: Any) -> str:
    """What an annotation says is expected; of a member that may be null too."""
    if get_origin(kind) is Annotated:
        found = next((item.description for item in kind.__metadata__ if isinstance(item, Meta)), None)
        return found or ""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    inner = [item for item in get_args(kind) if item is not type(None)]
    null = len(inner) == 1 and type(None) in get_args(kind)
    return f"{said} or null" if null and (said := _description(inner[0])) else ""


def _unknown(came: Any, value: Any, place: str = "") -> str:
    """The first member that came and that no dataclass has, in words; empty where there is none."""
    if dataclasses.is_dataclass(value):
        known = sorted(field.name for field in dataclasses.fields(value))
        for name, inner in came.items():
            if name not in known:
                return f"unknown field {shown(f'{place}{name}')}; known: {', '.join(known)}"
            if found := _unknown(inner, getattr(value, name), f"{place}{name}."):
                return found
    elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        pairs = enumerate(zip(came, value, strict=True))
        return next(filter(None, (_unknown(*pair, f"{place[:-1]}[{n}].") for n, pair in pairs)), "")
    return ""
