"""What a deployment must have right: a site before devices are invited, a device's folder before it takes part.

Looks, asks the servers named there, and changes nothing. `sites` and `seats` hold the checks of either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fedrec.doctor.finding import Finding
from fedrec.errors import FedrecError, PrivacyRefusal, RunError

__all__ = ["examine_deployment", "require_ready"]

Check = Callable[[], Iterator[Finding]]


def examine_deployment(folder: Path) -> Iterator[Finding]:
    """Every finding about the site or the device in `folder`, one by one."""
    from fedrec.deploy.identity import CARD
    from fedrec.deploy.site import SETTINGS

    if (folder / SETTINGS).is_file():
        from fedrec.doctor.sites import checks
    elif (folder / CARD).is_file():
        from fedrec.doctor.seats import checks
    else:
        remedy = "Give a folder of `fedrec server init` or `fedrec client enroll`, or none for the installation."
        raise RunError("a deployment is the folder of a site or of a device", remedy=remedy, path=str(folder))
    told = set[str]()
    for name, code, check in checks(folder):
        yield from _looked(name, code, check, told)


def require_ready(findings: tuple[Finding, ...]) -> None:
    """Refuse a deployment with a failed finding: by its code where privacy depends on it, else as a `RunError`."""
    failed = [finding for finding in findings if not finding.ok]
    coded = next((finding.code for finding in failed if finding.code), "")
    rule, remedy = "a deployment passes every check", "Follow the remedies above, then run `fedrec doctor` again."
    names = [finding.name for finding in failed]
    if coded:
        raise PrivacyRefusal(coded, rule, remedy=remedy, failed=names)
    if failed:
        raise RunError(rule, remedy=remedy, failed=names)


def _looked(name: str, code: str, check: Check, told: set[str]) -> Iterator[Finding]:
    """What a check finds; that it cannot be done is a finding too. Of an unforeseen error only the class is told.

    One mistake that keeps several checks from their work is `told` once.
    """
    try:
        yield from check()
    except FedrecError as error:
        seen, remedy = str(error), error.remedy
        if seen in told:
            seen, remedy = "not looked at: see above", "Mend what is said above first."
        told.add(str(error))
        yield Finding(name=name, code=code, ok=False, seen=seen, remedy=remedy)
    except Exception as error:  # whatever a broken folder raises
        remedy = "Repair or restore the folder: this check must be able to run."
        yield Finding(name=name, code=code, ok=False, seen=type(error).__name__, remedy=remedy)
