"""How the price of privacy falls with the population: one line for each published study of the synthetic library.

`python simulations/studies/population.py` draws it again from `results/synthetic-*/summary.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
NAMES = {1_000: "synthetic-1000", 10_000: "synthetic-10000", 100_000: "synthetic-100000"}
STYLES = {1_000: ("#b5542b", "s", ":"), 10_000: ("#7a5195", "^", "--"), 100_000: ("#1b6ca8", "o", "-")}


class Kept(NamedTuple):
    """How much of the reference's figure the leading arm keeps at ε; the interval is that of their difference."""

    epsilon: float
    arm: str
    value: float
    reference: float
    share: float
    low: float
    high: float


def main() -> None:
    """Draw it from what is published."""
    draw(RESULTS)


def draw(results: Path) -> None:
    """Write `population.md`, `.png` and `.svg` into `results`."""
    found = {people: kept(read(results / name)) for people, name in NAMES.items()}
    metric = read(results / NAMES[1_000])["metric"]
    (results / "population.md").write_text("\n".join(table(found, metric)) + "\n", encoding="utf-8")
    picture(found, metric, results)


def read(place: Path) -> dict[str, Any]:
    """The summary of a published study."""
    summary: dict[str, Any] = json.loads((place / "summary.json").read_text(encoding="utf-8"))
    return summary


def kept(summary: dict[str, Any]) -> list[Kept]:
    """For every budget the arm that validation items prefer, as a share of the reference without privacy."""
    metric, points = summary["metric"], summary["points"]
    [reference] = [each for each in points if each["arm"] == summary["reference"] and each["epsilon"] is None]
    base = reference["metrics"][metric]["mean"]
    found = []
    for leading in summary["leading"]:
        arm, epsilon = leading["arm"], leading["epsilon"]
        [own] = [each["metrics"][metric] for each in points if each["arm"] == arm and each["epsilon"] == epsilon]
        apart = own["contrast"]["difference"]
        shares = [1 + apart[end] / base for end in ("mean", "low", "high")]
        found.append(Kept(epsilon, arm, own["mean"], base, *shares))
    return found


def table(found: dict[int, list[Kept]], metric: str) -> list[str]:
    """Every number in the picture."""
    lines = [
        "# The price of privacy, by population",
        "",
        "Made by `python simulations/studies/publish.py "
        + " ".join(NAMES.values())
        + "`. The synthetic library, user-level ε",
        "(add-or-remove-one, against readers of the released models, the server trusted); the leading arm at each ε is",
        f"chosen on validation items, {metric} is on test items. *Kept* is its mean over that of the reference without",
        "privacy, for the same people and seeds; the interval is that of their difference over the reference's mean.",
        "",
        f"| people | ε | arm | {metric} | reference | kept |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    for people, rows in found.items():
        for row in rows:
            share = f"{row.share:.1%} ({row.low:.1%} to {row.high:.1%})"
            lines.append(
                f"| {people:,} | {row.epsilon:g} | {row.arm} | {row.value:.3f} | {row.reference:.3f} | {share} |"
            )
    return [*lines, "", "![The same as a picture](population.png)"]


def picture(found: dict[int, list[Kept]], metric: str, results: Path) -> None:
    """Share kept against ε, one line a population, 95 % marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, PercentFormatter

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for at, (people, rows) in enumerate(found.items()):
        colour, marker, line = STYLES[people]
        places = [
            row.epsilon * 1.03 ** (at - 1) for row in rows
        ]  # beside each other, so that intervals can be told apart
        spans = [[row.share - row.low for row in rows], [row.high - row.share for row in rows]]
        axes.errorbar(places, [row.share for row in rows], yerr=spans, label=f"{people:,} people", color=colour,
                      marker=marker, linestyle=line, capsize=2)  # fmt: skip
    axes.axhline(1, color="#444", linewidth=0.8)
    axes.axhline(0.95, color="#444", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    budgets = sorted({row.epsilon for rows in found.values() for row in rows})
    axes.set_xticks(budgets, [f"{each:g}" for each in budgets])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(xlabel="ε (user level, add-or-remove-one, readers of the models), log scale",
             ylabel=f"{metric} kept of the reference without privacy")  # fmt: skip
    axes.legend(loc="lower right")
    axes.grid(alpha=0.25)
    figure.savefig(results / "population.png", dpi=144)
    figure.savefig(results / "population.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
