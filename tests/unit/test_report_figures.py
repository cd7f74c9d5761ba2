"""Figures of a report: what they draw is in their tables, and their SVG can live in a page."""

import re
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from studies import LEVELS, broken, cell_of, made_up

from fedrec.study.findings import GROUPS, Point
from fedrec.study.reports import against, courses, details, rendering
from fedrec.study.reports.captions import digits, picked, promise, protects, sure, unit, why
from fedrec.study.reports.document import Figure
from fedrec.study.reports.drawing import Style, label_dots, sheet, spread
from fedrec.study.reports.figures import figures
from fedrec.study.reports.rendering import COLOURS
from fedrec.study.reports.scale import Scale

SLUGS = ["headline", "accuracy", "curves", "noise", "beyond", "groups", "cost"]
HEX = re.compile(r"#[0-9a-fA-F]{3,8}\b")


@pytest.fixture(scope="module")
def findings():
    return made_up(seeds=(0, 1, 2), epsilons=(0.5, 8.0))


@pytest.fixture(scope="module")
def drawn(findings):
    """Every figure, and the drawing that it was made of."""
    with pytest.MonkeyPatch.context() as patch:
        seen = {}
        for module in (against, courses, details):
            patch.setattr(module, "rendered", lambda drawing, caption: (
                seen.update({caption.slug: drawing}), rendering.rendered(drawing, caption)
            )[1])  # fmt: skip
        return figures(findings), seen


@pytest.fixture
def unrendered(monkeypatch):
    """Every figure's captions and table, without its pictures."""
    for module in (against, courses, details):
        monkeypatch.setattr(module, "rendered", lambda _, said: Figure(
            said.slug, said.title, said.alt, svg="", print_svg="", png=b"", table=said.table
        ))  # fmt: skip
    return figures


@pytest.fixture(scope="module")
def made(drawn):
    return drawn[0]


def changed(findings, change):
    """The findings with `change` of every cell's measurement."""
    return broken(findings, cells=tuple(replace(cell, measured=change(cell.measured)) for cell in findings.cells))


def told(figure):
    """Every number in a table's cells, as it is written there."""
    text = " ".join(cell for row in figure.table.rows for cell in row)
    return set(re.findall(r"−?[\d,]*\.?\d+(?:e[−+]?\d+)?", text))


def values(axes):
    """Every y of a line, and every whisker's ends."""
    for line in axes.lines:
        if line.get_clip_on():  # what is not clipped is the axis's break and labels' pointers
            yield from np.asarray(line.get_ydata(), float)
    for whiskers in axes.collections:
        if isinstance(whiskers, matplotlib.collections.LineCollection):
            yield from (y for segment in whiskers.get_segments() for y in segment[:, 1])


def ids(svg):
    return re.findall(r'\bid="([^"]*)"', svg)


def test_all_figures_are_there_in_order(made):
    assert list(made) == SLUGS


@pytest.mark.parametrize("slug", ["headline", "accuracy", "noise", "beyond"])
def test_every_number_drawn_against_epsilon_is_in_the_table(drawn, slug):
    made, drawings = drawn
    known = told(made[slug])
    shown = [digits(y) for axes in drawings[slug].axes for y in values(axes) if np.isfinite(y)]
    line_at_one = {"1"} if slug == "noise" else set()
    assert len(shown) > 12 and set(shown) <= known | line_at_one


def test_every_number_of_curves_groups_and_cost_is_in_the_table(drawn):
    made, drawings = drawn
    curves = [digits(y) for axes in drawings["curves"].axes for line in axes.lines for y in line.get_ydata()]
    (axes,) = drawings["groups"].axes
    whiskers = [x for each in axes.collections for segment in each.get_segments() for x in segment[:, 0]]
    groups = [digits(x) for x in (*whiskers, *(x for line in axes.lines for x in line.get_xdata()))]
    costs = [
        digits(n)
        for axes in drawings["cost"].axes
        for line in axes.lines
        for n in (*line.get_xdata(), *line.get_ydata())
    ]
    assert set(curves) <= told(made["curves"]) and len(curves) > 20
    assert set(groups) <= told(made["groups"]) | {"0"} and len(groups) > 50
    assert set(costs) <= told(made["cost"]) and len(costs) > 20


def test_the_headline_table_has_every_point_with_its_interval(findings, made):
    rows = {(arm, epsilon): rest for arm, epsilon, *rest in made["headline"].table.rows}
    assert len(rows) == len(findings.points)
    expected = findings.estimate(Point("warm start, layered", 8.0), "ndcg@10")
    mean, low, high, seeds, people, whom = rows["warm start, layered", "8"]
    assert [mean, low, high] == [digits(expected.mean), digits(expected.low), digits(expected.high)]
    assert (seeds, people) == ("3", "60")
    assert whom == "add-or-remove-one user, δ = 0.001, against reader; more in its guarantee"


