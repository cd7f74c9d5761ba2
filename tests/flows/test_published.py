"""What we publish: the script that makes the table runs, and the README repeats the table."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fedrec.randomness import stream

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "simulations" / "results"
PUBLISHED = json.loads((RESULTS / "movielens-100k.json").read_text(encoding="utf-8"))
FLAGS = "|".join(["0"] * 18 + ["1"])
TINY = """
[data]
source = "movielens-100k"

[model]
encoder = "hash"
dim = 8

[federation]
rounds = 2
cohort = 10
"""


@pytest.fixture
def films(tmp_path):
    """Thirty people and forty films in MovieLens' own format."""
    folder, rng = tmp_path / "ml-100k", stream(0, "films")
    folder.mkdir()
    lines = [f"{n}|Film number {n} (1990)|01-Jan-1990||http://example.invalid|{FLAGS}" for n in range(1, 41)]
    (folder / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    rows = [
        f"{user}\t{item + 1}\t{rng.integers(1, 6)}\t{900_000_000 + when}"
        for user in range(1, 31)
        for when, item in enumerate(rng.choice(40, 14, replace=False))
    ]
    (folder / "u.data").write_text("\n".join(rows) + "\n", encoding="latin-1")
    return folder


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_study", ROOT / "simulations" / f"{name}.py")
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    return study


def test_the_script_makes_the_table(films, tmp_path, monkeypatch):
    study = script("movielens")
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    study.SCENARIO = tmp_path / "tiny.toml"
    arguments = ["--seeds", "0", "1", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["movielens.py", str(films), *arguments])
    study.main()
    made = json.loads((tmp_path / "movielens-100k.json").read_text(encoding="utf-8"))
    for part in ("warm", "cold, among hidden", "cold, whole catalogue"):
        assert set(made[part]) == set(PUBLISHED[part])
    one = json.loads((tmp_path / "runs" / "all-1" / "results.json").read_text(encoding="utf-8"))
    assert made["warm"]["fedrec"]["ndcg@10"][1] == one["summary"]["fedrec"]["ndcg@10"]
    page = (tmp_path / "movielens-100k.md").read_text(encoding="utf-8")
    assert study.cell(made["warm"]["fedrec"]["ndcg@10"]) in page


def test_the_readme_repeats_the_published_table():
    rows = {
        "**fedrec** (federated, not private)": "fedrec", "same model, trained centrally": "same model, central",
        "fedrec, text only": "fedrec, text only", "EASE (central)": "EASE (central)", "popularity": "popularity",
    }  # fmt: skip
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("of 99 | NDCG@10, all 1,682 films |")[2]
    for label, arm in rows.items():
        values = PUBLISHED["warm"][arm]
        cells = [
            f"{np.mean(values[name]):.3f} ±{np.std(values[name], ddof=1):.3f}"
            for name in ("hr@10/99", "ndcg@10/99", "ndcg@10")
        ]
        assert f"| {label} | {' | '.join(cells)} |" in readme


def test_the_published_model_is_what_was_promised():
    """Issue: at least .725 and .45 of 99, .09 of all, within .015 of central; text only at least .61."""
    mean = {arm: {name: np.mean(v) for name, v in values.items()} for arm, values in PUBLISHED["warm"].items()}
    mine, central = mean["fedrec"], mean["same model, central"]
    assert mine["hr@10/99"] >= 0.725 and mine["ndcg@10/99"] >= 0.45 and mine["ndcg@10"] >= 0.09
    assert abs(mine["hr@10/99"] - central["hr@10/99"]) <= 0.015
    assert mean["fedrec, text only"]["hr@10/99"] >= 0.61
    cold = {arm: np.mean(values["recall@10"]) for arm, values in PUBLISHED["cold, among hidden"].items()}
    assert cold["fedrec, content only"] > 2 * max(cold["random"], cold["popularity"])
