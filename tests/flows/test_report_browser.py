"""The page in a browser: on a phone, in the dark, on paper, to a screen reader, and without the network."""

import pytest
from pages import NASTY, report
from screens import screen

from fedrec.study.reports.html import page

LONG = "an_arm_with_a_name_of_one_word_that_no_phone_can_show_in_a_single_line_of_text"
WIDTH = "document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def tab():
    with screen() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    (place / "long.html").write_text(page(report(LONG)))
    (place / "nasty.html").write_text(page(report(NASTY)))
    return place


@pytest.mark.parametrize("name", ["long", "nasty"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(tab, folder, name, width):
    tab.look(width=width)
    tab.open(folder / f"{name}.html")
    tab.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.value(WIDTH) <= width
    assert tab.value(
        "[...document.querySelectorAll('h1, h2, h3, p, li, dd')].every(each => each.scrollWidth <= innerWidth)"
    )


def test_a_page_that_is_too_wide_would_be_noticed(tab, folder):
    wide = folder / "wide.html"
    wide.write_text((folder / "long.html").read_text().replace("<main", '<div style="width: 500px">x</div><main'))
    tab.look(width=390)
    tab.open(wide)
    assert tab.value(WIDTH) > 390


def test_a_wide_table_scrolls_in_its_own_place(tab, folder):
    tab.look(width=390)
    tab.open(folder / "long.html")
    table = "document.querySelector('#results > .scroll')"
    assert tab.value(f"{table}.scrollWidth > {table}.clientWidth + 50")
    assert tab.value(f"({table}.focus(), document.activeElement === {table})")
    moved = f"({table}.scrollLeft = 50, {table}.querySelector('tbody th').getBoundingClientRect().left)"
    assert tab.value(moved) == pytest.approx(tab.value(f"{table}.getBoundingClientRect().left"), abs=1)


def test_dark_and_light_follow_the_reader_and_paper_is_white(tab, folder):
    def colours(**how):
        tab.look(width=1280, **how)
        tab.open(folder / "long.html")
        style = "getComputedStyle(document.querySelector('{}')).{}"
        return [
            tab.value(style.format(*of))
            for of in (("body", "backgroundColor"), ("body", "color"), ("[stroke]", "stroke"))
        ]

    light, dark = colours(dark=False), colours(dark=True)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert colours(dark=True, media="print") == ["rgb(255, 255, 255)", *light[1:]]


def test_paper_shows_the_numbers_that_the_screen_folds_away(tab, folder):
    def heights(media):
        tab.look(width=720, media=media)
        tab.open(folder / "long.html")
        return tab.value("[...document.querySelectorAll('details table')].map(each => each.checkVisibility())")

    assert heights("screen") == [False, False]
    assert heights("print") == [True, True]


@pytest.mark.parametrize("name", ["long", "nasty"])
def test_nothing_is_requested_and_nothing_complains(tab, folder, name):
    tab.look(width=1280)
    tab.open(folder / f"{name}.html")
    assert asked(tab) == [(folder / f"{name}.html").as_uri()]
    assert complaints(tab) == []


def test_the_policy_stops_what_a_page_must_not_do(tab, folder):
    planted = '<script>document.title = "ran"</script><img src="x.png">'
    (folder / "planted.html").write_text((folder / "long.html").read_text().replace("</main>", planted + "</main>"))
    tab.open(folder / "planted.html")
    assert tab.value("document.title") == f"Study of {LONG}"
    assert len(complaints(tab)) >= 2


def asked(tab):
    return [event["params"]["request"]["url"] for event in tab.events if event["method"] == "Network.requestWillBeSent"]


def complaints(tab):
    told = ("Network.loadingFailed", "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    return [event for event in tab.events if event["method"] in told]


def test_a_screen_reader_is_told_what_a_picture_shows(tab, folder):
    tab.look(width=1280)
    tab.open(folder / "long.html")
    heard = [
        tuple(node.get(part, {}).get("value", "") for part in ("role", "name", "description"))
        for node in tab.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]
    ]  # fmt: skip
    assert ("image", "Figure headline", "What headline shows.") in heard
    assert ("region", "Results: Every arm", "") in heard and ("navigation", "Contents", "") in heard
    roles = [role for role, _, _ in heard]
    assert roles.count("main") == roles.count("banner") == 1 and roles.count("article") == 3
    assert "columnheader" in roles and "rowheader" in roles