def test_every_note_says_candidates_mask_ties_and_seeds(made):
    for slug in ("headline", "accuracy", "beyond", "groups", "cost"):
        note = made[slug].table.note
        assert all(word in note for word in ("100 of 100 items", "chosen", "count against us", "3 seeds", "95 %")), slug


def test_alt_names_the_reference_and_numbers(findings, made):
    reached = findings.estimate(findings.base, "ndcg@10")
    assert sure(reached) in made["headline"].alt and "federated" in made["headline"].alt
    assert all(re.search(r"\d", figure.alt) for figure in made.values())


def test_the_worst_group_is_the_least_difference(findings, made):
    shown = picked(findings, findings.budgets)
    worst = min(
        (findings.contrast(at, findings.base, "ndcg@10", who).difference.mean, name, str(at))
        for name, who in GROUPS.items() for at in shown
    )  # fmt: skip
    marked = [row for row in made["groups"].table.rows if row[-1]]
    assert [row[:2] for row in marked] == [worst[1:]]
    assert f"Worst off: {worst[1]} with {worst[2]}" in made["groups"].alt


def test_ids_are_unique_in_a_page_and_references_resolve(made):
    found = [name for figure in made.values() for name in ids(figure.svg)]
    assert len(found) == len(set(found))
    for slug, figure in made.items():
        mine = set(ids(figure.svg))
        assert all(name.startswith(f"{slug}-") for name in mine)
        assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', figure.svg)) <= mine


def test_the_page_svg_takes_all_colours_from_the_page(made):
    for figure in made.values():
        assert not HEX.findall(re.sub(r'var\(--c\d, #\w+\)|href="#[^"]*"|url\(#[^)]*\)', "", figure.svg))
        assert "font-family" not in figure.svg and "<style" not in figure.svg and "<metadata" not in figure.svg
        assert "currentColor" in figure.svg and "var(--c1, #1b6ca8)" in figure.svg


def test_the_page_svg_is_an_image_with_a_name_and_a_description(made):
    root = ElementTree.fromstring(made["headline"].svg)
    assert (
        root.get("role") == "img" and root.get("viewBox") and root.get("width") is None and root.get("height") is None
    )
    assert root.get("aria-labelledby").split() == [root[0].get("id"), root[1].get("id")]
    assert [root[0].text, root[1].text] == [made["headline"].title, made["headline"].alt]


def test_the_printed_svg_is_plain_and_on_white(made):
    for figure in made.values():
        assert "var(" not in figure.print_svg and "currentColor" not in figure.print_svg
        assert 'fill="#ffffff"' in figure.print_svg and "font-family: sans-serif" in figure.print_svg


def test_text_is_text_and_names_are_escaped(findings):
    odd = "a <b> & \"c\" 'd' $x_1$"
    cells = tuple(replace(cell, arm=odd) if cell.arm == "popularity" else cell for cell in findings.cells)
    with rendering.house_style():
        figure = against.headline(broken(findings, cells=cells))
    texts = [element.text for element in ElementTree.fromstring(figure.svg).iter() if element.text]
    assert odd in " ".join(" ".join(texts).split())


def test_rendering_twice_gives_equal_bytes(findings, made):
    with rendering.house_style():
        again = against.headline(findings)
    first = made["headline"]
    assert (again.svg, again.print_svg, again.png) == (first.svg, first.print_svg, first.png)


def test_png_is_white_and_narrow_enough(made):
    import io

    import matplotlib.image

    for figure in made.values():
        pixels = matplotlib.image.imread(io.BytesIO(figure.png))
        assert pixels.shape[1] <= 1600 and (pixels[0, 0, :3] == 1).all()


def test_the_style_of_this_machine_neither_counts_nor_changes(findings, made):
    with matplotlib.rc_context({"font.size": 30.0, "svg.fonttype": "path"}):
        with rendering.house_style():
            again = against.headline(findings)
        assert matplotlib.rcParams["font.size"] == 30.0
    assert again.svg == made["headline"].svg


def test_many_arms_stay_small(findings):
    cells = [cell for cell in findings.cells if cell.arm in LEVELS]
    cells += [cell_of(f"arm {arm}", epsilon, 0, 0.1, mode="user-central")
              for arm in range(12) for epsilon in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)]  # fmt: skip
    with rendering.house_style():
        assert len(against.headline(broken(findings, cells=tuple(cells))).svg.encode()) < 80_000


