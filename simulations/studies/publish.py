"""Run a committed study and publish what it found: `python simulations/studies/publish.py NAME [NAME …]`.

Sweeps `simulations/studies/NAME.toml` into runs/studies/NAME (what is there already is not run again), and copies its
report, without the cells, to `simulations/studies/results/NAME`. Then draws the figure over populations, if all of its
studies are there, and puts the headline table into the README. Nothing is typed by hand: tests compare the three.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from population import NAMES, draw, read

HERE = Path(os.path.relpath(Path(__file__).parent))
RESULTS = HERE / "results"
README = HERE.parents[1] / "README.md"
HEADLINE = "movielens-100k"
KEPT = ("index.html", "report.md", "summary.json", "privacy.json", "figures")
BESIDE = ("popularity", "EASE (central)", "public start, untrained", "same model, central")
BEGIN, END = "<!-- study -->\n", "<!-- /study -->"


def main() -> None:
    """Sweep, copy, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"))
    given = parser.parse_args()
    for name in given.names:
        swept(HERE / f"{name}.toml", given.runs / name, given.jobs)
        publish(given.runs / name / "report", RESULTS / name)
    if all((RESULTS / name / "summary.json").exists() for name in NAMES.values()):
        draw(RESULTS)
    if HEADLINE in given.names:
        put_into(README, headline(read(RESULTS / HEADLINE)))


def swept(study: Path, folder: Path, jobs: int) -> None:
    """Run what is missing. A failed cell is in the report, and ends this script."""
    command = ["-m", "fedrec", "sweep", study, "--out", folder, "--jobs", str(jobs)]
    subprocess.run([sys.executable, *map(str, command)], check=True)


def publish(report: Path, place: Path) -> None:
    """Replace what is published of a study."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in KEPT:
        copy = shutil.copytree if (report / name).is_dir() else shutil.copy
        copy(report / name, place / name)


def headline(summary: dict[str, Any]) -> list[str]:
    """The README's table: the study's metric, its sampled twin and the difference to the reference, of a few points."""
    metric = summary["metric"]
    lines = [f"| arm | {metric} | {metric}, of 99 | difference to {summary['reference']} |", "|---|---:|---:|---:|"]
    for point in shown(summary):
        own = point["metrics"][metric]
        cells = [half(own), half(point["metrics"][f"{metric}/99"]), between(own.get("contrast"))]
        lines.append(f"| {named(point, summary)} | {' | '.join(cells)} |")
    return lines


def shown(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Some baselines and the reference, the first arm with budgets at all of them, the others at their largest."""
    points = summary["points"]
    largest = {each["arm"]: each["epsilon"] for each in points if each["epsilon"] is not None}  # budgets rise
    first = next(iter(largest))
    plain = {first, summary["reference"], *BESIDE}
    return [each for each in points if each["arm"] in plain or each["epsilon"] == largest.get(each["arm"], 0)]


def named(point: dict[str, Any], summary: dict[str, Any]) -> str:
    """A point as reports name it."""
    if point["epsilon"] is not None:
        return f"{point['arm']}, ε = {point['epsilon']:g}"
    bounded = any(each["epsilon"] is not None for each in summary["points"] if each["arm"] == point["arm"])
    return f"{point['arm']}, no privacy" if bounded else str(point["arm"])


def half(figure: dict[str, Any]) -> str:
    """A mean and half its interval."""
    return f"{figure['mean']:.3f} ±{(figure['high'] - figure['low']) / 2:.3f}"


def between(contrast: dict[str, Any] | None) -> str:
    """A difference with its interval."""
    if not contrast:
        return ""
    apart = contrast["difference"]
    return f"{apart['mean']:+.3f} ({apart['low']:+.3f} to {apart['high']:+.3f})"


def put_into(readme: Path, lines: list[str]) -> None:
    """Replace what the README has between its marks."""
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{readme} has a place for the table between {BEGIN.strip()} and {END}")
    readme.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
