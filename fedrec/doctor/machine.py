"""The machine: packages, network switches, devices, clock, disk, ledgers and keys."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from fedrec.doctor.finding import Finding
from fedrec.errors import FedrecError, RunError, SpecError
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Charge, Limit, Limits, Span, Terms
from fedrec.privacy.events import Gaussian
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.phase import Phase
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic
from fedrec.privacy.terms import Budget, Mode, Relation

_LEAST_FREE = 2**28  # bytes: a run's checkpoints, ledgers and pack, with room to spare
_DRIFT = 2.0  # seconds between the clock and the file system's
_DAY = 86_400
_SECRETS = ("keys/*", "*.key")  # of correlated noise, and of whoever signs or decrypts


def versions() -> Iterator[Finding]:
    """Whether every package is one that fedrec is made for."""
    wanted = [Requirement(line) for line in metadata.requires("fedrec") or ()]
    needed = [one for one in wanted if _applies(one)]
    wrong = [said for one in needed if (said := _misfit(one))]
    yield Finding(
        name="versions", code="P02", ok=bool(needed) and not wrong,
        seen="; ".join(wrong) or f"{len(needed)} packages within their ranges",
        remedy='Install fedrec again: pip install --upgrade "fedrec[train]".',
    )  # fmt: skip


def switches() -> Iterator[Finding]:
    """Whether Flower and Ray are kept from calling home, updating themselves and installing packages."""
    from fedrec.exchange.flower import ignored

    wrong = ignored()
    yield Finding(
        name="network switches", code="P09", ok=not wrong,
        seen=f"not as fedrec sets them: {', '.join(wrong)}" if wrong else "no telemetry, no update check, no installs",
        remedy="Unset these variables, and import fedrec before flwr.",
    )  # fmt: skip


def devices() -> Iterator[Finding]:
    """Whether devices compute float32 as float32, which clip norms rest on, and one that is missing is refused."""
    import torch

    from fedrec.model.devices import gpus

    named = gpus()
    wrong = [why for name in ("cpu", *(f"cuda:{n}" for n in range(len(named)))) if (why := _refused(name))]
    if not named and not _refused("cuda"):
        wrong.append("a GPU that is not there is not refused")
    repeats = "the same bits" if torch.are_deterministic_algorithms_enabled() else "the same up to rounding"
    there = f"a run repeats on a GPU {repeats}" if named else f"torch {torch.__version__} sees no GPU"
    yield Finding(
        name="devices", code="P08", ok=not wrong, seen="; ".join(wrong or ["cpu", *named, there]),
        remedy='Unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE; keep torch.set_float32_matmul_precision at "highest".',
    )  # fmt: skip


def clock() -> Iterator[Finding]:
    """Whether the clock is later than the installation, runs forward, and agrees with the file system."""
    installed = Path(__file__).stat().st_mtime
    before, ticks = time.time(), time.monotonic()
    with tempfile.NamedTemporaryFile() as file:
        written = Path(file.name).stat().st_mtime
    strayed = abs((time.time() - before) - (time.monotonic() - ticks))
    faults = []
    if before < installed - _DAY:
        faults.append("it is before the installation of fedrec")
    if strayed > _DRIFT:
        faults.append(f"it jumped by {strayed:.1f} seconds")
    if abs(written - before) > _DRIFT + strayed:
        faults.append(f"files are dated {written - before:+.1f} seconds off")
    yield Finding(
        name="clock", code="P11", ok=not faults, seen="; ".join(faults) or "runs forward and agrees with the disk",
        remedy="Set the clock: ledgers and windows of the public clock are dated by it.",
    )  # fmt: skip


def disk(folders: Iterable[Path]) -> Iterator[Finding]:
    """Whether there is room for ledgers: a round whose charge cannot be written is lost."""
    for folder in folders:
        free = shutil.disk_usage(_existing(folder)).free
        yield Finding(
            name=f"free disk in {folder}", code="P11", ok=free >= _LEAST_FREE, seen=f"{free / 1e9:,.1f} GB free",
            remedy=f"Make room: at least {_LEAST_FREE / 1e9:.1f} GB.",
        )  # fmt: skip


def ledgers(folders: Iterable[Path]) -> Iterator[Finding]:
    """Whether both kinds of ledger can be written, synced to the disk, and read back as they were."""
    for folder in folders:
        seen, ok = "written, synced, and read back", True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as place:
                _server_ledger(Path(place))
                _device_ledger(Path(place))
        except (FedrecError, OSError) as error:
            seen, ok = str(error), False
        yield Finding(
            name=f"ledgers in {folder}", code="P11", ok=ok, seen=seen,
            remedy="Give this user a folder on a local disk to read, write and sync.",
        )  # fmt: skip


def keys(folders: Iterable[Path]) -> Iterator[Finding]:
    """Whether secrets on disk are their owner's alone."""
    for folder in folders:
        secrets = [path for path in _secrets(folder) if path.is_file()]
        loose = sorted(path.name for path in secrets if stat.S_IMODE(path.stat().st_mode) & 0o077)
        seen = f"others may read {', '.join(loose[:5])}" if loose else f"{len(secrets)} secrets, none open to others"
        yield Finding(
            name=f"keys in {folder}", code="P07", ok=not loose, seen=seen,
            remedy="chmod 600 these files, and make new ones if somebody may have read them.",
        )  # fmt: skip


