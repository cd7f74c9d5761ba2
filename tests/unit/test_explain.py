"""A score is taken apart without a remainder, and said in English."""

from dataclasses import replace

import numpy as np
import pytest
from shelf import build, task

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.embed.explain import decompose, reason, words_of
from fedrec.embed.local import embedding
from fedrec.embed.page import Cause
from fedrec.embed.ranker import Place, Ranker, Standing, Wanted
from fedrec.embed.reader import open_reader
from fedrec.embed.taste import Taste
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_files import read_pack
from fedrec.randomness import stream

EVENTS = [
    Act(kind=Kind.LIKE, item="book-1", time=1),
    Act(kind=Kind.SEARCH, text="a lighthouse", time=2),
    Act(kind=Kind.REVIEW, item="book-2", text="slow winter mornings", time=3),
    Act(kind=Kind.SKIP, item="book-0", time=4),
    Act(kind=Kind.REVIEW, text="tired of clocks", time=5),
]


@pytest.fixture(scope="module", params=["full", "diagonal"])
def pack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    build(folder, of=task(request.param))
    return read_pack(folder, None)


def taste(pack, acts=EVENTS):
    made = Taste(pack, open_reader(pack, None))
    for number, act in enumerate(acts, 11):
        made.add(number, act)
    return made


@pytest.fixture
def person(pack):
    """Everything at once: events of all sorts, an embedding, and two wishes."""
    known = taste(pack)
    more, less = np.linspace(0, 2, 6, dtype=np.float32), -np.ones(6, np.float32)
    wishes = (("more sea", more), ("less war", less))
    return Standing(known, embedding(known, pack), more + less, np.zeros(6, bool), wishes)


@pytest.mark.parametrize("wishes", [{}, {"diversity": 0.5, "calibration": 0.5}, {"explore": 1.0}])
def test_the_causes_add_up_to_the_score(pack, person, wishes):
    ranker = Ranker(pack)
    for place in ranker.rank(person, Wanted(k=6, hide_seen=False, **wishes), stream(0, "explore")):
        causes = decompose(ranker, person, place)
        assert abs(sum(cause.value for cause in causes) - place.score) < 1e-6
        assert [abs(cause.value) for cause in causes] == sorted((abs(cause.value) for cause in causes), reverse=True)
        assert {cause.source for cause in causes} >= {"event", "embedding", "popularity", "preference"}


def test_what_an_event_adds_is_what_its_vector_adds(pack):
    """Against the definition: λ to the age, times weight, times vector, through the map of its decay, over length."""
    known, ranker = taste(pack), Ranker(pack)
    vectors = [trace.weight * pack.vectors[trace.row].astype(float) * (trace.row >= 0) for trace in known.traces]
    for at, trace in enumerate(known.traces):
        if trace.reading is not None:
            vectors[at] = vectors[at] + trace.beside * trace.reading
    maps = pack.parameters["maps"].astype(float)
    expected = np.zeros(5)
    for decay, map in zip((0.0, 0.9), maps, strict=True):
        faded = [decay ** (4 - at) * vector for at, vector in enumerate(vectors)]
        through = [one @ map if map.ndim == 2 else one * map for one in faded]
        expected += np.array(through) @ pack.vectors[4] / np.linalg.norm(sum(faded))
    place = Place(4, float(ranker.exact(Standing.bare(known), np.array([4]))[0]), "taste")
    found = {cause.event: cause.value for cause in decompose(ranker, Standing.bare(known), place)}
    assert np.allclose([found[number] for number in range(11, 16)], expected, atol=1e-9)


def test_labels_are_for_people(pack, person):
    causes = decompose(Ranker(pack), person, Place(3, 0.0, "taste"))
    labels = {cause.event: cause.label for cause in causes if cause.event}
    assert labels == {
        11: "Bread for slow mornings",
        12: "“a lighthouse”",
        13: "The clockmaker's last winter",
        14: "A lighthouse keeper learns to sail",
        15: "“tired of clocks”",
    }
    assert {cause.label for cause in causes if cause.source == "preference"} == {"more sea", "less war"}


def test_long_texts_are_cut_between_words(pack):
    known = taste(pack, [Act(kind=Kind.SEARCH, text="word " * 40)])
    (label,) = [c.label for c in decompose(Ranker(pack), Standing.bare(known), Place(0, 0.0, "taste")) if c.event]
    assert label.endswith("word…”") and len(label) <= 83


