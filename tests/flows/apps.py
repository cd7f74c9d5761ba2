"""An app with one person's folder, and a real site where it may enrol."""

from fedrec.deploy.folder import POLICY
from fedrec.deploy.invitation import Invitation
from fedrec.deploy.roster import Roster
from fedrec.device.act import acts_of
from fedrec.device.store import Store
from fedrec.embed.consent import Consent
from fedrec.embed.contribute import contribute
from fedrec.embed.ledger import LedgerView
from fedrec.embed.stay import Occasion
from fedrec.spec import Plan
from simulations.deployments.federation import ANY, Federation


def plan_of(people, rounds):
    """A small task without promises, in which everybody is asked in every round."""
    return Plan.of({
        "clients": people, "seed": 3, "data": {"options": {"users": str(people), "items": "64"}},
        "model": {"encoder": "hash", "dim": 4, "rank": 2}, "federation": {"rounds": rounds, "cohort": people},
        "warm": {"enabled": False}, "evaluation": {"every": 0, "baselines": "none"},
    })  # fmt: skip


class App:
    """What an app holds of one person."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.store = folder, Store(folder / "events.sqlite")
        self.consent = Consent(self.store)
        self.ledger = LedgerView(folder, self.store, self.consent)

    def contribute(self, seconds=120.0, **more):
        return contribute(self.folder, self.store, self.consent, Occasion(seconds=seconds, **more))


def invitation(federation):
    site = federation.site
    with Roster(site.roster, site.spec.seats) as roster:
        (secret,) = roster.issue(1, seconds=3600)
    return Invitation(f"https://127.0.0.1:{site.spec.port}", site.id, secret).encode()


def begun(folder, plan, others, patience=60.0):
    """A site that waits for answers so long, and a machine with everybody else's devices."""
    federation = Federation.make(folder, plan, patience=patience)
    federation.serve()
    federation.enrol(1, seats=others)
    federation.join()
    return federation


def settled(federation, folder, client):
    """An app whose person is one of the plan's data, with a folder that is not enrolled yet."""
    app = App(folder)
    (folder / POLICY).write_text(ANY)
    history = federation.world.population[client].before(int(federation.world.cuts[client]))
    app.store.append(acts_of(history, federation.world.dataset.catalogue.ids))
    return app
