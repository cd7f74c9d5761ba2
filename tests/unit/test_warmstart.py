"""The warm start: what a device sends, worked by hand, and the ranking layer that comes of it."""

from dataclasses import replace
from itertools import product
from math import log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.datasets import load
from fedrec.device.event import Event, Kind
from fedrec.device.history import History
from fedrec.device.profile import Events
from fedrec.device.statistics import statistics
from fedrec.device.training import queries_at
from fedrec.errors import SpecError, WireError
from fedrec.model import warm_estimates
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.model.warm_shares import Shares, recommended, signal, statistics_size
from fedrec.model.warmstart import WarmStart
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec
from fedrec.study.splits import leave_one_out

WORDS = ("sea", "ship", "storm", "whale", "rose", "garden", "bee", "honey")


def model_of(items=8, *, texts=None, **spec):
    spec = {"adapter": "none", "dim": 3, "decays": (0.0, 1.0), "projection": False} | spec
    texts = texts or [f"{WORDS[n % 8]} {WORDS[(n + n // 8) % 8]}" for n in range(items)]
    return Model.build(
        Catalogue([f"i{n}" for n in range(items)], texts), open_encoder("hash"), ModelSpec(**spec), seed=0
    )


def clicks(model, *items):
    acts = [Event(kind=Kind.CLICK, item=item, time=time) for time, item in enumerate(items)]
    return Events.of(History.of(acts), ProfileSpec(), model.adapter.prepare)


def scores(model, shared, events):
    """(item,) what the model itself makes of a whole history."""
    with torch.no_grad():
        parameters = model.layout.views(torch.from_numpy(shared))
        table = model.item_vectors(parameters)
        query = queries_at(model, parameters, (events, torch.tensor([events.size])), (table, None))
        return (query @ table.T + model.prior(parameters))[0].numpy()


def parts(warm, vector):
    """The unweighted blocks of a vector of statistics."""
    found, at = {}, 0
    for name, block in warm.blocks.items():
        found[name] = (vector[at : at + block.size] / block.weight).reshape(block.shape)
        at += block.size
    return found


def unit(vector):
    return vector / max(np.linalg.norm(vector), 1e-6)


SMALL = WarmStart(model_of(), Shares(popularity=0.8, classes=0.5, summary=sqrt(0.11), axes=2), users=100)


def test_statistics_equal_a_plain_loop():
    warm, chosen = SMALL, (3, 5, 3, 1, 6)  # the second 3 is no first choice, but it is part of the past
    found = parts(warm, statistics(warm, clicks(warm.model, *chosen)))
    z = warm.vectors
    steps = [(1, 5), (3, 1), (4, 6)]
    views = [(unit(z[chosen[cut - 1]]), unit(sum(z[item] for item in chosen[:cut]))) for cut, _ in steps]
    directions = [unit(((last + mean) / 2)[:2] * warm.stretch) for last, mean in views]
    classes = np.zeros((8, 2))
    for (_, target), direction in zip(steps, directions, strict=True):
        classes[target] += direction / sqrt(3)
    popularity = np.array([0, 1, 0, 1, 0, 1, 1, 0]) / 2
    spread = np.mean([np.outer(d, d) for d in directions], axis=0)
    assert found["popularity"] == pytest.approx(popularity, abs=1e-6)
    assert found["classes"] == pytest.approx(classes, abs=1e-5)
    assert found["agreement"] == pytest.approx(np.mean([[last @ mean] for last, mean in views], axis=0), abs=1e-5)
    foresight = [[view @ z[target] for view in pair] for pair, (_, target) in zip(views, steps, strict=True)]
    assert found["foresight"] == pytest.approx(np.mean(foresight, axis=0), abs=1e-5)
    assert found["means"] == pytest.approx(np.mean(views, axis=0)[:, :2], abs=1e-5)
    assert found["spread"] == pytest.approx([spread[0, 0], sqrt(2) * spread[0, 1], spread[1, 1]], abs=1e-5)


def test_who_chose_nothing_sends_zeros_and_who_chose_once_sends_popularity():
    assert not statistics(SMALL, clicks(SMALL.model)).any()
    once = parts(SMALL, statistics(SMALL, clicks(SMALL.model, 4)))
    assert once.pop("popularity").tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert not any(part.any() for part in once.values())


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 7), min_size=2, max_size=30), st.lists(st.floats(-3, 3), min_size=30, max_size=30))
def test_every_part_keeps_its_share_of_the_clip(items, weights):
    acts = [Event(kind=Kind.LIKE, item=i, time=t, weight=weights[t]) for t, i in enumerate(items)]
    events = Events.of(History.of(acts), ProfileSpec(), SMALL.model.adapter.prepare)
    vector, shares = statistics(SMALL, events), SMALL.shares
    blocks = {name: np.linalg.norm(part) * SMALL.blocks[name].weight for name, part in parts(SMALL, vector).items()}
    assert blocks.pop("popularity") == pytest.approx(shares.popularity)
    assert blocks.pop("classes") <= shares.classes + 1e-6
    assert np.linalg.norm(list(blocks.values())) <= 2 * np.linalg.norm(SMALL.vectors, axis=1).max() * shares.summary


