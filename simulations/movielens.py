"""The MovieLens-100K table: `python simulations/movielens.py PATH`, where PATH holds `u.data` and `u.item`.

Trains three scenarios (the model, its text-only variant, and the model with a tenth of the items
hidden) for each seed, with every baseline, and writes `simulations/results/movielens-100k.md` and
`.json`. Runs are kept in `--runs` and resumed if the script is stopped. Under forty minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.population.simulate import Simulation
from fedrec.spec import Plan

HERE = Path(__file__).parent
SCENARIO = HERE / "movielens-100k.toml"
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {"evaluation": {"baselines": "all"}},
    "text only": {"model": {"residuals": False}, "evaluation": {"baselines": "none"}},
    "cold items": {"split": {"kind": "cold-items"}, "evaluation": {"baselines": "fast"}},
    # A hidden item has neither a residual nor a popularity: here nothing is learnt that it cannot have.
    "cold items content": {
        "split": {"kind": "cold-items"},
        "model": {"residuals": False, "popularity": False},
        "evaluation": {"baselines": "none"},
    },
}
SHOWN = ("hr@10/99", "ndcg@10/99", "hr@10", "ndcg@10", "coverage@10", "diversity@10", "novelty@10")
COLD = ("recall@10", "ndcg@10")

Summaries = dict[str, dict[str, float]]


def main() -> None:
    """Run everything that is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/movielens"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    found = {name: [run(given.data, seed, name, given.runs) for seed in given.seeds] for name in given.variants}
    if set(found) == set(VARIANTS):
        write(found, given.seeds, given.out)


def run(data: Path, seed: int, variant: str, runs: Path) -> dict[str, Any]:
    """The results of one seed of one variant, trained now or before."""
    path = runs / f"{variant.replace(' ', '-')}-{seed}"
    done = path / "results.json"
    if not done.exists():
        plan = Plan.read(SCENARIO).override({"seed": seed, "data": {"path": str(data)}}).override(VARIANTS[variant])
        simulation = Simulation.resume(path) if (path / "plan.toml").exists() else Simulation.start(plan, path)
        simulation.train(
            lambda row: print(path.name, {k: row[k] for k in row if k in ("round", "ndcg@10")}, flush=True)
        )
        simulation.finish(lambda arm: print(path.name, arm, flush=True))
    results: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    return results


def write(found: dict[str, list[dict[str, Any]]], seeds: list[int], out: Path) -> None:
    """Means over seeds, with the standard deviation between seeds."""
    warm = collected(found["all"], "summary") | {
        "fedrec, text only": collected(found["text only"], "summary")["fedrec"]
    }
    among, everywhere = (cold(found, key) for key in ("summary", "whole catalogue"))
    lines = [
        "# MovieLens-100K, 943 clients, non-private",
        "",
        "Made by `python simulations/movielens.py PATH-TO-ML-100K`"
        f" (seeds {', '.join(map(str, seeds))}; plan `simulations/movielens-100k.toml`).",
        "Mean over seeds ± standard deviation between seeds. Leave-one-out by time (ties in file order); models see",
        "everything before the validation item. `/99`: against 99 items that the person never chose, drawn per seed;",
        "the other columns rank all 1,682 films minus those already seen. Ties count against us. Settings were chosen",
        "on validation items of seed 0 only. Training ranks against the whole catalogue, held-out items included.",
        "",
        *markdown(warm, SHOWN),
        "",
        "## A tenth of the films hidden from training",
        "",
        "Each person's last hidden film is asked for, from their visible history. First among the 168 hidden films,",
        "then among the whole catalogue. Nobody chose a hidden film in training, so popularity and EASE tie on all of",
        "them, and ties count against us. Content only: without item residuals and popularity.",
        "",
        *markdown({name: joined(among[name], everywhere[name]) for name in among}, tuple(joined_names())),
    ]
    (out / "movielens-100k.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    numbers = {"seeds": seeds, "warm": warm, "cold, among hidden": among, "cold, whole catalogue": everywhere}
    (out / "movielens-100k.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def cold(found: dict[str, list[dict[str, Any]]], key: str) -> dict[str, dict[str, list[float]]]:
    """The arms of the cold-item split, the content-only model first."""
    content = collected(found["cold items content"], key)["fedrec"]
    return {"fedrec, content only": content} | collected(found["cold items"], key)


def collected(results: list[dict[str, Any]], key: str) -> dict[str, dict[str, list[float]]]:
    """Arm → metric → one value a seed."""
    return {
        arm: {name: [result[key][arm][name] for result in results] for name in results[0][key][arm]}
        for arm in results[0][key]
    }


def joined(among: dict[str, list[float]], everywhere: dict[str, list[float]]) -> dict[str, list[float]]:
    """The two cold-item evaluations side by side."""
    return dict(zip(joined_names(), [among[n] for n in COLD] + [everywhere[n] for n in COLD], strict=True))


def joined_names() -> list[str]:
    """Columns of the cold-item table."""
    return [f"{name} among hidden" for name in COLD] + [f"{name} among all" for name in COLD]


def markdown(arms: dict[str, dict[str, list[float]]], shown: tuple[str, ...]) -> list[str]:
    """One row an arm."""
    rows = [["arm", *shown], ["---", *("---:" for _ in shown)]]
    rows += [[arm, *(cell(values[name]) for name in shown)] for arm, values in arms.items()]
    return ["| " + " | ".join(row) + " |" for row in rows]


def cell(values: list[float]) -> str:
    """Mean and standard deviation between seeds."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.3f} ±{spread:.3f}"


if __name__ == "__main__":
    main()
