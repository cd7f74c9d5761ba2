"""Prometheus' figures: their form, their names, and what they never tell."""

import json
import re

import pytest
from operations import ROWS, course, fill, looked, secret, write
from prometheus_client.parser import text_string_to_metric_families

from fedrec.deploy.health import judge
from fedrec.deploy.metrics import exposition

AT = 1_800_000_000.0
TERMS = {"unit", "relation", "adversary"}


@pytest.fixture
def site(tmp_path):
    return fill(tmp_path, at=AT)


def text(site):
    look = looked(site, at=AT)
    return exposition(look, judge(look)).decode()


def families(site):
    return {family.name: family for family in text_string_to_metric_families(text(site))}


def value(site, name, /, **labels):
    found = [
        sample.value
        for family in families(site).values() for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]  # fmt: skip
    assert len(found) == 1, (name, found)
    return found[0]


def test_figures_of_a_site_worked_by_hand(site):
    assert value(site, "fedrec_round") == 2
    assert value(site, "fedrec_rounds_planned") == 20
    assert value(site, "fedrec_phase", phase="collecting") == 1
    assert value(site, "fedrec_round_seconds") == 4
    assert (value(site, "fedrec_download_bytes"), value(site, "fedrec_upload_bytes")) == (40_000, 80_000)
    assert value(site, "fedrec_clients_seats") == 12
    assert value(site, "fedrec_clients_enrolled") == 11
    assert value(site, "fedrec_clients_online") == 10
    assert value(site, "fedrec_cohort_asked") == 10
    assert value(site, "fedrec_cohort_accepted") == 8
    assert value(site, "fedrec_updates_rejected_total", reason="not finite") == 2
    assert value(site, "fedrec_updates_rejected_total", reason="out of bound") == 2
    assert value(site, "fedrec_epsilon_spent", unit="user", relation="zero-out") == 2
    assert value(site, "fedrec_epsilon_budget", adversary="the server that runs the rounds") == 9.5
    assert value(site, "fedrec_restarts_total", process="superlink") == 2
    assert value(site, "fedrec_certificate_expiry_timestamp_seconds") == AT + 397 * 86_400
    assert value(site, "fedrec_pack_version") == 2
    assert value(site, "fedrec_health", state="ok") == 1


def lint(content):
    """What Prometheus' own linter asks of names and help, and what we ask of an ε."""
    wrong = []
    for family in text_string_to_metric_families(content):
        if not re.fullmatch(r"fedrec_[a-z]+(_[a-z]+)*", family.name):
            wrong.append(f"name {family.name}")
        if not family.documentation.endswith("."):
            wrong.append(f"help of {family.name}")
        if family.type not in ("gauge", "counter"):
            wrong.append(f"type of {family.name}")
        for sample in family.samples:
            if (family.type == "counter") != sample.name.endswith("_total"):
                wrong.append(f"total of {sample.name}")
            if ("epsilon" in sample.name or "delta" in sample.name) and set(sample.labels) != TERMS:
                wrong.append(f"terms of {sample.name}")
    return wrong


def test_names_follow_the_practice(site):
    assert lint(text(site)) == []


@pytest.mark.parametrize(
    "planted",
    [
        "# HELP fedrec_epsilon_x An epsilon.\n# TYPE fedrec_epsilon_x gauge\nfedrec_epsilon_x 1\n",
        "# HELP fedrec_Bad Bad.\n# TYPE fedrec_Bad gauge\nfedrec_Bad 1\n",
        "# HELP fedrec_bad bad\n# TYPE fedrec_bad gauge\nfedrec_bad 1\n",
        "# HELP fedrec_bad Bad.\n# TYPE fedrec_bad histogram\nfedrec_bad_sum 1\n",
    ],
)
def test_the_lint_finds_what_is_planted(site, planted):
    assert lint(text(site) + planted)


def test_a_secret_cohort_leaves_no_trace(site):
    write(site, "state/round.json", secret(AT))
    write(site, "state/last.json", secret(AT, round=2))
    rows = [{name: row[name] for name in row.keys() - {"seconds", "clients", "refused"}} for row in ROWS]
    write(site, "run/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = text(site)
    assert not re.search(r"fedrec_(cohort|round_seconds|updates_rejected_total\{)", found)
    assert "fedrec_epsilon_spent{" in found


def test_a_public_cohort_of_a_private_run_counts_since_the_trainer_began(site):
    write(site, "run/metrics.jsonl", json.dumps({"round": 2}) + "\n")
    write(site, "state/last.json", course(AT, refused={"stale": 1}, refused_so_far={"stale": 4}))
    assert value(site, "fedrec_updates_rejected_total", reason="stale") == 4
    write(site, "state/last.json", secret(AT, refused_so_far={"stale": 4}))
    assert "stale" not in text(site)


def test_the_cohort_under_way_is_not_told(site):
    write(site, "state/last.json", secret(AT, round=2))
    assert "fedrec_cohort" not in text(site)


def test_nothing_is_known_of_an_empty_site_and_so_nothing_is_said(tmp_path):
    names = {family.name for family in text_string_to_metric_families(text(tmp_path))}
    assert "fedrec_round" in names and "fedrec_rounds_planned" not in names and "fedrec_cohort_asked" not in names


def test_reasons_in_somebody_elses_words_are_counted_as_other(site):
    refused = {'"},{evil="1': 2, "not finite": 1, "x" * 200: 3, "שלום": 4}
    write(site, "run/metrics.jsonl", json.dumps(ROWS[0] | {"refused": refused}) + "\n")
    assert value(site, "fedrec_updates_rejected_total", reason="other") == 9
    assert value(site, "fedrec_updates_rejected_total", reason="not finite") == 1
    assert "evil" not in text(site)


def test_a_phase_in_somebody_elses_words_is_a_torn_file(site):
    write(site, "state/round.json", course(AT, phase='x"} 1\nfedrec_round 99'))
    assert "fedrec_phase{" not in text(site)
    assert value(site, "fedrec_concern", name="unreadable files") == 1
