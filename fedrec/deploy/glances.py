"""What a site's small files say, believed only as far as it has the form that it should have."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

_MOST = 1 << 24  # bytes of one file
_REASON = re.compile(r"[a-z][a-z ,-]{0,39}")
_KINDS = 20  # of reasons

Row = dict[str, Any]
Count = Annotated[int, Field(ge=0)]


class Condition(StrEnum):
    """How a process of a site fares, as the supervisor tells it."""

    STARTING = "starting"  # for the first time, a moment ago
    UP = "up"
    AGAIN = "started again"  # it has ended before its time, a moment ago
    DOWN = "down"  # it ends whenever it is started
    GIVEN_UP = "given up"  # it has ended over what another try does not mend
    DONE = "done"

    @property
    def faulty(self) -> bool:
        """Whether it is not as it should be."""
        return self in (Condition.AGAIN, Condition.DOWN, Condition.GIVEN_UP)


class _Seen(BaseModel):
    """A part of a file; what a later version wrote beside it is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def _named(counts: dict[str, int] | None) -> dict[str, int] | None:
    """Reasons in our own words alone; anything else is counted as "other"."""
    if counts is None:
        return None
    named: dict[str, int] = {}
    for reason, count in counts.items():
        known = reason if _REASON.fullmatch(reason) and len(named) < _KINDS else "other"
        named[known] = named.get(known, 0) + count
    return named


Refused = Annotated[dict[str, Count] | None, AfterValidator(_named)]


class Course(_Seen):
    """A round as the trainer tells of it: `beat`, `since` and `deadline` in Unix seconds.

    `asked` and what follows are absent where the cohort is a secret.
    """

    round: Count
    phase: Annotated[str, Field(pattern="^[a-z][a-z -]{0,39}$")]
    beat: float
    since: float | None = None
    deadline: float | None = None
    attempt: Count = 1
    asked: Count | None = None
    answered: Count | None = None
    accepted: Count | None = None
    refused: Refused = None
    refused_so_far: Refused = None

    @property
    def public(self) -> bool:
        """Whether anybody may know who was asked, and so how long it takes them."""
        return self.asked is not None

    @property
    def finished(self) -> bool:
        """Whether the trainer has nothing left to do."""
        return self.phase == "finished"


class Claim(_Seen):
    """One promise of a statement, with everything without which its ε means nothing."""

    adversary: str
    unit: str | None = None
    relation: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    label: str = ""
    sentence: str = ""
    assumptions: tuple[str, ...] = ()
    not_protected: tuple[str, ...] = ()

    @property
    def terms(self) -> tuple[str, str, str]:
        """What the ε is about; two of them compare only if these are equal."""
        return str(self.unit), str(self.relation), self.adversary


class Pack(_Seen):
    """A published model."""

    version: Count
    round: Count | None = None
    published: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z)?$")] = ""
    latest: bool = False

    @property
    def when(self) -> str:
        """When it was published, as people read it."""
        return self.published.replace("T", " ").replace("Z", " UTC")


class Accuracy(_Seen):
    """A figure that an operator measured on the data of people who agreed to that, and may show."""

    name: str
    value: float
    people: Annotated[int, Field(ge=1)]
    how: str  # candidates, mask and tie rule
    consent: str  # whose data, and on what ground
    measured: str
    low: float | None = None
    high: float | None = None


Kind = TypeVar("Kind", bound=BaseModel)


class Glances:
    """Reads the files of the folder `path`; `torn` gathers the names of those that do not read as they should."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn: set[str] = set()

    def table(self, name: str) -> Row:
        """A JSON object, empty if there is none."""
        content = self._json(name)
        if content is None or isinstance(content, dict):
            return content or {}
        self.torn.add(name)
        return {}

    def one(self, name: str, kind: type[Kind]) -> Kind | None:
        """A JSON object of a kind."""
        content = self._json(name)
        found = None if content is None else self.checked(content, kind)
        if content is not None and found is None:
            self.torn.add(name)
        return found

    def many(self, name: str, kind: type[Kind]) -> tuple[Kind, ...]:
        """A JSON list of a kind; one bad entry spoils it, for a statement with a part missing says something else."""
        content = self._json(name)
        if content is None:
            return ()
        found = [self.checked(entry, kind) for entry in content] if isinstance(content, list) else [None]
        if any(entry is None for entry in found):
            self.torn.add(name)
            return ()
        return tuple(entry for entry in found if entry is not None)

    def rows(self, name: str) -> tuple[Row, ...]:
        """The lines of a JSON lines file, less one that a crash tore."""
        rows: list[Row] = []
        for line in (self._text(name) or "").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("round"), int):
                rows.append(row)
        return tuple(rows)

    def counts(self, name: str) -> dict[str, int]:
        """A JSON object of counts."""
        return self.whole(self._json(name)) or {}

    def conditions(self, name: str) -> dict[str, Condition]:
        """A JSON object that says of processes how they fare."""
        content = self._json(name)
        try:
            return {} if content is None else _CONDITIONS.validate_python(content)
        except ValidationError:
            self.torn.add(name)
            return {}

    def packs(self) -> tuple[Pack, ...]:
        """Every published model, the newest first."""
        folder = self.path / "packs"
        names = [path.parent.name for path in folder.glob("*/pack.json") if not path.parent.name.startswith(".")]
        latest = (self._text("packs/latest") or "").strip()
        found = [(name, self.one(f"packs/{name}/pack.json", Pack)) for name in names]
        packs = [pack.model_copy(update={"latest": name == latest}) for name, pack in found if pack]
        return tuple(sorted(packs, key=lambda pack: -pack.version))

    def planned(self, name: str) -> int | None:
        """How many rounds a plan has."""
        from fedrec.errors import SpecError
        from fedrec.spec import Plan

        text = self._text(name)
        if text is None:
            return None
        try:
            return Plan.from_toml(text).rounds
        except SpecError:
            self.torn.add(name)
            return None

    def checked(self, content: object, kind: type[Kind]) -> Kind | None:
        """`content` if it has the form of a kind."""
        try:
            return kind.model_validate(content)
        except ValidationError:
            return None

    def whole(self, content: object) -> dict[str, int] | None:
        """`content` if it is an object of counts, its names in words of ours."""
        try:
            return _COUNTS.validate_python(content)
        except ValidationError:
            return None

    def _json(self, name: str) -> object:
        text = self._text(name)
        if text is None:
            return None
        try:
            found: object = json.loads(text)
        except (ValueError, RecursionError):
            self.torn.add(name)
            return None
        return found

    def _text(self, name: str) -> str | None:
        try:
            with (self.path / name).open("rb") as file:
                return file.read(_MOST).decode()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            self.torn.add(name)
            return None


_CONDITIONS = TypeAdapter(dict[Annotated[str, Field(pattern="^[a-z]{1,20}$")], Condition])
_COUNTS: TypeAdapter[dict[str, int] | None] = TypeAdapter(Refused)
