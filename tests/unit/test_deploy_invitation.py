from base64 import urlsafe_b64encode
from hashlib import sha256

import pytest

from fedrec.deploy.invitation import Invitation, digest, new_secret
from fedrec.errors import SpecError

OFFER = Invitation("https://films.example:9443", "ab" * 32, "5" * 64)


def encoded(words: bytes) -> str:
    return urlsafe_b64encode(words + sha256(words).digest()[:4]).decode()


def test_an_invitation_is_one_string_without_spaces_in_it():
    text = OFFER.encode()
    assert Invitation.decode(text) == OFFER
    assert Invitation.decode(f" {text[:70]}\n{text[70:]}\n") == OFFER
    assert text.replace("-", "").replace("_", "").isalnum()


def test_a_shell_takes_none_for_a_flag():
    offers = [Invitation(OFFER.server, OFFER.site, f"{number:064x}") for number in range(300)]
    assert not [text for offer in offers if (text := offer.encode()).startswith("-")]


def test_a_torn_one_is_refused_without_repeating_it():
    text = OFFER.encode()
    for length in range(len(text)):
        with pytest.raises(SpecError) as caught:
            Invitation.decode(text[:length])
        assert not text[:length] or length < 9 or text[:length] not in str(caught.value)


def test_a_changed_one_is_refused():
    text = OFFER.encode()
    for place in range(len(text) - 1):  # the last character has bits to spare
        with pytest.raises(SpecError):
            Invitation.decode(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :])


@pytest.mark.parametrize(
    "words",
    [
        b'["http://films.example", "%s", "s"]' % (b"ab" * 32),
        b'["https://films.example/path", "%s", "s"]' % (b"ab" * 32),
        b'["https://films.example:x", "abcd", "s"]',
        b'["https://films.example", "%s", ""]' % (b"ab" * 32),
        b'["https://films.example", "zz", "s"]',
        b"[1, 2, 3]",
        b'["https://films.example"]',
        b"{}",
        b"7",
        b"null",
        b"\xff",
    ],
)
def test_words_that_make_no_sense_are_refused(words):
    with pytest.raises(SpecError, match="one string"):
        Invitation.decode(encoded(words))


def test_a_secret_is_long_new_and_not_shown():
    assert len(bytes.fromhex(new_secret())) == 32 and new_secret() != new_secret()
    assert OFFER.secret not in repr(OFFER)
    assert digest("5" * 64) == sha256(b"5" * 64).digest()
