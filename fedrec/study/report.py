"""A finished run in one table and one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from fedrec.runs import Row, Run
from fedrec.study.evaluate import Evaluation
from fedrec.study.metrics import interval

_SHOWN = ("hr", "ndcg", "mrr", "coverage", "diversity", "novelty", "gini")


def columns(evaluation: Evaluation) -> list[str]:
    """The summary's names in the order in which a table shows them."""
    names = list(evaluation.summary)
    full = [name for kind in _SHOWN for name in names if name.startswith(f"{kind}@") and "/" not in name]
    sampled = [name for kind in ("hr", "ndcg") for name in names if name.startswith(f"{kind}@") and "/" in name]
    return full[:2] + sampled + full[2:]


def cells(evaluation: Evaluation, shown: Sequence[str]) -> list[str]:
    """Three digits each; an interval where a number is a mean over clients."""
    return [_cell(evaluation, name) for name in shown]


def table(evaluations: Mapping[str, Evaluation]) -> str:
    """Markdown, one row an arm. ± is half a 95 % bootstrap interval over clients."""
    first = next(iter(evaluations.values()))
    shown = columns(first)
    lines = [["arm", *shown], ["---", *("---:" for _ in shown)]]
    lines += [[name, *cells(evaluation, shown)] for name, evaluation in evaluations.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_curve(run: Run, evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Validation NDCG by round with the spent ε beside it, and the test NDCG of every arm, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    curve, bars = figure.subplots(1, 2)
    rows = run.metrics()
    metric = next((name for row in rows for name in row if name.startswith("ndcg@")), "")
    _draw_curve(curve, [row for row in rows if metric and metric in row], metric)
    if any("spent" in row for row in rows):
        _draw_spent(curve.twinx(), [row for row in rows if "spent" in row])
    _draw_arms(bars, evaluations)
    figure.suptitle(run.path.name, fontsize=10)
    figure.savefig(path, dpi=130)


def _draw_curve(axes: object, rows: Sequence[Row], metric: str) -> None:
    from matplotlib.axes import Axes
    from matplotlib.ticker import MaxNLocator

    assert isinstance(axes, Axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.plot([row["round"] for row in rows], [row[metric] for row in rows], marker="o", markersize=3, color="#1b6ca8")
    axes.set(xlabel="round", ylabel=f"validation {metric}, full catalogue", title="learning curve")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if not rows:
        axes.text(0.5, 0.5, "validation items were trained on:\nno curve", ha="center", transform=axes.transAxes)


def _draw_spent(axes: object, rows: Sequence[Row]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    spent = [row["spent"] for row in rows]
    rounds, epsilons = [0, *(row["round"] for row in rows)], [0.0, *(each["epsilon"] for each in spent)]
    axes.plot(rounds, epsilons, color="#b5542b", linestyle="--", marker=".")
    axes.set_ylabel(fill(_promise(spent[-1]), 48), color="#b5542b", fontsize=9)
    axes.set_ylim(bottom=0)


def _promise(spent: Row) -> str:
    promise = f"{spent['relation']} {spent['unit']}, δ = {spent['delta']:.2g}, against {spent['adversary']}"
    return f"spent ε: {promise}"


def _draw_arms(axes: object, evaluations: Mapping[str, Evaluation]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    name = columns(next(iter(evaluations.values())))[1]
    arms = list(evaluations)[::-1]
    values = [evaluations[arm].summary[name] for arm in arms]
    ranges = [interval(evaluations[arm].users[name].to_numpy()) for arm in arms]
    errors = [[v - low for v, (low, _) in zip(values, ranges, strict=True)],
              [high - v for v, (_, high) in zip(values, ranges, strict=True)]]  # fmt: skip
    colours = ["#1b6ca8" if arm == "fedrec" else "#9aa5b1" for arm in arms]
    axes.barh(arms, values, xerr=errors, color=colours, ecolor="#444")
    axes.set(xlabel=f"test {name}, full catalogue", title="arms, with 95 % intervals")


def _cell(evaluation: Evaluation, name: str) -> str:
    value = evaluation.summary[name]
    if name not in evaluation.users or not name.startswith(("hr", "ndcg")):
        return f"{value:.3f}"
    low, high = interval(evaluation.users[name].to_numpy())
    return f"{value:.3f} ±{(high - low) / 2:.3f}"
