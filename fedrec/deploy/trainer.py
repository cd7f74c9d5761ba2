"""The trainer: the process of a site that holds the model. It runs what is installed here, and nothing else.

Killed at any moment and started again, it goes on from the last checkpoint and pays no less than it released.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedrec.deploy import bell
from fedrec.deploy.board import WAITING
from fedrec.deploy.identity import Witness, parse_point
from fedrec.deploy.logs import note, start_logging
from fedrec.deploy.roster import Roster
from fedrec.deploy.site import Site
from fedrec.errors import FedrecError, RunError, SpecError
from fedrec.exchange.serve import Patience, devices, serve
from fedrec.exchange.strategy import Observer, Progress
from fedrec.exchange.superlink import executing, readmit
from fedrec.exchange.watch import Step, Watched
from fedrec.files import write_atomic
from fedrec.model.pack import write_pack
from fedrec.model.pack_files import read_manifest
from fedrec.model.publish import latest, publish
from fedrec.privacy.statement import Statement, statements, written
from fedrec.runs import Run
from fedrec.task import Task
from fedrec.threads import every

_BEAT = 5.0  # seconds between two signs of life
_WEEKS = 6e7  # seconds: devices may take as long to come as they like
_RETURN = 60.0  # seconds: after a restart
_LOG = logging.getLogger("fedrec.trainer")


class Board:
    """What operators see of the trainer: a few numbers in two small files, and a sign of life in the first.

    Who was asked is not among them; how many were is, where that is no secret.
    """

    def __init__(self, site: Site, task: Task) -> None:
        self._site, self._task, self._lock = site, task, threading.Lock()
        self._first = "keys" if task.privacy and task.privacy.masking else "updates"
        self._patience = site.spec.phase_seconds
        self._refused: Counter[str] = Counter()
        self._now: dict[str, Any] = {"round": 0, "phase": "starting", "since": time.time(), "attempt": 1}

    def step(self, step: Step) -> None:
        """A step of a round has begun, or one more answer has come."""
        with self._lock:
            if step.answered == 0:  # it begins
                again = step.round == self._now["round"]
                attempt = self._now["attempt"] + (step.phase == self._first) if again else 1
                self._now = {"round": step.round, "phase": step.phase, "since": time.time(), "attempt": attempt}
                self._now["deadline"] = time.time() + self._patience
            if self._public(step.round):
                self._now |= {"asked": step.asked, "answered": step.answered}
        if step.answered in (0, step.asked):
            self.beat()

    def phase(self, name: str, number: int) -> None:
        """The trainer does something of its own."""
        with self._lock:
            self._now = {"round": number, "phase": name, "since": time.time(), "attempt": 1}
        self.beat()

    def finished(self, progress: Progress) -> None:
        """A round is over."""
        last: dict[str, Any] = {"round": progress.round, "phase": "finished", "beat": time.time()}
        if progress.judged is not None:
            told = progress.judged
            self._refused.update(told.refused)
            last |= {"asked": told.asked, "accepted": told.accepted, "refused": dict(sorted(told.refused.items()))}
            last["refused_so_far"] = dict(sorted(self._refused.items()))  # since this process began
        write_atomic(self._site.state / "last.json", json.dumps(last).encode())

    def beat(self) -> None:
        """A sign of life. A disk that has no room for it now may have some later: that ends neither round nor signs."""
        with self._lock, suppress(OSError):
            content = json.dumps(self._now | {"beat": time.time()})
            write_atomic(self._site.state / "round.json", content.encode())

    def _public(self, number: int) -> bool:
        privacy = self._task.privacy
        if privacy is None or not 1 <= number <= privacy.rounds:
            return privacy is None
        return privacy.in_the_open(number)


def train(site: Site) -> None:
    """Train the site's run to its end over its SuperLink, and publish the model."""
    run, spec = Run.open(site.run), site.spec
    task = Task.open(run.path)
    _check_plan(run, task)
    board = Board(site, task)

    def observe(progress: Progress) -> None:
        if not run.told_last(progress.round):
            run.tell(progress.public())
        board.finished(progress)
        note(_LOG, "a round is over", {"round": progress.round})

    with run.locked(), Roster(site.roster, spec.seats) as roster, every(_BEAT, board.beat):
        last = task.plan.rounds
        if not run.over(task):
            _go_on(site, task, roster, board, observe, begun=run.checkpoint(task) is not None)
        board.phase("publishing", last)
        if not _is_published(site, task):
            publish_model(site, task)
        board.phase("finished", last)


