"""How many neighbours are enough: the smallest sparse graph on which masks neither fail nor fall.

The graph is a ring in random order, each client joined to the nearest on both sides; colluders and dropouts are spread
over it by chance. Tails are hypergeometric, failures of all clients are added up, as in Bell et al. 2020 (section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedrec.errors import require


@dataclass(frozen=True)
class Graph:
    """`degree` neighbours each, `threshold` of whom lift a client's masks, and at `least` so many survivors."""

    degree: int
    threshold: int
    least: int

    @classmethod
    def complete(cls, cohort: int, colluders: int, dropouts: float) -> Graph:
        """Everybody is everybody's neighbour: nothing depends on chance. Refuses more than the graph can hold."""
        require(cohort >= 3 and colluders >= 0 and 0 <= dropouts < 1,
                "a cohort of at least 3 has colluders and a fraction of dropouts", cohort=cohort, colluders=colluders,
                dropouts=dropouts)  # fmt: skip
        lost, threshold = math.ceil(dropouts * cohort), (cohort - 1 + colluders) // 2 + 1
        require(threshold <= cohort - 1 - lost, "a cohort is larger by two than its colluders and twice its dropouts",
                remedy="Enlarge the cohort, lower shares.colluders, or raise shares.survivors.", cohort=cohort,
                colluders=colluders, dropouts=lost)  # fmt: skip
        return cls(cohort - 1, threshold, cohort - lost)


def degree_for(cohort: int, colluders: int, dropouts: float, *, security: int = 40) -> Graph:
    """The smallest graph that holds for a cohort, `colluders` among it, and this fraction of dropouts in all phases.

    Each fails with probability below 2**-security: *privacy* against the server and the colluders, and *correctness*.
    Privacy: most of any client's neighbours, colluders counted twice, must agree to lift a mask (2·threshold > degree +
    colluders there), so that nobody's two masks are ever both lifted; and the honest survivors hang together.
    Refuses what even the complete graph cannot hold.
    """
    require(security > 0, "security is a number of bits", security=security)
    complete = Graph.complete(cohort, colluders, dropouts)
    for degree in range(2, cohort - 1, 2):
        threshold = _threshold(degree, cohort, colluders, cohort - complete.least, security)
        if threshold:
            return Graph(degree, threshold, complete.least)
    return complete


def _threshold(degree: int, cohort: int, colluders: int, lost: int, security: int) -> int | None:
    """The smallest threshold that is private on a sparse graph, if so many neighbours answer."""
    least = cohort - lost
    if least - 1 < degree or _apart(degree // 2, cohort, colluders + lost) >= -security - 1:
        return None
    near = _most(least - 1, colluders, degree, math.log2(least) + security + 1)
    gone = _most(cohort - 1, lost, degree, math.log2(cohort) + security)
    threshold = (degree + near) // 2 + 1
    return threshold if max(threshold, 2) <= degree - gone else None


def _apart(half: int, clients: int, removed: int) -> float:
    """log2 of a bound on the chance that removed clients are so many in a row that nobody reaches over them."""
    if removed < half:
        return -math.inf
    return math.log2(clients) + math.log2(math.e) * (_choices(removed, half) - _choices(clients, half))


def _most(others: int, marked: int, drawn: int, bits: float) -> int:
    """The most marked ones among `drawn` of `others`, exceeded with probability at most 2**-bits."""
    whole = _choices(others, drawn)
    above = 0.0
    for count in range(min(marked, drawn), 0, -1):
        above += math.exp(_choices(marked, count) + _choices(others - marked, drawn - count) - whole)
        if above > 2.0**-bits:
            return count
    return 0


def _choices(many: int, few: int) -> float:
    """The logarithm of the number of ways to choose `few` of `many`."""
    if not 0 <= few <= many:
        return -math.inf
    return math.lgamma(many + 1) - math.lgamma(few + 1) - math.lgamma(many - few + 1)
