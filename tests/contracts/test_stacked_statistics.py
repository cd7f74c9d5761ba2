"""Statistics of many clients at once are those that each device makes by itself."""

from dataclasses import replace

import numpy as np
import pytest
from plans import STATISTICS, plan_of

from fedrec.datasets.synthetic import generate
from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.profile import Events
from fedrec.device.rounds import DeviceRounds, Holding
from fedrec.device.statistics import statistics
from fedrec.errors import PrivacyRefusal, RunError
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.model.warm_shares import ALONE, Shares
from fedrec.model.warmstart import WarmStart
from fedrec.population.batch import Batch, choosing, chunked
from fedrec.population.source import Population
from fedrec.population.stacked_statistics import StackedStatistics, lone_rows, protected_rows
from fedrec.privacy.interaction import Blocks
from fedrec.privacy.noise import Level, Seeded
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, Plan, ProfileSpec
from fedrec.task import Task

ITEMS = 64
LIBRARY = generate(users=60, items=ITEMS)
CLICK, SEARCH, SKIP = Kind.CLICK, Kind.SEARCH, Kind.SKIP
ODD = Population.of([
    [],
    [Event(kind=CLICK, item=3)],
    [Event(kind=SEARCH, text="ships at sea")],
    [Event(kind=SKIP, item=3), Event(kind=SKIP, item=4, time=1)],
    [Event(kind=SEARCH, text="ships at sea"), Event(kind=CLICK, item=5, time=1)],
    [Event(kind=Kind.LIKE, item=5), Event(kind=CLICK, item=5, time=1), Event(kind=CLICK, item=NO_ITEM, time=2)],
    [Event(kind=Kind.REVIEW, item=6, text="a storm", rating=0.0), Event(kind=CLICK, item=7, time=1)],
    [Event(kind=CLICK, item=9), Event(kind=SKIP, item=9, weight=2.0, time=1), Event(kind=CLICK, item=8, time=2)],
    [Event(kind=SEARCH, text="?"), Event(kind=CLICK, item=8, time=1)],  # a text without words has no direction
    [Event(kind=SEARCH, text="a storm", rating=0.9)],  # rated, and nothing chosen
    [Event(kind=Kind.REVIEW, item=6, text="?", rating=0.2), Event(kind=Kind.RATE, item=7, rating=0.7, time=1)],
    # Of weight 0 under `PROFILE`: no mention, and an opinion like any other.
    [Event(kind=Kind.REVIEW, item=2, text="ships at sea", rating=1 / 12, time=1), Event(kind=CLICK, item=8, time=2)],
])  # fmt: skip
PEOPLE = Population.joined([LIBRARY.population, ODD])
CUTS = np.maximum(PEOPLE.sizes - (np.arange(len(PEOPLE)) < 60), 0)
WORDS = {text: row for row, text in enumerate(PEOPLE.written())}
PROFILE = ProfileSpec(rating=1.2)
BATCH = Batch.of(PEOPLE, CUTS, PROFILE, items=ITEMS, words=WORDS)
FULL = Shares(popularity=0.8, classes=0.5, summary=0.3316, axes=3)
ASKED = FULL.making_room(0.3)


def model_of(**spec):
    spec = {"encoder": "hash", "adapter": "bottleneck", "dim": 8, "decays": (0.0, 0.5, 1.0)} | spec
    return Model.build(LIBRARY.catalogue, open_encoder(spec["encoder"]), ModelSpec(**spec), seed=0)


MODEL = model_of()


def stacked(warm):
    return StackedStatistics.over(warm, warm.model.adapter.prepare(list(WORDS)))


def one_by_one(warm):
    histories = [PEOPLE[client].before(int(cut)) for client, cut in enumerate(CUTS)]
    return np.array(
        [statistics(warm, Events.of(history, PROFILE, warm.model.adapter.prepare)) for history in histories]
    )


@pytest.mark.parametrize(
    ("model", "shares"),
    [
        (MODEL, FULL),
        (MODEL, Shares()),  # more axes than are kept
        (MODEL, ALONE),
        (MODEL, Shares(popularity=0.954, classes=0.0, summary=0.3)),
        (MODEL, Shares(popularity=0.8, classes=0.6, summary=0.0)),
        (model_of(decays=(0.9,)), FULL),  # nothing to agree with
        (model_of(residuals=False, maps="diagonal"), FULL),  # nowhere to put classes
        (MODEL, ASKED),
        (MODEL, ALONE.making_room(0.5)),
        (model_of(encoder="tiny", adapter="lora", rank=2), ASKED),
    ],
    ids=["all", "wide", "alone", "no classes", "no summary", "one decay", "no residuals", "asked", "only", "lora"],
)
def test_rows_are_the_statistics_of_each_client(model, shares):
    warm = WarmStart(model, shares)
    found, expected = stacked(warm).rows(BATCH), one_by_one(warm)
    assert (found.shape, found.dtype) == ((len(PEOPLE), warm.size), np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[:, :ITEMS], expected[:, :ITEMS].astype(np.float32))
    assert (np.abs(expected).sum(axis=1) > 0).sum() > 60 > (expected[60:] == 0).all(axis=1).sum() > 2


def test_opinions_of_a_client_are_theirs_to_the_last_bit():
    """No batched sum stands behind them. That many said something is part of the test."""
    warm = WarmStart(MODEL, ASKED)
    size = warm.survey.size
    found, expected = stacked(warm).rows(BATCH)[:, -size:], one_by_one(warm)[:, -size:]
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert [bool(row.any()) for row in found[60:]] == [False] * 6 + [True] + [False] * 2 + [True, False, True]


