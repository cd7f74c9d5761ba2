"""Files for other programs: what they hold is what was measured, and nothing of one person."""

import json
import math
from dataclasses import replace
from io import BytesIO

import pandas as pd
import pytest
from studies import LOST, broken, made_up

from fedrec.study.findings import Point
from fedrec.study.inference import holm
from fedrec.study.reports.exports import exports, frame
from fedrec.study.reports.verdict import verdict

STUDY = made_up(seeds=(0, 1), epsilons=(0.5, 2.0), failures=(LOST,))
FILES = exports(STUDY)


def strict(content):
    """JSON as the standard has it: NaN and Infinity are no numbers."""
    return json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def summary(findings=STUDY):
    return strict(exports(findings)["summary.json"])


def point_of(content, arm, epsilon):
    (found,) = [point for point in content["points"] if (point["arm"], point["epsilon"]) == (arm, epsilon)]
    return found


def test_there_are_four_files_and_they_are_the_same_each_time():
    assert set(FILES) == {"cells.csv", "cells.parquet", "summary.json", "privacy.json"}
    again = made_up(seeds=(0, 1), epsilons=(0.5, 2.0), failures=(LOST,))
    assert exports(again) == FILES


def test_a_row_is_one_figure_of_one_cell():
    rows = frame(STUDY)
    assert list(rows.columns) == ["arm", "epsilon", "seed", "metric", "value", "validation"]
    assert not rows.duplicated(["arm", "epsilon", "seed", "metric", "validation"]).any()
    assert len(rows) == sum(len(cell.measured.summary) + len(cell.measured.validation) for cell in STUDY.cells)

    for cell in STUDY.cells:
        epsilon = math.inf if cell.epsilon is None else cell.epsilon
        mine = rows[(rows["arm"] == cell.arm) & (rows["epsilon"] == epsilon) & (rows["seed"] == cell.seed)]
        test, validation = (mine[mine["validation"] == which].set_index("metric")["value"] for which in (False, True))
        assert test.to_dict() == cell.measured.summary
        assert validation.to_dict() == cell.measured.validation


def test_figures_of_the_whole_catalogue_have_names_of_their_own():
    first, *others = STUDY.cells
    hidden = broken(STUDY, cells=(replace(first, measured=replace(first.measured, whole={"ndcg@10": 0.25})), *others))
    rows = frame(hidden)

    assert rows[rows["metric"] == "ndcg@10, whole catalogue"]["value"].tolist() == [0.25]


def test_tables_come_back_as_they_were():
    rows = frame(STUDY)

    pd.testing.assert_frame_equal(pd.read_parquet(BytesIO(FILES["cells.parquet"])), rows)
    pd.testing.assert_frame_equal(pd.read_csv(BytesIO(FILES["cells.csv"])), rows, rtol=1e-12)


def test_the_summary_has_every_estimate_and_contrast():
    content, others = summary(), [point for point in STUDY.points if point != STUDY.base]
    contrasts = {point: STUDY.contrast(point, STUDY.base, "ndcg@10") for point in others}
    adjusted = dict(zip(others, holm([contrast.p for contrast in contrasts.values()]), strict=True))

    assert content["family"] == len(others)
    for point in STUDY.points:
        told, estimate = (
            point_of(content, point.arm, point.epsilon)["metrics"]["ndcg@10"],
            STUDY.estimate(point, "ndcg@10"),
        )
        assert (told["mean"], told["low"], told["high"]) == (estimate.mean, estimate.low, estimate.high)
        assert (told["error"], told["seeds"], told["users"]) == (estimate.error, 2, 60)
        if point in contrasts:
            assert told["contrast"]["difference"]["mean"] == contrasts[point].difference.mean
            assert (told["contrast"]["p"], told["contrast"]["holm"]) == (contrasts[point].p, adjusted[point])
        else:
            assert "contrast" not in told


def test_only_the_studys_metric_is_corrected_since_only_it_is_tested():
    told = point_of(summary(), "random", None)["metrics"]["hr@10"]["contrast"]

    assert "holm" not in told
    assert told["p"] == STUDY.contrast(Point("random"), STUDY.base, "hr@10").p


def test_the_summary_says_what_was_chosen_how_and_what_failed():
    content = summary()

    assert content["leading"] == [{"epsilon": epsilon, "arm": "warm start, user-central"} for epsilon in (0.5, 2.0)]
    assert content["verdict"] == [{"tone": str(line.tone), "text": line.text} for line in verdict(STUDY)]
    assert content["failures"] == [{"arm": LOST.arm, "epsilon": 8.0, "seed": 9, "reason": LOST.reason}]
    assert point_of(content, "random", None)["choices"]["0"][1] == {"setting": "l2 = 50", "value": 0.12, "chosen": True}
    assert content["protocols"][0]["rules"]["mask"] == "chosen"
    assert content["checks"] == list(STUDY.checks)


def test_what_is_not_known_is_null():
    cells = tuple(replace(cell, measured=replace(cell.measured, validation={})) for cell in STUDY.cells)
    content = summary(broken(STUDY, cells=cells))

    assert {point["validation"] for point in content["points"]} == {None}
    assert [each["arm"] for each in content["leading"]] == [None, None]


def test_every_statement_of_every_cell_is_kept_as_it_is():
    told = {(each["arm"], each["epsilon"], each["seed"]): each["statements"] for each in strict(FILES["privacy.json"])}

    assert told == {(cell.arm, cell.epsilon, cell.seed): list(cell.measured.statements) for cell in STUDY.cells}


def test_nothing_of_one_person_is_in_any_file():
    own = {value for cell in STUDY.cells for value in cell.measured.users["ndcg@10"]}

    def numbers(content):
        if isinstance(content, dict | list):
            for each in content.values() if isinstance(content, dict) else content:
                yield from numbers(each)
        elif isinstance(content, float):
            yield content

    told = [*numbers(summary()), *numbers(strict(FILES["privacy.json"])), *frame(STUDY)["value"]]
    assert len(told) > 1000
    assert not own & set(told)
    assert b'client"' not in FILES["summary.json"]
    assert str(STUDY.cells[0].measured.path).encode() == b"."  # and no path either
    assert all("path" not in row for row in summary()["points"])
