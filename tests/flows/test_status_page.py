"""The operators' page in a browser and over HTTP: light, dark, phone, paper, a screen reader, and without a network."""

import asyncio
import json
import re
import time
from html.parser import HTMLParser

import httpx
import pytest
from operations import READER, ROWS, claim, course, fill, keep_ledger, looked, secret, view, write
from screens import screen

from fedrec.deploy.health import judge
from fedrec.deploy.status import operators, page

WIDTH = "document.documentElement.scrollWidth"
NASTY = """<script>document.title = "ran"</script>' דירוג & "quoted" {{ 7 * 7 }} \u202e"""
LONG = "a_word_that_no_phone_can_show_in_a_single_line_of_text_whatever_its_owner_does"


@pytest.fixture(scope="module")
def tab():
    with screen() as opened:
        yield opened


def troubled(site, words):
    """A site with as much to say as one can have, in words of `words`."""
    now = time.time()
    write(site, "state/round.json", secret(now - 500))
    write(site, "run/statement.json", [claim(READER, label=words, sentence=words, not_protected=[words] * 3)])
    write(site, "state/accuracy.json", {
        "name": words, "value": 0.5, "people": 120, "how": words, "consent": words, "measured": words,
    })  # fmt: skip
    write(site, "run/run.json", {"packages": {words: words}})
    return site


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("status")
    for name, site in {
        "sound": fill(place / "a"), "long": troubled(fill(place / "b"), LONG),
        "nasty": troubled(fill(place / "c"), NASTY), "empty": place / "d",
    }.items():  # fmt: skip
        look = looked(site)
        (place / f"{name}.html").write_text(page(look, judge(look)))
    return place


@pytest.mark.parametrize("name", ["sound", "long", "nasty", "empty"])
@pytest.mark.parametrize("width", [320, 768, 1280])
def test_the_page_never_scrolls_sideways(tab, folder, name, width):
    tab.look(width=width)
    tab.open(folder / f"{name}.html")
    tab.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.value(WIDTH) <= width
    assert tab.value("[...document.querySelectorAll('h1, h2, h3, p, li, dd')].every(x => x.scrollWidth <= innerWidth)")


