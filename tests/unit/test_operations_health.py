"""Health at one look: each thing that can be wrong, and a site where nothing is."""

import json
import re
from pathlib import Path

import pytest
from operations import READER, ROWS, certify, course, fill, keep_ledger, looked, secret, write

from fedrec.deploy import view as views
from fedrec.deploy.clock import Steps
from fedrec.deploy.glances import Condition
from fedrec.deploy.health import Margins, State, judge

AT = 1_800_000_000.0
DAY = 86_400
ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path):
    return fill(tmp_path, at=AT)


def judged(site, at=AT):
    health = judge(looked(site, at=at))
    return health.state, [concern.name for concern in health.concerns]


def test_a_sound_site_is_ok_and_says_nothing_else(site):
    keep_ledger(site)
    health = judge(looked(site, at=AT))
    assert (health.state, health.concerns, health.ready) == (State.OK, (), True)
    assert health.public() == {"state": "ok", "concerns": []}


def test_an_empty_folder_is_not_ready(tmp_path):
    health = judge(looked(tmp_path, at=AT))
    assert health.state is State.FAILING and not health.ready
    assert [concern.name for concern in health.concerns] == ["trainer silent", "certificate"]


@pytest.mark.parametrize(("silence", "state"), [(60, State.OK), (61, State.FAILING)])
def test_a_trainer_may_be_silent_for_a_minute(site, silence, state):
    write(site, "state/round.json", course(AT, beat=AT - silence))
    assert judged(site)[0] is state


def test_a_trainer_that_has_finished_may_be_silent_for_ever(site):
    write(site, "state/round.json", course(AT, phase="finished", beat=AT - 9 * DAY, deadline=AT - 9 * DAY))
    certify(site, AT)
    assert judged(site) == (State.OK, [])


@pytest.mark.parametrize(
    ("condition", "state"),
    [("starting", State.OK), ("up", State.OK), ("done", State.OK), ("started again", State.DEGRADED),
     ("down", State.FAILING), ("given up", State.FAILING)],
)  # fmt: skip
def test_a_door_that_does_not_stay_up_is_a_concern_even_when_training_is_over(site, condition, state):
    write(site, "state/round.json", course(AT, phase="finished"))
    write(site, "state/children.json", {"superlink": "up", "door": condition, "trainer": "done"})
    write(site, "state/restarts.json", {"door": 7})
    health = judge(looked(site, at=AT))
    assert health.state is state and {concern.name for concern in health.concerns} <= {"process down"}
    assert all("door" in concern.seen and "logs/door.out" in concern.remedy for concern in health.concerns)


@pytest.mark.parametrize(
    ("condition", "names"),
    [("starting", []), ("given up", ["process down"]), ("up", ["trainer silent"]), ("done", ["trainer silent"])],
)
@pytest.mark.parametrize("beat", [None, AT - 9 * DAY])
def test_a_trainer_that_has_just_been_started_may_be_silent_and_one_that_gave_up_is_told_once(
    site, condition, names, beat
):
    (site / "state" / "round.json").unlink() if beat is None else write(
        site, "state/round.json", course(AT, beat=beat, deadline=None)
    )
    write(site, "state/children.json", {"trainer": condition})
    assert judged(site)[1] == names


@pytest.mark.parametrize("content", ['{"door": "ajar"}', '{"somebody@example.org": "up"}', "[]", "{"])
def test_conditions_that_are_not_ours_are_not_believed(site, content):
    write(site, "state/children.json", content)
    assert judged(site) == (State.DEGRADED, ["unreadable files"])
    assert looked(site, at=AT).machine.children == {}


def test_conditions_are_told_from_each_other():
    assert [each for each in Condition if each.faulty] == ["started again", "down", "given up"]


@pytest.mark.parametrize(("late", "state"), [(60, State.OK), (61, State.DEGRADED)])
def test_a_round_that_is_over_its_deadline(site, late, state):
    write(site, "state/round.json", secret(AT, deadline=AT - late))
    assert judged(site)[0] is state


@pytest.mark.parametrize(
    ("days", "state"), [(375, State.OK), (377, State.DEGRADED), (396.9, State.DEGRADED), (397.1, State.FAILING)]
)
def test_a_certificate_that_ends(site, days, state):
    then = AT + days * DAY
    write(site, "state/round.json", course(then))
    assert judged(site, then)[0] is state


def test_a_certificate_that_has_not_begun(site):
    write(site, "state/round.json", course(AT - DAY))
    assert judged(site, AT - DAY) == (State.FAILING, ["certificate"])


def test_a_certificate_that_cannot_be_read(site):
    (site / "keys" / "server.pem").write_text("no certificate")
    assert judged(site) == (State.DEGRADED, ["certificate"])


@pytest.mark.parametrize(
    ("free", "state"), [(2**30, State.OK), (2**30 - 1, State.DEGRADED), (2**28 - 1, State.FAILING)]
)
def test_room_on_the_disk(site, monkeypatch, free, state):
    monkeypatch.setattr(views, "_free", lambda path: free)
    assert judged(site)[0] is state


