"""How long a report takes to open: `python page.py REPORT.html`, in headless Chromium, beside an empty page.

The medians of five openings, each in a fresh browser with nothing cached, in milliseconds from the start of navigation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from browser import installed, tab

TIMES = 5
MEBIBYTE = 1 << 20
EMPTY = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Empty</title></html>'
PROBE = """new Promise(done => {
  const [way] = performance.getEntriesByType('navigation');
  const tell = paint => done({
    'DOMContentLoaded': way.domContentLoadedEventEnd, 'load': way.loadEventEnd, 'first paint': paint });
  new PerformanceObserver(seen => seen.getEntriesByName('first-paint').forEach(each => tell(each.startTime)))
    .observe({type: 'paint', buffered: true});
  setTimeout(() => tell(null), 1000);
})"""


def opened(page: Path, chromium: str) -> dict[str, float | None]:
    """Milliseconds of one opening, at the size of a desktop; nothing is painted of an empty page."""
    with tab(chromium) as fresh:
        fresh.look(width=1280, height=900)
        fresh.open(page)
        return fresh.value(PROBE)


def medians(page: Path, chromium: str) -> dict[str, float | None]:
    """Of `TIMES` openings."""
    told = [opened(page, chromium) for _ in range(TIMES)]
    return {name: _median([one[name] for one in told if one[name] is not None]) for name in told[0]}


def _median(values: list[float]) -> float | None:
    return round(median(values), 1) if values else None


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    report = parser.parse_args().report
    chromium = installed()
    if not chromium or not report.is_file():
        sys.exit("a browser and a report are needed; install chromium, name a file that exists")
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.html"
        empty.write_text(EMPTY)
        told = {"report": medians(report, chromium), "empty page": medians(empty, chromium)}
    print(json.dumps({**told, "size in MiB": round(report.stat().st_size / MEBIBYTE, 3)}, indent=2))


if __name__ == "__main__":
    main()
