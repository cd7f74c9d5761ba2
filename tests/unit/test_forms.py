"""Forms as browsers send them: what is in a file comes out as it went in."""

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.examples.reader.fields import fields_of, upload_in


def sent(**form):
    """Content type and body of a form, by somebody else's code."""
    request = httpx.Request("POST", "http://localhost/", **form)
    return request.headers["content-type"], request.read()


@given(st.binary(), st.text(), st.text())
@example(b"\r\n--\r\n", "\r\n", "--")
@example(b"", "", "")
@example(b"PK\r\n\r\n", "a=b&c", "\u202e")
@settings(derandomize=True, deadline=None)
def test_a_file_and_its_fields_come_out_as_they_went_in(content, one, two):
    kind, body = sent(data={"token": one, "back": two}, files={"copy": ("a b.zip", content)})
    assert upload_in(kind, body) == content
    assert fields_of(kind, body) == {"token": one, "back": two}


@given(st.text(), st.text())
@settings(derandomize=True, deadline=None)
def test_so_does_a_form_without_a_file(one, two):
    kind, body = sent(data={"token": one, "back": two})
    assert fields_of(kind, body) == {"token": one, "back": two} and upload_in(kind, body) == b""


def test_the_boundary_may_be_in_quotes_and_names_are_not_looked_for_in_contents():
    body = b'--a b\r\nContent-Disposition: form-data; name="x"\r\n\r\n; name="y"; filename="z"\r\n--a b--\r\n'
    kind = 'Multipart/Form-Data; charset=utf-8; boundary="a b"'
    assert fields_of(kind, body) == {"x": '; name="y"; filename="z"'} and upload_in(kind, body) == b""


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x"]
)
def test_what_has_no_parts_has_no_file(kind):
    body = b'--y\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nPK\r\n--y--\r\n'
    assert upload_in(kind, body) == b"" and "f" not in fields_of(kind, body)


def test_a_form_that_was_cut_short_has_nothing_of_its_last_part():
    kind, body = sent(data={"token": "t"}, files={"copy": ("a.zip", b"0123456789")})
    assert upload_in(kind, body[:-30]) == b"" and fields_of(kind, body[:-30]) == {"token": "t"}
