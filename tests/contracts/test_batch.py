"""A batch holds of every client what the one-client code holds, number for number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.datasets.synthetic import generate
from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.profile import Events, contexts
from fedrec.device.training import trainable
from fedrec.errors import DataError
from fedrec.model.adapter import TowerInputs
from fedrec.population.batch import Batch, choosing, chunked, decayed, lay
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.spec import ProfileSpec

ITEMS = 9
TEXTS = ("", "", "sea", "a ship", "storm over the sea")
SPEC = ProfileSpec(rating=1.5, skip=-0.7, text=0.3)
PLAIN = ProfileSpec()
DECAYS = (0.0, 0.5, 0.9, 1.0)


@st.composite
def acts(draw):
    text = draw(st.sampled_from(TEXTS))
    kind = draw(st.sampled_from(Kind))
    item = NO_ITEM if kind is Kind.SEARCH else draw(st.integers(NO_ITEM, ITEMS - 1))
    rating = draw(st.sampled_from([float("nan"), 0.0, 0.3, 1.0]))
    return Event(kind=kind, item=item, text=text, rating=rating, weight=draw(st.sampled_from([1.0, 0.7])))


PEOPLE = st.lists(st.lists(acts(), max_size=12), min_size=1, max_size=6).map(Population.of)


def words_of(people):
    return {text: row for row, text in enumerate(sorted(set(people.table["text"].to_pylist()) - {""}))}


def tower(words):
    """A tower whose vectors are the numbers of the texts."""
    return lambda texts: TowerInputs(
        torch.tensor([[float(words[text])] for text in texts]).view(-1, 1), torch.zeros(len(texts), 0)
    )


def batch_of(people, cuts=None, spec=SPEC, items=ITEMS):
    cuts = np.diff(people.offsets) if cuts is None else cuts
    return Batch.of(people, cuts, spec, items=items, words=words_of(people))


def mentions(batch, client):
    mine = batch.owner == client
    return [part[mine].tolist() for part in (batch.at, batch.entry, batch.weight)]


def expected_mentions(events, items=ITEMS):
    """(at, entry, weight) of one client, items before texts, by event."""
    rows = zip(events.row_at.tolist(), events.rows.tolist(), events.row_weights.tolist(), strict=True)
    numbers = events.texts.values[:, 0].long() + items
    texts = zip(events.text_at.tolist(), numbers.tolist(), events.text_weights.tolist(), strict=True)
    return [list(part) for part in zip(*rows, *texts, strict=True)] or [[], [], []]


def usable(batch, client):
    """Places of a client's choices that have something before them."""
    return batch.all_usable[batch.choice_owner[batch.all_usable] == client]


def assert_is_one_by_one(batch, people, cuts, spec=SPEC, items=ITEMS):
    for client, cut in enumerate(cuts):
        events = Events.of(people[client].before(int(cut)), spec, tower(words_of(people)))
        assert batch.texts[client] == len(events.text_at)
        assert batch.mentions[client] == len(events.row_at) + len(events.text_at)
        assert mentions(batch, client) == expected_mentions(events, items)
        mine = batch.choice_owner == client
        assert batch.choice_at[mine].tolist() == events.choices.tolist()
        assert batch.chosen[mine].tolist() == events.chosen.tolist()
        assert (usable(batch, client) - batch.choice_starts[client]).tolist() == trainable(events).tolist()
        assert batch.usable_counts[client] == len(trainable(events))
        said, rated = batch.rated_owner == client, ~events.text_ratings.isnan()
        assert batch.rated[said].tolist() == events.texts.values[rated, 0].long().tolist()
        assert batch.ratings[said].tolist() == events.text_ratings[rated].tolist()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(PEOPLE, st.data())
def test_a_batch_holds_what_every_client_holds(people, data):
    cuts = np.array([data.draw(st.integers(0, size)) for size in np.diff(people.offsets).tolist()])
    assert_is_one_by_one(batch_of(people, cuts), people, cuts)


def test_a_batch_of_the_library_holds_what_every_reader_holds():
    people = generate(users=80, items=150).population
    cuts = np.diff(people.offsets) - 1
    batch = batch_of(people, cuts, PLAIN, 150)
    assert_is_one_by_one(batch, people, cuts, PLAIN, 150)
    assert (batch.entry >= 150).any() and (batch.weight < 0).any()
    assert batch.entry.dtype == np.int64 and batch.weight.dtype == np.float32


