"""Tables: their numbers are those of the findings, and no table says more than is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from studies import LOST, broken, cell_of, made_up

from fedrec.study.cells import Choice, Cost
from fedrec.study.findings import GROUPS, Findings, Point
from fedrec.study.inference import Estimate, holm
from fedrec.study.reports import numbers, tables
from fedrec.study.reports.captions import SMALLEST
from fedrec.study.reports.document import Tone
from fedrec.study.reports.protocol import meaning

CENTRAL, LAYERED = "warm start, user-central", "warm start, layered"
STUDY = made_up()


def column(table, name):
    """The column of that name, by row."""
    place = table.header.index(name)
    return {row[0]: row[place] for row in table.rows}


def changed(which, **parts):
    """The study with other measured parts in the cells where `which` holds."""
    return broken(STUDY, cells=tuple(
        replace(cell, measured=replace(cell.measured, **parts)) if which(cell) else cell for cell in STUDY.cells
    ))  # fmt: skip


def test_the_columns_of_differences_are_the_contrasts_and_holms():
    table, others = tables.results(STUDY), [point for point in STUDY.points if point != STUDY.base]
    contrasts = [STUDY.contrast(point, STUDY.base, "ndcg@10") for point in others]
    adjusted = holm([contrast.p for contrast in contrasts])

    shown = column(table, "p, Holm")
    assert [shown[str(point)] for point in others] == [numbers.p_value(p) for p in adjusted]
    assert shown["federated"] == "–"
    assert list(shown.values()) != list(column(table, "p").values())  # a plain p would be another column
    assert f"Holm's correction is over {len(others)} tests" in table.note
    by = contrasts[0].difference
    assert column(table, "ndcg@10 − federated")["random"] == (
        f"{by.mean:+.3f} ({by.low:+.3f} to {by.high:+.3f})".replace("-", "−")
    )


def test_every_figure_is_its_estimate_with_half_its_interval():
    shown = column(tables.others(STUDY), "hr@10")

    for point in STUDY.points:
        estimate = STUDY.estimate(point, "hr@10")
        assert shown[str(point)] == f"{estimate.mean:.3f} ±{(estimate.high - estimate.low) / 2:.3f}"
    assert column(tables.results(STUDY), "validation ndcg@10")["popularity"] == "0.050"


def test_the_studys_metric_comes_first_and_lists_have_a_table_of_their_own():
    assert tables.results(STUDY).header[:3] == ("arm and budget", "ndcg@10", "ndcg@10/99")
    shown = {*tables.results(STUDY).header, *tables.others(STUDY).header}
    assert set(tables.accuracy(STUDY)) < shown and not set(tables.others(STUDY).header) & {"ndcg@10", "ndcg@10/99"}
    assert tables.lists(STUDY).header[1:] == tables.beyond(STUDY)
    assert set(tables.beyond(STUDY)) | set(tables.accuracy(STUDY)) == set(STUDY.metrics)
    assert not set(tables.beyond(STUDY)) & set(tables.accuracy(STUDY))


def test_a_note_says_what_every_number_means():
    for table in (tables.results(STUDY), tables.others(STUDY), tables.lists(STUDY), tables.groups(STUDY)):
        for words in (
            "100 of 100 items",
            "masked: chosen",
            "ties: count against us",
            "5 seeds (0, 1, 2, 3, 4)",
            "95 %",
        ):
            assert words in table.note
    assert "99 a target" in meaning(STUDY)
    assert "over people only" in meaning(made_up(seeds=(0,)))


def test_without_a_reference_there_are_no_differences():
    orphan = broken(STUDY, cells=tuple(cell for cell in STUDY.cells if cell.arm != "federated"))
    table = tables.results(orphan)

    assert "p, Holm" not in table.header
    assert "was not measured" in table.note
    assert tables.tested(orphan) == {}
    assert tables.groups(orphan).rows == ()
    assert tables.worst(orphan) == ()


def test_the_worst_group_is_the_one_that_was_hurt():
    def hurt(cell):
        users = cell.measured.users
        niche = users["taste"] == 1
        return replace(cell, measured=replace(cell.measured, users=users.assign(
            **{"ndcg@10": users["ndcg@10"] - np.where(niche, 0.2, 0.0)}
        )))  # fmt: skip

    cells = tuple(hurt(cell) if (cell.arm, cell.epsilon) == (CENTRAL, 2.0) else cell for cell in STUDY.cells)
    lines = {line.text.partition("”")[0]: line for line in tables.worst(broken(STUDY, cells=cells))}
    line = lines[f"“{CENTRAL}, ε = 2"]

    assert f"the worst of {len(GROUPS)} groups looked at is “niche taste”" in line.text
    assert line.tone is Tone.WARN
    assert "niche" not in lines[f"“{CENTRAL}, ε = 8"].text
    shown = column(tables.groups(STUDY), f"{CENTRAL}, ε = 2")
    who = STUDY.contrast(Point(CENTRAL, 2.0), STUDY.base, "ndcg@10", GROUPS["niche taste"])
    assert shown["niche taste"] == numbers.moved(who)


def test_a_group_of_a_few_people_is_left_out_and_named():
    small = made_up(people=39)  # 4 cold users
    table = tables.groups(small)

    assert "cold users" not in column(table, "people")
    assert f"Fewer than {SMALLEST} people, and therefore left out: cold users." in table.note
    assert not any("cold users" in line.text for line in tables.worst(small))
    assert column(tables.groups(STUDY), "people")["cold users"] == "6"


def test_groups_that_a_run_does_not_know_are_left_out():
    cells = tuple(
        replace(cell, measured=replace(cell.measured, users=cell.measured.users.drop(columns="taste")))
        for cell in STUDY.cells
    )
    assert "niche taste" not in column(tables.groups(broken(STUDY, cells=cells)), "people")


def test_cost_is_a_mean_over_seeds_and_a_dash_for_what_moves_nothing():
    more = Cost(seconds=112.5, bytes_down=9000, bytes_up=4000, device_seconds=0.02, participations=2.5)
    dear = changed(lambda cell: cell.arm == "federated" and cell.seed == 0, cost=more)
    rows = {row[0]: row[1:] for row in tables.cost(dear).rows}

    assert rows["federated"] == ("5 kB", "4 kB", "2.5", "22.5 kB", "0.02", "32.5")
    assert rows["random"] == ("–", "–", "–", "–", "–", "1")
    assert tables.cost(changed(lambda cell: True, cost=None)).rows == ()


def test_who_came_is_told_only_where_nothing_is_promised():
    accepted, refused = (column(tables.dropouts(STUDY), name) for name in ("accepted a round", "refused"))

    assert (accepted["federated"], refused["federated"]) == ("9", "not finite: 25")
    assert (accepted[f"{CENTRAL}, ε = 2"], refused[f"{CENTRAL}, ε = 2"]) == ("not told", "not told")
    assert "random" not in accepted
    done, planned = (column(tables.dropouts(STUDY), f"rounds {what}")["federated"] for what in ("done", "planned"))
    assert (done, planned) == ("4", "15")


def test_settings_are_told_with_how_often_they_were_chosen():
    once = (Choice(setting="l2 = 20", value=0.4, chosen=True), Choice(setting="l2 = 50", value=0.12, chosen=False))
    rows = tables.choices(changed(lambda cell: cell.arm == "random" and cell.seed == 0, choices=once)).rows

    assert rows[:2] == (("random", "l2 = 20", "0.160", "1 of 5 seeds"), ("random", "l2 = 50", "0.120", "4 of 5 seeds"))


def test_hidden_items_are_told_in_the_whole_catalogue_too():
    assert tables.whole_catalogue(STUDY).rows == ()
    whole = changed(lambda cell: cell.arm == "federated", whole={"ndcg@10": 0.25})

    assert column(tables.whole_catalogue(whole), "ndcg@10")["federated"] == "0.250"
    assert column(tables.whole_catalogue(whole), "ndcg@10")["random"] == "–"


def test_failures_and_audits_are_told_as_they_are():
    assert tables.failures(STUDY).rows == ()
    assert tables.failures(broken(STUDY, failures=(LOST,))).rows == ((LAYERED, "ε = 8", "9", LOST.reason),)
    assert tables.audits(STUDY).rows[0] == tuple(STUDY.audits[0].values())


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (numbers.number(math.nan), "–"),
        (numbers.number(-0.0001), "0.000"),
        (numbers.signed(-0.0124), "−0.012"),
        (numbers.p_value(0.0), "<0.001"),
        (numbers.p_value(math.nan), "–"),
        (numbers.percent(0.95), "95 %"),
        (numbers.percent(0.9499), "94.9 %"),
        (numbers.percent(0.94999), "94.9 %"),
        (numbers.percent(1.034), "103.4 %"),
        (numbers.amount(999), "999 B"),
        (numbers.amount(15_904), "15.9 kB"),
        (numbers.amount(999_600), "1 MB"),
        (numbers.few(0.01234), "0.0123"),
        (numbers.few(12_345.6), "12,346"),
        (numbers.extent([]), "–"),
        (numbers.extent([4, 2, 4]), "2 to 4"),
        (numbers.around(Estimate(mean=0.5, low=math.nan, high=math.nan, error=math.nan, seeds=1, users=1)), "0.500"),
    ],
)
def test_numbers_as_a_reader_sees_them(shown, text):
    assert shown == text


def test_one_person_has_a_mean_without_an_interval():
    alone = Findings(name="one", metric="ndcg@10", reference="federated",
                     cells=(cell_of("federated", None, 0, 0.2, people=1),))  # fmt: skip

    assert "±" not in tables.results(alone).rows[0][1]


def test_an_audit_is_told_with_whom_it_is_about_and_where_it_is_not():
    note = tables.audits(STUDY).note
    assert all(word in note for word in ("not on this study's models", "claim's δ", "one user", "confidence"))


def test_facts_are_read_by_people_and_empty_ones_are_left_out():
    shown = tables.listed(
        "Data", ("what", "value"), {"density": 0.39231770833, "notes": [], "hash": "", "of": ["a", "b"]}
    )
    assert shown.rows == (("density", "0.392"), ("of", "a; b"))


def test_settings_that_one_seed_chose_for_all_are_not_said_to_be_chosen_by_each():
    note = tables.choices(STUDY).note
    assert "once for all seeds, with a tuning seed that is none of them" in note