def test_one_view_by_hand():
    """Without classes and noise the score is popularity plus one regression, centred on the mean view."""
    warm = WarmStart(model_of(residuals=False, decays=(1.0,), maps="full"), SMALL.shares, users=10**9)
    z, counts = warm.vectors, np.array([8.0, 4, 2, 1, 1, 2, 4, 8]) / 50
    centre = counts @ z / counts.sum()
    stated = {"popularity": counts, "agreement": np.zeros(0), "foresight": np.array([0.6]), "means": centre[None, :2]}
    shared = warm.solve(warm.pack(stated), 0.0)
    along = min((centre[:2] @ centre[:2]) / (centre[:2] @ centre[:2] + 1e-4), 3) * centre
    within, towards, ridge = 1 - along @ along, 0.6 - along @ centre, 0.05 + 10 * 0.1 / sqrt(10**9)
    sharp = 2.5 * sqrt(3)
    shared_slope = (towards + ridge * warm.scale / sharp) / (within + ridge)
    slope = (towards + ridge * shared_slope) / (within + ridge)
    events = clicks(warm.model, 1, 6, 2)
    query = sharp * slope * (unit(z[1] + z[6] + z[2]) - along)
    expected = z @ query + np.log(counts / counts.sum())
    assert scores(warm.model, shared, events) == pytest.approx(expected, abs=0.03)  # popularity lies on a grid


def test_the_score_is_the_closed_form():
    """Maps, residuals and prior of `solve` rank as ⟨s·(views − mean views), z + r⟩ + log π does."""
    warm, rng = SMALL, stream(0, "closed form")
    mean = statistics(warm, clicks(warm.model, 0, 1, 2, 5, 4)) / 3
    shared = warm.solve(mean + rng.normal(0, 0.01, warm.size), 0.01)
    views = warm.model.layout.views(torch.from_numpy(shared))
    items = warm.vectors + views["residuals"].numpy() / warm.scale
    strengths = views["maps"].numpy()[:, 0, 0] * warm.scale
    past = (2, 7, 1)
    contexts = [unit(items[1]), unit(items[list(past)].sum(axis=0))]
    query = sum(strength * context for strength, context in zip(strengths, contexts, strict=True))
    expected = items @ query + views["popularity"].numpy()
    assert scores(warm.model, shared, clicks(warm.model, *past)) == pytest.approx(expected, abs=1e-4)


def test_nothing_but_noise_is_the_public_start():
    warm = SMALL
    shared = warm.solve(np.zeros(warm.size), 1e4)
    events = clicks(warm.model, 2, 7)
    start, found = scores(warm.model, warm.model.initial, events), scores(warm.model, shared, events)
    assert found - found.mean() == pytest.approx(start - start.mean(), abs=1e-2)


def test_noise_longer_than_the_signal_gives_the_public_start_back_and_shorter_does_not():
    """Or a release of noise alone would move people's rankings about."""
    edge = SMALL.clip / sqrt(len(SMALL.model))  # where the signal is 1
    for sd, same in ((1.01 * edge, True), (0.99 * edge, False)):
        mean = stream(0, "noise alone").normal(0, sd, SMALL.size)
        assert (SMALL.solve(mean, sd).tobytes() == SMALL.model.initial.tobytes()) is same


def test_popularity_is_said_beside_the_model_where_something_is_known_of_it():
    counts = np.array([8.0, 4, 2, 1, 1, 2, 4, 8]) / 50
    mean = SMALL.pack({name: np.zeros(block.shape) for name, block in SMALL.blocks.items()} | {"popularity": counts})
    known = WarmStart(SMALL.model, SMALL.shares, users=10**6).beside(mean, 1e-4)["popularity"]
    assert known == pytest.approx(counts / counts.sum(), rel=0.1) and known.sum() == pytest.approx(1)
    for garbage in (0.0, 1e300, float("nan")):
        found = SMALL.beside(np.full(SMALL.size, garbage), 0.1)["popularity"]
        assert found.min() > 0 and found.sum() == pytest.approx(1, abs=1e-5)
    assert SMALL.beside(mean, 1.01 * SMALL.clip / sqrt(len(SMALL.model))) == {}


