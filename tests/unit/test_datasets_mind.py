"""MIND: clicks in impressions, and the reading that came before them."""

import calendar

import pytest

from fedrec.datasets import events, load
from fedrec.device.event import Kind
from fedrec.errors import DataError

NEWS = (
    "\n".join(f"N{n}\tsports\tgolf\tTitle {n}\t{'Abstract' if n < 5 else ''}\turl\t[]\t[]" for n in range(1, 7)) + "\n"
)
LOG = (
    "1\tU1\t11/12/2019 9:05:58 AM\tN1 N2\tN3-0 N4-1\n"
    "2\tU1\t11/11/2019 1:00:00 PM\tN1 N2\tN5-1 N6-0\n"
    "3\tU2\t11/11/2019 12:00:00 AM\t\tN1-0 N2-1\n"
)


def mind(folder, log=LOG, news=NEWS):
    (folder / "news.tsv").write_text(news, "utf-8")
    (folder / "behaviors.tsv").write_text(log, "utf-8")
    return folder


def test_worked_by_hand(tmp_path):
    loaded = load("mind", mind(tmp_path))
    first = calendar.timegm((2019, 11, 11, 13, 0, 0))
    later = calendar.timegm((2019, 11, 12, 9, 5, 58))
    u1, u2 = (loaded.population[loaded.population.names.index(name)] for name in ("U1", "U2"))
    assert [loaded.catalogue.ids[item] for item in u1.items] == ["N1", "N2", "N5", "N4"]
    assert u1.times.tolist() == [first - 2, first - 1, first, later]
    assert [loaded.catalogue.ids[item] for item in u2.items] == ["N2"]
    assert u2.times.tolist() == [calendar.timegm((2019, 11, 11, 0, 0, 0))]
    assert set(u1.kinds) == {Kind.CLICK}
    assert loaded.notes.count(events.ONE_EVENT) == 1


def test_text_and_tags(tmp_path):
    catalogue = load("mind", mind(tmp_path)).catalogue
    assert catalogue.texts[0] == "Title 1. Abstract [category: sports, golf]"
    assert catalogue.texts[5] == "Title 6 [category: sports, golf]"
    assert catalogue.tags[0] == ("sports", "golf")


def test_skips_name_the_line_of_the_log(tmp_path):
    log = LOG + (
        "4\tU3\t13/45/2019 1:00:00 AM\t\tN1-1\n"
        "5\tU1\t11/13/2019 1:00:00 AM\tN1\tN99-1 N1-1\n"
        "6\t\t11/13/2019 1:00:00 AM\t\tN1-1\n"
    )
    notes = load("mind", mind(tmp_path, log)).notes
    places = {note.reason: note.examples[0] for note in notes.entries if note.examples}
    assert places[events.UNKNOWN_ITEM] == ("behaviors.tsv", 5, "item", "N99")
    assert places[events.BAD_TIME] == ("behaviors.tsv", 4, "time", "13/45/2019 1:00:00 AM")
    assert places[events.NO_USER][:2] == ("behaviors.tsv", 6)


def test_unlabelled_impressions(tmp_path):
    with pytest.raises(DataError, match="row=4.*'N2'.*test split"):
        load("mind", mind(tmp_path, LOG + "4\tU3\t11/11/2019 1:00:00 AM\t\tN1-1 N2\n"))


def test_duplicate_news(tmp_path):
    with pytest.raises(DataError, match="item ids are unique.*news.tsv.*row=7.*first_row=1"):
        load("mind", mind(tmp_path, news=NEWS + NEWS.splitlines()[0] + "\n"))


def test_missing_columns(tmp_path):
    with pytest.raises(DataError, match="row=1, expected=5, values=3"):
        load("mind", mind(tmp_path, "1\tU1\t11/12/2019 9:05:58 AM\n"))


def test_not_utf8(tmp_path):
    (mind(tmp_path) / "news.tsv").write_bytes(NEWS.encode().replace(b"Title 2", b"Titl\xe9 2"))
    with pytest.raises(DataError, match="must be UTF-8.*news.tsv.*row=2"):
        load("mind", tmp_path)


def test_quotes_are_text(tmp_path):
    catalogue = load("mind", mind(tmp_path, news=NEWS.replace("Title 1", '"Title 1'))).catalogue
    assert catalogue.texts[0].startswith('"Title 1.')
