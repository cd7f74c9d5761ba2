"""Secure aggregation: a server learns the sum of a cohort's vectors and no single one. Pure functions of messages.

Bonawitz et al. (CCS 2017): pairwise masks and a self-mask per client, both shared among neighbours, and the consistency
check of their active-adversary variant; on the sparse graph of Bell et al. (CCS 2020). docs/secure-aggregation.md says
what is promised against whom.
"""

from fedrec.exchange.secagg.aggregation import Aggregation
from fedrec.exchange.secagg.bounds import Graph, degree_for
from fedrec.exchange.secagg.masker import Masker
from fedrec.exchange.secagg.messages import Advert, Consent, Consents, Delivery, Revealed, Roster, Shares, Survivors
from fedrec.exchange.secagg.terms import Identity, Terms, Witness

__all__ = [
    "Advert",
    "Aggregation",
    "Consent",
    "Consents",
    "Delivery",
    "Graph",
    "Identity",
    "Masker",
    "Revealed",
    "Roster",
    "Shares",
    "Survivors",
    "Terms",
    "Witness",
    "degree_for",
]
