"""What an app sees of its recommender: every call counts in the next list, and can be taken back."""

import math
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from pocket import Clock, genres, items, opened, pack, scores

import fedrec
from fedrec.device.act import Act
from fedrec.device.contents import Columns
from fedrec.device.event import Kind
from fedrec.embed.models import Model
from fedrec.embed.preference import Polarity, Scope
from fedrec.embed.sentiment import valence
from fedrec.embed.session import felt
from fedrec.embed.texts import Texts
from fedrec.errors import DataError, RunError, SpecError
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_files import read_pack
from fedrec.randomness import stream

DAY = 86_400


@pytest.fixture
def rec(tmp_path):
    with closing(opened(tmp_path / "me")) as one:
        yield one


def test_the_package_has_it():
    from fedrec.embed.recommender import Recommender

    assert fedrec.Recommender is Recommender


def test_a_stranger_gets_what_is_popular(rec):
    page = rec.recommend(5)
    assert {pick.source for pick in page} == {"popular"}
    prior = dict(zip(rec._person.model().pack.catalogue.ids, rec._person.model().pack.prior.tolist(), strict=True))
    assert [pick.item for pick in page] == sorted(prior, key=prior.get, reverse=True)[:5]
    assert [cause.source for cause in page[0].why.causes] == ["popularity"]


def test_an_event_counts_in_the_next_list(rec):
    rec.log("like", "sea-1")
    assert set(genres(items(rec))) == {"sea"}
    rec.log("like", "clocks-1")
    rec.log("like", "clocks-2")
    assert genres(items(rec))[0] == "clocks"


def test_searches_and_reviews_count(rec):
    rec.log("search", text="sourdough in the oven, flour")
    assert set(genres(items(rec, 3))) == {"bread"}
    before = scores(rec)
    rec.log("review", "bread-1", text="it reminded me of a telescope and of planets")
    after = scores(rec)
    assert after["stars-3"] - before["stars-3"] > after["clocks-3"] - before["clocks-3"]


def test_a_review_without_a_rating_gets_one_from_its_words():
    head = np.append(stream(0, "head").normal(0.0, 0.1, 256), 0.5).astype(np.float32)
    bare = read_pack(pack(), None)
    model = Model(replace(bare, sentiment=head), None)
    columns = Columns.of([
        (1, Act(kind=Kind.REVIEW, item="sea-1", text="a fine storm")),
        (2, Act(kind=Kind.REVIEW, item="sea-1", text="a fine storm", rating=0.25)),
        (3, Act(kind=Kind.SEARCH, text="a fine storm")),
        (4, Act(kind=Kind.REVIEW, item="sea-1", text="...")),
    ])  # fmt: skip
    texts = Texts(model)
    first, *rest = felt(columns, model.pack, texts).ratings.tolist()
    (said,) = valence(texts, model.pack, ["a fine storm"]).tolist()
    assert first == said
    assert 0 < said < 1
    assert rest[0] == 0.25
    assert np.isnan(rest[1:]).all()
    assert np.isnan(felt(columns, bare, texts).ratings[0])


def test_a_skip_pulls_the_other_way(rec):
    rec.log("skip", "sea-1")
    assert "sea" not in genres(items(rec, 10))


def test_what_was_chosen_is_not_offered_again(rec):
    rec.log(Kind.LIKE, "sea-1")
    assert "sea-1" not in items(rec, 40)
    assert items(rec, 40, hide_seen=False)[0] == "sea-1"
    rec.log("view", "sea-2")
    rec.log("skip", "bread-1")
    assert "sea-2" not in items(rec, 40)
    assert "bread-1" in items(rec, 40)  # a skip is no choice


def test_filters(rec):
    assert set(genres(items(rec, 40, filter={"Bread", "Stars"}))) == {"bread", "stars"}
    assert set(genres(items(rec, 40, filter="Clocks"))) == {"clocks"}
    assert items(rec, 40, filter={"Nothing"}) == []
    assert sorted(items(rec, 40, filter=lambda item: item.endswith("-7"))) == [
        "bread-7",
        "clocks-7",
        "sea-7",
        "stars-7",
    ]


def test_variety_proportion_and_chance(rec):
    for item in ("bread-1", "sea-1", "sea-2", "sea-3", "sea-4"):
        rec.log("like", item)
    assert set(genres(items(rec, 5))) == {"sea"}
    assert "bread" in genres(items(rec, 5, calibration=1.0))
    assert len({*genres(items(rec, 6, diversity=1.0))}) > 1
    assert {pick.source for pick in rec.recommend(10, explore=1.0)} == {"explore"}
    with pytest.raises(SpecError, match="explore"):
        rec.recommend(explore=1.5)


def test_a_reason_adds_up_and_names_the_evidence(rec):
    event = rec.log("like", "sea-1")
    rec.log("search", text="harbour in a storm")
    rec.feedback("sea-4", "more_like_this")
    for wanted in ({}, {"diversity": 0.7}, {"calibration": 0.5}):
        for pick in rec.recommend(5, **wanted):
            assert sum(cause.value for cause in pick.why.causes) == pytest.approx(pick.score, abs=1e-6)
    causes = rec.explain("sea-0").causes
    assert {cause.source for cause in causes} == {"event", "preference", "popularity", "embedding"}
    assert event in {cause.event for cause in causes}


