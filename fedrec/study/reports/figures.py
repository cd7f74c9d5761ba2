"""Every figure of a report."""

from __future__ import annotations

from fedrec.study.findings import Findings
from fedrec.study.reports import against, courses, details
from fedrec.study.reports.document import Figure
from fedrec.study.reports.rendering import house_style


def figures(findings: Findings) -> dict[str, Figure]:
    """By slug, in the order of a report; a figure that has nothing to show is left out."""
    makers = (
        against.headline, against.accuracy, courses.curves, against.noise, against.beyond, details.groups, details.cost
    )  # fmt: skip
    with house_style():
        made = [maker(findings) for maker in makers]
    return {figure.slug: figure for figure in made if figure is not None}
