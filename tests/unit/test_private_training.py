"""DP-SGD on a device: what an example is, what one can change, which steps are taken, and what is refused."""

import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedrec.device import private_training
from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.examples import Examples, pieces
from fedrec.device.history import History
from fedrec.device.private_training import GridOptimizer, PrivateTraining
from fedrec.errors import PrivacyRefusal, SpecError
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.privacy.events import FixedSizeGaussian, SampledGaussian
from fedrec.privacy.interaction import Blocks, InteractionTerms, Practice, bounded_sum, private_statistics
from fedrec.privacy.noise import Hardened, Level, noise_source
from fedrec.privacy.terms import Relation
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec, TrainingSpec

DIM, ITEMS = 2, 9
CATALOGUE = Catalogue([f"i{n}" for n in range(ITEMS)], [f"word{n} word{n // 2}" for n in range(ITEMS)])
MODEL = Model.build(CATALOGUE, open_encoder("hash"), ModelSpec(adapter="none", dim=DIM, projection=False), seed=0)
SPEC = TrainingSpec(learning_rate=0.5, embedding_rate=0.25, embedding_decay=0.1)
TERMS = InteractionTerms(rate=1.0, steps=1, clip=0.5, multiplier=2e-5, examples=4)
HOURS = Blocks(seconds=3600, span=3)
NOBODY = np.array([0.3, -0.2], np.float32)
ROUNDING = 1e-3  # float32 vectors, and what is left of the noise
PRACTICES = [
    {"windows": 5}, {"embedding": "outside"}, {"rivals": "unseen"}, {"rivals": "batch"}, {"batches": "shuffled"},
    {"gradients": "ghost"}, {"denominator": "count"}, {"normalises": True}, {"buckets": True}, {"weights": True},
]  # fmt: skip


def click(item, time=0, kind=Kind.CLICK):
    return Event(kind=kind, item=item, time=time)


def cut(events, blocks=TERMS.blocks):
    return Examples.of(History.of(events), ProfileSpec(), MODEL.adapter.prepare, blocks)


def training_of(terms=TERMS, spec=SPEC, level=Level.TEST):
    return PrivateTraining(MODEL, spec, terms, level=level)


def played(events, terms=TERMS, *, spec=SPEC, seed=0):
    """A round at level `test`: equal seeds have equal noise, rivals and coins."""
    return training_of(terms, spec).round(MODEL.initial, NOBODY, cut(events, terms.blocks), stream(seed, "round"))


LIFE = [click(3, 10), click(5, 20), click(3, 4000), click(1, 4001), click(3, 4002), click(6, 9000)]


# What an example is.


def test_every_event_by_itself():
    examples = cut(
        [click(3, 10), click(5, 20, Kind.SKIP), Event(kind=Kind.SEARCH, text="word7", time=30), click(3, 40)]
    )
    assert examples.rows.tolist() == [[3], [5], [0], [3]]
    assert examples.targets.tolist() == [[True], [False], [False], [True]]  # the second 3 is a choice of its own
    assert examples.weights.tolist() == [[1.0], [-0.5], [0.0], [1.0]]
    assert examples.text_weights.tolist() == [[0.0], [0.0], [1.0], [0.0]]
    assert len(examples.texts) == 1


def test_windows_of_the_public_clock():
    examples = cut([*LIFE, click(2, 9001), click(4, 9001), click(2, 9003)], HOURS)
    assert examples.rows.tolist() == [[3, 5, 0], [3, 1, 3], [2, 4, 2]]  # the last three of four in the third hour
    assert examples.targets.tolist() == [[True, True, False], [True, True, False], [True, True, False]]
    assert examples.weights.tolist() == [[1.0, 1.0, 0.0], [1.0] * 3, [1.0] * 3]


def test_the_same_examples_as_histories():
    for blocks in (Blocks(), HOURS):
        examples, histories = cut(LIFE, blocks), pieces(History.of(LIFE), blocks)
        assert [len(history) for history in histories] == (examples.weights != 0).sum(1).tolist()
        for row, target, history in zip(examples.rows, examples.targets, histories, strict=True):
            assert history.items.tolist() == row[: len(history)].tolist()
            assert history.choices().tolist() == target.nonzero().ravel().tolist()