def test_a_reason_speaks_of_now(rec):
    rec.log("like", "sea-1")
    pick = rec.recommend(5, diversity=1.0)[4]
    assert "rank" in {cause.source for cause in pick.why.causes}
    rec.log("like", "sea-2")
    assert sum(cause.value for cause in pick.why.causes) == pytest.approx(scores(rec)[pick.item], abs=1e-6)
    rec.forget(everything=True)
    assert [cause.source for cause in pick.why.causes] == ["popularity"]


def test_a_hook_may_say_it_better(rec):
    rec.log("like", "sea-1")
    rec.narrate(lambda reason: f"{len(reason.causes)} good reasons")
    assert rec.recommend(1)[0].why.sentence == "3 good reasons"
    rec.narrate(None)
    assert rec.recommend(1)[0].why.sentence.startswith("Because you liked")


def test_telling(rec):
    rec.log("like", "sea-1")
    told = rec.tell("I like clocks but no sea")
    assert told.unclear == ()
    assert [(wish.polarity, wish.scope, wish.about) for wish in told.preferences] == [
        (Polarity.MORE, Scope.TAG, "Clocks"), (Polarity.NEVER, Scope.TAG, "Sea"),
    ]  # fmt: skip
    assert rec.preferences == list(zip(told.changes, told.preferences, strict=True))
    assert "sea" not in genres(items(rec, 40))
    assert set(genres(items(rec, 5))) == {"clocks"}


def test_what_is_not_understood_is_said_and_changes_nothing(rec):
    before = items(rec)
    told = rec.tell("ich mag Uhren")
    assert told.unclear and told.changes == ()
    assert rec.preferences == []
    assert items(rec) == before


def test_feedback(rec):
    first, second = rec.recommend(2)
    rec.feedback(first, "hide")
    assert first.item not in items(rec, 40)
    before = scores(rec)[second.item]
    rec.feedback(second.item, "less_like_this")
    assert scores(rec)[second.item] < before
    rec.feedback(second, "more_like_this")  # the last word counts
    assert scores(rec)[second.item] > before
    with pytest.raises(SpecError, match="verdict"):
        rec.feedback(second, "love")
    with pytest.raises(DataError, match="catalogue"):
        rec.feedback("nothing", "hide")


def test_undo_takes_back_a_call(rec):
    rec.log("like", "sea-1")
    before = scores(rec)
    rec.tell("I like clocks but no sea")
    assert len(rec.preferences) == 2
    assert rec.undo()
    assert rec.preferences == []
    assert scores(rec) == before
    assert rec.undo()
    assert rec.recommend(1)[0].source == "popular"
    assert not rec.undo()


def test_undo_takes_back_one_wish_of_a_sentence(rec):
    rec.log("like", "sea-1")
    clocks, sea = rec.tell("I like clocks but no sea").changes
    assert rec.undo(sea) and not rec.undo(sea)
    assert [(change, wish.about) for change, wish in rec.preferences] == [(clocks, "Clocks")]
    assert "sea" in genres(items(rec, 40))
    twice = rec.tell("no sea").changes + rec.tell("no sea").changes
    assert len({clocks, sea, *twice}) == 4  # ids are given once
    assert rec.undo(twice[0]) and "sea" not in genres(items(rec, 40))


def test_undo_takes_back_a_change_by_its_id(rec):
    first = rec.log("like", "sea-1")
    rec.log("like", "bread-1")
    assert rec.undo(first)
    assert not rec.undo(first)
    assert set(genres(items(rec))) == {"bread"}


def test_attention_weighs(rec, tmp_path):
    looked = {}
    for seconds in (0, 30, 300):
        with closing(opened(tmp_path / str(seconds))) as other:
            other.log("view", "bread-1", time=1.0)
            other.log("view", "sea-1", dwell_s=seconds, time=2.0)
            looked[seconds] = scores(other)["sea-2"]
    assert looked[0] < looked[30] < looked[300]
    rec.log("view", "bread-1", time=1.0)
    rec.log("view", "sea-1", time=2.0)
    assert scores(rec)["sea-2"] == looked[30]
    with pytest.raises(SpecError, match="attention"):
        rec.log("view", "sea-1", dwell_s=-1)


def test_a_click_belongs_to_a_page(rec, tmp_path):
    page = rec.recommend(3)
    with pytest.raises(DataError, match="page"):
        rec.log("click", "clocks-9" if "clocks-9" not in items(rec, 3) else "sea-1", page=page)
    with pytest.raises(DataError, match="page"):
        rec.log("click", page[0].item, page=7)
    rec.log("click", page[0].item, page=page)
    rec.close()
    with closing(opened(tmp_path / "me")) as again:
        assert again.log("click", page[1].item, page=page.id)


def test_an_item_of_tomorrow_is_kept(rec):
    assert rec.log("like", "not-yet-there") > 0
    assert rec.recommend(1)[0].source == "popular"
    rec.stock(Catalogue(["not-yet-there"], ["baking sourdough bread"]))
    assert set(genres(items(rec, 3))) == {"bread"}


