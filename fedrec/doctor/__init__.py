"""What an installation must have right before it may call itself private: `examine` looks, and changes nothing.

`machine` looks at packages, devices, files, clock and network switches, `noise` at what hides people and what it is
said to cost, `gradients` at per-example gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fedrec.doctor.finding import Finding
from fedrec.doctor.machine import clock, devices, disk, keys, ledgers, switches, versions
from fedrec.doctor.noise import accountant, coins, fresh, modes, scale
from fedrec.errors import FedrecError, PrivacyRefusal

__all__ = ["Finding", "examine", "require_sound"]

Check = Callable[[], Iterator[Finding]]


def examine(folders: tuple[Path, ...]) -> Iterator[Finding]:
    """Every finding, one by one; `folders` are where ledgers and keys are to lie. Takes about ten seconds."""
    checks: tuple[tuple[str, str, Check], ...] = (
        ("versions", "P02", versions),
        ("network switches", "P09", switches),
        ("devices", "P08", devices),
        ("clock", "P11", clock),
        ("free disk", "P11", lambda: disk(folders)),
        ("ledgers", "P11", lambda: ledgers(folders)),
        ("keys", "P07", lambda: keys(folders)),
        ("noise", "P07", scale),
        ("noise of the modes", "P06", modes),
        ("fresh noise", "P07", fresh),
        ("coins", "P07", coins),
        ("accountant", "P11", accountant),
        ("gradients", "P14", _gradients),
    )
    for name, code, check in checks:
        yield from _looked(name, code, check)


def require_sound(findings: tuple[Finding, ...]) -> None:
    """Refuse an installation with a failed finding, by the code of the first one."""
    failed = [finding for finding in findings if not finding.ok]
    if failed:
        raise PrivacyRefusal(
            failed[0].code, "an installation that calls itself private passes every check",
            remedy="Follow the remedies above, then run `fedrec doctor` again.",
            failed=[finding.name for finding in failed],
        )  # fmt: skip


def _gradients() -> Iterator[Finding]:
    from fedrec.doctor.gradients import per_example  # here, because torch or opacus may be what is broken

    yield from per_example()


def _looked(name: str, code: str, check: Check) -> Iterator[Finding]:
    """What a check finds; that it cannot be done at all is a finding too."""
    try:
        yield from check()
    except FedrecError as error:
        yield Finding(name=name, code=code, ok=False, seen=error.rule, remedy=error.remedy)
    except Exception as error:  # whatever a broken installation raises
        remedy = "Repair the installation: this check must be able to run."
        yield Finding(name=name, code=code, ok=False, seen=f"{type(error).__name__}: {error}", remedy=remedy)
