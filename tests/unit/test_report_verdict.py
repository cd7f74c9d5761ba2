"""The verdict on studies whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from plans import plan_of
from studies import LOST, broken, cell_of, made_up

from fedrec.privacy.noise import Level
from fedrec.privacy.statement import statements
from fedrec.study.findings import Findings, Point
from fedrec.study.inference import estimate
from fedrec.study.reports.document import Tone
from fedrec.study.reports.verdict import kept, verdict

CENTRAL, LAYERED = "warm start, user-central", "warm start, layered"


def level(cell, value, validation=None):
    """The cell with the same figure for everybody."""
    known = cell.measured
    users = known.users.assign(**{"ndcg@10": value})
    said = {"ndcg@10": value if validation is None else validation}
    return replace(cell, measured=replace(known, users=users, validation=said))


def flat(levels, *, popularity=0.05):
    """A study in which everybody's figure is the arm's level: shares and differences are exact."""
    seeds = range(3)
    cells = [level(cell_of("federated", None, seed, 0.2), 0.2) for seed in seeds]
    cells += [level(cell_of("popularity", None, seed, 0, trained=False), popularity) for seed in seeds]
    cells += [level(cell_of(CENTRAL, epsilon, seed, 0, mode="user-central"), value)
              for epsilon, value in levels.items() for seed in seeds]  # fmt: skip
    return Findings(name="flat", metric="ndcg@10", reference="federated", cells=tuple(cells))


def texts(findings, tone=None):
    return [line.text for line in verdict(findings) if tone in (None, line.tone)]


def line(findings, *words, tone=None):
    """The one line that has all these words."""
    (found,) = [text for text in texts(findings, tone) if all(word in text for word in words)]
    return found


def changed(findings, which, change):
    """The findings with other cells where `which` holds."""
    return broken(findings, cells=tuple(change(cell) if which(cell) else cell for cell in findings.cells))


def measured(**parts):
    return lambda cell: replace(cell, measured=replace(cell.measured, **parts))


def test_the_leading_arm_is_chosen_by_validation_items_even_when_it_is_worse_on_test_items():
    ordinary, worse = made_up(), Point(LAYERED, 2.0)
    planted = changed(ordinary, lambda cell: cell in ordinary.of(worse), measured(validation={"ndcg@10": 0.9}))

    figures = [planted.estimate(point, "ndcg@10").mean for point in (Point(CENTRAL, 2.0), worse)]
    assert figures[0] > figures[1]
    assert f"“{CENTRAL}” leads" in line(ordinary, "At ε = 2 ", "leads on validation")
    assert f"“{LAYERED}” leads" in line(planted, "At ε = 2 ", "leads on validation")


def test_no_arm_is_named_where_only_test_items_can_tell():
    blind = changed(made_up(), lambda cell: True, measured(validation={}))

    for epsilon in (0.5, 2, 8):
        assert line(blind, f"At ε = {epsilon:g} ", "No arm is named", tone=Tone.WARN)
    assert not any("leads on" in text or "keeps" in text for text in texts(blind))


def test_an_arm_without_rivals_needs_no_validation_items():
    alone = changed(flat({2.0: 0.19}), lambda cell: True, measured(validation={}))

    assert alone.leading(2.0) == Point(CENTRAL, 2.0)
    assert "is the only arm" in line(alone, "At ε = 2 ", "keeps")


def test_the_share_that_is_kept_and_the_difference_are_exact():
    study = flat({0.5: 0.1, 2.0: 0.15, 8.0: 0.2})

    assert [kept(study, Point(CENTRAL, epsilon)) for epsilon in (0.5, 2.0, 8.0)] == pytest.approx([0.5, 0.75, 1.0])
    said = line(study, "At ε = 2 ", "keeps 75 %")
    assert "0.150 (0.150 to 0.150), where “federated” has 0.200 (0.200 to 0.200)" in said
    assert "Difference −0.050 (−0.050 to −0.050), an interval that does not contain 0" in said
    assert "cannot tell the two apart" in line(study, "At ε = 8 ", "keeps 100 %", tone=Tone.GOOD)


def test_a_reference_that_popularity_matches_says_nothing_of_the_price():
    """Then no budget is blamed for what the model cannot do without one either."""
    weak = changed(made_up(), lambda cell: cell.arm == "federated", lambda cell: level(cell, 0.06))
    assert "cannot say what privacy costs" in line(weak, "On test items the reference", tone=Tone.BAD)
    assert not any("no gain over popularity" in text for text in texts(weak))
    assert not any("cannot say what privacy costs" in text for text in texts(made_up()))
    assert "cannot say" in texts(weak)[0] and not texts(weak, Tone.GOOD)
    assert "keeps 2" in line(weak, "At ε = 2 ", "leads", tone=Tone.PLAIN)  # 230 % of nothing to speak of


def test_an_arms_own_figure_without_privacy_stands_beside_its_price():
    study = made_up()
    own = study.estimate(Point(CENTRAL), "ndcg@10").mean
    assert f"The same arm without privacy has {own:.3f} (" in line(study, "At ε = 2 ", "leads on")
    assert not any("The same arm without" in text for text in texts(flat({2.0: 0.1})))


def test_the_short_answer_comes_first():
    assert texts(made_up())[0].startswith("The smallest ε that keeps 95 %")


def test_every_epsilon_is_told_with_unit_relation_and_adversary():
    for epsilon in (0.5, 2, 8):
        said = line(made_up(), f"At ε = {epsilon:g} ", "leads")
        assert "(ε = 0.8649, δ = 0.0001), add-or-remove-one user, against anyone who sees every released model" in said


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({0.5: 0.18, 2.0: 0.19, 8.0: 0.2}, "is 2 ("),  # 0.19 is 95 % of 0.2
        ({0.5: 0.18, 2.0: 0.1899, 8.0: 0.2}, "is 8 ("),
        (
            {0.5: 0.2, 2.0: 0.18, 8.0: 0.19},
            "is 0.5 (“warm start, user-central”). At ε = 2 the arm named below keeps less",
        ),
        ({0.5: 0.1, 2.0: 0.1899}, "At no ε"),
    ],
)
def test_the_smallest_epsilon_that_keeps_enough(levels, words):
    assert words in line(flat(levels), "95 %", "by its mean")


def test_a_mean_that_keeps_enough_is_not_called_good_until_its_interval_says_so_too():
    rng = np.random.default_rng(0)

    def noisy(cell):
        users = cell.measured.users
        return measured(users=users.assign(**{"ndcg@10": 0.3 + rng.normal(0, 1, len(users))}))(cell)

    study = flat({0.5: 0.1, 2.0: 0.2, 8.0: 0.2})
    unsure = changed(study, lambda cell: cell.epsilon == 2.0, noisy)
    assert kept(unsure, Point(CENTRAL, 2.0)) > 1
    assert line(study, "smallest ε", "A 95 % interval shows it at ε = 2.", tone=Tone.GOOD)
    assert line(unsure, "smallest ε", "is 2 (", "A 95 % interval shows it at ε = 8.", tone=Tone.PLAIN)
    assert line(unsure, "At ε = 2 ", "keeps 1", tone=Tone.PLAIN)
    never = changed(flat({2.0: 0.2}), lambda cell: cell.epsilon == 2.0, noisy)
    assert line(never, "smallest ε", "At no ε does a 95 % interval show it.", tone=Tone.PLAIN)


def test_a_share_of_the_reference_is_tested_person_by_person():
    study = made_up(seeds=(0, 1, 2), epsilons=(8.0,))
    point, shares = Point("warm start, user-central", 8.0), {}
    for share in (0.95, 1.0):
        found = study.surplus(point, share)
        rows = [[of.measured.users["ndcg@10"].to_numpy() for of in study.of(at)] for at in (point, study.base)]
        assert found == estimate(np.array(rows[0]) - share * np.array(rows[1]))
        shares[share] = found.mean
    assert shares[0.95] > shares[1.0]
    assert study.surplus(point, 1.0) == study.contrast(point, study.base, "ndcg@10").difference


@pytest.mark.parametrize(("seeds", "misses"), [(2, 13), (3, 9), (4, 8), (5, None)])
def test_a_few_seeds_are_said_to_make_intervals_too_short(seeds, misses):
    said = [text for text in texts(made_up(seeds=range(seeds), epsilons=(2.0,)), Tone.WARN) if "too short" in text]
    assert len(said) == (misses is not None)
    assert all(f"With {seeds} seeds" in text and f"up to {misses} in 100 missed the truth" in text for text in said)


def test_a_share_just_short_of_enough_does_not_look_like_enough():
    assert "keeps 94.9 %" in line(flat({2.0: 0.18999}), "At ε = 2 ", "keeps")


def test_privacy_that_costs_too_much_is_called_so():
    dear = flat({0.5: 0.05, 2.0: 0.04, 8.0: 0.06})

    assert "cannot be told from popularity" in line(dear, "At ε = 0.5 no gain over popularity is shown", tone=Tone.BAD)
    assert "is worse than popularity" in line(dear, "At ε = 2 no gain over popularity is shown", tone=Tone.BAD)
    assert not [text for text in texts(dear) if "ε = 8 no gain" in text]
    assert not [text for text in texts(made_up()) if "no gain over popularity" in text]
    assert line(dear, "At ε = 8 privacy costs too much here", "keeps 30 %", tone=Tone.WARN)
    for enough in (0.19, 0.2):
        assert not [text for text in texts(flat({2.0: enough})) if "costs too much" in text]


def test_a_wide_interval_over_popularity_is_too_dear_as_well():
    study, rng = flat({2.0: 0.06}), np.random.default_rng(0)

    def noisy(cell):
        users = cell.measured.users
        return measured(users=users.assign(**{"ndcg@10": 0.06 + rng.normal(0, 1, len(users))}))(cell)

    assert line(changed(study, lambda cell: cell.epsilon == 2.0, noisy), "no gain over popularity", tone=Tone.BAD)


def test_noise_longer_than_the_clip_norm_is_a_warning_only_above_one():
    warned = [text for text in texts(made_up(), Tone.BAD) if "noise outweighs" in text]

    assert "ε = 0.5 " in warned[0]
    assert "(warm start 6 clip norms)" in warned[0]  # and not training, where it is 0.8
    assert "ε = 2 " in warned[1]
    assert len(warned) == 2  # at ε = 8 it is 0.375


def test_cautions_are_told_when_they_hold_and_only_then():
    sure = texts(made_up())
    words = ("one seed", "Not every seed", "People evaluated", "could not be measured", "one protocol", "unlike data",
             "do not promise the same: its cards", "bounds little", "promises nothing")  # fmt: skip
    assert not [(word, text) for word in words for text in sure if word in text]

    assert line(made_up(seeds=(3,)), "one seed", tone=Tone.WARN)
    assert line(made_up(people=29), "People evaluated: 29", tone=Tone.WARN)
    assert line(made_up(failures=(LOST,)), "1 cell could not be measured", tone=Tone.WARN)
    assert line(made_up(epsilons=(2.0, 10.0)), "bounds little", f"{CENTRAL}, ε = 10", tone=Tone.WARN)


def test_a_point_that_lacks_a_seed_is_named():
    study = made_up()
    fewer = broken(study, cells=tuple(cell for cell in study.cells if (cell.arm, cell.seed) != ("popularity", 2)))

    assert line(fewer, "Not every seed was measured for: popularity.", tone=Tone.WARN)


def test_unlike_protocols_and_unlike_data_are_told():
    study = made_up()
    other = study.cells[0].measured.protocol | {"negatives": "99 a target, and never held-out ones"}
    unlike = changed(study, lambda cell: cell.arm == "federated", measured(protocol=other))
    assert line(unlike, "not measured by one protocol", tone=Tone.WARN)

    manifest = study.cells[0].measured.manifest | {"data": "other"}
    by_arm = changed(study, lambda cell: cell.arm == "random", measured(manifest=manifest))
    assert line(by_arm, "unlike data", tone=Tone.WARN)
    by_seed = changed(study, lambda cell: cell.seed == 2, measured(manifest=manifest))
    assert not [text for text in texts(by_seed) if "unlike data" in text]


def test_whom_an_arm_does_not_protect_from_is_told():
    study = made_up()
    assert "against the server that runs the rounds" in line(study, f"“{CENTRAL}” is non-private", tone=Tone.WARN)
    assert not [text for text in texts(study) if f"“{LAYERED}” is non-private" in text]
    assert line(study, "At equal ε", "not the best protected", tone=Tone.WARN)


def test_replayable_noise_promises_nothing():
    replayable = [json.loads(each.json()) for each in statements(plan_of(level=Level.TEST), simulated=True)]
    study = changed(flat({2.0: 0.19}), lambda cell: cell.epsilon == 2.0, measured(statements=tuple(replayable)))

    assert line(study, f"“{CENTRAL}” promises nothing to anybody", tone=Tone.BAD)
    assert "Promise: nothing." in line(study, "At ε = 2 ", "keeps")


def test_without_a_reference_nothing_is_compared():
    study = made_up()
    orphan = broken(study, cells=tuple(cell for cell in study.cells if cell.arm != "federated"))

    assert line(orphan, "“federated” without privacy was not measured", tone=Tone.WARN)
    assert "has a test ndcg@10 of 0.138" in line(orphan, "At ε = 2 ", "leads")
    assert not [text for text in texts(orphan) if "keeps" in text]


def test_a_study_without_budgets_says_nothing_of_their_price():
    study = made_up()
    plain = broken(study, cells=tuple(cell for cell in study.cells if cell.arm in ("federated", "popularity")))

    assert line(plain, "No arm of this study has a privacy budget", tone=Tone.PLAIN)
    assert not [text for text in texts(plain) if "Promise" in text]


def test_it_always_ends_with_what_the_figures_themselves_give_away():
    *_, words, raw, sums = texts(made_up(), Tone.PLAIN)

    assert words.startswith("ndcg@10: 1 if the targets") and "e^ε" in words
    assert "computed from raw data" in raw
    assert "adds up" in sums