def test_what_was_not_told_leaves_its_figure_out(findings, unrendered):
    bare = changed(findings, lambda of: replace(of, cost=None, manifest={}, rounds=(), statements=(), validation={}))
    made = unrendered(bare)
    assert list(made) == ["headline", "accuracy", "beyond", "groups"]
    assert "see its guarantee" in {row[-1] for row in made["headline"].table.rows}
    assert "first arm declared" in made["groups"].table.note


def test_spent_alone_is_still_a_curve(findings):
    def untold(of):
        return replace(of, rounds=tuple({k: v for k, v in row.items() if k != "ndcg@10"} for row in of.rounds))

    with rendering.house_style():
        curve = courses.curves(changed(findings, untold))
    assert {row[2] for row in curve.table.rows} == {"–"} and "8" in told(curve)
    assert "add-or-remove-one user, δ = 0.001, against reader" in curve.table.note


def test_nothing_known_is_nothing_drawn(findings, unrendered):
    spoilt = changed(
        findings, lambda of: replace(of, users=of.users.assign(**{"ndcg@10": np.nan, "diversity@10": np.nan}))
    )
    made = unrendered(spoilt)
    assert "headline" not in made and "diversity@10" not in made["beyond"].table.header


def test_only_baselines_are_points_without_a_budget(findings, unrendered):
    alone = broken(findings, cells=tuple(cell for cell in findings.cells if cell.arm in LEVELS))
    made = unrendered(alone)
    assert not {"groups", "noise"} & set(made)
    assert [row[0] for row in made["headline"].table.rows] == list(LEVELS)


def test_groups_of_few_people_are_not_shown(findings):
    def few(of):
        return replace(of, users=of.users.assign(cold_user=np.arange(len(of.users)) < 4))

    with rendering.house_style():
        found = details.groups(changed(findings, few))
    assert "cold users" not in {row[0] for row in found.table.rows} and "left out: 1" in found.table.note


def test_people_are_only_averaged_so_that_it_does_not_matter_who_is_who(findings, unrendered):
    order = np.random.default_rng(0).permutation(60)

    def renamed(of):
        return replace(of, users=of.users.assign(client=order[of.users["client"]]).sort_values("client"))

    tables = [{slug: figure.table.rows for slug, figure in unrendered(each).items()} for each in
              (findings, changed(findings, renamed))]  # fmt: skip
    assert tables[0] == tables[1]


def test_arms_of_one_price_do_not_cover_each_other(drawn):
    axes = drawn[1]["cost"].axes[0]
    assert len({line.get_xdata()[0] for line in axes.lines}) == 1
    places = {round(line.get_transform().transform((line.get_xdata()[0], 0.1))[0], 1) for line in axes.lines}
    assert len(places) == len(axes.lines) == 3


def test_mixed_units_are_said_under_the_axis(findings):
    def by_choice(of):
        rows = tuple(row | {"spent": row["spent"] | {"unit": "choice"}} if "spent" in row else row for row in of.rounds)
        return replace(of, rounds=rows)

    cells = tuple(replace(cell, measured=by_choice(cell.measured)) if "layered" in cell.arm else cell
                  for cell in findings.cells)  # fmt: skip
    assert unit(findings) == "ε (add-or-remove-one user), log scale"
    assert unit(broken(findings, cells=cells)) == "ε (units differ: see the table), log scale"


def test_a_metric_that_is_a_constant_times_another_is_said_not_drawn(findings):
    def single(of):
        users = of.users.assign(**{"recall@10": of.users["hr@10"], "precision@10": of.users["hr@10"] / 10})
        summary = {name: float(users[name].mean()) if name in users else value for name, value in of.summary.items()}
        return replace(of, users=users, summary=summary)

    shown, same = against.distinct(changed(findings, single), ["hr@10", "recall@10", "precision@10", "mrr@10"])
    assert shown == ["hr@10", "mrr@10"] and same == {"recall@10": "hr@10", "precision@10": "hr@10"}


def test_arms_are_picked_on_validation_and_never_on_test(findings):
    worse = Point("warm start, layered", 8.0)
    cells = tuple(
        replace(cell, measured=replace(cell.measured, validation={"ndcg@10": 0.9}))
        if Point(cell.arm, cell.epsilon) == worse else cell for cell in findings.cells
    )  # fmt: skip
    assert picked(findings, [8.0]) == [Point("warm start, user-central", 8.0)]
    assert picked(broken(findings, cells=cells), [8.0]) == [worse]
    assert why(findings) == "the arm that validation items prefer at its ε"


