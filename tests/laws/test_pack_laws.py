"""Whatever is changed in a signed pack, on disk or on its way: it is refused, or it is the same pack."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as some
from shelf import ALL, FORMAT_1, FORMAT_2, KEY, OLD_FILES, contents, fetch_of, published

from fedrec.device.packs import Packs
from fedrec.errors import DataError, WireError
from fedrec.model.pack_files import verify_pack
from fedrec.model.pack_format import MANIFEST

lawful = settings(derandomize=True, deadline=None, max_examples=150)
PUBLIC = KEY.public_key()
places = some.floats(0, 1, exclude_max=True)


pytestmark = pytest.mark.usefixtures("no_disk")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    packs = tmp_path_factory.mktemp("site") / "packs"
    published(packs, [0, 1])
    return packs


@pytest.fixture(scope="module")
def pack(site):
    """One signed pack that every example spoils and mends again."""
    return site / "2"


def refused(folder, key=PUBLIC):
    with pytest.raises(DataError):
        verify_pack(folder, key)


def changed(folder, name, content, key=PUBLIC):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    try:
        refused(folder, key)
    finally:
        (folder / name).write_bytes(whole)
    verify_pack(folder, key)


@lawful
@given(name=some.sampled_from(ALL), place=places, bit=some.integers(0, 7))
def test_a_flipped_bit_is_noticed(pack, name, place, bit):
    content = bytearray((pack / name).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    changed(pack, name, bytes(content))


@lawful
@given(
    name=some.sampled_from(OLD_FILES),
    older=some.sampled_from([(FORMAT_1, None), (FORMAT_2, PUBLIC)]),
    place=places,
    bit=some.integers(0, 7),
)
def test_a_flipped_bit_in_a_file_of_an_older_format_is_noticed(name, older, place, bit):
    fixture, key = older
    with tempfile.TemporaryDirectory() as place_of:
        folder = shutil.copytree(fixture, Path(place_of) / "pack")
        content = bytearray((folder / name).read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        changed(folder, name, bytes(content), key)


@lawful
@given(name=some.sampled_from(ALL), place=places, tail=some.binary(max_size=8))
def test_a_cut_or_a_longer_file_is_noticed(pack, name, place, tail):
    whole = (pack / name).read_bytes()
    content = whole[: int(place * (len(whole) + 1))] + tail
    assume(content != whole)
    changed(pack, name, content)


@lawful
@given(pair=some.lists(some.sampled_from(ALL), min_size=2, max_size=2, unique=True))
def test_swapped_files_are_noticed(pack, pair):
    one, other = ((pack / name).read_bytes() for name in pair)
    (pack / pair[0]).write_bytes(other)
    (pack / pair[1]).write_bytes(one)
    try:
        refused(pack)
    finally:
        (pack / pair[0]).write_bytes(one)
        (pack / pair[1]).write_bytes(other)
    verify_pack(pack, PUBLIC)


@lawful
@given(names=some.sets(some.sampled_from(ALL), min_size=1, max_size=len(ALL) - 1))
def test_files_of_two_versions_do_not_mix(site, pack, names):
    whole = contents(pack)
    for name in names:
        shutil.copyfile(site / "1" / name, pack / name)
    versions = {1: contents(site / "1"), 2: whole}
    unmixed = [number for number, content in versions.items() if content == contents(pack)]
    try:
        assert [verify_pack(pack, PUBLIC).version] == unmixed if unmixed else refused(pack) is None
    finally:
        for name, content in whole.items():
            (pack / name).write_bytes(content)


@lawful
@given(
    name=some.text(some.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=20)
)
@example(name=".DS_Store")
@example(name="model.safetensors.pkl")
def test_a_file_more_is_noticed(pack, name):
    assume(name not in (".", "..", *ALL))
    (pack / name).touch()
    try:
        refused(pack)
    finally:
        (pack / name).unlink()


@lawful
@given(
    name=some.sampled_from(["latest", *(f"2/{name}" for name in ALL)]),
    place=places,
    bit=some.integers(0, 7),
    size=some.integers(1, 5000),
)
@example(name=f"2/{MANIFEST}", place=0.5, bit=0, size=1)
def test_what_is_spoiled_on_its_way_never_becomes_current(site, name, place, bit, size):
    fetch, seen = fetch_of(site, size=size), []

    def spoiled(asked):
        content = bytearray(b"".join(fetch(asked)))
        if asked == name:
            seen.append(name)
            content[int(place * len(content))] ^= 1 << bit
        return iter([bytes(content[start : start + size]) for start in range(0, len(content), size)])

    with tempfile.TemporaryDirectory() as folder:
        device = Packs(Path(folder), PUBLIC)
        try:
            taken = device.offer(spoiled)
        except (DataError, WireError):
            taken = None
        assert seen
        # "2" with a bit flipped may be another published version, or no version at all: then that one is taken.
        current = device.current()
        assert (current and current.info) == taken
        assert taken is None or (
            name == "latest" and contents(Path(folder) / str(taken.version)) == contents(site / str(taken.version))
        )
        device.offer(fetch, older=True)
        assert contents(Path(folder) / "2") == contents(site / "2")
