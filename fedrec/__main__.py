"""The `fedrec` command, also as `python -m fedrec`; without the packages that its commands need it says so."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("flwr", "pandas", "pyarrow", "torch", "typer")


def main() -> None:
    """Run a command."""
    try:
        from fedrec.cli import main as run

        run()
    except ModuleNotFoundError:
        if all(map(find_spec, _NEEDED)):
            raise
        print('fedrec: commands need more than an app does. Run: pip install "fedrec[train]"', file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
