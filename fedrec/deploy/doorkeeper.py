"""The doorkeeper: the process of a site that the outside and its operators talk to."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.deploy.listen import serve
from fedrec.deploy.logs import start_logging
from fedrec.deploy.presence import standing
from fedrec.deploy.site import Site
from fedrec.deploy.status import LOCAL, operators
from fedrec.deploy.view import SiteView
from fedrec.errors import FedrecError
from fedrec.exchange.superlink import register

_LOG = logging.getLogger("fedrec.door")


def main(folder: str) -> int:
    """Keep the door of the site in `folder` until SIGTERM; the exit code of a mistake that keeps it shut."""
    site = Site.open(Path(folder))
    start_logging("door", site.logs)
    try:
        keep(site)
    except FedrecError as error:
        _LOG.error("the door stays shut: %s", error)
        print(f"fedrec: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def keep(site: Site) -> None:
    """Keep its door until SIGTERM."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for every request, and nothing in it
    spec, authority = site.spec, site.ca

    def admit(key: ec.EllipticCurvePublicKey) -> int:
        return register(spec.superlink_at, authority, key)

    hosts = {*LOCAL, spec.operators_at[0]}
    serve(site, operators(SiteView(site.path, lambda: standing(site)), hosts=sorted(hosts)), register=admit)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