def _refused(device: str) -> str:
    """Why a device is refused, "" if it is not."""
    from fedrec.model.devices import usable_device

    try:
        usable_device(device)
    except SpecError as error:
        return f"{device}: {error.rule}"
    return ""


def _applies(one: Requirement) -> bool:
    return one.marker is None or one.marker.evaluate({"extra": "train"})


def _misfit(one: Requirement) -> str:
    try:
        found = metadata.version(one.name)
    except metadata.PackageNotFoundError:
        return f"{one.name} is missing"
    fits = one.specifier.contains(found, prereleases=True)
    return "" if fits else f"{one.name} is {found}, not {one.specifier}"


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _secrets(folder: Path) -> Iterator[Path]:
    """As deep as runs lie."""
    for pattern in _SECRETS:
        for depth in ("", "*/", "*/*/"):
            yield from folder.glob(depth + pattern)


def _server_ledger(place: Path) -> None:
    plan = PrivacyPlan(
        mode=Mode.USER_DISTRIBUTED, population=10, budget=Budget(epsilon=8.0, delta=1e-3, population=10), least=5,
        phases=(Phase(rounds=2, schedule=Cyclic(1), clip=1.0, multiplier=4.0, grid=2**16),),
    )  # fmt: skip
    path = place / "ledger.jsonl"
    with Ledger(path, plan) as ledger:
        ledger.reserve(1)
        ledger.charge(1, "0" * 64)
        ledger.release(1, "0" * 64)
        head = ledger.head
    with Ledger(path, plan) as again:
        if again.head != head or again.charged != (1,):
            raise RunError("a server's ledger holds what was written", remedy="Use a local disk.")


def _device_ledger(place: Path) -> None:
    limits = Limits(participations=2, user=Limit(8.0, 1e-3))
    cost = Charge(user=((Gaussian(4.0, Relation.ZERO_OUT), 1),))
    terms = Terms(task="doctor", statement="", spans=(Span(first=1, rounds=2, participations=2, charge=cost),),
                  most=limits)  # fmt: skip
    path, sent = place / "device.sqlite", os.urandom(64)
    with DeviceLedger(path, limits) as ledger:
        ledger.enrol("device", terms)
        ledger.reserve("device", "doctor", 1)
        ledger.seal("device", "doctor", 1, sent)
    with DeviceLedger(path, limits) as again:
        if again.sent("device", "doctor", 1) != sent:
            raise RunError("a device's ledger holds what was written", remedy="Use a local disk.")