@pytest.mark.parametrize("garbage", [0.0, 1e300, -1e300, float("nan"), float("inf")])
def test_garbage_makes_no_error(garbage):
    assert np.isfinite(SMALL.solve(np.full(SMALL.size, garbage), 0.1)).all()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32), st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 10.0]), st.sampled_from([0.0, 1e-6, 0.01, 1.0, 1e3])
)
def test_no_noise_makes_nan(seed, spread, noise):
    mean = stream(seed, "garbled").normal(0, spread, SMALL.size)
    shared = SMALL.solve(mean, noise)
    assert np.isfinite(shared).all()
    assert shared.tobytes() == SMALL.solve(mean, noise).tobytes()


def test_more_noise_moves_items_less():
    mean = sum(statistics(SMALL, clicks(SMALL.model, *items)) for items in ((0, 1, 2), (4, 5, 6), (1, 0, 3))) / 3
    moves = []
    for noise in (1e-4, 1e-2, 0.1, 1.0):
        shared = SMALL.solve(mean, noise)
        moves.append(float(np.linalg.norm(shared[SMALL.model.layout.mask("residuals")])))
    assert moves == sorted(moves, reverse=True)
    assert moves[-1] < 0.05 * moves[0]


@pytest.mark.parametrize(("maps", "residuals"), list(product(("full", "diagonal"), (True, False))))
@pytest.mark.parametrize("others", [{}, {"projection": True}, {"adapter": "bottleneck", "rank": 2}])
def test_every_model_starts_warm(maps, residuals, others):
    model = model_of(maps=maps, residuals=residuals, **others)
    warm = WarmStart(model, SMALL.shares, users=100)
    mean = statistics(warm, clicks(model, 0, 1, 2, 3))
    assert mean.shape == (warm.size,)
    shared = warm.solve(mean, 1e-3)
    assert shared.shape == model.initial.shape and shared.dtype == np.float32
    kept = ~np.logical_or.reduce([model.layout.mask(name) for name in ("maps", "residuals", "popularity")])
    assert (shared[kept] == model.initial[kept]).all()
    assert ("classes" in warm.blocks) == residuals
    assert warm.size == statistics_size(8, 2, 2, residuals=residuals)
    assert len(set(scores(model, shared, clicks(model, 0, 1)).round(4))) > 3


def test_the_order_of_the_catalogue_does_not_matter():
    texts = [f"{WORDS[n]} {WORDS[(3 * n) % 8]} tale" for n in range(8)]
    order = stream(0, "order").permutation(8)
    place = np.argsort(order)
    one, two = (WarmStart(model_of(texts=t), SMALL.shares, users=100) for t in (texts, [texts[n] for n in order]))
    histories = ((0, 1, 2, 3), (4, 5, 6), (7, 6, 1, 0))
    plain = sum(statistics(one, clicks(one.model, *h)) for h in histories) / 3
    moved = sum(statistics(two, clicks(two.model, *place[list(h)])) for h in histories) / 3
    found = scores(two.model, two.solve(moved, 0.01), clicks(two.model, *place[[0, 4]]))
    assert found[place] == pytest.approx(scores(one.model, one.solve(plain, 0.01), clicks(one.model, 0, 4)), abs=1e-3)


def _library(users):
    """Everybody's training history as events, and what they chose next."""
    data = load("synthetic", options={"users": str(users), "items": "150"})
    spec = ModelSpec(adapter="none", dim=16, projection=False)
    model = Model.build(data.catalogue, open_encoder("hash"), spec, seed=0)
    split = leave_one_out(data.population)
    people = [u for u in range(users) if len(split.validation.targets[u])]
    events = [
        Events.of(data.population[u].before(int(split.train[u])), ProfileSpec(), model.adapter.prepare) for u in people
    ]
    return model, events, [int(split.validation.targets[u][0]) for u in people]


@pytest.fixture(scope="module")
def library():
    return _library(250)


def likelihood(model, shared, events, targets):
    """Mean log-probability of the next choices, among the items not yet chosen."""
    found = []
    for past, target in zip(events, targets, strict=True):
        logits = scores(model, shared, past)
        logits[past.chosen] = -1e9
        found.append(logits[target] - np.log(np.exp(logits - logits.max()).sum()) - logits.max())
    return float(np.mean(found))


