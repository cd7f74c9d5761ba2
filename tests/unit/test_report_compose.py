"""The whole report: its chapters, what is left out, and how it reads as Markdown."""

import re
from dataclasses import replace

import pytest
from studies import LOST, broken, cell_of, made_up

from fedrec.study.findings import Findings
from fedrec.study.reports.compose import compose
from fedrec.study.reports.document import Figure, Table
from fedrec.study.reports.markdown import markdown

SLUGS = ("headline", "accuracy", "curves", "noise", "beyond", "groups", "cost")
STUDY = made_up(seeds=(0, 1), failures=(LOST,))
PIPE = re.compile(r"(?<!\\)\|")


def figure(slug):
    return Figure(slug, slug, f"what {slug} shows", "<svg/>", "<svg/>", b"png", Table("t", ("a",), (("1",),)))


FIGURES = {slug: figure(slug) for slug in SLUGS}


def section(report, slug):
    (found,) = [section for section in report.sections if section.slug == slug]
    return found


def whole(report):
    """All words of a report."""
    return repr(report)


def test_chapters_come_in_order_with_the_verdict_first_and_how_to_make_it_again_last():
    assert [section.slug for section in compose(STUDY, FIGURES).sections] == [
        "verdict", "results", "guarantees", "learning", "noise", "beyond", "groups", "cost", "audit", "dropouts",
        "tuning", "protocol", "failures", "reproduce",
    ]  # fmt: skip


def test_every_figure_is_in_its_chapter_and_none_is_lost():
    report = compose(STUDY, FIGURES)

    assert [figure.slug for figure in report.figures] == list(SLUGS)
    assert section(report, "results").figures == (FIGURES["headline"], FIGURES["accuracy"])
    assert section(report, "learning").figures == (FIGURES["curves"],)


def test_chapters_with_nothing_to_show_are_left_out():
    bare = broken(STUDY, failures=(), audits=(), command="", study="")
    slugs = [section.slug for section in compose(bare, {}).sections]

    assert not {"learning", "noise", "audit", "failures"} & set(slugs)
    assert {"verdict", "results", "guarantees", "beyond", "groups", "cost", "reproduce"} <= set(slugs)


def test_a_plain_run_has_a_report_too():
    cell = cell_of("mine", 2.0, 0, 0.1, mode="user-central")
    lone = replace(cell, measured=replace(cell.measured, validation={}, cost=None, choices=(), rounds=()))
    report = compose(Findings(name="one", metric="ndcg@10", reference="federated", cells=(lone,)), {})

    slugs = [section.slug for section in report.sections]
    assert slugs == ["verdict", "results", "guarantees", "beyond", "protocol", "reproduce"]
    assert "was not measured" in whole(section(report, "results"))
    assert "keeps" not in whole(section(report, "verdict"))


def test_an_audit_never_proves_and_a_search_is_never_charged():
    report = compose(STUDY, {})

    assert "never prove" in section(report, "audit").text[0]
    assert "not charged to any ε" in section(report, "tuning").text[0]
    assert "10 settings" in section(report, "tuning").text[1]


def test_the_protocol_is_told_once_or_for_each_group_of_arms():
    told = section(compose(STUDY, {}), "protocol")
    assert [table.title for table in told.tables] == ["What was asked", "Metrics", "Data"]
    assert dict(told.tables[0].rows)["evaluated"] == "60"
    assert [line.text for line in told.lines] == [f"Checked: {check}." for check in STUDY.checks]
    stopped = section(compose(broken(STUDY, checks=("all is well.",)), {}), "protocol")
    assert stopped.lines[0].text == "Checked: all is well."
    assert "With 2 seeds the 95 % intervals are too short" in told.text[-1]
    assert {"ndcg@10", "hr@10", "novelty@10", "gini@10", "…/99"} <= set(dict(told.tables[1].rows))
    assert dict(told.tables[1].rows).keys().isdisjoint({"ndcg@10/99"})

    cells = tuple(
        replace(cell, measured=replace(cell.measured, protocol=cell.measured.protocol | {"mask": "nothing"}))
        if cell.arm == "random" else cell for cell in STUDY.cells
    )  # fmt: skip
    apart = section(compose(broken(STUDY, cells=cells), {}), "protocol")
    assert [table.title for table in apart.tables][0] == "What was asked of “random”"
    assert [dict(table.rows)["mask"] for table in apart.tables[:2]] == ["nothing", "chosen"]


