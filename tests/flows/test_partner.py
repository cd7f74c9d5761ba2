"""The same device in a grid of this process: same model, same ledger, same cap, same word that stops it."""

import threading
from contextlib import ExitStack

import numpy as np
import pytest
from devices import Settlement

from fedrec.device.act import acts_of
from fedrec.device.member import Work
from fedrec.device.policy import InteractionCap, Policy, UserCap
from fedrec.device.rounds import DeviceRounds
from fedrec.device.store import Store
from fedrec.embed.consent import Consent
from fedrec.embed.contribute import hindrance
from fedrec.embed.contributor import partner
from fedrec.embed.ledger import LedgerView
from fedrec.embed.preview import preview
from fedrec.embed.recommender import Recommender
from fedrec.embed.stay import Ending
from fedrec.errors import BudgetExceeded, PrivacyRefusal
from fedrec.exchange import wire
from fedrec.exchange.client import client_app
from fedrec.exchange.serve import Patience, serve
from fedrec.population.grid import in_process
from fedrec.population.simulate import Simulation
from fedrec.privacy.terms import Mode, Unit
from fedrec.rounds.aggregate import Turn
from fedrec.speed import Engine, Speed

TEST = {"noise": "test", "force": True, "epsilon": 50.0, "allow_large_epsilon": True}
MODES = {
    "none": {},
    "user-local": {"privacy": {"mode": "user-local", **TEST}},
    "interaction-local": {"privacy": {"mode": "interaction-local", **TEST}, "interaction": {"epsilon": 50.0}},
    "layered": {"privacy": {"mode": "layered", **TEST}, "interaction": {"epsilon": 50.0}, "shares": {"masked": False}},
}
ANYTHING = Policy(
    modes=tuple(Mode), user=UserCap(epsilon=1e6, delta=0.5, lifetime=1e6),
    interaction=InteractionCap(epsilon=1e6, delta=0.5, lifetime=1e6),
)  # fmt: skip
EVERYBODY = 5


class App:
    """What an app holds of one person."""

    def __init__(self, folder, stack):
        self.folder, self.store = folder, stack.enter_context(Store(folder / "events.sqlite"))
        self.consent = Consent(self.store)
        self.ledger = LedgerView(folder, self.store, self.consent)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def village(folder, stack, mode):
    """Everybody of a simulation as an app with consent, and their devices."""
    settlement = Settlement(folder, MODES[mode] | {"warm": {"enabled": False}})
    work = Work(settlement.task)
    apps = [App(settlement.device(seat, policy=ANYTHING.to_toml()), stack) for seat in range(EVERYBODY)]
    devices = []
    for seat, app in enumerate(apps):
        app.consent.grant("contribute")
        devices.append(stack.enter_context(
            partner(app.folder, app.store, app.consent, work, seat=seat, policy=ANYTHING)
        ))  # fmt: skip
    return settlement, apps, devices


def train(settlement, devices, folder):
    app = client_app(lambda context: devices[int(context.node_config["partition-id"])])
    return serve(settlement.task, in_process(app, EVERYBODY), folder, patience=Patience(coming=5.0))


@pytest.mark.parametrize("mode", MODES)
def test_apps_train_what_the_simulation_trains_and_send_what_the_preview_said(tmp_path, stack, mode, monkeypatch):
    settlement, apps, devices = village(tmp_path, stack, mode)
    said, seen, update = preview(apps[0].folder), [], wire.update

    def noted(to, header, sent):
        reply = update(to, header, sent)
        seen.append((sent.shape, str(sent.dtype), sent.nbytes, tuple(reply.content["header"])))
        assert set(reply.content) == {"header", said.fields[0]}
        return reply

    monkeypatch.setattr(wire, "update", noted)
    (tmp_path / "served").mkdir()
    shared = train(settlement, devices, tmp_path / "served")
    simulation = Simulation.start(settlement.task.plan, tmp_path / "loop", speed=Speed(engine=Engine.LOOP))
    simulation.train(lambda row: None)
    assert shared.tobytes() == simulation._trained()[1].tobytes()
    (sending,) = said.sendings
    assert set(seen) == {(sending.shape, sending.dtype, sending.bytes, said.fields[1:])}
    assert sum(int(np.prod(part.shape)) for part in sending.parts) == sending.shape[0]
    rounds = settlement.task.plan.rounds
    assert [device.rounds for device in devices] == [[*range(1, rounds + 1)]] * EVERYBODY
    assert [app.ledger.summary().rounds for app in apps] == [0 if mode == "none" else rounds] * EVERYBODY


def test_the_noise_that_was_previewed_is_the_noise_that_is_added(tmp_path, stack):
    """Whatever the update, what leaves lies around it by the standard deviation that was said, in grid steps."""
    settlement, apps, devices = village(tmp_path, stack, "user-local")
    (sending,) = preview(apps[0].folder).sendings
    shared = settlement.task.model.initial
    sent = np.concatenate([device.take_part(Turn(1), shared) for device in devices]).astype(float)
    spread, most = sent.std() / sending.grid, np.hypot(sending.noise, sending.clip / np.sqrt(sending.shape[0]))
    assert 0.9 * sending.noise < spread < 1.1 * most


