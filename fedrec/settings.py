"""Strict settings: frozen sections that refuse unknown names, and mistakes in the words of whoever made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from fedrec.errors import SpecError


class Section(BaseModel):
    """A frozen group of settings; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_SHOWN = 200  # characters of a refused value

Kind = TypeVar("Kind", bound=Section)


def checked(kind: type[Kind], content: Mapping[str, Any], where: str) -> Kind:
    """`content` as a section; a bad one is a `SpecError` that names the setting and the document, docs/`where`.md."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise _refusal(error.errors()[0], kind, where) from None


def read_text(path: Path, what: str) -> str:
    """The text of a file of settings; one that cannot be read is a `SpecError`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        remedy = "Check the path."
        raise SpecError(f"cannot read the {what}", remedy=remedy, path=str(path), reason=error.strerror) from None
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
        raise SpecError(f"cannot read the {what}", remedy="Save it as UTF-8.", path=str(path), reason=reason) from None


def merge(settings: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    """Nested `settings` with those of `over` on top."""
    merged = dict(settings)
    for name, value in over.items():
        mine = merged.get(name)
        merged[name] = merge(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return merged


def _refusal(error: ErrorDetails, kind: type[Section], where: str) -> SpecError:
    """What is wrong with a setting, in the words of a document and not of its parser."""
    rule, remedy = error["msg"].removeprefix("Value error, "), f"See docs/{where}.md."
    match error["type"]:
        case "extra_forbidden":
            rule, remedy = "no setting has this name", f"Here there are: {_fields(kind, error['loc'][:-1])}."
        case "model_type":
            rule, remedy = "this is a section of settings", f"Set one of them: {_fields(kind, error['loc'])}."
    name = ".".join(map(str, error["loc"])) or where
    # A rule about several settings is broken by a whole section: one of many settings says less than the rule does.
    got = {"value": error["input"]} if len(repr(error["input"])) <= _SHOWN else {}
    return SpecError(f"{name}: {rule}", remedy=remedy, **got)


def _fields(section: type[BaseModel], path: tuple[int | str, ...]) -> str:
    for name in path:
        if isinstance(name, str):  # a number is a place in a list of sections
            section = _section(section.model_fields[name].annotation)
    return ", ".join(section.model_fields)


def _section(annotation: object) -> type[BaseModel]:
    """The section that a field holds, or holds a list of: only sections refuse names."""
    inner = get_args(annotation)
    found = inner[0] if inner else annotation
    assert isinstance(found, type) and issubclass(found, BaseModel)
    return found
