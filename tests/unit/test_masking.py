"""What a secure aggregation must promise before a plan may claim it."""

from dataclasses import replace

import pytest

from fedrec.errors import PrivacyRefusal, SpecError
from fedrec.privacy.crossing import Crossing
from fedrec.privacy.masking import Masking, Neighbours, bits_for, most
from fedrec.privacy.noise import Level

SOUND = Masking(bits=32, neighbours=(Neighbours(15, 8),))
CROSSING = Crossing(
    clip=1.0, grid=2**16, share=0.25, rest=0.0, expected=20, least=10, population=40, level=Level.HARDENED
)  # 2^16 grid steps a client, and 2^14 of noise


def refusal(masking=SOUND, crossing=CROSSING, clients=20.0, colluders=3):
    with pytest.raises(PrivacyRefusal) as refused:
        masking.admit(0, crossing, clients, colluders)
    return refused.value


def test_sound_terms_are_admitted():
    SOUND.admit(0, CROSSING, 20.0, 3)


@pytest.mark.parametrize("bits", [28, 64, 127, 0, -1])
def test_p13_refuses_masks_that_can_be_guessed(bits):
    with pytest.raises(PrivacyRefusal, match=r"P13: .*128 bits; got key_bits=.*Do not use flwr's SecAgg\+") as refused:
        replace(SOUND, key_bits=bits)
    assert refused.value.code == "P13"
    assert replace(SOUND, key_bits=128)


def test_p13_refuses_colluders_who_lift_masks_alone():
    refused = refusal(clients=16.0, colluders=8)
    assert (refused.code, refused.got) == ("P13", {"threshold": 8, "colluders": 8})
    assert "Raise the threshold" in refused.remedy
    SOUND.admit(0, CROSSING, 16.0, 7)


def test_p13_refuses_a_sum_that_may_wrap_around():
    """Twenty clients and one to spare reach 21 · (2^16 + 10 · 2^14) = 4,816,896 steps either way: 2^24 holds them."""
    assert most(CROSSING) == 2**16 + 10 * 2**14
    assert bits_for(CROSSING, 20.0) == (2 * 4_816_896).bit_length() == 24
    refused = refusal(replace(SOUND, bits=23))
    assert (refused.code, refused.got) == ("P13", {"bits": 23, "needed": 24})
    assert "larger modulus" in refused.remedy
    replace(SOUND, bits=24).admit(0, CROSSING, 20.0, 3)


def test_noise_takes_room_too():
    """Twenty clipped vectors alone fit 2^22; their noise does not."""
    small = replace(SOUND, bits=22)
    small.admit(0, replace(CROSSING, share=0.0), 20.0, 3)
    assert refusal(small).code == "P13"


def test_a_bit_that_is_longer_than_the_clip_norm_takes_room():
    tight = replace(SOUND, bits=22)
    assert refusal(tight, replace(CROSSING, share=0.0, bit=2**17)).code == "P13"


def test_a_threshold_that_no_cohort_reaches_is_a_mistake():
    with pytest.raises(SpecError, match="a cohort can lift its masks; got threshold=8, clients=7.0. Lower"):
        SOUND.admit(0, CROSSING, 7.0, 3)


def test_public_terms_come_back():
    assert Masking.of_public(SOUND.public()) == SOUND


@pytest.mark.parametrize("bits", [0, 65])
def test_a_modulus_is_a_power_of_two_that_a_machine_adds_by(bits):
    with pytest.raises(SpecError, match=r"sums are modulo 4 to 2\^64"):
        replace(SOUND, bits=bits)


@pytest.mark.parametrize("degree, threshold", [(15, 7), (14, 7), (7, 8), (1, 1)])
def test_most_neighbours_lift_a_mask_and_not_one_alone(degree, threshold):
    """Of two halves one could be asked for a client's one mask, and the other for the other."""
    with pytest.raises(SpecError, match="most neighbours, and not one alone, can lift a mask"):
        replace(SOUND, neighbours=(Neighbours(degree, threshold),))


def test_among_few_neighbours_colluders_are_a_question_of_chance():
    """Eight of ten neighbours are needed: eight colluders among forty clients may, but need not, be these."""
    replace(SOUND, neighbours=(Neighbours(10, 8),)).admit(0, CROSSING, 40.0, 8)
    assert refusal(replace(SOUND, neighbours=(Neighbours(10, 8),)), clients=11.0, colluders=8).code == "P13"