def _check_plan(run: Run, task: Task) -> None:
    """Refuse a plan that was changed: unlike other faults of a run, another try does not mend it."""
    try:
        run.check_plan(task.plan)
    except RunError as error:
        remedy = (
            "Put run/plan.toml back as it was (each device has a copy: task/plan.toml), then stop the site and "
            "start it. Another plan is another site."
        )
        raise SpecError(error.rule, remedy=remedy, **error.got) from None


def _go_on(  # noqa: PLR0913  (what, where; who takes part, who hears of it)
    site: Site, task: Task, roster: Roster, board: Board, observe: Observer, *, begun: bool
) -> None:
    """All rounds that are still to do."""
    spec = site.spec
    board.phase(WAITING, 0)
    crew = devices(
        task, site.run, roster.nodes, begin=0.0 if begun else spec.begin, witness=Witness(site.roster_key),
        answers=spec.phase_seconds,
    )  # fmt: skip
    address, secret = spec.superlink_at, site.executor_secret.read_bytes()
    with executing(address, site.ca, secret, {"run": "fedrec"}, ring=lambda: bell.ring(site.bell)) as grid:
        _readmit(site, roster, address)
        if begun:
            _let_return(grid.get_node_ids, spec.awaited)
        patience = Patience(_WEEKS, spec.phase_seconds)
        serve(task, Watched(grid, board.step), site.run, [observe], crew=crew, patience=patience)


def _readmit(site: Site, roster: Roster, address: str) -> None:
    """Make every seat known to the SuperLink, should its database have been lost."""
    seats = {seat.seat: seat for seat in roster.seats() if seat.revoked is None}
    keys = {number: parse_point(seat.key) for number, seat in seats.items()}
    for number, node in readmit(address, site.ca, keys).items():
        if seats[number].node != node:
            roster.bind(number, node)


def _let_return(online: Callable[[], Sequence[int]], count: int) -> None:
    """Give devices a minute to come back after a restart; who is gone for good does not stop a run that has begun."""
    deadline = time.monotonic() + _RETURN
    while len(online()) < count and time.monotonic() < deadline:
        time.sleep(0.5)


def _is_published(site: Site, task: Task) -> bool:
    """Whether the latest pack is of the model as it is now."""
    version = latest(site.packs)
    if version is None:
        return False
    info = read_manifest(site.packs / str(version), site.signing.public_key())
    return (info.task, info.round) == (task.hash, Run(site.run).model(task)[0])


def publish_model(site: Site, task: Task, *, after: int = 0) -> int:
    """Publish the model as it is in the checkpoint now; the version. Every round's model may be seen: it is paid for.

    `after` is a version that devices have and the site lost. Refuses P16 a model that is not of the ledger's last
    release.
    """
    run = Run(site.run)
    number, shared = run.model(task)
    claims = claims_of(task, run.ledger_head(task))
    run.write("statement.json", written(claims))

    def build(folder: Path) -> None:
        write_pack(folder, task, shared, claims, round=number, beside=run.beside(task))

    return publish(site.packs, build, site.signing, keep=site.spec.packs, after=after, encoder=site.encoder)


def claims_of(task: Task, head: str = "") -> tuple[Statement, ...]:
    """Who is protected from whom by a deployment of `task`."""
    return statements(task.privacy, ledger_head=head, simulated=False)


def _waits(site: Site) -> bool:
    """Whether a round may be tried until enough have come. A drawn cohort is not drawn until it is large."""
    privacy = Task.open(site.run).privacy
    return privacy is not None and all(map(privacy.in_the_open, privacy.firsts))


def main(folder: str) -> int:
    """Train the site in `folder`; the exit code says whether it is worth trying again (5, 6) or not."""
    site = Site.open(Path(folder))
    start_logging("trainer", site.logs)
    try:
        train(site)
    except FedrecError as error:
        _LOG.error("the trainer stops: %s", error)
        print(f"fedrec: {error}", file=sys.stderr, flush=True)
        # Devices that did not come may come later: P06 is the one refusal that time mends.
        return RunError.exit_code if getattr(error, "code", "") == "P06" and _waits(site) else error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
