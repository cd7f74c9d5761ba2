"""The HTML page: what is in it, who can read it, and that it asks nobody for anything."""

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from pages import NASTY, report

from fedrec.study.reports.document import Report, Section, Tone
from fedrec.study.reports.html import page

VOID = {"meta", "link", "br", "hr", "img", "input", "base"}
ACTS = {"script", "link", "iframe", "object", "embed", "base"}
LOADS = {"src", "href", "srcset", "data", "poster", "action", "background", "xlink:href", "formaction", "ping"}
NAMESPACES = re.compile(r'\bxmlns(:\w+)?="[^"]*"')


class Node:
    """An element with its attributes, what is in it, and the text of all that."""

    def __init__(self, tag="", attrs=(), above=None):
        self.tag, self.attrs, self.above, self.inside, self.texts = tag, dict(attrs), above, [], []

    def all(self, *tags):
        return [found for node in self.inside for found in [*([node] if node.tag in tags else []), *node.all(*tags)]]

    def everything(self):
        return [found for node in self.inside for found in [node, *node.everything()]]

    @property
    def text(self):
        return "".join(part if isinstance(part, str) else part.text for part in self.texts)


class Tree(HTMLParser):
    """What a browser makes of a page, refusing what a browser would have to guess."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.root = self.at = Node()
        self.feed(text)
        self.close()
        assert self.at is self.root, f"<{self.at.tag}> is never closed"

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> says something twice"
        node = Node(tag, attrs, self.at)
        self.at.inside.append(node)
        self.at.texts.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag, attrs):
        node = Node(tag, attrs, self.at)
        self.at.inside.append(node)

    def handle_endtag(self, tag):
        assert tag == self.at.tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.above

    def handle_data(self, data):
        self.at.texts.append(data)


@pytest.fixture(scope="module")
def text():
    return page(report())


@pytest.fixture(scope="module")
def tree(text):
    return Tree(text).root


def test_one_title_and_headings_without_a_gap(tree):
    levels = [int(node.tag[1]) for node in tree.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert tree.all("html")[0].attrs["lang"] == "en" and tree.all("title")[0].text == "Study of federated"


def test_ids_are_unique_and_every_reference_leads_somewhere(tree):
    ids = [node.attrs["id"] for node in tree.everything() if "id" in node.attrs]
    assert len(ids) == len(set(ids))
    named = [node.attrs.get(name, "") for node in tree.everything() for name in ("aria-labelledby", "aria-describedby")]
    links = [node.attrs["href"] for node in tree.all("a")]
    assert len(links) == 5 and all(link.startswith("#") for link in links)
    assert {*" ".join(named).split(), *(link[1:] for link in links)} <= set(ids)


def test_the_verdict_comes_first_and_every_tone_is_a_word(tree):
    sections = [node for node in tree.all("section") if "id" in node.attrs]
    assert [node.attrs["id"] for node in sections] == ["verdict", "results", "groups", "guarantees", "reproduce"]
    said = [node.text for node in sections[0].all("li")]
    assert said == [f"{tone.value.capitalize()}: A {tone.name} line of federated." for tone in Tone]
    nav = tree.all("nav")[0]
    assert [node.text for node in nav.all("a")] == ["Results", "Groups", "Guarantees", "Make it again"]


def test_every_table_can_be_read_aloud_and_reached_by_keyboard(tree):
    tables = tree.all("table")
    assert len(tables) == 4  # two of them are the figures' numbers
    for node in tables:
        assert node.all("caption")[0].text
        assert {head.attrs["scope"] for head in node.all("thead")[0].all("th")} == {"col"}
        rows = node.all("tbody")[0].all("tr")
        assert [len(row.inside) for row in rows] == [4, 4]
        assert all(row.inside[0].tag == "th" and row.inside[0].attrs["scope"] == "row" for row in rows)
        assert node.above.attrs.items() >= {"role": "region", "tabindex": "0"}.items()
    names = [node.above.attrs["aria-label"] for node in tables]
    assert len(set(names)) == len(names)


def test_columns_are_set_as_numbers_words_or_sentences(tree):
    heads = tree.all("table")[0].all("thead")[0].all("th")
    assert [(node.text, node.attrs["class"]) for node in heads] == [
        ("arm", "word"), ("ε", "number"), ("NDCG@10", "number"), ("why", "prose"),
    ]  # fmt: skip


def test_every_figure_has_words_and_numbers(tree):
    figures = [node for node in tree.all("figure") if "id" in node.attrs]
    assert [node.attrs["id"] for node in figures] == ["figure-headline", "figure-groups"]
    for node, slug in zip(figures, ("headline", "groups"), strict=True):
        image = next(inner for inner in node.everything() if inner.attrs.get("role") == "img")
        words = {inner.attrs["id"]: inner.text for inner in node.all("figcaption")[0].inside}
        assert words[image.attrs["aria-labelledby"]] == f"Figure {slug}"
        assert words[image.attrs["aria-describedby"]] == f"What {slug} shows."
        assert node.all("details")[0].all("table")[0].all("caption")[0].text == slug
        assert image.all("svg") and "print" not in node.text


def test_a_card_gives_what_it_does_not_protect_the_same_room(tree):
    first, _, last = tree.all("article")
    assert [node.text for node in first.all("dt")] == ["unit", "ε, δ"]
    assert [node.text for node in first.all("dd")] == ["person", "2.00, 1e-6"]
    terms = [(node.tag, node.all("h4")[0].text, [li.text for li in node.all("li")]) for node in first.all("section")]
    assert terms == [
        ("section", "It assumes", ["An honest server."]), ("section", "It does not protect", ["Timing."]),
    ]  # fmt: skip
    assert not last.all("dl") and [node.text for node in last.all("section")[0].all("p")] == ["Nothing is stated."]


def test_nothing_is_asked_of_anybody(tree, text):
    policy = next(node.attrs["content"] for node in tree.all("meta") if "http-equiv" in node.attrs)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert external(text) == []


def external(text):
    """What in a page could fetch something or run."""
    tree, found = Tree(text).root, []
    for node in tree.everything():
        found += [value for name, value in node.attrs.items() if name in LOADS and not value.startswith("#")]
        found += [name for name in node.attrs if name.startswith("on")]
        found += [node.tag] if node.tag in ACTS else []
    found += re.findall(r"@import|https?:|url\((?!#)", "".join(node.text for node in tree.all("style")))
    return found + re.findall(r"https?://|url\((?!#)", NAMESPACES.sub("", text))


@pytest.mark.parametrize("planted", [
    '<script src="x.js"></script>', '<img src="//host/x.png">', "<style>@import 'x.css';</style>",
    '<p style="background: url(x.png)">x</p>', '<a href="https://host">x</a>', '<p onclick="x()">x</p>',
    '<link rel="icon" href="#x">',
])  # fmt: skip
def test_what_would_ask_is_found(text, planted):
    assert external(text.replace("</main>", planted + "</main>"))


def test_whatever_is_in_the_data_stays_text():
    shown = page(report(NASTY))
    tree = Tree(shown).root
    assert external(shown) == []
    assert not tree.all("script") and "<script" not in shown
    assert tree.all("h1")[0].text == f"Study of {NASTY}"
    assert tree.all("article")[0].all("h3")[0].text == NASTY
    assert tree.all("table")[2].all("tbody")[0].all("tr")[0].inside[0].text == NASTY
    assert tree.all("code")[0].text == f"fedrec sweep {NASTY}\n  --seeds 5"


def test_equal_reports_make_equal_pages_and_little_is_added(text):
    assert page(report()) == text
    assert len(text.encode()) < 40_000  # one page's frame and style; the rest is the report's own


def test_a_report_of_a_verdict_alone_has_no_contents():
    tree = Tree(page(Report("Study", "", (Section("verdict", "Verdict"),)))).root
    assert not tree.all("nav") and [node.text for node in tree.all("h1", "h2")] == ["Study", "Verdict"]


def luminance(colour):
    """Relative luminance of an sRGB colour (WCAG 2.2, definitions)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def themes():
    style = files("fedrec.study.reports").joinpath("page.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b", block)) for block in blocks]


def test_contrast_is_what_the_guidelines_define():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out_in_both_themes(theme):
    light, dark = themes()
    assert light.keys() == dark.keys() and luminance(light["paper"]) > 0.9 > 0.1 > luminance(dark["paper"])
    colours = themes()[theme]
    for ground in ("paper", "panel"):
        for ink in ("ink", "soft", "link", "good", "plain", "warn", "bad"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for series in range(1, 9):
        assert contrast(colours[f"c{series}"], colours["paper"]) >= 3, series


def test_a_line_never_ends_within_a_budget_or_a_percentage_and_code_is_left_as_it_is():
    text = "at ε = 2 it keeps 95 % (δ = 0.1)"
    made = page(Report("one", text, (Section("make", "Make", text=(text,), code=(("Study", text),)),)))
    assert made.count("at ε\u00a0=\u00a02 it keeps 95\u00a0% (δ\u00a0=\u00a00.1)") == 2
    assert f"<code>{text}</code>" in made
