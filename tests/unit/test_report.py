"""The table and the picture of a run."""

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from fedrec.device.event import Event, Kind
from fedrec.population.source import Population
from fedrec.runs import Run
from fedrec.study.baselines import random_scores
from fedrec.study.evaluate import Evaluation, Ranking, evaluate
from fedrec.study.metrics import interval
from fedrec.study.report import cells, columns, table, write_curve
from fedrec.study.splits import leave_one_out

ITEMS = 12
PEOPLE = Population.of(
    [[Event(kind=Kind.CLICK, item=(start + n * n) % ITEMS, time=n) for n in range(4)] for start in range(10)]
)


def evaluation(scorer, **ranking):
    split = leave_one_out(PEOPLE)
    vectors = np.eye(ITEMS, dtype=np.float32)
    options = {"k": (3,), "negatives": 5, "vectors": vectors} | ranking
    return evaluate(scorer, PEOPLE, split.test, train=split.train, ranking=Ranking(**options))


def informed(clients, histories):
    """Right for two people in three: the next item is five further."""
    scores = np.tile(np.arange(ITEMS, dtype=np.float32), (len(clients), 1))
    for row, (client, history) in enumerate(zip(clients, histories, strict=True)):
        scores[row, (history.items[-1] + 5) % ITEMS] = -1.0 if client % 3 == 0 else 99.0
    return scores


@pytest.fixture(scope="module")
def arms():
    return {"fedrec": evaluation(informed), "random": evaluation(random_scores(ITEMS, seed=3))}


def made_up(hits, **summary):
    users = pd.DataFrame({"hr@1": hits, "ndcg@1": hits})
    means = {"hr@1": float(np.mean(hits)), "ndcg@1": float(np.mean(hits))}
    return Evaluation(users, means | summary, pd.DataFrame(), {})


def test_columns_show_full_ranking_first_and_sampled_beside_it(arms):
    shown = columns(arms["fedrec"])
    assert shown == [
        "hr@3", "ndcg@3", "hr@3/5", "ndcg@3/5",
        "mrr@3", "coverage@3", "diversity@3", "novelty@3", "gini@3",
    ]  # fmt: skip
    plain = evaluation(random_scores(ITEMS, seed=0), negatives=0, vectors=None)
    assert columns(plain) == ["hr@3", "ndcg@3", "mrr@3", "coverage@3", "novelty@3", "gini@3"]


def test_a_cell_is_the_mean_and_half_an_interval():
    one = made_up([1.0, 0.0, 1.0, 1.0], **{"coverage@1": 0.12345})
    low, high = interval(np.array([1.0, 0.0, 1.0, 1.0]))
    assert cells(one, ["hr@1", "coverage@1"]) == [f"0.750 ±{(high - low) / 2:.3f}", "0.123"]
    assert cells(made_up([1.0, 1.0]), ["ndcg@1"]) == ["1.000 ±0.000"]
    assert high - low > 0.1


def test_the_table_is_markdown_with_one_row_an_arm():
    lines = table({"fedrec": made_up([1.0, 1.0]), "popularity": made_up([0.0, 0.0])}).splitlines()
    assert lines == [
        "| arm | hr@1 | ndcg@1 |",
        "| --- | ---: | ---: |",
        "| fedrec | 1.000 ±0.000 | 1.000 ±0.000 |",
        "| popularity | 0.000 ±0.000 | 0.000 ±0.000 |",
    ]


def test_every_row_of_a_real_table_is_as_wide_as_its_head(arms):
    lines = table(arms).splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {11}
    found = float(lines[2].split("|")[2].split("±")[0])
    assert found == pytest.approx(arms["fedrec"].summary["hr@3"], abs=5e-4)


def drawn(path, arms, rows):
    """Pixels of the picture of a run with these rows of metrics: (height, width, 3)."""
    run = Run(path / "my-run")
    run.path.mkdir()
    for row in rows:
        run.tell(row)
    write_curve(run, arms, path / "curve.png")
    return matplotlib.image.imread(path / "curve.png")[:, :, :3]


def amount(pixels, colour, half):
    """How many pixels of the left or right half have this colour."""
    middle = pixels.shape[1] // 2
    part = pixels[:, :middle] if half == "left" else pixels[:, middle:]
    return int((np.abs(part - to_rgb(colour)).max(axis=-1) < 0.03).sum())


BLUE, ORANGE, GREY = "#1b6ca8", "#b5542b", "#9aa5b1"
READER = "anyone who sees every released model (other clients included)"
SPENT = {"unit": "user", "relation": "zero-out", "delta": 1e-5, "adversary": READER}
ROWS = [{"round": n, "ndcg@3": 0.1 * n, "hr@3": 0.2} for n in range(4)]


def test_the_picture_shows_the_curve_and_the_arms(arms, tmp_path):
    pixels = drawn(tmp_path, arms, ROWS)
    assert pixels.shape == (546, 1300, 3)
    assert pixels.std() > 0.05
    assert amount(pixels, BLUE, "left") > 200  # the curve
    assert amount(pixels, BLUE, "right") > 1000 and amount(pixels, GREY, "right") > 1000  # fedrec, and the others
    assert amount(pixels, ORANGE, "left") == 0  # nothing was spent


def test_the_picture_shows_what_was_spent(arms, tmp_path):
    pixels = drawn(tmp_path, arms, [row | {"spent": SPENT | {"epsilon": 0.5 * row["round"]}} for row in ROWS])
    assert amount(pixels, ORANGE, "left") + amount(pixels, ORANGE, "right") > 200


def test_the_axis_of_what_was_spent_says_whom_it_protects(arms, tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_ylabel", lambda axes, text, **looks: labels.append(text))
    drawn(tmp_path, arms, [row | {"spent": SPENT | {"epsilon": 0.5 * row["round"]}} for row in ROWS])
    assert f"spent ε: zero-out user, δ = 1e-05, against {READER}" in [label.replace("\n", " ") for label in labels]


def test_a_run_without_validation_says_so_instead_of_a_curve(arms, tmp_path):
    pixels = drawn(tmp_path, arms, [{"round": 1, "seconds": 0.1}])
    assert amount(pixels, BLUE, "left") == 0
    assert amount(pixels, BLUE, "right") > 1000
    middle = pixels[200:350, 250:450]
    assert middle.min() < 0.5  # the words
