"""An app's device takes part at a real site over TLS, on its owner's terms, and only then."""

import socket
import time

import numpy as np
import pytest
from apps import App, begun, invitation, plan_of, settled
from devices import Settlement

from fedrec.deploy.enrol import enrol
from fedrec.device.member import Member, Work
from fedrec.device.policy import Policy
from fedrec.embed import stay
from fedrec.embed.contribute import hindrance
from fedrec.embed.contributor import partner
from fedrec.embed.stay import Ending
from fedrec.errors import BudgetExceeded
from fedrec.exchange import wire
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.terms import Adversary, Mode, Relation, Unit
from fedrec.rounds.aggregate import Turn
from simulations.deployments.oracle import model_of

ROUNDS, OTHERS = 2, 5
PLAN = plan_of(OTHERS + 1, ROUNDS)
LAYERED = PLAN.override({
    "privacy": {"mode": "layered", "noise": "test", "force": True, "epsilon": 50.0, "allow_large_epsilon": True},
    "interaction": {"epsilon": 50.0}, "shares": {"masked": True},
})  # fmt: skip


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """What became of a whole training behind masks: the federation, the app, its preview before, and the outcome."""
    folder = tmp_path_factory.mktemp("masked")
    federation = begun(folder / "it", LAYERED, OTHERS)
    try:
        app = settled(federation, federation.folder / f"host-app/{OTHERS:05}", OTHERS)
        enrol(app.folder, invitation(federation))
        app.preview, app.sent, app.revealed = app.ledger.preview(), [], []
        app.consent.grant("contribute")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire, "update", noting(app.sent, wire.update))
            patch.setattr(Member, "_learnt", slowed(Member._learnt))
            patch.setattr(Member, "revealed", lambda member, number: app.revealed.append(number))
            outcome = app.contribute()
        federation.finished(seconds=120)
        yield federation, app, outcome
    finally:
        federation.stop()


def noting(seen, update):
    def noted(to, header, sent):
        seen.append(sent)
        return update(to, header, sent)

    return noted


def slowed(learnt):
    """Training that lasts longer than the app takes to notice that the round was paid for."""

    def later(*rest):
        time.sleep(4 * stay._LOOK)
        return learnt(*rest)

    return later


@pytest.fixture
def no_sockets(monkeypatch):
    """Whoever opens a connection fails."""

    def refuse(*rest):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_an_app_takes_part_like_any_other_device(masked):
    federation, app, outcome = masked
    assert (outcome.ending, outcome.rounds) == (Ending.NO_BUDGET, tuple(range(1, ROUNDS + 1)))
    assert app.revealed == [1, 2]  # it stayed for the last round too, though by then nothing was left to give
    expected = model_of(federation.site.run, federation.world, federation.folder / "oracle")
    assert federation.model.tobytes() == expected.tobytes()


def test_the_ledger_says_what_was_given_and_that_nothing_is_left(masked):
    _, app, outcome = masked
    summary = app.ledger.summary()
    assert (summary.rounds, summary.bytes_sent) == (ROUNDS, outcome.bytes_sent)
    (task,) = summary.tasks
    assert (task.rounds, task.left) == (ROUNDS, 0)
    assert [(one.so_far.unit, one.so_far.relation, one.so_far.adversary) for one in task.spent] == [
        (Unit.USER, Relation.ZERO_OUT, Adversary.READER),
        (Unit.INTERACTION, Relation.REPLACE_ONE, Adversary.ANYONE),
    ]
    assert all(0 < one.so_far.epsilon <= one.most for one in task.spent)
    assert [str(entry.step) for entry in app.ledger.entries()] == ["enrolled", *["reserved", "sealed"] * ROUNDS]


