import numpy as np
import pocket
import pytest

from fedrec.embed.effects import STRENGTH, effects, label
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.embed.reader import open_reader
from fedrec.model.pack_files import read_pack

MORE, LESS, NEVER = Polarity.MORE, Polarity.LESS, Polarity.NEVER


@pytest.fixture(scope="module")
def pack():
    return read_pack(pocket.pack(), None)


@pytest.fixture(scope="module")
def reader(pack):
    return open_reader(pack, None)


def wish(polarity, about, scope=Scope.TAG):
    return Preference(polarity=polarity, scope=scope, about=about)


def of_genre(pack, genre):
    return np.array([genre in tags for tags in pack.catalogue.tags])


@pytest.mark.parametrize(("polarity", "sign"), [(MORE, 1), (LESS, -1), (NEVER, -1)])
def test_a_tag_moves_the_items_that_bear_it(pack, reader, polarity, sign):
    found = effects([wish(polarity, "Sea")], pack, reader)
    sea = of_genre(pack, "Sea")
    np.testing.assert_array_equal(found.bonus, np.where(sea, sign * STRENGTH, 0))
    np.testing.assert_array_equal(found.blocked, sea if polarity is NEVER else np.zeros(40, bool))


@pytest.mark.parametrize("read", [True, False])
def test_a_topic_is_found_by_its_words(pack, reader, read):
    found = effects([wish(NEVER, "the lighthouses", Scope.TOPIC)], pack, reader if read else None)
    named = np.array(["lighthouse" in text for text in pack.catalogue.texts])
    assert found.blocked[named].all()
    assert not found.blocked[~of_genre(pack, "Sea")].any()
    np.testing.assert_array_equal(found.bonus[named], -STRENGTH)


def test_a_topic_is_found_by_meaning_too(pack, reader):
    """No item has all of these words; the encoder finds who has most of their letters."""
    asked = [wish(MORE, "sailings harbours unheard", Scope.TOPIC)]
    found, sea = effects(asked, pack, reader).bonus, of_genre(pack, "Sea")
    assert found[sea].max() > 0
    assert not found[~sea].any()
    assert not effects(asked, pack, None).bonus.any()


def test_an_item_moves_what_is_like_it_and_hides_itself_alone(pack, reader):
    more = effects([wish(MORE, "sea-0", Scope.ITEM)], pack, reader)
    row = pack.catalogue.rows["sea-0"]
    assert more.bonus[row] == more.bonus.max() == STRENGTH
    assert more.bonus[of_genre(pack, "Sea")].mean() > 5 * more.bonus[~of_genre(pack, "Sea")].mean()
    hidden = effects([wish(NEVER, "sea-0", Scope.ITEM)], pack, reader)
    assert np.flatnonzero(hidden.blocked).tolist() == [row]
    np.testing.assert_array_equal(hidden.bonus, -more.bonus)


def test_the_last_wish_about_a_thing_counts(pack, reader):
    found = effects([wish(NEVER, "Sea"), wish(LESS, "Bread"), wish(MORE, "Sea")], pack, reader)
    alone = effects([wish(MORE, "Sea"), wish(LESS, "Bread")], pack, reader)
    np.testing.assert_array_equal(found.bonus, alone.bonus)
    assert not found.blocked.any()
    assert {name for name, _ in found.labels} == {"more Sea", "less Bread"}


def test_parts_add_up_exactly(pack, reader):
    wishes = [
        wish(MORE, "Sea"), wish(LESS, "sailing storm", Scope.TOPIC), wish(NEVER, "bread-3", Scope.ITEM),
        wish(MORE, "oven", Scope.TOPIC), wish(LESS, "clocks-1", Scope.ITEM),
    ]  # fmt: skip
    found = effects(wishes, pack, reader)
    parts = np.stack([part for _, part in found.labels]).astype(np.float64)
    assert np.abs(parts).sum(axis=1).all()
    assert (parts.sum(axis=0) == found.bonus).all()
    assert found.bonus.dtype == np.float32


def test_what_the_pack_does_not_know_has_no_effect(pack, reader):
    unknown = [wish(NEVER, "Rivers"), wish(NEVER, "sea-99", Scope.ITEM), wish(MORE, "?!", Scope.TOPIC)]
    found = effects(unknown, pack, reader)
    assert not found.bonus.any()
    assert not found.blocked.any()
    assert not effects([], pack, reader).bonus.any()


def test_labels_say_it_for_people_and_the_repr_does_not(pack, reader):
    assert label(wish(NEVER, "author:Frank Herbert"), pack.catalogue) == "no Frank Herbert"
    assert label(wish(LESS, "old boats", Scope.TOPIC), pack.catalogue) == "less old boats"
    said = label(wish(MORE, "sea-0", Scope.ITEM), pack.catalogue)
    assert said == "more like sailing harbour lighthouse volume0Sea"
    assert "boats" not in repr(effects([wish(LESS, "old boats", Scope.TOPIC)], pack, reader))
