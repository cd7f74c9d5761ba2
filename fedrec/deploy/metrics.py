"""A site's figures for Prometheus: counts, budgets and dates; nothing of a person, a device or a secret cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedrec.deploy.health import Health, State
from fedrec.deploy.view import Look

__all__ = ["CONTENT_TYPE", "exposition"]

_TERMS = ("unit", "relation", "adversary")  # an ε never goes without them


def exposition(look: Look, health: Health) -> bytes:
    """Every figure of one look, in Prometheus' text format. What is not known is not there, rather than 0."""
    registry = CollectorRegistry()
    registry.register(_Figures(look, health))
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)
class _Figures(Collector):
    look: Look
    health: Health

    def collect(self) -> Iterator[Metric]:
        yield from _health(self.health)
        yield from _rounds(self.look)
        yield from _people(self.look)
        yield from _cohort(self.look)
        yield from _budget(self.look)
        yield from _machine(self.look)


def _health(health: Health) -> Iterator[Metric]:
    states = GaugeMetricFamily("fedrec_health", "1 for the state that the site is in.", labels=("state",))
    for state in State:
        states.add_metric((state.word,), float(health.state is state))
    yield states
    concerns = GaugeMetricFamily("fedrec_concern", "1 for each thing that is not as it should be.", labels=("name",))
    for name in sorted({concern.name for concern in health.concerns}):
        concerns.add_metric((name,), 1.0)
    yield concerns


def _rounds(look: Look) -> Iterator[Metric]:
    training = look.training
    done = training.rows[-1]["round"] if training.rows else 0
    yield GaugeMetricFamily("fedrec_round", "The last finished round.", value=done)
    yield from _gauge("fedrec_rounds_planned", "Rounds of the whole run.", training.planned)
    if look.now:
        phase = GaugeMetricFamily("fedrec_phase", "1 for what the trainer is doing.", labels=("phase",))
        phase.add_metric((look.now.phase,), 1.0)
        yield phase
        yield GaugeMetricFamily(
            "fedrec_trainer_beat_timestamp_seconds", "When the trainer was last heard of.", value=look.now.beat
        )
    last = training.rows[-1] if training.rows else {}
    yield from _gauge("fedrec_round_seconds", "How long the last round took, if anybody may know.", last.get("seconds"))
    yield from _gauge("fedrec_download_bytes", "What one client is sent in a round.", last.get("bytes_down"))
    yield from _gauge("fedrec_upload_bytes", "What one client sends in a round.", last.get("bytes_up"))


def _people(look: Look) -> Iterator[Metric]:
    if look.standing:
        yield GaugeMetricFamily("fedrec_clients_seats", "Seats of the site.", value=look.standing.seats)
        yield GaugeMetricFamily("fedrec_clients_enrolled", "Seats that are taken.", value=look.standing.enrolled)
        yield GaugeMetricFamily("fedrec_clients_online", "Seats heard of lately.", value=look.standing.online)


def _cohort(look: Look) -> Iterator[Metric]:
    """Of the last finished round: a round under way would show who answers when."""
    if look.last and look.last.public:
        yield from _gauge("fedrec_cohort_asked", "Clients asked in the last round.", look.last.asked)
        yield from _gauge("fedrec_cohort_accepted", "Updates accepted in the last round.", look.last.accepted)
    rejected = CounterMetricFamily("fedrec_updates_rejected", "Updates refused, by reason.", labels=("reason",))
    counts: Counter[str] = look.training.refused
    for reason, count in sorted(counts.items()):
        rejected.add_metric((reason,), count)
    yield rejected


def _budget(look: Look) -> Iterator[Metric]:
    spent = GaugeMetricFamily("fedrec_epsilon_spent", "What all charges so far cost.", labels=_TERMS)
    promised = GaugeMetricFamily("fedrec_epsilon_budget", "What the whole plan costs, as promised.", labels=_TERMS)
    delta = GaugeMetricFamily("fedrec_delta", "The delta of both.", labels=_TERMS)
    if look.training.spent and look.training.spent.epsilon is not None:
        spent.add_metric(look.training.spent.terms, look.training.spent.epsilon)
    for claim in look.training.claims:
        if claim.epsilon is not None and claim.delta is not None:
            promised.add_metric(claim.terms, claim.epsilon)
            delta.add_metric(claim.terms, claim.delta)
    yield from (spent, promised, delta)


def _machine(look: Look) -> Iterator[Metric]:
    restarts = CounterMetricFamily("fedrec_restarts", "Times a process was started again.", labels=("process",))
    for process, count in sorted(look.machine.restarts.items()):
        restarts.add_metric((process,), count)
    yield restarts
    yield from _gauge("fedrec_disk_free_bytes", "Room where the site lies.", look.machine.free)
    if look.machine.certificate:
        help_ = "Until when the server's certificate is valid."
        ends = look.machine.certificate[1]
        yield GaugeMetricFamily("fedrec_certificate_expiry_timestamp_seconds", help_, value=ends)
    latest = next((pack.version for pack in look.packs if pack.latest), None)
    yield from _gauge("fedrec_pack_version", "The published model that devices are offered.", latest)


def _gauge(name: str, documentation: str, value: object) -> Iterator[Metric]:
    if isinstance(value, int | float):
        yield GaugeMetricFamily(name, documentation, value=float(value))
