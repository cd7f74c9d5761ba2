"""The doorkeeper: the process of a site that the outside and its operators talk to."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.deploy.listen import serve
from fedrec.deploy.logs import start_logging
from fedrec.deploy.roster import Roster
from fedrec.deploy.site import Site
from fedrec.deploy.status import LOCAL, operators
from fedrec.deploy.view import SiteView, Standing
from fedrec.exchange.superlink import online, register


def main(folder: str) -> None:
    """Keep the door of the site in `folder` until SIGTERM."""
    site = Site.open(Path(folder))
    start_logging("door", site.logs)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for every request, and nothing in it
    spec, authority = site.spec, site.ca
    superlink = f"127.0.0.1:{spec.superlink}"

    def admit(key: ec.EllipticCurvePublicKey) -> int:
        return register(superlink, authority, key)

    def standing() -> Standing:
        with Roster(site.roster, spec.seats) as roster:
            enrolled = len(roster.nodes())
        return Standing(seats=spec.seats, enrolled=enrolled, online=online(superlink, authority))

    hosts = {*LOCAL, spec.operators_at[0]}
    serve(site, operators(SiteView(site.path, standing), hosts=sorted(hosts)), register=admit)


if __name__ == "__main__":
    main(sys.argv[1])
