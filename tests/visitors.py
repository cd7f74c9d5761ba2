"""Somebody who uses the example app: over HTTP, by the forms on its pages."""

import asyncio
import re
import socket
import threading
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import uvicorn

from client.examples.reader.app import application
from client.examples.reader.room import Room
from fedrec import Recommender

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "client" / "examples"
HERE = "http://127.0.0.1:8765"
NASTY = """<script>document.title = "ran"</script>' דירוג & "quoted" {{ 7 * 7 }} \u202e"""
SECRET = "zaffre xylophone"


def example_pack(out, cli, tiny):
    """Made by the command in the examples' README, of a size that is ready in a moment."""
    (command,) = re.findall(r"^\$ fedrec (.+) --out runs/reader$", (EXAMPLES / "README.md").read_text(), re.M)
    small = tiny(data__options__items=120, federation__rounds=1)
    assert cli(*command.split(), *small, "--out", out).code == 0
    return out / "pack"


@contextmanager
def opened(pack, folder):
    """The room of whoever is kept in `folder`."""
    with Recommender.open(folder, pack=pack) as rec:
        yield Room(rec, folder, 180)


class Visitor:
    """A browser without its window: keeps cookies, sends forms as they stand on the last page, follows redirects."""

    def __init__(self, room, base=HERE):
        self.room, self.app, self.base, self.cookies = room, application(room), base, httpx.Cookies()
        self.page, self.place = "", "/"

    def send(self, method, path, **how):
        async def sent():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url=self.base, cookies=self.cookies) as client:
                answer = await client.request(method, path, **how)
                self.cookies.update(client.cookies)
                return answer

        return asyncio.run(sent())

    def go(self, path):
        """Ask for a page and stay there; what it sends elsewhere is followed."""
        return self._at(self.send("GET", path))

    def submit(self, action, press="", item="", files=None, **fill):
        """Fill in the first form with this action, and if said this button and this item, and send it."""
        for target, fields, buttons in forms(self.page):
            if target == action and (not press or press in buttons) and item in ("", fields.get("item")):
                pressed = {buttons[press]: press} if press else {}
                return self._at(self.send("POST", action, data=fields | pressed | fill, files=files))
        raise AssertionError(f"no form for {action} {press} {item} on {self.place}")

    def shelf(self, name=""):
        """Ids of the books on a shelf, by default the first, in order."""
        name = name or re.search('class="shelf" aria-labelledby="([^"]+)"', self.page)[1]
        section = re.search(f'aria-labelledby="{name}">(.*?)</section>', self.page, re.S)
        return re.findall(r'<h[23]><a href="/item\?id=([^&"]+)', section[1]) if section else []

    def _at(self, answer):
        while answer.status_code == 303:
            answer = self.send("GET", answer.headers["location"])
        self.page, self.place = answer.text, str(answer.url)
        return answer


class Forms(HTMLParser):
    """Every form: where it goes, its hidden fields, and what its buttons say, by value."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "form":
            assert given["method"] == "post"
            self.found.append((given["action"], {}, {}))
        elif tag == "input" and given.get("type") == "hidden":
            self.found[-1][1][given["name"]] = given["value"]
        elif tag == "button" and "name" in given:
            self.found[-1][2][given["value"]] = given["name"]


def forms(page):
    return Forms(page).found


def kept(room):
    """How many things are kept of the person."""
    return room.rec.forget(everything=True)


def entered(room):
    """A visitor who has used the address that the app printed."""
    visitor = Visitor(room)
    visitor.go(f"/enter/{room.keys.door}")
    return visitor


# In a browser.


@contextmanager
def served(room):
    """The app as `serve` serves it, in a thread; gives its address."""
    bell = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application(room), log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    server.config.timeout_graceful_shutdown = 1
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bell]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bell.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        bell.close()


def look(tab, address):
    """Go to an address and wait for what it shows; `Tab.open` would wait for a script."""
    tab.events.clear()
    tab.call("Page.navigate", {"url": address})
    settled(tab)


def settled(tab):
    """Wait for the page that is being loaded."""
    while not any(event["method"] == "Page.loadEventFired" for event in tab.events):
        tab.events.append(tab._next())


def press(tab, key, text=""):
    """One key, as a keyboard sends it."""
    codes = {"Tab": 9, "Enter": 13, "Space": 32}
    stroke = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": codes[key], "text": text}
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", {"type": kind, **stroke})