def test_words_of_others_are_only_words(tab, folder):
    tab.look(width=1280)
    tab.open(folder / "nasty.html")
    assert tab.value("document.title") == "failing · fedrec site"
    assert NASTY in tab.value("document.querySelector('#accuracy').parentNode.textContent")
    told = ("Network.loadingFailed", "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [event for event in tab.events if event["method"] in told] == []
    asked = [event for event in tab.events if event["method"] == "Network.requestWillBeSent"]
    assert len(asked) == 1


def test_dark_and_light_follow_the_reader_and_paper_is_white(tab, folder):
    def colours(**how):
        tab.look(width=1280, **how)
        tab.open(folder / "sound.html")
        asked = (("body", "backgroundColor"), ("body", "color"), (".part", "fill"))
        return [tab.value(f"getComputedStyle(document.querySelector('{of}')).{what}") for of, what in asked]

    light, dark = colours(dark=False), colours(dark=True)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert colours(dark=True, media="print") == ["rgb(255, 255, 255)", *light[1:]]


# WCAG 1.4.3 asks 4.5 : 1 of text; the ratio is by its definition of relative luminance.
CONTRAST = """
(() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(x => x / 255)
      .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = node => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? paper(node.parentElement) : colour;
  };
  const worst = node => {
    const [a, b] = [light(getComputedStyle(node).color), light(paper(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const told = [...document.querySelectorAll("body *")].filter(node => node.checkVisibility()
    && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()) && !node.closest("svg, style"));
  return Math.min(...told.map(worst));
})()
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["sound", "long"])
def test_every_text_stands_out_from_its_ground(tab, folder, name, dark):
    tab.look(width=1280, dark=dark)
    tab.open(folder / f"{name}.html")
    assert tab.value(CONTRAST) >= 4.5
    tab.value("document.querySelector('.said').style.color = 'var(--rule)'")
    assert tab.value(CONTRAST) < 2  # so the measure can fail


def test_a_screen_reader_is_told_what_the_bars_show(tab, folder):
    tab.look(width=1280)
    tab.open(folder / "sound.html")
    heard = [
        tuple(node.get(part, {}).get("value", "") for part in ("role", "name"))
        for node in tab.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]
    ]  # fmt: skip
    assert ("image", "2 of 20 rounds are finished (10 %)") in heard
    assert ("image", "ε = 2 of 8 is spent (25 %)") in heard
    roles = [role for role, _ in heard]
    assert roles.count("main") == roles.count("banner") == roles.count("contentinfo") == 1
    assert "columnheader" in roles and "rowheader" in roles
    regions = {name for role, name in heard if role == "region"}
    assert {"How it stands", "Health", "Privacy spent", "Who is protected from whom", "Updates", "Published models",
            "Accuracy", "Versions"} <= regions  # fmt: skip


def test_paper_shows_what_the_screen_folds_away(tab, folder):
    shown = []
    for media in ("screen", "print"):
        tab.look(width=720, media=media)
        tab.open(folder / "sound.html")
        shown.append(tab.value("[...document.querySelectorAll('details ul')].every(each => each.checkVisibility())"))
    assert shown == [False, True]


# What the page says.


def shown(site):
    look = looked(site)
    return page(look, judge(look))


class Outline(HTMLParser):
    """Headings, table captions, and whether anything could run or load."""

    def __init__(self, html):
        super().__init__()
        self.levels, self.tables, self.captions, self.bad = [], 0, 0, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag in ("script", "link", "img", "iframe", "form", "object") or any(
            name.startswith("on") or name in ("src", "style") or (name == "href" and "//" in (value or ""))
            for name, value in attrs
        ):
            self.bad.append((tag, attrs))


@pytest.mark.parametrize("name", ["sound", "long", "nasty", "empty"])
def test_headings_nest_tables_have_captions_and_nothing_can_load(folder, name):
    outline = Outline((folder / f"{name}.html").read_text())
    assert outline.levels[0] == 1 and outline.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False))
    assert outline.tables == outline.captions and outline.bad == []


def test_an_epsilon_is_never_alone(folder):
    text = re.sub("<[^>]+>", " ", (folder / "sound.html").read_text())
    for found in re.finditer("ε = [0-9]", text):
        around = text[max(0, found.start() - 200) : found.end() + 200]
        assert "-level, against" in around and "δ =" in around and "zero-out" in around


def test_a_secret_cohort_has_neither_counts_nor_times(tmp_path):
    site, now = fill(tmp_path), time.time()
    rows = [{name: row[name] for name in row.keys() - {"seconds", "clients", "refused"}} for row in ROWS]
    write(site, "run/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    told = ("In this phase since", "Deadline of the round", "Asked", "Accepted")
    assert all(word in shown(site) for word in told)
    write(site, "state/round.json", secret(now))
    write(site, "state/last.json", secret(now, round=2))
    assert not any(word in shown(site) for word in (*told, "will take about", "The last round took"))
    assert "a secret that its promise rests on" in shown(site)


def test_accuracy_is_shown_only_with_everything_that_belongs_to_it(tmp_path):
    site = fill(tmp_path)
    figure = {"name": "NDCG@10", "value": 0.123, "people": 120, "how": "full catalogue", "consent": "volunteers",
              "measured": "2026-01-01"}  # fmt: skip
    assert "No metric leaves a device" in shown(site)
    write(site, "state/accuracy.json", {name: figure[name] for name in figure if name != "consent"})
    assert "No metric leaves a device" in shown(site)
    write(site, "state/accuracy.json", figure)
    assert "0.123" in shown(site)


# Over HTTP.


def ask(site, path, **how):
    """The application's answer, without a network."""

    async def asked():
        transport = httpx.ASGITransport(app=operators(view(site)), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url=how.pop("base", "http://127.0.0.1:9444")) as client:
            return await client.request(how.pop("method", "GET"), path, **how)

    return asyncio.run(asked())


@pytest.fixture
def site(tmp_path):
    keep_ledger(fill(tmp_path))
    return tmp_path


def test_health_is_503_only_when_the_site_does_not_do_its_work(site):
    assert ask(site, "/healthz").status_code == 200 and ask(site, "/healthz").json()["state"] == "ok"
    write(site, "state/round.json", course(time.time(), beat=time.time() - 999))
    answer = ask(site, "/healthz")
    assert answer.status_code == 503 and answer.json()["concerns"][0]["name"] == "trainer silent"
    assert ask(site, "/livez").status_code == 200
    assert ask(site, "/").status_code == 200


def test_every_answer_says_that_it_may_only_be_shown(site):
    for path in ("/", "/healthz", "/livez", "/metrics", "/nowhere"):
        headers = ask(site, path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers and "access-control-allow-origin" not in headers
    assert ask(site, "/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_there_is_nothing_to_be_changed(site, method):
    assert ask(site, "/", method=method).status_code == 405


@pytest.mark.parametrize("base", ["http://evil.example:9444", "http://127.0.0.1.evil.example", "http://[::2]:9444"])
def test_a_name_that_is_not_ours_is_refused(site, base):
    answer = ask(site, "/", base=base)
    assert answer.status_code == 421 and "fedrec site" not in answer.text


@pytest.mark.parametrize("base", ["http://localhost:9444", "http://[::1]:9444", "http://127.0.0.1", "http://LOCALHOST"])
def test_names_of_ours(site, base):
    assert ask(site, "/", base=base).status_code == 200


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("", None), ("?every=30", "30"), ("?every=300", "300"), ("?every=1", None), ("?every=x", None)],
)
def test_the_page_is_loaded_again_only_if_somebody_asked(site, query, seconds):
    found = re.search('http-equiv="refresh" content="([0-9]+)"', ask(site, f"/{query}").text)
    assert (found and found[1]) == seconds


def test_the_policy_lets_the_style_pass_and_nothing_else(tab, site):
    """Over a real socket, because a file has no headers."""
    import threading

    import uvicorn

    async def planted(scope, receive, send):
        async def add(message):
            if message["type"] == "http.response.body":
                message["body"] = message["body"].replace(b"</main>", b"<script>document.title='ran'</script>"
                                                          b"<p style='color:red' id=red>x</p></main>")  # fmt: skip
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"content-length"]
            await send(message)

        await app(scope, receive, add)

    app = operators(view(site))
    quiet = {"log_level": "critical", "lifespan": "off", "ws": "none", "timeout_graceful_shutdown": 1}
    server = uvicorn.Server(uvicorn.Config(planted, host="127.0.0.1", port=0, **quiet))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        tab.look(width=1280)
        tab.events.clear()
        tab.call("Page.navigate", {"url": f"http://127.0.0.1:{port}/"})
        tab.value("new Promise(done => document.readyState === 'complete' ? done(1) : onload = () => done(1))")
        assert tab.value("document.title") == "ok · fedrec site"
        assert tab.value("getComputedStyle(document.querySelector('.top')).display") == "flex"
        assert tab.value("getComputedStyle(document.querySelector('#red')).color") != "rgb(255, 0, 0)"
    finally:
        server.should_exit = True
        thread.join(10)
