"""A report on disk: a page, tables, figures."""

from __future__ import annotations

from pathlib import Path

from fedrec.files import write_atomic
from fedrec.study.findings import Findings
from fedrec.study.reports.compose import compose
from fedrec.study.reports.document import Report
from fedrec.study.reports.exports import exports
from fedrec.study.reports.figures import figures
from fedrec.study.reports.html import page
from fedrec.study.reports.markdown import markdown


def write_report(findings: Findings, folder: Path) -> Report:
    """Write `index.html`, `report.md`, the tables for programs and `figures/` into `folder`; returns what they say."""
    report = compose(findings, figures(findings))
    files = {"index.html": page(report).encode(), "report.md": markdown(report).encode(), **exports(findings)}
    for figure in report.figures:
        files[f"figures/{figure.slug}.svg"] = figure.print_svg.encode()
        files[f"figures/{figure.slug}.png"] = figure.png
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return report
