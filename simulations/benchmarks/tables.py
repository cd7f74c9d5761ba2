"""What a benchmark measured, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from statistics import median
from typing import Any

Document = Mapping[str, Any]
Row = Mapping[str, Any]

ASKED = {"Flower": 40.0, "pfl": 8.0, "central": 0.7}
ASKED_LORA = {"Flower": 3.0}


def engines_table(document: Document) -> str:
    """One row an engine, the arithmetic floor beside each, and how the stacked engine stands to its peers."""
    size, rows, rates = document["workload"], document["rows"], document["rates"]
    flower = _best(rows, "Flower")
    head = ["engine", "clients/s", "ms a client", "floor, ms", "× Flower", "s a round", "peak MiB", "all MiB", "apart"]
    cells = [_engine(row, flower) for row in rows]
    lines = [
        f"# Engines: {size['adapter']}, {size['cohort']:.0f} of {size['clients']} clients a round", "",
        _machine(document["machine"]), "",
        f"{size['items']:.0f} items in vectors of {size['width']} from `{size['encoder']}`, {size['size']} shared "
        f"numbers, {size['examples']:.1f} examples over {size['events']:.1f} events a client. One local step, softmax "
        "over the catalogue, each client's update clipped. Contenders took turns, "
        f"{_turns(rows)}; medians over rounds after a turn's first, with their range.", "",
        f"The floor: {rates['product'] / 1e9:.0f} GFLOP/s and {rates['copy'] / 1e9:.1f} GB/s, measured "
        "here with all cores; no engine that computes what the row computes is faster. *Apart* is how far the sum of "
        "clipped updates of one cohort lies from the same clients' own rounds, at the farthest coordinate.", "",
        *table(head, cells), "", *_verdicts(rows, ASKED_LORA if size["adapter"] == "lora" else ASKED),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; all columns but the first are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _machine(machine: Mapping[str, object]) -> str:
    return "; ".join(f"{name} {value}" for name, value in machine.items()) + "."


def _engine(row: Row, flower: float | None) -> list[str]:
    seconds, rate = sorted(chain(*row["turns"])), row["clients a second"]
    return [
        row["name"], f"{rate:,.1f}", f"{1000 / rate:.3f}", f"{row['floor']:.3f}",
        f"{rate / flower:.2f}" if flower else "",
        f"{median(seconds):.3f} ({seconds[0]:.3f}–{seconds[-1]:.3f})", f"{row['peak']:,.0f}", f"{row['tree']:,.0f}",
        "" if row["difference"] is None else f"{row['difference']:.1e}",
    ]  # fmt: skip


def _best(rows: Sequence[Row], name: str) -> float | None:
    """The fastest of a peer's rows: it is compared at its best."""
    return max((row["clients a second"] for row in rows if row["name"].startswith(name)), default=None)


def _turns(rows: Sequence[Row]) -> str:
    """How many."""
    most = max(len(row["turns"]) for row in rows)
    fewer = [f"{len(row['turns'])} of {row['name']}" for row in rows if len(row["turns"]) < most]
    return f"{most} each{', but ' if fewer else ''}{', '.join(fewer)}"


def _by_turn(rows: Sequence[Row], peer: str) -> str:
    """How the fastest rows of a turn compared, turn by turn, as long as both had one."""
    mine, theirs = _fastest(rows, "fedrec stacked"), _fastest(rows, peer)
    return ", ".join(f"{one / other:.2f}" for one, other in zip(mine, theirs, strict=False))


def _fastest(rows: Sequence[Row], name: str) -> list[float]:
    """Of each turn; rows may have had fewer turns than others."""
    turns = zip_longest(*(row["by turn"] for row in rows if row["name"].startswith(name)), fillvalue=0.0)
    return [max(turn) for turn in turns]


def _verdicts(rows: Sequence[Row], asked: Mapping[str, float]) -> list[str]:
    mine, lines = _best(rows, "fedrec stacked"), []
    for peer, least in asked.items():
        other = _best(rows, peer)
        if mine and other:
            verdict = "met" if mine / other >= least else "not met"
            lines.append(
                f"* stacked: {mine / other:.2f} × the fastest {peer} row ({_by_turn(rows, peer)} by turn); "
                f"{least:g} × were asked for: {verdict}."
            )
    return lines


def scaling_table(document: Document) -> str:
    """Two tables, each with its slope."""
    grid = document["grid"]
    lines = ["# Scaling: seconds of a round", "", _machine(document["machine"]), ""]
    for title, rows, slope in (
        (f"Population, with {grid['beside']:,} clients a round", document["population"], "slope in the population"),
        (f"Cohort, of {grid['among']:,} people", document["cohort"], "slope in the cohort"),
    ):
        head = ["people", "clients a round", "s a round", "clients/s", "s before the first round", "peak MiB"]
        lines += [f"## {title}", "", *table(head, map(_point, rows)), ""]
        lines += [f"Slope of log seconds in log size: {document[slope]:.3f} (0 is flat, 1 is linear).", ""]
    fixed, each = document["seconds a round"], document["seconds a client"]
    return "\n".join([*lines, f"Fitted: {1000 * fixed:.0f} ms a round + {1000 * each:.3f} ms a client."]) + "\n"


def million_table(document: Document) -> str:
    """One run."""
    seconds = sorted(document["seconds"])
    cells = [
        ["people, clients a round, rounds", f"{document['people']:,}, {document['cohort']:,}, {len(seconds) + 1}"],
        ["seconds before the first round", f"{document['opened']:.0f}"],
        ["seconds a round, median (range)", f"{median(seconds):.2f} ({seconds[0]:.2f}–{seconds[-1]:.2f})"],
        ["clients a second", f"{document['cohort'] / median(seconds):,.0f}"],
        ["seconds of the evaluation", f"{document['evaluated']:.0f}"],
        ["peak resident memory, MiB", f"{document['peak']:,.0f}"],
    ]
    promise = next(claim for claim in document["statement"] if claim["epsilon"] is not None)
    lines = ["# A million people, user-central", "", _machine(document["machine"]), "", *table(["", ""], cells), ""]
    return "\n".join([*lines, promise["sentence"]]) + "\n"


def _point(point: Row) -> list[str]:
    seconds = sorted(point["seconds"])
    return [
        f"{point['population']:,}", f"{point['cohort']:,}",
        f"{median(seconds):.3f} ({seconds[0]:.3f}–{seconds[-1]:.3f})",
        f"{point['cohort'] / median(seconds):,.0f}", f"{point['opened']:.1f}", f"{point['peak']:,.0f}",
    ]  # fmt: skip