def test_chunks_of_any_size_give_the_same_rows():
    counts, rows = set(), stacked(WarmStart(MODEL, FULL)).rows(BATCH)
    for limit in (1, 10**5, 10**9):
        found = np.full_like(rows, np.nan)
        made = stacked(WarmStart(MODEL, FULL))
        chunks = list(chunked(BATCH, BATCH.usable_counts, made.budget, limit))
        for clients in chunks:
            found[clients] = made.rows(BATCH.pick(clients))
        np.testing.assert_allclose(found, rows, rtol=0, atol=1e-6)
        counts.add(len(chunks))
    assert len(counts) == 3 and max(counts) == len(PEOPLE)


def test_a_chunk_s_bytes_grow_with_all_that_it_holds():
    size = stacked(WarmStart(MODEL, FULL)).budget
    assert size(2, 5, 9) == 2 * size(1, 5, 9) and size(1, 5, 9) < min(size(1, 6, 9), size(1, 5, 10))
    alone = WarmStart(MODEL, ALONE)
    assert stacked(alone).budget(1, 500, 900) == 4 * alone.size


# In modes that protect interactions.


def rounds_of(statistics_terms, shares=FULL):
    """Device rounds whose statistics are noisy, at level `test`. Nothing is calibrated."""
    settings = {"model": {"encoder": "hash"}, "warm": {"enabled": True}, "profile": {"rating": 1.2}}
    task = Task(Plan.of(settings), LIBRARY.catalogue)
    private = plan_of("inside", warm=True, level=Level.TEST)
    promise = replace(private.interaction, terms=None, participations=0, statistics=statistics_terms)
    privacy = replace(private, interaction=promise, phases=private.phases[:1])
    vars(task).update(model=MODEL, warm=WarmStart(MODEL, shares), privacy=privacy)
    return DeviceRounds(task)


WINDOWS = Blocks(seconds=86_400, span=4)


def rng(client):
    return stream(5, "client", client)


def each_by_itself(rounds):
    start = (np.zeros(0, np.float32), np.zeros(0, np.float32))
    held = [Holding(PEOPLE[c].before(int(cut)), PROFILE, MODEL.adapter.prepare) for c, cut in enumerate(CUTS)]
    return np.array([rounds.round(1, start, holding, rng(client)).delta for client, holding in enumerate(held)])


def protected(rounds):
    return protected_rows(rounds, PEOPLE, CUTS, MODEL.adapter.prepare, rng)


@pytest.mark.parametrize(
    ("shares", "blocks"),
    [(FULL, Blocks()), (ALONE, Blocks()), (FULL, WINDOWS), (ALONE, WINDOWS), (ASKED, WINDOWS)],
    ids=["full", "alone", "full windows", "alone windows", "opinions windows"],
)
def test_devices_that_protect_interactions_send_what_they_send_alone(shares, blocks):
    rounds = rounds_of(replace(STATISTICS, blocks=blocks), shares)
    found = protected(rounds)
    np.testing.assert_array_equal(found, each_by_itself(rounds))
    assert found.std() == pytest.approx(STATISTICS.spread, rel=0.05)  # it is mostly noise


@pytest.mark.parametrize("clip", [0.2, 0.5, 3.0])  # below, near and above the length of an example
def test_every_act_counts_once_and_is_clipped_by_itself(clip):
    warm, terms = WarmStart(MODEL, FULL), replace(STATISTICS, clip=clip, multiplier=2.0**-15)
    acts = choosing(PEOPLE, CUTS)
    found = lone_rows(warm, terms, acts, len(PEOPLE), lambda client: Seeded(rng(client)))
    expected = np.zeros((len(PEOPLE), warm.size))
    np.add.at(expected, acts, min(clip, 0.8) / terms.examples)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * clip)
    assert expected[65, 5] == 2 * expected[64, 5] > 0  # both of the acts on item 5, and not the third on none


def test_a_device_without_data_sends_noise_like_any_other():
    rounds = rounds_of(STATISTICS)
    sent = protected_rows(rounds, ODD, np.zeros(len(ODD), np.int64), MODEL.adapter.prepare, rng)
    assert len(np.unique(sent[:, 0])) == len(ODD)
    assert sent.std() == pytest.approx(STATISTICS.spread, rel=0.05)


def test_p14_statistics_are_one_release():
    warm, nobody = WarmStart(MODEL, FULL), (np.zeros(0, np.int64), np.zeros(0, np.int64))
    with pytest.raises(PrivacyRefusal, match="P14: statistics are one release of all examples"):
        lone_rows(warm, replace(STATISTICS, rate=0.5), nobody, 1, lambda client: Seeded(rng(client)))


def test_a_task_without_noisy_statistics_is_refused():
    rounds = rounds_of(STATISTICS)
    rounds.inside = None
    with pytest.raises(RunError, match="protects interactions in a warm start"):
        protected(rounds)


def test_an_empty_population():
    none, warm = np.zeros(0, np.int64), WarmStart(MODEL, FULL)
    assert stacked(warm).rows(BATCH.pick(none)).shape == (0, warm.size)
    for blocks in (Blocks(), Blocks(seconds=60)):
        rounds = rounds_of(replace(STATISTICS, blocks=blocks))
        assert protected_rows(rounds, Population.of([]), none, MODEL.adapter.prepare, rng).shape == (0, warm.size)