def test_an_item_of_today_needs_nothing_but_its_text(rec):
    fresh = Catalogue(["sea-1", "new"], ["another text", "sailing lighthouse storm"], tags=[("Sea",), ("Today",)])
    rec.log("like", "sea-1")
    assert "new" not in items(rec, 60)
    assert rec.stock(fresh) == 1
    assert len(items(rec, 60)) == 40  # 39, for sea-1 is seen, and the new one
    assert "new" in items(rec, 8)
    assert items(rec, filter="Today") == ["new"]
    (pick,) = rec.recommend(filter={"Today"})
    assert sum(cause.value for cause in pick.why.causes) == pytest.approx(pick.score, abs=1e-6)
    rec.tell("more about a lighthouse")
    rec.feedback("new", "hide")
    assert "new" not in items(rec, 60)
    assert rec.stock(Catalogue((), ())) == 0
    assert len(items(rec, 60)) == 39


SECRET = "my-most-private-words"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rec: rec.log(SECRET, "sea-1"),
        lambda rec: rec.log("click"),
        lambda rec: rec.log("click", "sea-1", text=SECRET, rating=3.0),
        lambda rec: rec.log("click", "sea-1", text=SECRET, weight=-1.0),
        lambda rec: rec.log("click", "sea-1", text=SECRET, weight=math.nan),
        lambda rec: rec.log("click", "sea-1", text=SECRET, time=math.inf),
        lambda rec: rec.log("search", text=SECRET + "\ud800"),
        lambda rec: rec.explain(SECRET),
        lambda rec: rec.feedback(SECRET, "hide"),
        lambda rec: rec.forget(),
        lambda rec: rec.forget(item="sea-1", everything=True),
        lambda rec: rec.forget(topic=" ?! "),
        lambda rec: rec.recommend(0),
    ],
)
def test_a_mistake_is_explained_and_betrays_nothing(rec, wrong):
    rec.log("like", "sea-1")
    before = scores(rec)
    with pytest.raises((SpecError, DataError)) as caught:
        wrong(rec)
    assert SECRET not in str(caught.value)
    assert scores(rec) == before


def test_nothing_of_a_person_is_in_a_repr(rec):
    rec.log("search", text=SECRET)
    told = rec.tell(f"no {SECRET}")
    shown = [rec, rec._person, rec._person.session(), rec._person.session().texts, rec.explain("sea-1"), told]
    assert not any(SECRET in repr(one) for one in shown)


def evidence(rec):
    return [cause.event for cause in rec.explain("sea-2").causes if cause.source == "event"]


def test_what_is_too_old_is_erased(tmp_path):
    clock = Clock()
    with closing(opened(tmp_path / "me", clock=clock, retention_days=30)) as rec:
        rec.log("like", "sea-1", time=clock.now - 29 * DAY)
        rec.log("like", "bread-1")
        assert len(evidence(rec)) == 2
        clock.now += 2 * DAY
        rec.log("like", "bread-2")
        assert len(evidence(rec)) == 2
    with pytest.raises(SpecError, match="a day at least"):
        opened(tmp_path / "me", retention_days=0)


def test_it_is_the_same_after_it_was_closed(tmp_path):
    with closing(opened(tmp_path / "me")) as rec:
        for item in ("sea-1", "bread-1", "sea-3"):
            rec.log("like", item, text="a lovely storm")
        rec.tell("no clocks")
        before = scores(rec), rec.preferences
    with closing(opened(tmp_path / "me")) as rec:
        assert (scores(rec), rec.preferences) == before
    rec.close()
    with pytest.raises(RunError):
        rec.log("like", "sea-2")


def test_consent_comes_first(rec):
    rec.log("like", "sea-1")
    rec.tell("more clocks")
    personal = scores(rec)
    rec.consent.withdraw("personalize")
    assert {pick.source for pick in rec.recommend(5, hide_seen=False)} == {"popular"}
    assert rec.log("like", "bread-1") == 0
    with pytest.raises(RunError, match="consent"):
        rec.tell("more bread")
    with pytest.raises(RunError, match="consent"):
        rec.feedback("sea-2", "hide")
    rec.consent.grant("personalize")
    assert scores(rec) == personal
    rec.consent.pause()
    assert rec.log("like", "bread-1") == 0
    assert scores(rec) == personal
    rec.consent.resume()
    assert rec.log("like", "bread-1") > 0


def test_without_a_model_events_are_kept_for_later(tmp_path):
    with closing(opened(tmp_path / "me", pack=None)) as rec:
        rec.log("like", "sea-1")
        assert rec.pack is None
        for asked in (rec.recommend, lambda: rec.tell("more sea"), lambda: rec.explain("sea-1")):
            with pytest.raises(RunError, match="model"):
                asked()
        with pytest.raises(RunError, match="key"):
            rec.sync(tmp_path)
    with closing(opened(tmp_path / "me")) as rec:
        assert rec.pack.version == 0
        assert set(genres(items(rec))) == {"sea"}
