"""Taking part in training for a while, on the person's terms.

What trains comes with `fedrec[train]` and is imported where it is needed.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.embed.consent import Consent, Ticket
from fedrec.embed.ledger import LEDGER, exhausted, trained
from fedrec.embed.seat import CARD
from fedrec.embed.stay import ANY_TIME, REASONS, Ending, Occasion, Outcome, Stay
from fedrec.errors import PrivacyRefusal
from fedrec.privacy.device_ledger import DeviceLedger

if TYPE_CHECKING:
    from fedrec.deploy.folder import DeviceFolder
    from fedrec.deploy.host import Hosted
    from fedrec.device.store import Store


def contribute(folder: Path, store: Store, consent: Consent, occasion: Occasion = ANY_TIME) -> Outcome:
    """Take part in training for a while, and say what became of it.

    `store` is the folder's own, as the app has it open. Opens no connection unless there is consent, the conditions
    hold and something is left to give. Once the consent is withdrawn nothing more is sent, and a round under way is
    thrown away; only an enrolment that has begun comes to its end, and it says nothing of the person. Raises what is
    wrong with the folder, and `RunError` where `fedrec[train]` is missing.
    """
    ticket = consent.ticket()
    if nothing := hindrance(folder, consent, occasion):
        return nothing
    with trained("contributing"):
        return _taken_part(folder, store, ticket, occasion)


def hindrance(folder: Path, consent: Consent, occasion: Occasion = ANY_TIME) -> Outcome | None:
    """Why nothing would be contributed now, None if something may be. Opens no connection."""
    state = consent.state()
    if not state.contribute:
        return _because(Ending.NO_CONSENT)
    if state.paused:
        return _because(Ending.PAUSED)
    if unmet := occasion.unmet:
        return Outcome(Ending.CONDITION, f"Not now: it is not {unmet}.")
    if not (folder / CARD).exists():
        return None if occasion.invitation else _because(Ending.NOT_ENROLLED)
    return _because(Ending.NO_BUDGET) if exhausted(folder, state.max_epsilon) else None


def _because(ending: Ending) -> Outcome:
    return Outcome(ending, REASONS[ending])


def _taken_part(folder: Path, store: Store, ticket: Ticket, occasion: Occasion) -> Outcome:
    from fedrec.deploy.enrol import enrol
    from fedrec.deploy.folder import DeviceFolder
    from fedrec.deploy.host import usable

    if ticket.withdrawn(ticket.consent.state()):
        return _because(Ending.WITHDRAWN)
    if not (folder / CARD).exists():
        enrol(folder, occasion.invitation)
    home = DeviceFolder(folder)
    with ExitStack() as stack:
        stack.enter_context(usable(home))
        stack.enter_context(home.running())
        try:
            hosted = _opened(home, store, stack)
        except PrivacyRefusal as refusal:
            if refusal.code == "P11":
                raise
            return Outcome(Ending.REFUSED, str(refusal))
        return Stay(hosted, ticket, occasion).run(store)


def _opened(home: DeviceFolder, store: Store, stack: ExitStack) -> Hosted:
    """The folder's device over the store that the app has open, which may be encrypted. Refuses P10 as it does."""
    from fedrec.deploy.host import Hosted, work_of
    from fedrec.deploy.identity import Identity
    from fedrec.device.member import Member

    identity, policy, work = Identity.read(home.path), home.policy, work_of(home, {})
    ledger = stack.enter_context(DeviceLedger(home.path / LEDGER, policy.limits)) if work.task.privacy else None
    return Hosted(home, Member(work, identity.seat, store, policy=policy, ledger=ledger), identity)
