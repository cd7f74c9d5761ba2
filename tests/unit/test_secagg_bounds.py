"""How many neighbours are enough: against exact tails, and against every way colluders and dropouts can lie."""

import math
from itertools import combinations

import pytest
from masked import terms_of
from scipy.stats import hypergeom

from fedrec.errors import SpecError
from fedrec.exchange.secagg import Graph, degree_for
from fedrec.exchange.secagg.bounds import _apart, _most


def test_small_cohorts_are_complete_graphs():
    """Of four neighbours one may collude and one be silent: three must agree, and 2 · 3 > 4 + 1."""
    assert degree_for(5, 1, 0.2) == Graph(degree=4, threshold=3, least=4)
    assert degree_for(10, 2, 0.3) == Graph(degree=9, threshold=6, least=7)
    assert degree_for(3, 0, 0.0) == Graph(degree=2, threshold=2, least=3)


def test_a_complete_graph_depends_on_nothing():
    """2 · 55 > 99 + 10, and 89 of 99 neighbours stay."""
    assert Graph.complete(100, 10, 0.1) == Graph(degree=99, threshold=55, least=90)
    assert Graph.complete(12, 0, 0.4) == Graph(degree=11, threshold=6, least=7)
    with pytest.raises(SpecError, match="got cohort=12, colluders=1, dropouts=5"):
        Graph.complete(12, 1, 0.4)


def test_large_cohorts_need_few_neighbours():
    degrees = [degree_for(cohort, cohort // 20, 0.1).degree for cohort in (300, 1000, 10_000, 100_000)]
    assert degrees == sorted(degrees) and degrees[-1] < 160


@pytest.mark.parametrize(("colluders", "dropouts", "security"), [(60, 0.1, 40), (50, 0.15, 40), (50, 0.1, 60)])
def test_worse_circumstances_need_more_neighbours(colluders, dropouts, security):
    assert degree_for(1000, colluders, dropouts, security=security).degree > degree_for(1000, 50, 0.1).degree


@pytest.mark.parametrize(
    ("cohort", "colluders", "dropouts"), [(5, 1, 0.4), (10, 9, 0.0), (100, 0, 0.5), (100, 40, 0.3)]
)
def test_what_no_graph_can_hold_is_refused(cohort, colluders, dropouts):
    with pytest.raises(SpecError, match="larger by two than its colluders and twice its dropouts.*shares.survivors"):
        degree_for(cohort, colluders, dropouts)


@pytest.mark.parametrize("wrong", [(2, 0, 0.0), (10, -1, 0.0), (10, 0, 1.0), (10, 0, -0.1)])
def test_what_is_no_cohort_is_refused(wrong):
    with pytest.raises(SpecError, match="a cohort of at least 3"):
        degree_for(*wrong)


def test_terms_take_every_graph():
    for cohort in (3, 8, 40, 300, 2000):
        graph = degree_for(cohort, cohort // 20, 0.1 if cohort > 5 else 0.0)
        assert terms_of(cohort=cohort, degree=graph.degree, threshold=graph.threshold, least=graph.least)


@pytest.mark.parametrize(
    ("others", "marked", "drawn", "bits"), [(99, 10, 32, 47.0), (999, 200, 80, 50.0), (30, 3, 4, 1.0)]
)
def test_the_tail_is_hypergeometric(others, marked, drawn, bits):
    most = _most(others, marked, drawn, bits)
    chance = hypergeom(others, marked, drawn)
    assert chance.sf(most) <= 2.0**-bits < chance.sf(most - 1)


def cut(removed, clients, half):
    """Whether those removed are `half` in a row somewhere on the ring."""
    return any(all((start + step) % clients in removed for step in range(half)) for start in range(clients))


@pytest.mark.parametrize(("half", "clients", "removed"), [(2, 10, 3), (3, 12, 5), (4, 12, 6)])
def test_the_chance_of_a_cut_is_bounded(half, clients, removed):
    ways = list(combinations(range(clients), removed))
    chance = sum(cut(set(way), clients, half) for way in ways) / len(ways)
    assert chance <= 2.0 ** _apart(half, clients, removed) <= 3 * chance
    assert _apart(removed + 1, clients, removed) == -math.inf


def near(client, clients, half):
    return {(client + step) % clients for step in range(-half, half + 1)} - {client}


def failures(graph, cohort, colluders, lost):
    """How often privacy and correctness fail, over every choice of who colludes and who leaves."""
    half, private, correct, ways = graph.degree // 2, 0, 0, 0
    for bad in combinations(range(cohort), colluders):
        honest = set(range(cohort)) - set(bad)
        for gone in combinations(sorted(honest), lost):
            ways += 1
            both = any(2 * graph.threshold <= graph.degree + len(near(v, cohort, half) & set(bad)) for v in honest)
            private += both or cut({*bad, *gone}, cohort, half)
            correct += any(len(near(v, cohort, half) - set(gone)) < graph.threshold for v in range(cohort))
    return private / ways, correct / ways


@pytest.mark.parametrize(
    ("cohort", "colluders", "dropouts", "security"), [(16, 2, 0.06, 1), (18, 1, 0.1, 2), (20, 2, 0.05, 1)]
)
def test_a_sparse_graph_fails_no_more_often_than_it_says(cohort, colluders, dropouts, security):
    graph = degree_for(cohort, colluders, dropouts, security=security)
    assert graph.degree < cohort - 1
    private, correct = failures(graph, cohort, colluders, math.ceil(dropouts * cohort))
    assert private <= 2.0**-security and correct <= 2.0**-security


def test_a_sparser_graph_fails_more_often():
    """So the count above can fail."""
    private, correct = failures(Graph(degree=4, threshold=3, least=1), 16, 2, 2)
    assert private > 0.5 and correct > 0.5
