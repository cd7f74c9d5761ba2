"""What sentences are understood as; what the parser was measured on is simulations/embed/sentences.jsonl."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.embed.preference import Polarity, Scope
from fedrec.embed.tell import (
    DEPENDS,
    DOUBLE,
    LANGUAGE,
    LENGTH,
    LONGEST,
    NO_ITEM,
    NO_ROLE,
    NOTHING,
    QUESTION,
    UNCLEAR,
    normal,
    title,
    understand,
)
from fedrec.model.catalogue import Catalogue

MORE, LESS, NEVER = Polarity.MORE, Polarity.LESS, Polarity.NEVER
SHELF = Catalogue(
    ["dune", "emma", "moby", "steam"],
    ["Dune Messiah (1969) [genre: Sci-Fi]", "Emma", "Moby Dick", "Steam"],
    tags=[("Sci-Fi", "author:Frank Herbert"), ("Romance", "Arts, Crafts & Sewing"), ("Children's",), ("Film-Noir",)],
)
WORDS = ["i", "like", "no", "not", "more", "but", "romance", "sci-fi", ",", ".", "?", "this", "and"]


def wishes(sentence, item=""):
    told = understand(sentence, catalogue=SHELF, item=item)
    return [(one.polarity, one.scope, one.about) for one in told.preferences]


def tags(polarity, *names):
    return [(polarity, Scope.TAG, name) for name in names]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("I like sci-fi but no romance", tags(MORE, "Sci-Fi") + tags(NEVER, "Romance")),
        ("I don’t like science fiction or film noir", tags(LESS, "Sci-Fi", "Film-Noir")),
        ("children's films and romances, please", tags(MORE, "Children's", "Romance")),
        ("I'd like to see fewer romances", tags(LESS, "Romance")),
        ("everything except romance", tags(NEVER, "Romance")),
        ("no romance, except film noir", tags(NEVER, "Romance") + tags(MORE, "Film-Noir")),
        ("I would rather read romance than sci-fi", tags(MORE, "Romance") + tags(LESS, "Sci-Fi")),
        ("I can't get enough of sci-fi", tags(MORE, "Sci-Fi")),
        ("I ain't into no romance", tags(LESS, "Romance")),
        ("Romance? No thanks.", tags(NEVER, "Romance")),
        ("more arts, crafts & sewing, less romance", tags(MORE, "Arts, Crafts & Sewing") + tags(LESS, "Romance")),
        ("more by frank herbert", tags(MORE, "author:Frank Herbert")),
        ("I loved Moby Dick", [(MORE, Scope.ITEM, "moby")]),
        ("I love emma", [(MORE, Scope.TOPIC, "emma")]),  # a title of one word may be a word
        ("anything about the roman empire", [(MORE, Scope.TOPIC, "roman empire")]),
        ("I like romance. I don't like romance.", tags(LESS, "Romance")),  # the last word counts
    ],
)
def test_understood(sentence, expected):
    assert wishes(sentence) == expected


def test_an_item_is_pointed_at():
    assert wishes("less of this", "emma") == [(LESS, Scope.ITEM, "emma")]
    assert wishes("more from this author", "dune") == tags(MORE, "author:Frank Herbert")


@pytest.mark.parametrize(
    ("sentence", "item", "reason"),
    [
        ("Ich mag Science-Fiction, aber keine Romane", "", LANGUAGE),
        ("我喜欢科幻", "", LANGUAGE),
        ("Do you like romance", "", QUESTION),
        ("I like romance when it rains", "", DEPENDS),
        ("I don't dislike romance", "", DOUBLE),
        ("more", "", NOTHING),
        ("more like this", "", NO_ITEM),
        ("more from this author", "moby", NO_ROLE),
        ("My sister likes romance", "", UNCLEAR),
        ("blorp the fnargle", "", UNCLEAR),
        ("x" * (LONGEST + 1), "", LENGTH),
    ],
)
def test_not_understood_is_said(sentence, item, reason):
    told = understand(sentence, catalogue=SHELF, item=item)
    assert told.preferences == ()
    assert told.unclear[-1].endswith(reason)


def test_what_was_said_is_kept_and_withheld():
    told = understand("less secret romance", catalogue=SHELF, time=7)
    (wish,) = told.preferences
    assert (wish.said, wish.time) == ("less secret romance", 7)
    assert "secret" not in repr(told)
    assert "secret" not in repr(wish)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_every_sentence_gets_an_answer(sentence):
    told = understand(sentence, catalogue=SHELF, item="dune")
    assert told.preferences or told.unclear
    assert all(one.about for one in told.preferences)
    assert understand(sentence, catalogue=SHELF, item="dune") == told


def test_names_are_compared_without_case_and_plurals():
    assert normal("Children's Comedies!") == "children comedy"
    assert normal("Sci-Fi") == "sci fi"
    assert normal("news") == "news"
    assert title("Dune Messiah (1969) [genre: Sci-Fi]") == "Dune Messiah"
    assert title("(untitled)") == "(untitled)"


def test_the_published_sentences_are_all_there():
    path = Path(__file__).parents[2] / "simulations" / "embed" / "sentences.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({(line["said"], line["item"]) for line in lines}) == len(lines) >= 120
    assert {kind for line in lines for kind, *_ in line["wants"]} == {"more", "less", "never"}
