"""The reader app gives all that it keeps as one file, and takes it back: whole, or not at all."""

import errno
import re

import pytest
from visitors import SECRET, forms, kept

from client.examples.reader import copies
from client.examples.reader.guard import LARGEST
from fedrec import Recommender


def carried(content):
    return {"copy": ("my-reader-data.zip", content, "application/zip")}


@pytest.fixture
def copy(room, visitor):
    """What the page gives somebody who did two things and said two."""
    visitor.go("/")
    visitor.submit("/tell", sentence="I like jazz but no coffee")
    room.rec.log("like", "b0002")
    room.rec.log("search", text=SECRET)
    visitor.go("/privacy")
    answer = visitor.submit("/export")
    assert "attachment" in answer.headers["content-disposition"]
    return answer.content


def test_an_export_is_taken_back_by_any_app(room, copy, reader_pack, tmp_path):
    (tmp_path / "copy.zip").write_bytes(copy)
    with Recommender.restore(tmp_path / "copy.zip", tmp_path / "other", pack=reader_pack) as other:
        assert other.preferences == room.rec.preferences
        assert [pick.item for pick in other.recommend()] == [pick.item for pick in room.rec.recommend()]


def test_the_page_takes_it_back_and_says_what_came(room, visitor, copy):
    said, listed = room.rec.preferences, visitor.go("/") and visitor.shelf()
    visitor.go("/privacy")
    refused = visitor.submit("/restore", files=carried(copy))
    assert refused.status_code == 422 and "forget everything first" in refused.text and room.rec.preferences == said
    visitor.go("/privacy")
    visitor.submit("/forget", everything="yes")
    visitor.go("/")
    assert "To begin with" in visitor.page
    visitor.go("/privacy")
    visitor.submit("/restore", files=carried(copy))
    assert "Your copy is back" in visitor.page and SECRET not in visitor.page
    assert re.findall(r"Things that you (did|said): (\d)", visitor.page) == [("did", "2"), ("said", "2")]
    assert room.rec.preferences == said
    visitor.go("/")
    assert visitor.shelf() == listed
    undo = next(fields["changes"] for target, fields, _ in forms(visitor.page) if target == "/undo")
    visitor.submit("/undo", changes=undo)  # ids are as they were
    assert len(room.rec.preferences) == 1


@pytest.mark.parametrize("content", [b"PK\x03\x04 no copy", b"\r\n--", bytes(1 << 20), "torn", "flipped"])
def test_what_is_no_copy_leaves_everything_as_it_is(room, visitor, copy, content):
    if content in ("torn", "flipped"):
        content = copy[:-40] if content == "torn" else copy[:60] + bytes([copy[60] ^ 1]) + copy[61:]
    room.rec.forget(everything=True)
    visitor.go("/privacy")
    answer = visitor.submit("/restore", files=carried(content))
    assert answer.status_code == 422 and "written by export" in answer.text
    assert "That did not work" in answer.text and "Traceback" not in answer.text and SECRET not in answer.text
    assert kept(room) == 0


def test_a_form_without_a_file_or_with_too_large_a_one_is_told(visitor):
    visitor.go("/privacy")
    visitor.submit("/restore", files={"copy": ("", b"", "application/octet-stream")})
    assert "Choose the file" in visitor.page
    assert visitor.submit("/restore", files=carried(bytes(LARGEST))).status_code == 413
    visitor.go("/privacy")
    assert visitor.submit("/forget", files=carried(bytes(1 << 17))).status_code == 413


@pytest.mark.parametrize("action", ["/export", "/restore"])
def test_a_full_disk_is_said_to_be_full(room, visitor, monkeypatch, action):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    visitor.go("/privacy")
    monkeypatch.setattr(copies, "TemporaryDirectory", full)
    answer = visitor.submit(action, files=carried(b"PK") if action == "/restore" else None)
    assert answer.status_code == 422 and "The system says: No space left on device." in answer.text
