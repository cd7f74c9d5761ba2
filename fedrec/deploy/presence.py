"""Who is there: the roster's count of seats, and the SuperLink's of devices."""

from __future__ import annotations

from fedrec.deploy.roster import Roster
from fedrec.deploy.site import Site
from fedrec.deploy.view import Standing
from fedrec.exchange.superlink import online


def standing(site: Site) -> Standing:
    """The site's seats now. Raises an error where roster or SuperLink does not answer."""
    spec = site.spec
    with Roster(site.roster, spec.seats) as roster:
        enrolled = len(roster.nodes())
    here = online(spec.superlink_at, site.ca)
    return Standing(seats=spec.seats, enrolled=enrolled, online=here, begin=spec.awaited)