def test_how_an_arm_was_picked_is_told_as_it_was(findings):
    blind = changed(findings, lambda of: replace(of, validation={}))
    assert why(blind) == "the first arm declared at its ε, where validation items cannot tell"
    lone = broken(blind, cells=tuple(cell for cell in blind.cells if cell.arm != "warm start, layered"))
    assert why(lone) == "the only arm at its ε"  # which no validation item preferred
    some = broken(blind, cells=tuple(
        cell for cell in blind.cells if (cell.arm, cell.epsilon) != ("warm start, layered", blind.budgets[0])
    ))  # fmt: skip
    assert why(some) == f"{why(lone)} or {why(blind)}"


def test_no_interval_is_drawn_beyond_what_a_metric_can_be(findings):
    def torn(of):
        return replace(of, summary=dict(of.summary) | {"coverage@10": float(of.plan.seed % 2), "novelty@10": 5.0})

    torn_apart = changed(findings, torn)
    base = torn_apart.base
    wide = torn_apart.estimate(base, "coverage@10")
    drawn = against.estimates(torn_apart, ("coverage@10",))[base, "coverage@10"]
    assert wide.low < 0 or wide.high > 1
    assert (drawn.mean, drawn.low, drawn.high) == (wide.mean, max(wide.low, 0), min(wide.high, 1))


def test_the_page_has_the_colours_of_its_pictures():
    light = re.findall(r"--c\d: (#\w+);", files("fedrec.study.reports").joinpath("page.css").read_text("utf-8"))
    assert tuple(light[:8]) == COLOURS


def test_a_promise_is_unit_relation_and_adversary(findings):
    assert promise(findings, Point("warm start, layered", 0.5)) == "add-or-remove-one user, δ = 0.001, against reader"
    assert protects(findings, Point("warm start, user-central", 0.5)).endswith("δ = 0.001, against reader")
    assert protects(findings, Point("warm start, layered", 0.5)).endswith("against reader; more in its guarantee")
    assert unit(findings) == "ε (add-or-remove-one user), log scale"
    assert promise(findings, findings.base) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.14159, "0.142"), (-0.0371, "−0.0371"), (0.0, "0"), (2.5, "2.5"), (20000.0, "20,000"), (999.6, "1,000"),
     (0.000012, "1.2e−05"), (float("nan"), "–"), (float("inf"), "–")],
)  # fmt: skip
def test_three_digits(value, text):
    assert digits(value) == text


def test_no_privacy_has_a_place_behind_the_budgets():
    scale = Scale((0.5, 8.0), unlimited=True)
    assert scale.at(0.5) < scale.at(8.0) < scale.ends[1] < scale.at(None) < scale.limits[1]
    assert scale.at(8.0) - scale.at(0.5) == pytest.approx(np.log10(16))


@pytest.mark.parametrize("lines", [1, 2, 12])
def test_lines_stand_beside_each_other_and_stay_near_their_budget(lines):
    offsets = Scale((1.0, 2.0), unlimited=False).offsets(lines)
    assert sum(offsets) == pytest.approx(0) and len(set(offsets)) == lines
    assert max(offsets) < np.log10(2) / 2


def test_labels_are_spread_as_little_as_possible():
    assert spread([0.1, 0.5], [0.1, 0.1]) == pytest.approx([0.1, 0.5])
    assert spread([0.5, 0.5, 0.9], [0.1, 0.1, 0.1]) == pytest.approx([0.45, 0.55, 0.9])
    close = spread([0.3, 0.31, 0.32, 0.33], [0.1, 0.2, 0.1, 0.1])
    assert all(right - left > 0.0999 for left, right in pairwise(close))


def test_a_label_without_room_is_left_out():
    drawing = sheet(1, 1, 3.0)
    axes = drawing.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    rendering.lay_out(drawing)
    crowd = [((0.5, 0.5 + 0.001 * n), 0.0, "ε = 2") for n in range(9)]
    label_dots(axes, [*crowd, ((0.1, 0.1), 0.0, "ε = 8")])
    assert [note.get_text() for note in axes.texts].count("ε = 8") == 1
    assert 1 <= len(axes.texts) - 1 <= 4


def test_two_dozen_lines_look_different_and_twelve_even_in_grey():
    styles = [Style.of(number) for number in range(24)]
    assert len(set(styles)) == 24 and len({style.marker for style in styles[:12]}) == 12


def test_figures_do_not_load_matplotlib_before_they_are_asked_for():
    code = "import sys, fedrec.study.reports.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