def test_a_text_stays_with_its_event():
    searched = [Event(kind=Kind.SEARCH, text=f"word{n}", time=5000 + n) for n in range(4)]
    reviewed = Event(kind=Kind.REVIEW, item=7, text="word7", time=20)
    examples = cut([reviewed, *searched], HOURS)
    assert examples.text_weights.tolist() == [[0.5, 0.0, 0.0], [1.0, 1.0, 1.0]]
    expected = MODEL.adapter.prepare(["word7", "word1", "word2", "word3"]).values
    kept = examples.text_weights > 0
    assert torch.equal(examples.texts.values[examples.text_rows[kept]], expected)


def test_nothing_is_cut_into_nothing():
    for blocks in (Blocks(), HOURS):
        assert cut([], blocks).rows.shape == (0, blocks.span)


def test_examples_hide_what_they_hold():
    assert repr(cut(LIFE)) == "Examples(contents withheld)"


def contents(examples):
    """The multiset of examples."""
    parts = (examples.rows, examples.weights, examples.targets, examples.text_weights)

    def words(n):
        return examples.texts.values[examples.text_rows[n][examples.text_weights[n] != 0]].tolist()

    return Counter(str([*(part[n].tolist() for part in parts), words(n)]) for n in range(len(examples)))


def by_position(events):
    """A mutant: every three events are an example."""
    return cut([replace(event, time=3600 * (place // 3)) for place, event in enumerate(events)], HOURS)


def by_first_choices(events):
    """A mutant: an item is chosen for the first time in the whole history, not in the example."""
    examples, positions = cut(events), History.of(events).choices()
    marks = torch.zeros(len(examples), 1, dtype=torch.bool)
    marks[torch.from_numpy(positions), 0] = True
    return replace(examples, targets=marks)


def changed(make, events, gone):
    """How many examples disappear and how many appear when one event is left out."""
    whole, rest = contents(make(events)), contents(make(events[:gone] + events[gone + 1 :]))
    return (whole - rest).total(), (rest - whole).total()


KINDS = st.sampled_from([Kind.CLICK, Kind.SKIP, Kind.SEARCH, Kind.LIKE])
ACTS = st.builds(
    lambda kind, item, time, text: Event(
        kind=kind, item=NO_ITEM if kind is Kind.SEARCH else item, time=time, text=f"word{text}" if text else ""
    ),
    KINDS, st.integers(0, 3), st.integers(0, 20_000), st.integers(0, 3),
)  # fmt: skip
LIVES = st.lists(ACTS, min_size=1, max_size=14)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(events=LIVES, gone=st.integers(0, 13))
def test_an_interaction_is_in_one_example(events, gone):
    gone %= len(events)
    assert changed(cut, events, gone) == (1, 0)
    lost, new = changed(lambda acts: cut(acts, HOURS), events, gone)
    assert lost <= 1 and new <= 1


@pytest.mark.parametrize(("mutant", "sound", "most"), [(by_position, HOURS, 1), (by_first_choices, Blocks(), 0)])
def test_blocks_by_position_and_first_choices_of_a_history_would_leak(mutant, sound, most):
    events = [click(n % 3, 10 * n, [Kind.CLICK, Kind.LIKE][n % 2]) for n in range(12)]

    def appear(make):
        return max(changed(make, events, gone)[1] for gone in range(12))

    assert appear(lambda acts: cut(acts, sound)) <= most < appear(mutant)


# What one example can change.


def moved_by(one, other, terms=TERMS, spec=SPEC):
    """The distance between two rounds with equal noise, in clip norms, undoing the step sizes."""
    first, second = (played(events, terms, spec=spec) for events in (one, other))
    shared = (first.delta - second.delta) / spec.learning_rate
    embedding = (first.embedding - second.embedding) / spec.embedding_rate
    return float(np.linalg.norm(np.concatenate([shared, embedding]).astype(float))) * terms.expected / terms.clip


@pytest.mark.parametrize("gone", range(len(LIFE)))
def test_leaving_out_an_interaction_moves_a_step_by_one_clip_norm_at_most(gone):
    rest = LIFE[:gone] + LIFE[gone + 1 :]
    assert 0.9 < moved_by(LIFE, rest) <= 1 + ROUNDING  # gradients here are longer than the norm: the bound is met
    assert moved_by(LIFE, rest, replace(TERMS, blocks=HOURS, clip=0.05)) <= 2 + ROUNDING


def test_what_happens_within_a_window_moves_a_step_by_two_clip_norms_at_most():
    hours = replace(TERMS, blocks=HOURS, clip=0.05)
    other = [event for event in LIFE if event.time < 4000 or event.time > 9000 - 1] + [click(0, 5000), click(8, 5001)]
    assert 1 < moved_by(LIFE, other, hours) <= 2 + ROUNDING


def test_the_bound_breaks_without_the_joint_clip(monkeypatch):
    rest = LIFE[:-1]
    assert moved_by(LIFE, rest) <= 1 + ROUNDING

    def apart(rows, terms):
        """A mutant: one norm for the shared vector, another for the embedding."""
        return np.concatenate([bounded_sum(part, terms) for part in (rows[:, :-DIM], rows[:, -DIM:])])

    def unclipped(rows, terms):
        return np.rint(rows.sum(0) * terms.grid).astype(np.int64)

    for mutant in (apart, unclipped):
        monkeypatch.setattr(private_training, "bounded_sum", mutant)
        assert moved_by(LIFE, rest) > 1.01


def test_a_sum_is_bounded_whatever_its_rows():
    quiet = np.array([[0.1, 0.2], [0.3, -0.1]])
    loud = np.array([[1e30, -1e30], [3.0, 4.0]])
    broken = np.array([[np.nan, 0.0], [np.inf, 1.0], [0.0, -np.inf]])
    grid = TERMS.grid
    assert np.allclose(bounded_sum(quiet, TERMS) / grid, [0.4, 0.1], atol=1e-5)
    assert np.allclose(bounded_sum(loud, TERMS) / grid, [0.5 / 2**0.5 + 0.3, -0.5 / 2**0.5 + 0.4], atol=1e-5)
    assert bounded_sum(broken, TERMS).tolist() == [0, 0]
    both = bounded_sum(np.concatenate([quiet, broken]), TERMS)
    assert both.tolist() == bounded_sum(quiet, TERMS).tolist()
    assert bounded_sum(np.zeros((0, 3)), TERMS).tolist() == [0, 0, 0]


# Which steps are taken.


def optimizer_of(parameters, terms=TERMS, noise=None):
    return GridOptimizer(torch.optim.SGD(parameters, lr=1.0), terms, noise or noise_source(Level.TEST, stream(0)))


def test_a_step_by_hand():
    shared, embedding = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(1))
    found = {shared: torch.tensor([[3.0, 0.0], [0.1, 0.0], [np.nan, 0.0]]),
             embedding: torch.tensor([[4.0], [0.2], [1.0]])}  # fmt: skip
    optimizer_of([shared, embedding]).descend(found)
    noise = noise_source(Level.TEST, stream(0)).draw(TERMS.sigma, 3) / TERMS.grid
    # One norm for (3, 0, 4): 0.5 / 5 of it is left. The last example is not finite and counts as zero.
    expected = np.array([0.3 + 0.1, 0.0, 0.4 + 0.2]) + noise
    assert np.allclose(shared.detach(), -expected[:2], atol=1e-5)
    assert np.allclose(embedding.detach(), 1 - expected[2:], atol=1e-5)
    assert shared.grad_sample is None and shared.summed_grad is None


def test_a_round_divides_by_the_public_batch_size_and_decays_the_embedding():
    terms = replace(TERMS, examples=8)

    def spied(layer, picked, piece):
        return {layer.shared: torch.full((1, MODEL.layout.size), 1e-3), layer.embedding: torch.tensor([[0.1, 0.2]])}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_training, "gradients", spied)
        outcome = played(LIFE, terms)  # noise has a standard deviation of 1e-5 before it is divided
    assert np.allclose(outcome.delta, -0.5 / 8 * 1e-3, atol=1e-4 * 0.5 / 8)
    decayed = NOBODY - 0.25 * (np.array([0.1, 0.2]) / 8 + 0.1 * NOBODY)
    assert np.allclose(outcome.embedding, decayed, atol=1e-4 * 0.25 / 8)


def test_a_round_goes_down_the_loss():
    terms = replace(TERMS, steps=10)
    losses = []
    for seed in range(3):
        training, examples = training_of(terms), cut(LIFE)
        outcome = played(LIFE, terms, seed=seed)
        every = torch.arange(ITEMS)
        for shared, kept in ((MODEL.initial, NOBODY), (MODEL.initial + outcome.delta, outcome.embedding)):
            values = [
                training.loss(torch.from_numpy(shared), torch.from_numpy(kept), examples, torch.tensor([n]), every)
                for n in range(len(examples))
            ]
            losses.append(float(torch.stack(values).mean()))
    assert max(losses[1::2]) < min(losses[::2]) - 0.1


@pytest.mark.parametrize("events", [[], [click(NO_ITEM, kind=Kind.SEARCH)]], ids=["no events", "no choices"])
def test_without_anything_to_learn_a_round_is_noise_alone(events):
    loud = replace(TERMS, multiplier=1.0)
    outcome = played(events, loud)
    noise = noise_source(Level.TEST, _after_coins(len(events))).draw(loud.sigma, MODEL.layout.size + DIM) / loud.grid
    assert np.allclose(outcome.delta, -0.5 / 4 * noise[:-DIM], atol=1e-5)
    assert np.allclose(outcome.embedding, NOBODY * (1 - 0.25 * 0.1) - 0.25 / 4 * noise[-DIM:], atol=1e-5)
    assert np.count_nonzero(outcome.delta) > 0.99 * MODEL.layout.size


def _after_coins(examples):
    rng = stream(0, "round")
    rng.random(examples)
    return rng


def test_coins_may_leave_a_step_empty():
    rare = replace(TERMS, rate=1e-9, examples=10**6 - 1)
    picked = []
    with pytest.MonkeyPatch.context() as patch:
        real = private_training.gradients
        patch.setattr(private_training, "gradients", lambda layer, p, n: picked.append(len(p)) or real(layer, p, n))
        played(LIFE, replace(rare, steps=3))
    assert picked == [0, 0, 0]


def test_an_example_that_fails_takes_no_other_with_it(monkeypatch, caplog):
    real = private_training.ft_compute_per_sample_gradient
    found = []

    def fragile(layer, activations, backprops):
        if 2.0 in activations[0]:
            raise RuntimeError("broken")
        return real(layer, activations, backprops)

    def spied(layer, picked, piece):
        found.append(torch.cat(list(gradients(layer, picked, piece).values()), dim=1))
        return gradients(layer, picked, piece)

    gradients = private_training.gradients
    monkeypatch.setattr(private_training, "gradients", spied)
    played(LIFE)
    monkeypatch.setattr(private_training, "ft_compute_per_sample_gradient", fragile)
    with caplog.at_level(logging.CRITICAL):
        played(LIFE)
    sound, hurt = found
    assert torch.count_nonzero(hurt[2]) == 0 and torch.count_nonzero(sound[2]) > 0
    others = [0, 1, 3, 4, 5]
    assert torch.allclose(hurt[others], sound[others], atol=1e-6)


def test_parameters_that_are_not_finite_give_noise_and_not_nan_gradients():
    broken = np.full_like(MODEL.initial, np.nan)
    outcome = training_of().round(broken, NOBODY, cut(LIFE), stream(0))
    assert np.isfinite(outcome.embedding).all()


def test_a_frozen_embedding_is_zero():
    frozen = SPEC.model_copy(update={"embedding_rate": 0.0})
    outcome = played(LIFE, spec=frozen)
    assert outcome.embedding.tolist() == [0.0, 0.0]
    assert training_of(spec=frozen).practice.embedding == "frozen"
    other = training_of(spec=frozen).round(MODEL.initial, 100 * NOBODY, cut(LIFE), stream(0, "round"))
    assert np.array_equal(outcome.delta, other.delta)  # whatever was kept before says nothing


def test_rivals_are_drawn_from_public_items_whatever_the_person_chose():
    shut = np.zeros(ITEMS, bool)
    shut[[2, 5]] = True
    spec = SPEC.model_copy(update={"negatives": 40})
    training = PrivateTraining(MODEL, spec, TERMS, hidden=shut, level=Level.RESEARCH)
    assert set(training._rivals(stream(0)).tolist()) == set(range(ITEMS)) - {2, 5}
    after = []
    for events in (LIFE, [], [click(2)]):
        rng = stream(5)
        training.round(MODEL.initial, NOBODY, cut(events), rng)
        after.append(rng.bit_generator.state)
    assert after[0] == after[1] == after[2]


# Nobody can replay the noise.


def test_global_generators_neither_repeat_the_noise_nor_notice_it():
    training, examples, outcomes = training_of(replace(TERMS, multiplier=1.0), level=Level.HARDENED), cut([]), []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(42)
            before = torch.get_rng_state()
            outcomes.append(training.round(MODEL.initial, NOBODY, examples, stream(0)))
            assert torch.equal(before, torch.get_rng_state())
    assert np.count_nonzero(outcomes[0].delta == outcomes[1].delta) < 0.05 * MODEL.layout.size
    assert not np.array_equal(outcomes[0].embedding, outcomes[1].embedding)


def test_level_test_repeats_itself():
    half = replace(TERMS, rate=0.5, steps=3, multiplier=1.0)
    assert np.array_equal(played(LIFE, half).delta, played(LIFE, half).delta)
    assert not np.array_equal(played(LIFE, half).delta, played(LIFE, half, seed=1).delta)


# The terms.


@pytest.mark.parametrize("habit", PRACTICES, ids=str)
def test_what_the_account_does_not_cover_is_refused(habit):
    with pytest.raises(PrivacyRefusal, match="^P14: ") as refusal:
        Practice(**habit)
    assert refusal.value.remedy
    assert Practice() == Practice(windows=1)


def test_a_batch_norm_is_refused(monkeypatch):
    monkeypatch.setattr(MODEL.adapter, "body", nn.Sequential(nn.BatchNorm1d(3)))
    with pytest.raises(PrivacyRefusal, match="^P14: .*normalises"):
        training_of()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"delta": 1e-4}, "P14"), ({"delta": 0.0}, "P01"), ({"delta": 0.3}, "P01"), ({"multiplier": 0.0}, "P01"),
        ({"multiplier": float("nan")}, "P01"), ({"clip": 0.0}, "P08"), ({"clip": float("inf")}, "P08"),
        ({"clip": 2.0**21}, "P08"),
    ],
)  # fmt: skip
def test_terms_that_promise_nothing_are_refused(change, code):
    with pytest.raises(PrivacyRefusal) as refusal:
        replace(TERMS, **change)
    assert refusal.value.code == code and refusal.value.remedy


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"rate": 1.5}, {"steps": 0}, {"examples": 0}])
def test_terms_out_of_range_are_refused(change):
    with pytest.raises(SpecError):
        replace(TERMS, **change)


