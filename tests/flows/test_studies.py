"""The committed studies: they can be run, one command publishes them, and what is published agrees with itself."""

import importlib
import json
import re
from pathlib import Path

import pytest

from fedrec.study.design import BASELINES, Study

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "simulations" / "studies"
NAMES = sorted(path.stem for path in STUDIES.glob("*.toml"))
REDUCED = """
name = "reduced"
epsilon = [2, 8]
seeds = 2
audit = false
arms = [
    { recipe = "popularity" },
    { recipe = "federated" },
    { recipe = "warm-start", mode = "user-central" },
]
[plan]
data = { options = { users = "60", items = "64" } }
model = { encoder = "hash", dim = 16 }
federation = { rounds = 2, cohort = 20 }
"""
DRAWN = re.compile(r'<figure[^>]*id="figure-headline".*?</figure>', re.DOTALL)


@pytest.fixture
def publish(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("publish")


def rows(lines):
    """Arm → cells of a Markdown table."""
    found = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in lines if line.startswith("| ")]
    return {name: cells for name, *cells in found[1:]}


def means(page):
    """Every mean of the headline figure's own table of numbers, as it is written there."""
    figure = DRAWN.search(page).group()
    return set(re.findall(r"<td[^>]*>\s*(0\.\d+)", figure))


def agrees(summary, page):
    """Whether the figure draws what the summary says, of every point."""
    drawn = {float(value) for value in means(page)}
    told = [point["metrics"][summary["metric"]]["mean"] for point in summary["points"]]
    return [mean for mean in told if min(abs(mean - value) for value in drawn) > 6e-4 * max(1.0, mean)]


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_study_can_be_read_and_each_of_its_plans_made(name):
    study = Study.read(STUDIES / f"{name}.toml")
    assert study.name == name
    trained = [(arm, epsilon) for arm, epsilon in study.points if arm.recipe not in BASELINES]
    plans = [arm.plan(study.base, epsilon, settings) for arm, epsilon in trained for settings in arm.grid or ({},)]
    assert any(plan.privacy.mode == "user-central" for plan in plans)
    assert study.reference in [arm.title for arm in study.arms]


def test_one_command_publishes_a_study(publish, tmp_path, monkeypatch):
    (tmp_path / "reduced.toml").write_text(REDUCED)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{publish.BEGIN}old\n{publish.END}\nafter\n")
    monkeypatch.setattr(publish, "HERE", tmp_path)
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(publish, "README", readme)
    monkeypatch.setattr(publish, "HEADLINE", "reduced")
    monkeypatch.setattr("sys.argv", ["publish.py", "reduced", "--jobs", "2", "--runs", str(tmp_path / "runs")])
    publish.main()
    place = tmp_path / "results" / "reduced"
    summary = json.loads((place / "summary.json").read_text())
    assert sorted(path.name for path in place.iterdir()) == sorted(publish.KEPT)
    assert (place / "figures" / "headline.png").read_bytes().startswith(b"\x89PNG")
    assert agrees(summary, (place / "index.html").read_text()) == []
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    table = rows(text.splitlines())
    assert list(table) == ["popularity", "federated", *(f"warm start, user-central, ε = {e}" for e in (2, 8))]
    for point in summary["points"]:
        name = point["arm"] + ("" if point["epsilon"] is None else f", ε = {point['epsilon']:g}")
        assert table[name][0].startswith(f"{point['metrics']['ndcg@10']['mean']:.3f} ±")


def test_a_figure_that_draws_something_else_is_noticed():
    summary = {"metric": "m", "points": [{"metrics": {"m": {"mean": 0.25}}}]}
    page = '<figure class="x" id="figure-headline"><td>0.123</td></figure>'
    assert agrees(summary, page) == [0.25]
    assert agrees(summary, page.replace("0.123", "0.250")) == []
