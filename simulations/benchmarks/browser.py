"""A headless Chromium driven over a pipe (the DevTools protocol), for pages of our own making."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0  # seconds for one answer
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
          "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe")  # fmt: skip

_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)  # where the protocol is read, and below where it is written
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def installed() -> str | None:
    """Where a Chromium is, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True)
class Tab:
    """One page. `events` are those that came while something else was awaited, oldest first."""

    into: int
    out: int
    session: str = ""
    events: list[dict] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _rest: bytearray = field(default_factory=bytearray)

    def call(self, method: str, params: Mapping[str, object] | None = None) -> dict:
        """What the browser answers; what it refuses is a `RuntimeError`."""
        number = next(self._numbers)
        asked = {"id": number, "method": method, "params": dict(params or {})}
        os.write(self.into, json.dumps(asked | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == number:
                break
            self.events.append(told)
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']['message']}")
        return told["result"]

    def open(self, page: Path | str) -> None:
        """Go to a file or an address and wait until everything is loaded and painted."""
        self.events.clear()
        self.call("Page.navigate", {"url": page if isinstance(page, str) else page.resolve().as_uri()})
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def value(self, expression: str) -> object:
        """Of a JavaScript expression; what it promises is awaited."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        told = self.call("Runtime.evaluate", asked)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"].get("exception", {}).get("description", "the script failed"))
        return told["result"].get("value")

    def look(self, *, width: int, height: int = 844, dark: bool = False, media: str = "screen") -> None:
        """Through a window of so many CSS pixels, in a theme, on screen or on paper."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"media": media, "features": [theme]})

    def _next(self) -> dict:
        until = time.monotonic() + PATIENCE
        while (end := self._rest.find(b"\0")) < 0:
            ready, _, _ = select.select([self.out], [], [], max(0.0, until - time.monotonic()))
            got = os.read(self.out, 1 << 16) if ready else b""
            if not got:
                raise RuntimeError("the browser has gone, or does not answer")
            self._rest.extend(got)
        told = json.loads(self._rest[:end])
        del self._rest[: end + 1]
        return told


@contextmanager
def tab(chromium: str) -> Iterator[Tab]:
    """A fresh profile and one empty page; both are gone afterwards."""
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), chromium, *_FLAGS]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"], pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in), os.close(theirs_out)
        try:
            yield _attached(Tab(ours_in, ours_out))
        finally:
            os.close(ours_in), os.close(ours_out)  # which tells it to go
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _attached(browser: Tab) -> Tab:
    target = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
    session = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
    page = Tab(browser.into, browser.out, session)
    for domain in ("Page", "Network", "Runtime", "Log"):
        page.call(f"{domain}.enable")
    return page