def test_the_preview_was_what_was_sent(masked):
    _, app, outcome = masked
    (sending,) = app.preview.sendings
    assert [(sent.shape, str(sent.dtype)) for sent in app.sent] == [(sending.shape, sending.dtype)] * ROUNDS
    assert {sent.nbytes for sent in app.sent} == {sending.bytes}
    assert (sending.times, sending.masked, app.preview.seat) == (ROUNDS, True, OTHERS)
    assert sum(int(np.prod(part.shape)) for part in sending.parts) == sending.shape[0]
    assert outcome.bytes_sent > ROUNDS * sending.bytes
    assert app.ledger.preview().sendings == ()


def test_the_cost_that_was_previewed_is_what_the_ledger_says(masked):
    _, app, _ = masked
    charges = app.preview.sendings[0].cost
    first = DeviceLedger.read(app.folder / "ledger.sqlite").standings[str(OTHERS)].seats[app.preview.task].terms
    assert charges == first.most.guarantees(first.spans[0].charge)


def test_when_nothing_is_left_nothing_is_opened(masked, no_sockets):
    _, app, _ = masked
    assert app.contribute().ending is Ending.NO_BUDGET


def test_forgetting_keeps_what_was_spent(masked):
    """Last of those that use this app: it has no events any more."""
    _, app, _ = masked
    before = app.ledger.summary()
    app.store.forget(everything=True)
    assert len(app.store) == 0
    assert app.ledger.summary() == before and before.rounds == ROUNDS


# Without a site.


def test_a_site_that_is_away_is_said_to_be(tmp_path):
    home = Settlement(tmp_path).device(0)
    app = App(home)
    app.consent.grant("contribute")
    said = []
    outcome = app.contribute(seconds=1.5, told=said.append)
    assert (outcome.ending, outcome.rounds, outcome.bytes_sent) == (Ending.AWAY, (), 0)
    assert any("in reach" in words for words in said)


def test_a_task_beyond_the_terms_is_refused(tmp_path, no_sockets):
    home = Settlement(tmp_path).device(0, policy='modes = ["user-local"]\n')
    app = App(home)
    app.consent.grant("contribute")
    outcome = app.contribute()
    assert outcome.ending is Ending.REFUSED and "modes of its policy" in outcome.reason


def test_a_cap_on_what_nobody_counts_is_refused(tmp_path):
    """A task without promises costs nothing that a ledger can say: under a cap, no device takes part in it."""
    work = Work(Settlement(tmp_path).task)
    app = App(tmp_path / "me")
    app.consent.grant("contribute", max_epsilon=1.0)
    with partner(app.folder, app.store, app.consent, work, policy=Policy(modes=(Mode.NONE,))) as device:
        with pytest.raises(BudgetExceeded, match="a cap holds for what a device can count by itself"):
            device.take_part(Turn(1), work.task.model.initial)
        app.consent.grant("contribute")
        assert device.take_part(Turn(1), work.task.model.initial) is not None


@pytest.mark.parametrize(("prepare", "ending"), [
    (lambda app: None, Ending.NO_CONSENT),
    (lambda app: (app.consent.grant("contribute"), app.consent.withdraw("contribute")), Ending.NO_CONSENT),
    (lambda app: (app.consent.grant("contribute"), app.consent.pause()), Ending.PAUSED),
    (lambda app: app.consent.grant("contribute"), Ending.NOT_ENROLLED),
])  # fmt: skip
def test_nothing_is_opened_without_a_reason_to(tmp_path, no_sockets, prepare, ending):
    app = App(tmp_path)
    prepare(app)
    outcome = app.contribute()
    assert (outcome.ending, outcome.rounds, outcome.bytes_sent) == (ending, (), 0)
    assert hindrance(app.folder, app.consent).ending is ending


def test_a_condition_is_named(tmp_path, no_sockets):
    app = App(tmp_path)
    app.consent.grant("contribute")
    asked = []
    conditions = {"charging": lambda: True, "unmetered": lambda: False, "idle": lambda: asked.append(1)}
    outcome = app.contribute(conditions=conditions, invitation="of no use")
    assert (outcome.ending, outcome.reason) == (Ending.CONDITION, "Not now: it is not unmetered.")
    assert not asked
