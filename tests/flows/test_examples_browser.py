"""The reader app in a browser without scripts: on a phone, in the dark, by keyboard, and beside a page that lies."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from screens import screen
from test_status_page import CONTRAST
from visitors import look, opened, press, served, settled


@pytest.fixture(scope="module")
def tab():
    with screen() as opened:
        opened.call("Emulation.setScriptExecutionDisabled", {"value": True})
        yield opened


@pytest.fixture(scope="module")
def used(reader_pack, tmp_path_factory):
    """A person who did and said something."""
    with opened(reader_pack, tmp_path_factory.mktemp("used") / "me") as room:
        room.rec.log("click", "b0001")
        room.rec.log("search", text="chess openings")
        room.rec.tell("I like jazz but no coffee")
        room.rec.feedback("b0003", "more_like_this")
        yield room


@pytest.fixture(scope="module")
def site(used, tab):
    """Its address, with the tab let in."""
    with served(used) as address:
        look(tab, f"{address}/enter/{used.keys.door}")
        yield address


PAGES = ["/", "/item?id=b0002", "/privacy"]
BOX = "document.activeElement.getBoundingClientRect()"


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [320, 768, 1280])
def test_no_page_scrolls_sideways(tab, site, page, width):
    tab.look(width=width)
    look(tab, site + page)
    tab.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.call("Page.getLayoutMetrics")["cssContentSize"]["width"] <= width


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", PAGES)
def test_every_text_of_the_app_stands_out(tab, site, page, dark):
    tab.look(width=1280, dark=dark)
    look(tab, site + page)
    assert tab.value(CONTRAST) >= 4.5
    tab.value("document.querySelector('.soft').style.color = 'var(--rule)'")
    assert tab.value(CONTRAST) < 2  # so the measure can fail


@pytest.mark.parametrize("page", PAGES)
def test_everything_has_a_name_and_a_place(tab, site, page):
    tab.look(width=1280)
    look(tab, site + page)
    heard = [
        tuple(node.get(part, {}).get("value", "") for part in ("role", "name"))
        for node in tab.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]
    ]  # fmt: skip
    roles = [role for role, _ in heard]
    for landmark in ("banner", "main", "contentinfo", "search", "navigation"):
        assert roles.count(landmark) == 1
    wants = {"button", "link", "textbox", "searchbox", "radio", "checkbox", "spinbutton", "region", "image"}
    assert [role for role, name in heard if role in wants and not name.strip()] == []
    acts = [name for role, name in heard if role == "button"]
    assert len(acts) == len(set(acts)) or page == "/privacy"
    levels = [int(tag[1]) for tag in tab.value("[...document.querySelectorAll('h1,h2,h3')].map(x => x.tagName)")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    small = "[...document.querySelectorAll('button')].filter(x => Math.min(x.offsetWidth, x.offsetHeight) < 24).length"
    assert tab.value("document.querySelectorAll('button').length") > 3 and tab.value(small) == 0


def test_all_of_it_goes_by_keyboard_without_scripts(tab, site, used):
    tab.look(width=1280)
    look(tab, site)
    press(tab, "Tab")
    assert tab.value("document.activeElement.textContent") == "Skip to the books"
    assert tab.value(f"{BOX}.top") >= 0  # it is to be seen once it has the focus
    press(tab, "Tab"), press(tab, "Tab")
    assert tab.value("document.activeElement.id") == "query"
    assert tab.value("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    tab.events.clear()
    tab.call("Input.insertText", {"text": "gardening"})
    press(tab, "Enter", "\r")
    settled(tab)
    assert tab.value("document.querySelector('h1').textContent") == "Books about “gardening”"
    assert "gardening" not in tab.value("location.href")
    wished = len(used.rec.preferences)
    for _ in range(40):
        press(tab, "Tab")
        if tab.value("document.activeElement.value") == "less_like_this":
            break
    tab.events.clear()
    press(tab, "Enter", "\r")
    settled(tab)
    assert len(used.rec.preferences) == wished + 1
    assert tab.value("document.querySelector('[role=status] p').textContent").startswith("Less like")
    for _ in range(12):
        press(tab, "Tab")
        if tab.value("document.activeElement.textContent").startswith("Undo: Less like"):
            break
    tab.events.clear()
    press(tab, "Enter", "\r")
    settled(tab)
    assert len(used.rec.preferences) == wished


def test_a_copy_is_brought_back_from_the_keyboard(tab, used, reader_pack, tmp_path):
    used.rec.export(tmp_path / "copy.zip")
    with opened(reader_pack, tmp_path / "other") as room, served(room) as address:
        tab.look(width=320)
        look(tab, f"{address}/enter/{room.keys.door}")
        look(tab, f"{address}/privacy")
        assert tab.value("document.querySelector('label[for=copy]').textContent").startswith("Bring back")
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        box = tab.call("DOM.querySelector", {"nodeId": root, "selector": "#copy"})["nodeId"]
        tab.call("DOM.setFileInputFiles", {"nodeId": box, "files": [str(tmp_path / "copy.zip")]})
        tab.value("document.querySelector('#copy').focus()")
        while tab.value("document.activeElement.textContent") != "Bring it back":
            press(tab, "Tab")
        tab.events.clear()
        press(tab, "Enter", "\r")
        settled(tab)
        assert tab.value("document.querySelector('[role=status] p').textContent").startswith("Your copy is back")
        assert room.rec.preferences == used.rec.preferences
    look(tab, "about:blank")


def test_the_app_asks_nobody_else_and_keeps_nothing_in_the_browser(tab, site):
    tab.look(width=1280)
    for page in PAGES:
        look(tab, site + page)
        asked = [event["params"]["request"]["url"] for event in tab.events
                 if event["method"] == "Network.requestWillBeSent"]  # fmt: skip
        own = [url for url in asked if url.startswith(f"{site}/")]
        assert len(own) >= 2 and all(url.startswith("data:") for url in asked if url not in own)
        told = ("Network.loadingFailed", "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        assert [event for event in tab.events if event["method"] in told] == []
        assert tab.value("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_a_page_of_somebody_else_changes_nothing(tab, site, used):
    """On another port of this machine: the browser adds our cookie to what such a page sends."""
    forged = f"""<form method=post action="{site}/tell"><input name=sentence value="I like jazz"><input name=token
        value=guess><input name=back value=/></form><title>lure</title><script>document.forms[0].submit()</script>"""

    class Lure(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(forged.encode())

        def log_message(self, *words):
            pass

    before = used.rec.preferences
    with ThreadingHTTPServer(("127.0.0.1", 0), Lure) as lure:
        threading.Thread(target=lure.serve_forever, daemon=True).start()
        tab.call("Emulation.setScriptExecutionDisabled", {"value": False})
        try:
            tab.events.clear()
            tab.call("Page.navigate", {"url": f"http://127.0.0.1:{lure.server_port}/"})
            while not (refused := [event["params"]["response"] for event in tab.events
                                   if event["method"] == "Network.responseReceived"
                                   and event["params"]["response"]["url"] == f"{site}/tell"]):  # fmt: skip
                tab.events.append(tab._next())
        finally:
            tab.call("Emulation.setScriptExecutionDisabled", {"value": True})
            lure.shutdown()
    assert refused[0]["status"] == 403 and used.rec.preferences == before
