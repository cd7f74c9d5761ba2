"""What `pip install fedrec` puts on an app's disk: megabytes by package, and what importing the recommender costs.

$ python simulations/benchmarks/footprint.py > simulations/results/footprint.md

Each set is installed from this folder into an empty one of its own, in the versions of constraints.txt.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
SETS = {"core": ".", "core and `[text]`": ".[text]"}
MEGABYTE = 1e6
TIMES = 7

PROBE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import json, resource
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.process_time()
import fedrec
fedrec.Recommender
print(json.dumps({"seconds": time.process_time() - start, "python": before, "MiB": peak()}))
"""


def install(what: str, folder: Path) -> None:
    """Put fedrec with one set of packages into `folder`."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    where = ["--constraint", "constraints.txt", "--target", str(folder), what]
    subprocess.run([*pip, *where], cwd=ROOT, check=True, stdout=sys.stderr)


def megabytes(folder: Path) -> dict[str, float]:
    """Every package in `folder` by its name, the largest first."""
    sizes = {each.name: size_of(each) / MEGABYTE for each in distributions(path=[str(folder)])}
    return dict(sorted(sizes.items(), key=lambda pair: -pair[1]))


def size_of(package: Distribution) -> int:
    """Bytes of the files that a package brought."""
    paths = [Path(str(file.locate())) for file in package.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def start(folder: Path) -> dict[str, float]:
    """CPU seconds and peak memory of a fresh Python that sees these packages alone and imports the recommender."""
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(folder)]
    subprocess.run(command, capture_output=True, check=True)  # this one writes bytecode, as installing it would
    told = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(TIMES)]
    return {name: median(one[name] for one in told) for name in told[0]}


def table(sets: dict[str, dict[str, float]]) -> list[str]:
    """A row a package, a column a set."""
    names = sorted(set().union(*sets.values()), key=lambda name: -max(held.get(name, 0) for held in sets.values()))
    rows: list[Sequence[str]] = [("package", *sets), ("---", *["---:"] * len(sets))]
    rows += [(name, *(f"{held[name]:.2f}" if name in held else "" for held in sets.values())) for name in names]
    rows.append(("**all**", *(f"**{sum(held.values()):.1f}**" for held in sets.values())))
    return [f"| {' | '.join(row)} |" for row in rows]


def main() -> None:
    """Run."""
    sets, begun = {}, {}
    for name, what in SETS.items():
        with tempfile.TemporaryDirectory() as place:
            install(what, Path(place))
            sets[name], begun[name] = megabytes(Path(place)), start(Path(place))
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    print("# Footprint: megabytes on disk\n", f"\n{machine}. Files as installed, without compiled bytecode.\n", sep="")
    print(*table(sets), "", sep="\n")
    for name, told in begun.items():
        print(f"* {name}: `import fedrec; fedrec.Recommender` takes {told['seconds']:.2f} s of a processor, and Python "
              f"grows from {told['python']:.0f} to {told['MiB']:.0f} MiB (medians of {TIMES}).")  # fmt: skip


if __name__ == "__main__":
    main()