def test_a_batch_of_part_of_a_mapped_table(tmp_path):
    people = generate(users=30, items=64).population
    people.save(tmp_path / "people")
    mapped = Population.open(tmp_path / "people").head(20)
    cuts = np.diff(mapped.offsets)
    assert_is_one_by_one(batch_of(mapped, cuts, PLAIN, 64), mapped, cuts, PLAIN, 64)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(PEOPLE, st.data())
def test_picking_clients_is_making_a_batch_of_them(people, data):
    clients = np.array(data.draw(st.lists(st.integers(0, len(people) - 1), max_size=8)), np.int64)
    picked = batch_of(people).pick(clients)
    assert len(picked) == len(clients)
    whole = batch_of(people)
    for new, old in enumerate(clients):
        assert picked.texts[new] == whole.texts[old]
        assert mentions(picked, new) == mentions(whole, old)
        said = slice(*whole.rated_starts[old : old + 2])
        opinions = slice(*picked.rated_starts[new : new + 2])
        assert picked.rated[opinions].tolist() == whole.rated[said].tolist()
        assert picked.ratings[opinions].tolist() == whole.ratings[said].tolist()
        for name in ("choice_at", "chosen"):
            of = getattr(picked, name)[picked.choice_owner == new]
            assert of.tolist() == getattr(whole, name)[whole.choice_owner == old].tolist()
    assert (np.diff(picked.owner) >= 0).all() and (np.diff(picked.choice_owner) >= 0).all()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(PEOPLE, st.data())
def test_every_act_that_chooses_is_told_of(people, data):
    cuts = np.array([data.draw(st.integers(0, size)) for size in np.diff(people.offsets).tolist()])
    owner, item = choosing(people, cuts)
    for client, cut in enumerate(cuts):
        history = people[client].before(int(cut))
        acts = zip(history.kinds, history.items.tolist(), strict=True)
        wanted = [row for kind, row in acts if Kind(kind).chooses and row != NO_ITEM]
        assert item[owner == client].tolist() == wanted


def test_a_text_without_a_number_is_refused_and_not_quoted():
    people = Population.of([[Event(kind=Kind.SEARCH, text="nobody's business")]])
    with pytest.raises(DataError, match="every free text has a number; got without=1") as refused:
        Batch.of(people, np.array([1]), PLAIN, items=ITEMS, words={})
    assert "business" not in str(refused.value)


def test_no_content_in_a_repr():
    batch = batch_of(Population.of([[Event(kind=Kind.CLICK, item=4)], []]))
    assert repr(batch) == "Batch(2 clients, contents withheld)"
    assert repr(lay(batch, batch.all_usable)) == "Laid(2 clients, contents withheld)"


@settings(derandomize=True, deadline=None, max_examples=40)
@given(PEOPLE, st.data())
def test_a_chunk_lays_out_each_client_and_pads_with_nothing(people, data):
    batch = batch_of(people)
    some = [data.draw(st.sets(st.sampled_from(usable(batch, client).tolist() or [None]))) - {None}
            for client in range(len(batch))]  # fmt: skip
    picked = [np.array(sorted(own), np.int64) for own in some]
    laid = lay(batch, np.concatenate(picked))
    assert laid.listed == (batch.mentions - batch.texts).max()
    assert laid.entry.shape[1] == laid.listed + batch.texts.max()
    for client, own in enumerate(picked):
        events = Events.of(people[client], SPEC, tower(words_of(people)))
        of_items = int(batch.mentions[client] - batch.texts[client])
        filled = [*range(of_items), *range(laid.listed, laid.listed + int(batch.texts[client]))]
        assert [part[client, filled].tolist() for part in (laid.at, laid.entry, laid.weight)] == mentions(batch, client)
        empty = sorted(set(range(laid.entry.shape[1])) - set(filled))
        assert not laid.weight[client, empty].any() and not laid.entry[client, empty].any()
        assert laid.real[client].tolist() == [place < len(own) for place in range(laid.real.shape[1])]
        at = own - batch.choice_starts[client]
        assert laid.cuts[client, : len(own)].tolist() == events.choices[at].tolist()
        assert laid.targets[client, : len(own)].tolist() == events.chosen[at].tolist()
        assert laid.chose[client].sum() == len(events.chosen)
        assert laid.choice_at[client][laid.chose[client]].tolist() == events.choices.tolist()
        assert laid.chosen[client][laid.chose[client]].tolist() == events.chosen.tolist()


