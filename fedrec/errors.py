"""Everything fedrec raises on purpose, in one tree.

FedrecError
├── SpecError        a setting is out of range or contradicts another          (exit 2)
├── DataError        a file or record cannot be read as what it claims to be   (exit 3)
│   └── EncoderError the text encoder is missing, or is not the one promised   (exit 3)
├── PrivacyRefusal   a claim the code cannot honour; carries a code P01 … P18  (exit 4)
│   └── BudgetExceeded  the ledger refused; nothing was released               (exit 4)
├── AuditFailed      an audit falsified a claim, or was shown to be blind      (exit 4)
├── RunError         a run folder is missing, torn, or belongs to another plan (exit 5)
├── WireError        a message did not match the protocol                      (exit 6)
└── GateFailed       a study missed a figure that was asked of it              (exit 7)

Every message has three parts: the rule, the values that broke it, the remedy.
"""

from __future__ import annotations


class FedrecError(Exception):
    """A mistake we can explain: `rule`, the `got` values that broke it, and the `remedy`."""

    exit_code = 1

    def __init__(self, rule: str, /, *, remedy: str = "", **got: object) -> None:
        self.rule, self.remedy, self.got = rule, remedy, got
        values = ", ".join(f"{name}={value!r}" for name, value in got.items())
        message = f"{rule}; got {values}" if values else rule
        super().__init__(f"{message}. {remedy}" if remedy else message)


class SpecError(FedrecError):
    """A setting is out of range or contradicts another."""

    exit_code = 2


class DataError(FedrecError):
    """A file or record cannot be read as what it claims to be."""

    exit_code = 3


class EncoderError(DataError):
    """The text encoder is missing, or is not the one that was promised."""


class PrivacyRefusal(FedrecError):
    """A privacy claim that the code cannot honour. Never a warning."""

    exit_code = 4

    def __init__(self, code: str, rule: str, /, *, remedy: str = "", **got: object) -> None:
        super().__init__(f"{code}: {rule}", remedy=remedy, **got)
        self.code = code


class BudgetExceeded(PrivacyRefusal):
    """The ledger refused; nothing was released."""


class AuditFailed(FedrecError):
    """An audit falsified a privacy claim, or overlooked a fault that was put in to test it."""

    exit_code = 4


class RunError(FedrecError):
    """A run folder is missing, torn, or belongs to another plan."""

    exit_code = 5


class WireError(FedrecError):
    """A message did not match the protocol."""

    exit_code = 6


class GateFailed(FedrecError):
    """A study missed a figure that was asked of it."""

    exit_code = 7


def require(
    ok: bool,  # noqa: FBT001  (an assertion reads left to right)
    rule: str,
    /,
    *,
    remedy: str = "",
    **got: object,
) -> None:
    """Raise `SpecError(rule)` unless `ok`."""
    if not ok:
        raise SpecError(rule, remedy=remedy, **got)
