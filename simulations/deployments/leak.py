"""Whether any word of a person, or any choice, is found where it must not be: on the wire, at the server, in logs."""

from __future__ import annotations

from pathlib import Path

from fedrec.deploy.folder import EVENTS, DeviceFolder
from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.exchange.flower import crashed
from simulations.deployments.hostile import at_work
from simulations.deployments.relay import Relay
from simulations.deployments.tap import Tape, files, leaks, tls_of
from simulations.deployments.trial import DEVICES, HOSTS, MASKED, Outcome, Trial, trial

SEARCH, REVIEW, ITEM = "zq search at home qz", "zq review at home qz", "zq-item-at-home-qz"
BETRAYED = "zq betrayed qz"  # by a device that the search must catch
_BACK = 1_000_000_000  # Unix seconds


def leak(folder: Path) -> Outcome:
    """No fault but a tap on every device's line, in the clear; and one more device that betrays its person."""
    tape = Tape()
    plan = MASKED.override(
        {"clients": DEVICES + 1, "federation": {"cohort": DEVICES + 1}, "shares": {"survivors": 0.75}}
    )
    hosts = [*(f"host-{number}" for number in range(HOSTS)), "evil"]
    tap = lambda site: Relay(site.spec.port, tape, tls_of(site))
    with trial(folder, plan, line=tap, behind=hosts, join=False) as run:
        evil = run.folder / "evil" / "00006"
        run.federation.admit(evil)
        for device in run.federation.devices:
            plant(device, run.federation.world.dataset.catalogue.ids[0])
        run.federation.join([run.folder / host for host in hosts[:HOSTS]])
        with at_work([(evil, lambda node, honest: lambda message: crashed(message, BETRAYED))]):
            run.federation.finished(seconds=300)
    return judged(run, tape)


def plant(device: Path, known: str) -> None:
    """A search, a review of a `known` item, and an item that is in no catalogue."""
    with DeviceFolder(device).events() as store:
        store.append([
            Act(kind=Kind.SEARCH, text=SEARCH, time=_BACK), Act(kind=Kind.LIKE, item=ITEM, time=_BACK + 1),
            Act(kind=Kind.REVIEW, item=known, text=REVIEW, time=_BACK + 2),
        ])  # fmt: skip


def judged(run: Trial, tape: Tape) -> Outcome:
    """What the search finds of honest devices and of the one that betrays; and whether it finds what is there."""
    own = run.federation.devices
    places = [*tape.places(), *files(run.folder, without=[*own, run.folder / "evil"])]
    found = leaks(iter(places), [SEARCH, REVIEW, ITEM])
    betrayed = leaks(iter(places), [BETRAYED])
    chosen = sum(map(tape.said, run.federation.world.dataset.catalogue.ids))
    assert leaks(files(own[0]), [SEARCH, REVIEW, ITEM]), f"the search finds what is in {EVENTS}"
    assert betrayed["wire (up)"], "the search finds what a device betrays"
    size = sum(len(content) for _, content in places)
    note = (f"{size:,} bytes in {len(places)} places: {dict(found) or 'nothing of anybody'}; {chosen} item ids sent; "
            f"what one device betrayed on purpose was found in {', '.join(sorted(betrayed))}")  # fmt: skip
    clean = not found and not chosen
    return Outcome(True, "—", "—" if clean else "wrong: something leaked", run.seconds, note)