@pytest.mark.parametrize("blocks", [{"seconds": -1}, {"span": 0}, {"span": 4}, {"seconds": 60, "span": 0}])
def test_blocks_out_of_range_are_refused(blocks):
    with pytest.raises(SpecError):
        Blocks(**blocks)


def test_shuffling_cannot_be_expressed():
    with pytest.raises(TypeError):
        replace(TERMS, poisson_sampling=False)


@pytest.mark.parametrize("clip", [1e-6, 0.3, 1.0, 7.0, 2.0**20])
def test_the_grid_is_fine_whatever_the_norm(clip):
    terms = replace(TERMS, clip=clip)
    assert 2**19 <= terms.grid * clip <= 2**20
    assert terms.sigma == pytest.approx(2e-5 * clip * terms.grid, rel=1e-5)


def test_the_relation_follows_from_the_blocks_and_the_event_from_the_relation():
    alone, hours = replace(TERMS, rate=0.5, steps=3), replace(TERMS, rate=0.5, steps=3, blocks=HOURS)
    assert alone.relation is Relation.ADD_OR_REMOVE and hours.relation is Relation.REPLACE_ONE
    assert alone.charges(4) == [(SampledGaussian(0.5, 2e-5), 12)]
    assert hours.charges(4) == [(FixedSizeGaussian(0.5, 2e-5), 12)]
    for terms in (alone, hours):
        assert terms.event.relation is terms.relation
        assert terms.event.peak == pytest.approx(terms.relation.sensitivity(1.0) / terms.multiplier)
    assert alone.expected == 2.0


def test_statistics_are_clipped_summed_noisy_and_over_a_public_number():
    rows = np.array([[0.1, 0.2, 0.0], [30.0, 40.0, 0.0], [np.nan, 0.0, 0.0]])
    found = private_statistics(rows, TERMS, noise_source(Level.TEST, stream(0)))
    noise = noise_source(Level.TEST, stream(0)).draw(TERMS.sigma, 3) / TERMS.grid
    assert np.allclose(found, (np.array([0.4, 0.6, 0.0]) + noise) / 4, atol=1e-5)
    assert np.count_nonzero(private_statistics(np.zeros((0, 3)), TERMS, Hardened())) > 0
    for change in ({"rate": 0.5}, {"steps": 2}):
        with pytest.raises(PrivacyRefusal, match="^P14: "):
            private_statistics(rows, replace(TERMS, **change), Hardened())