def test_a_cap_ends_it_before_it_is_passed_and_says_so(tmp_path, stack):
    settlement, apps, devices = village(tmp_path, stack, "user-local")
    app, device, shared = apps[0], devices[0], settlement.task.model.initial
    device.take_part(Turn(1), shared)
    (once,) = app.ledger.summary().together
    app.consent.grant("contribute", max_epsilon=1.2 * once.so_far.epsilon)  # two rounds cost 1.4 times as much or more
    with pytest.raises(BudgetExceeded, match="P10: a device spends at most its limit for each user"):
        device.take_part(Turn(2), shared)
    after = app.ledger.summary()
    assert (after.rounds, device.rounds) == (1, [1])
    assert after.together[0].so_far.epsilon <= after.together[0].most == 1.2 * once.so_far.epsilon
    assert 0 < after.together[0].left < once.so_far.epsilon
    assert hindrance(app.folder, app.consent).ending is Ending.NO_BUDGET
    assert device.take_part(Turn(1), shared) is not None, "what was paid for may be sent again"
    app.consent.grant("contribute")
    assert hindrance(app.folder, app.consent) is None
    device.take_part(Turn(2), shared)
    assert app.ledger.summary().together[0].so_far.epsilon > 1.2 * once.so_far.epsilon


def test_a_person_who_sits_in_another_seat_has_spent_what_they_spent(tmp_path, stack):
    """A new enrolment is no new person: the cap counts all that the ledger in the folder holds."""
    settlement, apps, devices = village(tmp_path, stack, "user-local")
    app, shared, work = apps[0], settlement.task.model.initial, Work(settlement.task)
    devices[0].take_part(Turn(1), shared)
    cap = 1.2 * app.ledger.summary().together[0].so_far.epsilon
    app.consent.grant("contribute", max_epsilon=cap)
    with partner(app.folder, app.store, app.consent, work, seat=4, policy=ANYTHING) as again:
        with pytest.raises(BudgetExceeded):
            again.take_part(Turn(1), shared)
        assert again.rounds == []


def test_without_consent_nothing_is_spent(tmp_path, stack):
    settlement, apps, devices = village(tmp_path, stack, "user-local")
    apps[0].consent.withdraw("contribute")
    with pytest.raises(PrivacyRefusal, match="without its owner's consent"):
        devices[0].take_part(Turn(1), settlement.task.model.initial)
    assert apps[0].ledger.summary().rounds == 0


def test_an_update_that_was_made_while_the_consent_was_withdrawn_is_not_handed_over(tmp_path, stack, monkeypatch):
    settlement, apps, devices = village(tmp_path, stack, "user-local")
    training, go_on, round_of = threading.Event(), threading.Event(), DeviceRounds.round

    def slow(self, *rest):
        training.set()
        assert go_on.wait(30)
        return round_of(self, *rest)

    monkeypatch.setattr(DeviceRounds, "round", slow)
    got = []

    def ask():
        try:
            got.append(devices[0].take_part(Turn(1), settlement.task.model.initial))
        except PrivacyRefusal as refusal:
            got.append(refusal)

    thread = threading.Thread(target=ask)
    thread.start()
    assert training.wait(30)
    apps[0].consent.withdraw("contribute")
    go_on.set()
    thread.join(30)
    assert isinstance(got[0], PrivacyRefusal)
    assert apps[0].ledger.summary().rounds == 1, "what was spent stays spent"


def test_what_was_spent_outlives_forgetting_and_a_copy_from_before(tmp_path, stack):
    settlement, apps, devices = village(tmp_path, stack, "user-local")
    app = apps[0]
    with Recommender.open(app.folder) as rec:
        rec.log("search", text="what is forgotten")
        rec.export(tmp_path / "before.zip")
        devices[0].take_part(Turn(1), settlement.task.model.initial)
        spent = rec.ledger.summary()
        rec.consent.withdraw("contribute")
        assert rec.forget(everything=True)
    with Recommender.restore(tmp_path / "before.zip", app.folder) as rec:
        assert (rec.ledger.summary().tasks, spent.rounds) == (spent.tasks, 1)
        assert not rec.consent.state().contribute, "a copy from before does not grant what was withdrawn since"


def test_a_person_whose_events_are_encrypted_takes_part_alike(tmp_path, stack):
    settlement, _, devices = village(tmp_path, stack, "none")
    world, work, home = settlement.simulation.world, Work(settlement.task), tmp_path / "sealed"
    home.mkdir()
    store = stack.enter_context(Store(home / "events.sqlite", key=bytes(range(32))))
    store.append(acts_of(world.population[2].before(int(world.cuts[2])), settlement.task.catalogue.ids))
    consent, shared = Consent(store), settlement.task.model.initial
    consent.grant("contribute")
    with partner(home, store, consent, work, seat=2, policy=ANYTHING) as device:
        sealed = device.take_part(Turn(1), shared)
    assert sealed.tobytes() == devices[2].take_part(Turn(1), shared).tobytes() != bytes(sealed.nbytes)


def test_before_the_first_round_the_ledger_says_zero_of_what(tmp_path, stack):
    _, apps, _ = village(tmp_path, stack, "layered")
    summary = apps[0].ledger.summary()
    assert (summary.rounds, summary.last, summary.bytes_sent) == (0, None, 0)
    spent = summary.tasks[0].spent
    assert [(one.so_far.epsilon, one.so_far.unit) for one in spent] == [(0.0, Unit.USER), (0.0, Unit.INTERACTION)]
    assert [one.left for one in spent] == [1e6, 1e6]


def test_a_preview_reads_like_a_page(tmp_path, stack):
    _, apps, _ = village(tmp_path, stack, "user-local")
    text = apps[0].ledger.preview().text()
    for words in ("To https://127.0.0.1:9, seat 0", "training, rounds 1 to 2, at most 2 times", "(int32, ",
                  "standard deviation", "Never sent as such: what you did, and when"):  # fmt: skip
        assert words in text


def test_a_preview_of_what_the_terms_refuse_is_the_refusal(tmp_path, stack):
    home = Settlement(tmp_path).device(0, policy='modes = ["user-local"]\n')
    with pytest.raises(PrivacyRefusal, match="P10"):
        preview(home)