def test_decayed_sums_are_the_views_of_each_client():
    people = generate(users=40, items=64).population
    batch, words = batch_of(people, items=64), words_of(people)
    table = torch.from_numpy(stream(0, "table").normal(size=(64 + len(words), 5)).astype(np.float32))
    laid = lay(batch, batch.all_usable).to("cpu")
    sums = decayed(laid, table[laid.entry], DECAYS)
    assert sums.shape == (40, laid.cuts.shape[1], 4, 5)
    for client in range(40):
        events = Events.of(people[client], SPEC, tower(words))
        vectors = events.vectors(table[events.rows], table[64:][events.texts.values[:, 0].long()])
        own = laid.real[client]
        views = contexts(vectors, laid.cuts[client][own], DECAYS)
        mine = sums[client].transpose(0, 1)
        assert torch.nn.functional.normalize(mine[:, own], dim=-1).allclose(views, atol=1e-6)
        assert not mine[:, ~own].any()


def test_an_empty_chunk():
    batch = batch_of(Population.of([[], [Event(kind=Kind.CLICK, item=4)]]))
    laid = lay(batch, batch.all_usable)
    assert laid.cuts.shape == (2, 0) and laid.entry.tolist() == [[0], [4]]
    assert decayed(laid, torch.zeros(2, 1, 3), DECAYS).shape == (2, 0, 4, 3)
    nobody = batch.pick(np.zeros(0, np.int64))
    assert lay(nobody, nobody.all_usable).entry.shape == (0, 0) and len(nobody) == 0
    assert list(chunked(nobody, nobody.usable_counts, budget=lambda n, t, e: n, limit=1)) == []


def skewed(clients, seed):
    """A batch of made-up lengths: half of what people mention is a choice, more or less."""
    rng = stream(seed, "skewed")
    sizes = np.ceil(rng.lognormal(3.0, 1.0, clients)).astype(np.int64)
    nothing, flat = np.zeros(0, np.int64), np.zeros(0, np.float32)
    owner = np.repeat(np.arange(clients), sizes)
    batch = Batch(np.zeros_like(sizes), owner, owner, owner, flat, *[nothing] * 5, flat)
    return batch, np.minimum(rng.binomial(sizes, 0.5), 64)


def cells(n, examples, mentions):
    return n * (examples + mentions)


def budget(n, examples, mentions):
    return n * 4 * examples * (8 + mentions)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(1, 600), st.integers(0, 99), st.sampled_from([1, 10**4, 10**6, 10**9]))
def test_chunks_hold_everybody_once_within_the_bound_and_waste_little(clients, seed, limit):
    batch, examples = skewed(clients, seed)
    chunks = list(chunked(batch, examples, budget, limit))
    assert sorted(np.concatenate(chunks).tolist()) == list(range(clients))
    for chunk in chunks:
        wide, deep = int(examples[chunk].max()), int(batch.mentions[chunk].max())
        assert len(chunk) == 1 or budget(len(chunk), wide, deep) <= limit
        filled = int((examples + batch.mentions)[chunk].sum())
        assert cells(len(chunk), wide, deep) <= max(1.25 * filled, filled + 600)


def test_skewed_histories_come_in_few_chunks():
    batch, examples = skewed(10_000, 1)
    chunks = list(chunked(batch, examples, budget, 10**7))
    padded = sum(cells(len(chunk), examples[chunk].max(), batch.mentions[chunk].max()) for chunk in chunks)
    assert padded <= 1.25 * (examples + batch.mentions).sum()
    assert sum(len(chunk) * examples[chunk].max() for chunk in chunks) < 1.1 * examples.sum()  # what a softmax is over
    assert len(chunks) < 120


def test_padding_that_is_cheaper_than_another_chunk_is_borne():
    batch, examples = skewed(12, 3)
    padded, filled = cells(12, examples.max(), batch.mentions.max()), (examples + batch.mentions).sum()
    assert 2 * filled < padded < filled + 600  # more than a quarter, and next to nothing
    assert len(list(chunked(batch, examples, budget, 10**9))) == 1
