"""How the price of privacy falls with the population, from the published studies of the synthetic library.

`python simulations/studies/population.py` draws it again from `results/synthetic-*/summary.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
NAMES = {
    1_000: "synthetic-1000",
    10_000: "synthetic-10000",
    100_000: "synthetic-100000",
    1_000_000: "synthetic-1000000",
}
STYLES = {
    ("from scratch, user-central", 2.0): ("#1b6ca8", "o", "-"),
    ("from scratch, user-central", 8.0): ("#1b6ca8", "s", "--"),
    ("warm start, user-central", 2.0): ("#b5542b", "^", "-"),
    ("warm start, user-central", 8.0): ("#b5542b", "v", "--"),
}


class Kept(NamedTuple):
    """How much of the reference's figure an arm keeps at ε; the interval is that of their difference."""

    people: int
    arm: str
    epsilon: float
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
    found = everything(results)
    (results / "population.md").write_text("\n".join(table(found)) + "\n", encoding="utf-8")
    picture(found, results)


def everything(results: Path) -> list[Kept]:
    """Every arm at every budget that is drawn, in each study."""
    return [one for people, name in NAMES.items() for one in kept(people, read(results / name))]


def read(place: Path) -> dict[str, Any]:
    """The summary of a published study."""
    summary: dict[str, Any] = json.loads((place / "summary.json").read_text(encoding="utf-8"))
    return summary


def kept(people: int, summary: dict[str, Any]) -> list[Kept]:
    """The private arms of a study, as shares of the reference without privacy."""
    metric, points = summary["metric"], summary["points"]
    [reference] = [each for each in points if each["arm"] == summary["reference"] and each["epsilon"] is None]
    base = reference["metrics"][metric]["mean"]
    found = []
    for point in points:
        if (point["arm"], point["epsilon"]) in STYLES:
            own = point["metrics"][metric]
            shares = [1 + own["contrast"]["difference"][end] / base for end in ("mean", "low", "high")]
            found.append(Kept(people, point["arm"], point["epsilon"], own["mean"], base, *shares))
    return found


def table(found: list[Kept]) -> list[str]:
    """Every number in the picture."""
    lines = [
        "# The price of privacy, by population",
        "",
        f"Made by `python simulations/studies/publish.py {' '.join(NAMES.values())}`.",
        "The synthetic library, ε about users (add-or-remove-one, against readers of the released models, the server",
        "trusted; δ on the cards of each report). NDCG@10 on test items; *kept* is its mean over the reference's,",
        "the same rounds of training without privacy, for the same people and seeds. The 95 % interval is that of",
        "their difference over the reference's mean.",
        "",
        "| people | arm | ε | ndcg@10 | reference | kept |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for row in found:
        share = f"{row.share:.1%} ({row.low:.1%} to {row.high:.1%})"
        figures = f"{row.value:.4f} | {row.reference:.4f} | {share}"
        lines.append(f"| {row.people:,} | {row.arm} | {row.epsilon:g} | {figures} |")
    return [*lines, "", "![The same as a picture](population.png)"]


def picture(found: list[Kept], results: Path) -> None:
    """Share kept against the population, a line for each arm and budget, 95 % marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, PercentFormatter

    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    for at, ((arm, epsilon), (colour, marker, line)) in enumerate(STYLES.items()):
        rows = [row for row in found if (row.arm, row.epsilon) == (arm, epsilon)]
        places = [
            row.people * 1.06 ** (at - 1.5) for row in rows
        ]  # beside each other, so that intervals can be told apart
        spans = [[row.share - row.low for row in rows], [row.high - row.share for row in rows]]
        axes.errorbar(places, [row.share for row in rows], yerr=spans, label=f"{arm}, ε = {epsilon:g}", color=colour,
                      marker=marker, linestyle=line, capsize=2)  # fmt: skip
    axes.axhline(1, color="#444", linewidth=0.8)
    axes.axhline(0.95, color="#444", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(list(NAMES), [f"{people:,}" for people in NAMES])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set(xlabel="people (log scale); ε about users, readers of the models",
             ylabel="NDCG@10 kept of training without privacy")  # fmt: skip
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    axes.grid(alpha=0.25)
    figure.savefig(results / "population.png", dpi=144)
    figure.savefig(results / "population.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
