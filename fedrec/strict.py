"""JSON of others as frozen dataclasses: every value has its exact type, or it is refused with its place.

That is what pydantic does for settings and for what servers are told. A device opens its pack without pydantic: its
import alone takes longer than that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")
Rule = Callable[[Any], str]
"""What is wrong with a value, "" if nothing. Rules stand in the `Annotated` type of a field."""

_PLAIN = {
    str: "a text", int: "an integer", bool: "true or false", float: "a finite number", list: "a list",
    dict: "an object",
}  # fmt: skip
_WHOLE = 2**53  # whole numbers up to here are floats too


class Misfit(ValueError):
    """A value that is not what is asked for, and where it stands."""

    def __init__(self, reason: str, *place: str | int) -> None:
        self.reason, self.place = reason, place
        super().__init__(f"{'.'.join(map(str, place))}: {reason}" if place else reason)


def parsed(content: bytes) -> object:
    """The JSON value in UTF-8 bytes. `ValueError` for anything else; NaN and infinity are no numbers."""
    text = content.decode().strip(" \t\r\n")
    try:
        value: object
        value, end = _DECODER.raw_decode(text)  # `decode` takes twice as long for a short text
        if b"\\u" in content:  # half a character can be written so, and is no text
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if end != len(text):
        raise ValueError("there is more than one value")
    return value


def read(kind: type[Kind], value: object) -> Kind:
    """A parsed value as the dataclass `kind`; what else it says is passed over. Raises `Misfit`.

    Fields are str, int, bool, float, Any, Literal, other such dataclasses, one of these or None, and tuples,
    dictionaries and `Annotated` types of these. A list becomes a tuple, and an integer may stand for a float.
    """
    return cast(Kind, _read(kind, value))


def within(least: int, most: int | None = None) -> Rule:
    """A number of at least `least` and at most `most`."""
    said = f"at least {least} is asked for" if most is None else f"{least} to {most} is asked for"
    return lambda value: "" if least <= value and (most is None or value <= most) else said


def counted(least: int, most: int | None = None) -> Rule:
    """A text, a tuple or a dictionary of a length `within` these."""
    rule = within(least, most)
    return lambda value: rule(len(value))


def spelled(pattern: str) -> Rule:
    """A text that is `pattern` from its first to its last character."""
    whole = re.compile(pattern)
    return lambda value: "" if whole.fullmatch(value) else f"it is not spelled {pattern}"


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _read(kind: Any, value: object) -> object:  # noqa: ANN401  (any type of a field)
    inner, origin = get_args(kind), get_origin(kind)
    if is_dataclass(kind):
        return _fields(kind, value)
    if origin is Annotated:
        return _ruled(_read(inner[0], value), inner[1:])
    if origin is Literal:
        return _chosen(inner, value)
    if origin in (Union, UnionType):
        return None if value is None else _read(inner[0], value)
    if origin is tuple:
        return _several(inner, _plain(list, value))
    if origin is dict:
        return {_at(name, inner[0], name): _at(name, inner[1], each) for name, each in _plain(dict, value).items()}
    return value if kind is Any else _plain(kind, value)


def _fields(kind: Any, value: object) -> object:  # noqa: ANN401
    given, hints = _plain(dict, value), _hints(kind)
    for each in fields(kind):
        if each.name not in given and each.default is MISSING:
            raise Misfit("it is missing", each.name)
    return kind(**{name: _at(name, hint, given[name]) for name, hint in hints.items() if name in given})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _several(inner: tuple[Any, ...], values: list[object]) -> tuple[object, ...]:
    kinds = inner[:1] * len(values) if inner[1:] == (...,) else inner
    if len(kinds) != len(values):
        raise Misfit(f"{len(kinds)} values are asked for")
    return tuple(_at(place, kind, value) for place, (kind, value) in enumerate(zip(kinds, values, strict=True)))


def _at(place: str | int, kind: object, value: object) -> object:
    try:
        return _read(kind, value)
    except Misfit as misfit:
        raise Misfit(misfit.reason, place, *misfit.place) from None


def _ruled(value: object, rules: Iterable[Rule]) -> object:
    for rule in rules:
        if wrong := rule(value):
            raise Misfit(wrong)
    return value


def _chosen(choices: tuple[object, ...], value: object) -> object:
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise Misfit(f"one of {', '.join(map(repr, choices))} is asked for")
    return value


def _plain(kind: type[Kind], value: object) -> Kind:
    if kind is float and type(value) is int and abs(value) <= _WHOLE:
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise Misfit(f"{_PLAIN[kind]} is asked for")
    return value
