"""A page in a headless Chromium, for tests of what people see; they are skipped where there is none."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "simulations" / "benchmarks"


@contextmanager
def screen():
    sys.path.insert(0, str(SCRIPTS))
    import browser

    sys.path.remove(str(SCRIPTS))
    chromium = browser.installed()
    if not chromium:
        pytest.skip("no Chromium on the PATH")
    with browser.tab(chromium) as opened:
        yield opened
    sys.modules.pop("browser", None)