def test_a_population_is_foretold_better_than_by_popularity_and_than_by_text(library):
    model, events, targets = library
    warm = WarmStart(model, Shares(), users=len(events))
    rows = np.array([statistics(warm, past) for past in events])
    shared = warm.solve(rows.mean(axis=0), 0.0)
    found = likelihood(model, shared, events, targets)
    flat = replace_part(model, shared, "maps", 0.0)
    assert found > likelihood(model, flat, events, targets) + 0.1
    assert found > likelihood(model, model.initial, events, targets) + 0.02
    # The mutant: everybody's choices, each foretold from somebody else's past.
    swapped = [replace(past, choices=past.choices, chosen=torch.flip(other.chosen, [0])[: len(past.chosen)])
               for past, other in zip(events, events[1:] + events[:1], strict=True)]  # fmt: skip
    swapped = [replace(past, choices=past.choices[: len(past.chosen)]) for past in swapped]
    wrong = warm.solve(np.mean([statistics(warm, past) for past in swapped], axis=0), 0.0)
    assert likelihood(model, wrong, events, targets) < found - 0.03


def replace_part(model, shared, name, value):
    changed = shared.copy()
    changed[model.layout.mask(name)] = value
    return changed


def test_private_noise_costs_little_and_more_noise_costs_more(library):
    model, events, targets = library
    warm = WarmStart(model, Shares(), users=len(events))
    rows = np.array([statistics(warm, past) for past in events])
    rows *= np.minimum(1, warm.clip / np.linalg.norm(rows, axis=1))[:, None]
    found = []
    for multiplier in (0.0, 1.0, 30.0):
        sd = multiplier * warm.clip / len(events)
        noise = stream(0, "warm", "noise").normal(0, sd, warm.size)
        found.append(likelihood(model, warm.solve(rows.mean(axis=0) + noise, sd), events, targets))
    assert found == sorted(found, reverse=True)
    assert found[2] > likelihood(model, model.initial, events, targets) - 0.2


def test_deconvolution_beats_the_noised_counts_and_knows_its_noise():
    rng, vectors = stream(0, "counts"), stream(0, "vectors").normal(size=(400, 4))
    truth = np.exp(rng.normal(0, 1, 400))
    counts = truth + rng.normal(0, 1.5, 400)

    def error(estimate):
        return float(np.mean((estimate - truth) ** 2))

    found = error(warm_estimates.popularity(counts, 1.5, vectors, 10**6))
    assert found < 0.5 * error(counts)
    assert found < error(np.full(400, truth.mean()))
    assert error(warm_estimates.popularity(counts, 0.1, vectors, 10**6)) > 1.3 * found  # told the wrong noise


def test_text_foretells_popularity_where_it_does():
    rng = stream(0, "counts")
    vectors = rng.normal(size=(400, 4))
    truth = 3 + np.clip(vectors[:, 0], -2, 2)
    counts = truth + rng.normal(0, 3, 400)
    helped = np.corrcoef(warm_estimates.popularity(counts, 3.0, vectors, 10**6), truth)[0, 1]
    alone = np.corrcoef(warm_estimates.popularity(counts, 3.0, rng.permutation(vectors), 10**6), truth)[0, 1]
    assert helped > 0.8 > 0.6 > alone


def test_triangles_keep_length_and_come_back():
    matrix = np.array([[2.0, -1.0, 0.5], [-1.0, 3.0, 0.0], [0.5, 0.0, 1.0]])
    flat = warm_estimates.triangle(matrix)
    assert np.linalg.norm(flat) == pytest.approx(np.linalg.norm(matrix))
    assert warm_estimates.square(flat, 3) == pytest.approx(matrix)
    assert warm_estimates.unit_square(np.array([0.3]), 2) == pytest.approx(np.array([[1, 0.3], [0.3, 1]]))


def test_what_is_refused():
    with pytest.raises(SpecError, match="popularity"):
        WarmStart(model_of(popularity=False))
    with pytest.raises(SpecError, match="add up to 1"):
        Shares(popularity=0.9, classes=0.9)
    with pytest.raises(WireError, match="does not fit"):
        SMALL.solve(np.zeros(SMALL.size + 1), 0.1)


def test_more_noise_asks_for_less():
    quiet, loud = recommended(943, 1682, 0.5), recommended(943, 1682, 5.0)
    assert quiet.signal == pytest.approx(943 / 0.5 / sqrt(1682)) == signal(943, 1682, 0.5)
    assert quiet.shares.classes > 2 * loud.shares.classes
    assert quiet.axes > loud.axes >= 1
    assert recommended(10**6, 1000, 1.0).axes >= quiet.axes
    assert log(recommended(943, 1682, 0.0).signal) > 0
