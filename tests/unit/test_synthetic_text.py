"""The words of the embedded data set, worked by hand where one can."""

from __future__ import annotations

import itertools

import pytest

from fedrec.datasets import synthetic_text as words
from fedrec.datasets.synthetic import generate, truth
from fedrec.datasets.synthetic_text import STRANDS, TOPICS
from fedrec.errors import SpecError

ZEROS = [0] * words.DICE
BEBOP, TRAILS = 0, 61


def vocabulary(topic: int) -> set[str]:
    return {word for line in TOPICS[topic].strands for word in line.replace(":", "").replace(",", "").lower().split()}


def test_the_first_roll_of_everything():
    assert words.author_name(0) == "Ilse Pellbrook"
    assert words.title(BEBOP, ZEROS) == "Breakneck Solos and Smoky Clubs"
    assert words.description((BEBOP, BEBOP), "Ilse Pellbrook", ZEROS) == (
        "In this handbook, Ilse Pellbrook explores alto saxophones, angular melodies and walking bass lines."
    )
    assert words.query(BEBOP, ZEROS) == "bebop"
    assert words.review(BEBOP, 0, ZEROS) == "Tedious. The chapter on breakneck solos went nowhere."
    assert words.review(BEBOP, 4, ZEROS) == "Wonderful! I loved the pages on breakneck solos."


def test_a_second_strand_is_an_aside():
    text = words.description((BEBOP, TRAILS), "Ilse Pellbrook", ZEROS)
    assert text.endswith("Long detours lead to waymarks and resupply towns.")


def test_titles_are_in_title_case():
    assert words.title(TRAILS, [1, 0]) == "The Secret Life of Waymarks"
    assert words.title(TRAILS, [7, 0]) == "Long-distance Trails: Waymarks and Beyond"


def test_sixteen_topics_of_four_strands_with_six_phrases():
    assert [strand.topic for strand in STRANDS] == [topic for topic in range(16) for _ in range(4)]
    assert {len(strand.phrases) for strand in STRANDS} == {6}


def test_a_phrase_names_one_strand():
    names = [(name.lower(), n) for n, strand in enumerate(STRANDS) for name in (strand.name, *strand.phrases)]
    assert len({name for name, _ in names}) == len(names)
    assert not [(a, b) for (a, n), (b, m) in itertools.permutations(names, 2) if n != m and a in b]


def test_related_topics_share_no_words():
    for topic in range(len(TOPICS)):
        assert vocabulary(topic) & vocabulary((topic + 1) % len(TOPICS)) <= {"and"}


@pytest.mark.parametrize("template", range(len(words.QUERIES)))
def test_every_query_names_its_strand(template):
    for strand, turn in itertools.product(range(len(STRANDS)), range(6)):
        assert words.strand_of(words.query(strand, [template, turn])) == strand


@pytest.mark.parametrize("stars", range(5))
def test_every_review_names_its_strand_and_its_mood(stars):
    for strand, template, mood in itertools.product(range(len(STRANDS)), range(4), range(6)):
        text = words.review(strand, stars, [template, mood, mood])
        assert words.strand_of(text) == strand
        spoken = [moods for moods in words.VERDICTS if any(word in text.lower() for word in moods)]
        assert spoken == [(words.HARSH, words.HARSH, words.MIXED, words.GLOWING, words.GLOWING)[stars]]


def test_a_text_without_a_phrase_names_no_strand():
    assert words.strand_of("something nice") == -1


def test_no_template_leaves_a_hole():
    for die in range(40):
        dice = [die] * words.DICE
        texts = [words.title(BEBOP, dice), words.description((BEBOP, TRAILS), "Ilse Pellbrook", dice)]
        assert not any("{" in text or "}" in text for text in texts)


def test_author_names_differ():
    assert len({words.author_name(author) for author in range(words.MOST_AUTHORS)}) == words.MOST_AUTHORS


def test_texts_are_unique_and_tags_are_printed_as_they_are_kept():
    catalogue = generate(users=2, items=5000).catalogue
    assert len(set(catalogue.texts)) == len(set(catalogue.ids)) == 5000
    bare = [text for text, tags in zip(catalogue.texts, catalogue.tags, strict=True) if not tags]
    assert 0.12 < len(bare) / 5000 < 0.18 and not any("[topics:" in text for text in bare)
    for text, tags in zip(catalogue.texts, catalogue.tags, strict=True):
        assert not tags or text.endswith(f"[topics: {', '.join(tags)}]")


@pytest.mark.parametrize("plant", [generate, truth])
@pytest.mark.parametrize(("sizes", "rule"), [({"users": 0}, "at least one person"), ({"items": 63}, "64 sub-topics")])
def test_impossible_sizes_are_refused(plant, sizes, rule):
    with pytest.raises(SpecError, match=rule):
        plant(**sizes)


def test_the_smallest_library_works():
    assert len(generate(users=1, items=64).population[0].choices()) >= 1


def test_a_seed_gives_what_it_gave_in_every_release():
    """A change that moves these moves everybody's results, also when it only wanted to be fast."""
    assert generate().hash == "9060a6cdf1a25c1a2ce84ac8194bf08204c83b064bf3d1c3a56552af9dabbcde"
    other = generate(users=300, items=100, seed=3)
    assert other.hash == "b4f970f4f40a59d3d8db93d6377f758047f1218de21eda2b0638ef85be1c7b96"