def test_a_clock_ahead_of_ours(site):
    write(site, "state/round.json", course(AT, beat=AT + 6))
    assert judged(site) == (State.DEGRADED, ["clock jumped"])


def test_a_budget_that_is_spent_before_the_last_round(site):
    write(site, "run/metrics.jsonl", json.dumps(ROWS[0] | {"spent": READER}) + "\n")
    assert judged(site) == (State.DEGRADED, ["budget spent"])
    write(site, "run/metrics.jsonl", json.dumps(ROWS[0] | {"spent": READER | {"epsilon": 7.99}}) + "\n")
    assert judged(site) == (State.OK, [])


def test_a_budget_is_compared_with_a_promise_about_the_same_thing_only(site):
    other = READER | {"unit": "interaction", "epsilon": 99.0}
    write(site, "run/metrics.jsonl", json.dumps(ROWS[0] | {"spent": other}) + "\n")
    assert judged(site) == (State.OK, [])


def test_the_last_round_may_spend_all(site):
    write(site, "run/metrics.jsonl", json.dumps(ROWS[0] | {"round": 20, "spent": READER}) + "\n")
    assert judged(site) == (State.OK, [])


@pytest.mark.parametrize(
    "name",
    ["run/run.json", "run/statement.json", "run/plan.toml", "state/round.json", "state/last.json", "packs/2/pack.json"],
)
@pytest.mark.parametrize("content", ['{"torn": ', "[1, 2", "\udcff", '{"round": "three"}', '[{"version": -1}]'])
def test_torn_files_are_named_and_nothing_breaks(site, name, content):
    (site / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    state, names = judged(site)
    assert (state, names) == (State.DEGRADED, ["unreadable files"]) or name == "run/run.json" and names == []


def test_seats_that_cannot_be_counted_are_a_concern_and_nothing_of_the_error_is_told(site):
    def broken():
        raise ValueError("canary")

    look = looked(site, at=AT, standing=broken)
    (concern,) = judge(look).concerns
    assert (concern.name, concern.state) == ("seats unknown", State.FAILING) and "canary" not in str(concern)
    for condition, names in (("starting", []), ("up", ["seats unknown"])):
        write(site, "state/children.json", {"superlink": condition})
        assert [each.name for each in judge(looked(site, at=AT, standing=broken)).concerns] == names


def test_the_worst_comes_first(site):
    write(site, "state/round.json", course(AT, beat=AT - 500, deadline=AT - 600))
    assert judged(site)[1] == ["trainer silent", "round overdue"]


# The ledger, by the quick check.


def test_a_ledger_is_looked_at_again_when_it_changed(site):
    file = keep_ledger(site)
    seen = views.SiteView(site, lambda: views.Standing(seats=1, enrolled=1, online=1), clock=lambda: AT)
    assert seen.look().machine.ledger == ""
    file.write_bytes(file.read_bytes().replace(b'"charged"', b'"chargee"', 1))
    seen._seen = None  # another look, a second later
    assert "P11" in seen.look().machine.ledger
    assert judge(seen.look()).state is State.FAILING


@pytest.mark.parametrize("fault", ["cut", "swapped", "gone", "flipped"])
def test_a_damaged_ledger_is_found(site, fault):
    file = keep_ledger(site, rounds=2)
    lines = file.read_bytes().splitlines(keepends=True)
    damaged = {"cut": lines[:-2], "swapped": [*lines[:2], lines[3], lines[2], *lines[4:]],
               "flipped": [lines[0][:70] + b"x" + lines[0][71:], *lines[1:]]}  # fmt: skip
    file.unlink() if fault == "gone" else file.write_bytes(b"".join(damaged[fault]))
    assert judged(site) == (State.FAILING, ["ledger damaged"])


def test_a_line_that_was_never_acknowledged_is_no_damage(site):
    file = keep_ledger(site)
    file.write_bytes(file.read_bytes() + b"half a rec")
    assert judged(site) == (State.OK, [])


# The clock.


def test_steps_are_told_from_the_passing_of_time_and_forgotten_after_an_hour():
    now = {"wall": 1000.0, "steady": 50.0}
    steps = Steps(lambda: now["wall"], lambda: now["steady"])

    def after(seconds, step=0.0):
        now["wall"] += seconds + step
        now["steady"] += seconds
        return steps.lately()

    assert after(7200) == 0
    assert after(10, step=4.9) == 0
    assert after(10, step=-300.0) == pytest.approx(-300)
    assert after(3599) == pytest.approx(-300)
    assert after(2) == 0


def test_the_runbook_has_a_heading_for_every_concern():
    source = (ROOT / "fedrec" / "deploy" / "health.py").read_text()
    names = set(re.findall(r'name="([^"]+)"', source))
    headings = set(re.findall(r"^### (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))
    assert names == headings and len(names) == 10


def test_margins_can_be_wider(site):
    write(site, "state/round.json", course(AT, beat=AT - 100))
    assert judge(looked(site, at=AT), Margins(silence=200)).state is State.OK