def test_the_sentence_names_what_weighs_most(pack):
    """Vectors along one axis, so that each act speaks for item 5 as much as its weight and age say."""
    flat = replace(
        pack,
        vectors=np.array([[1, 0, 0]] * 6, np.float32),
        prior=np.zeros(6, np.float32),
        parameters={"maps": np.stack([np.zeros(3), np.ones(3)]).astype(np.float32)},
        catalogue=Catalogue(pack.catalogue.ids, [f"Book {n} (1990) [novel]" for n in range(6)]),
    )

    def sentence(*acts, source="taste", **changes):
        made = Taste(flat, open_reader(flat, None))
        for number, act in enumerate(acts, 1):
            made.add(number, act)
        known = replace(Standing.bare(made), **changes)
        return reason(Ranker(flat), known, Place(5, 0.0, source)).sentence

    like = [Act(kind=Kind.LIKE, item=f"book-{n}", time=n) for n in range(4)]
    view = Act(kind=Kind.VIEW, item="book-4", time=9)
    skip = Act(kind=Kind.SKIP, item="book-4", time=9)
    wish = {"bonus": np.ones(6, np.float32), "labels": (("more novels", np.ones(6, np.float32)),)}
    assert sentence(like[0]) == "Because you liked Book 0."
    assert sentence(like[0], like[0]) == "Because you liked Book 0."
    assert sentence(*like[:2]) == "Because you liked Book 1 and Book 0."
    assert sentence(*like) == "Because you liked Book 3, Book 2 and Book 1."
    assert sentence(like[0], view) == "Because you liked Book 0 and looked at Book 4."
    assert sentence(like[0], **wish) in (
        "Because you liked Book 0 and asked for more novels.",
        "Because you asked for more novels and liked Book 0.",
    )
    assert sentence(skip) == "It comes next among what is left."
    assert sentence(skip, embedding=np.array([1, 0, 0], np.float32)) == "Because it is like much of what you choose."
    assert sentence(source="popular") == "Many others choose it."
    assert sentence(like[0], source="explore") == "To try something new."
    popular = replace(flat, prior=np.full(6, 9.0, np.float32))
    known = Standing.bare(Taste(popular, open_reader(popular, None)))
    assert reason(Ranker(popular), known, Place(5, 9.0, "taste")).sentence == "Because many others choose it."


def test_words_are_those_without_which_it_would_score_lowest(pack):
    # Words as they are spelt: three axes, and an adapter that was moved at random, would blur them.
    wide = replace(pack, projection=np.eye(257, 256, dtype=np.float32), parameters={})
    reader, text = open_reader(wide, None), pack.catalogue.texts[0]
    query = reader.vectors(["lighthouse"])[0].astype(float)
    found = words_of(wide, reader, 0, query)
    falls = {
        word.casefold(): float((reader.vectors([text])[0] - reader.vectors([text.replace(word, "")])[0]) @ query)
        for word in text.split()
    }
    best = sorted((word for word in falls if falls[word] > 0), key=lambda word: -falls[word])
    assert found == tuple(best[:3])
    assert found[0] == "lighthouse"
    assert words_of(wide, reader, 0, np.zeros(256)) == ()


def test_somebody_else_may_say_it(pack, person):
    heard = []

    def hook(made):
        heard.append(made)
        return "It is about the sea, as you are."

    said = reason(Ranker(pack), person, Place(3, 0.0, "taste"), hook=hook)
    assert said.sentence == "It is about the sea, as you are."
    assert said.causes == heard[0].causes and heard[0].sentence.startswith("Because")
    assert all(isinstance(cause, Cause) for cause in said.causes)


def test_words_need_a_reader(pack, person):
    place, reader = Place(3, 0.0, "taste"), open_reader(pack, None)
    assert reason(Ranker(pack), person, place).words == ()
    expected = words_of(pack, reader, 3, Ranker(pack).query(person))
    assert reason(Ranker(pack), person, place, reader=reader).words == expected != ()


def test_nothing_of_a_person_shows(pack, person):
    said = reason(Ranker(pack), person, Place(3, 0.0, "taste"), reader=open_reader(pack, None))
    shown = repr(said) + repr(said.causes) + repr(person) + repr(person.taste)
    assert "withheld" in shown
    for private in ("Bread", "lighthouse", "winter", "clocks", "sea"):
        assert private not in shown