def test_counts_that_depend_on_the_seed_are_listed_and_are_no_difference():
    cells = tuple(
        replace(cell, measured=replace(cell.measured, protocol=cell.measured.protocol | {"targets": 60 + cell.seed}))
        for cell in STUDY.cells
    )
    told = section(compose(broken(STUDY, cells=cells), {}), "protocol").tables

    assert [table.title for table in told] == ["What was asked", "Metrics", "Data"]
    assert dict(told[0].rows)["targets"] == "60 or 61"


def test_how_to_make_it_again_lists_every_version_that_took_part():
    older = STUDY.cells[0].measured.manifest | {"packages": {"fedrec": "0.0.9"}, "created": "2025-12-31T00:00:00Z"}
    first, *others = STUDY.cells
    mixed = broken(STUDY, cells=(replace(first, measured=replace(first.measured, manifest=older)), *others))
    told = section(compose(mixed, {}), "reproduce")

    made = dict(told.tables[0].rows)
    assert made["fedrec"] == "0.0.9 or 0.1.0"
    assert made["created"] == "2025-12-31T00:00:00Z to 2026-01-02T03:04:05Z"
    assert made["data (SHA-256)"] == "d" * 64
    assert told.code == (("Command", STUDY.command), ("Study", STUDY.study))


def tables_of(text):
    """Runs of lines that start with a bar."""
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]


def test_markdown_tables_are_well_formed():
    found = tables_of(markdown(compose(STUDY, FIGURES)))

    assert len(found) == sum(len(section.tables) for section in compose(STUDY, {}).sections)
    for lines in found:
        assert len({len(PIPE.findall(line)) for line in lines}) == 1
        assert set(lines[1]) <= set("|-: ")


def test_markdown_shows_what_comes_from_data_and_renders_none_of_it():
    hostile = "a|b\n<script>*x*</script>`[k](u)"
    cells = tuple(replace(cell, arm=hostile) if cell.arm == "popularity" else cell for cell in STUDY.cells)
    text = markdown(compose(broken(STUDY, cells=cells, study="```\nx = 1\n```\n"), {}))

    for lines in tables_of(text):
        assert len({len(PIPE.findall(line)) for line in lines}) == 1
    assert "<script>" not in text
    assert "a\\|b &lt;script>\\*x\\*&lt;/script>\\`\\[k\\](u)" in text
    assert "````\n```\nx = 1\n```\n````" in text


def test_markdown_says_the_tone_in_a_word_and_links_pictures_with_what_they_show():
    text = markdown(compose(STUDY, FIGURES))

    assert "- **warning**: At ε = 0.5 noise outweighs" in text
    assert "![what headline shows](figures/headline.png)" in text
    assert text.index("## Verdict") < text.index("## Accuracy") < text.index("## Make it again")
    for words in ("It assumes:", "It does not protect:", STUDY.command):
        assert words in text


@pytest.mark.parametrize(("header", "ruler"), [("ndcg@10", "---:"), ("p", "---:")])
def test_markdown_sets_numbers_to_the_right(header, ruler):
    lines = next(lines for lines in tables_of(markdown(compose(STUDY, {}))) if "p, Holm" in lines[0])
    cells = [cell.strip() for cell in lines[0].split("|")]

    assert [cell.strip() for cell in lines[1].split("|")][cells.index(header)] == ruler
