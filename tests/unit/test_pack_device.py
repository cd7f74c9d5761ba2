"""What a device does with packs: only newer ones of its site, all or nothing, and the last good one behind it."""

import json
import os
import shutil
import threading

import pytest
from shelf import ALL, KEY, STRANGER, claim, contents, fetch_of, published

from fedrec.device.packs import STATE, Packs
from fedrec.errors import DataError, RunError, WireError
from fedrec.model.pack_format import FILES, MANIFEST, SIGNATURE
from fedrec.model.publish import publish

pytestmark = pytest.mark.usefixtures("no_disk")


@pytest.fixture
def site(tmp_path):
    return tmp_path / "site" / "packs"


@pytest.fixture
def device(tmp_path):
    return Packs(tmp_path / "device" / "packs", KEY.public_key())


def version(device):
    pack = device.current()
    return pack and pack.info.version


def spoil(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def refusal(device, fetch, rule, error=DataError, **settings):
    before = version(device)
    with pytest.raises(error, match=rule) as found:
        device.offer(fetch, **settings)
    assert version(device) == before
    return found.value


def test_a_device_takes_each_newer_version_and_keeps_two(site, device):
    assert (device.current(), device.refused) == (None, ())
    for number in (1, 2, 3):
        published(site, [number])
        asked = []
        info = device.offer(fetch_of(site, asked=asked))
        assert (info.version, version(device)) == (number, number)
        assert asked == ["latest", f"{number}/{MANIFEST}", f"{number}/{SIGNATURE}", *(f"{number}/{n}" for n in FILES)]
    assert {path.name for path in device.folder.iterdir()} == {"2", "3", STATE, ".lock"}
    assert contents(device.folder / "3") == contents(site / "3")
    assert device.refused == ()


def test_what_a_device_has_is_not_fetched_again(site, device):
    published(site, [0])
    device.offer(fetch_of(site))
    asked = []
    assert device.offer(fetch_of(site, asked=asked)) is None
    assert asked == ["latest"]


@pytest.mark.parametrize("content", [b"", b"\n", b"none", b"0", b"-1", b"1/../2"])
def test_a_site_that_names_no_version_offers_nothing(device, content):
    assert device.offer(lambda name: iter([content])) is None
    assert device.current() is None


def test_no_older_version_unless_the_owner_asks(site, device):
    published(site, [0, 1, 2])
    device.offer(fetch_of(site))
    (site / "latest").write_text("1\n")
    refusal(device, fetch_of(site), "no older pack; got version=1, current=3")
    assert [(one.version, one.reason.split(";")[0]) for one in device.refused] == [(1, "a device takes no older pack")]
    assert device.offer(fetch_of(site), older=True).version == version(device) == 1
    (site / "latest").write_text("3\n")
    asked = []
    assert device.offer(fetch_of(site, asked=asked)).version == version(device) == 3
    assert asked == ["latest", f"3/{MANIFEST}", f"3/{SIGNATURE}"]  # it was still there, behind version 1


def test_an_older_pack_under_a_newer_number_is_refused(site, device):
    published(site, [0, 1])
    device.offer(fetch_of(site))
    shutil.copytree(site / "1", site / "3")
    (site / "latest").write_text("3\n")
    refusal(device, fetch_of(site), "the version it is offered as; got offered=3, version=1")


def test_only_the_key_it_was_enrolled_with(site, device, tmp_path):
    published(site, [0])
    device.offer(fetch_of(site))
    for number in (2, 3):
        published(site, [number], STRANGER)
        refusal(device, fetch_of(site), "signed by its site")
    other = tmp_path / "local"
    publish(other, lambda folder: shutil.copytree(site / "1", folder, dirs_exist_ok=True), KEY, after=3)
    about = json.loads((other / "4" / MANIFEST).read_text()) | {"signer": ""}
    (other / "4" / MANIFEST).write_text(json.dumps(about))
    refusal(device, fetch_of(other), "signed by its site")
    assert [one.version for one in device.refused] == [2, 3, 4]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("how", ["flip", "short", "long", "gone", "empty"])
def test_whatever_arrives_otherwise_is_refused_and_the_old_pack_stays(site, device, name, how):
    published(site, [0])
    device.offer(fetch_of(site))
    published(site, [1])
    whole = (site / "2" / name).read_bytes()
    match how:
        case "flip":
            spoil(site / "2" / name, len(whole) // 2)
        case "short":
            (site / "2" / name).write_bytes(whole[:-1])
        case "long":
            (site / "2" / name).write_bytes(whole + b"\n")
        case "gone":
            (site / "2" / name).unlink()
        case "empty":
            (site / "2" / name).write_bytes(b"")
    rule = "hash that the manifest names|signed by its site|can be read|no longer than|arrives whole|has this file"
    error = refusal(device, fetch_of(site), rule, (DataError, WireError))
    # A refusal is kept for the owner; a download that failed is tried again.
    assert [one.reason for one in device.refused] == ([str(error)] if isinstance(error, DataError) else [])
    (site / "2" / name).write_bytes(whole)
    assert device.offer(fetch_of(site)).version == version(device) == 2


def test_the_first_wrong_file_is_the_last_that_is_fetched(site, device):
    published(site, [0])
    spoil(site / "1" / "items.safetensors")
    asked = []
    refusal(device, fetch_of(site, asked=asked), "hash that the manifest names; got file='1/items.safetensors'")
    assert asked[-1] == "1/items.safetensors" and "1/model.safetensors" not in asked


def test_a_pack_that_says_too_much_is_not_downloaded(site, device, tmp_path):
    published(site, [0])
    small = Packs(tmp_path / "small", KEY.public_key(), most=10_000)
    asked = []
    refusal(small, fetch_of(site, asked=asked), "no larger than its reader allows")
    assert asked == ["latest", f"1/{MANIFEST}", f"1/{SIGNATURE}"]


def test_reading_stops_where_the_manifest_says(site, device):
    published(site, [0])
    fetch, pulled = fetch_of(site), []

    def endless(name):
        if name in ("latest", f"1/{MANIFEST}", f"1/{SIGNATURE}", "1/README.md"):
            yield from fetch(name)
            return
        for _ in range(1000):
            pulled.append(name)
            yield bytes(1000)

    refusal(device, endless, "no longer than it should be")
    assert len(pulled) < 10
    for name in ("latest", MANIFEST, SIGNATURE):
        at = name if name == "latest" else f"1/{name}"
        wrong = lambda asked, at=at: iter(lambda: bytes(1 << 20), None) if asked == at else fetch(asked)
        refusal(device, wrong, "no longer than it should be")


def test_a_pack_with_a_true_signature_over_false_tensors_is_refused_each_time(site, device):
    published(site, [0, 1])
    device.offer(fetch_of(site))
    publish(site, lambda folder: shutil.copytree(site / "2", folder, dirs_exist_ok=True), KEY)
    (site / "3" / "privacy.json").write_text("[]")
    claim(site / "3")
    for _ in range(3):
        refusal(device, fetch_of(site), "states who is protected")
    assert len(device.refused) == 1
    published(site, [4])
    assert device.offer(fetch_of(site)).version == 4


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("how", ["flip", "torn", "gone"])
def test_a_pack_damaged_on_disk_is_passed_over_noted_and_fetched_again(site, device, name, how):
    for seed in (0, 1):
        published(site, [seed])
        device.offer(fetch_of(site))
    path = device.folder / "2" / name
    match how:
        case "flip":
            spoil(path)
        case "torn":
            os.truncate(path, path.stat().st_size // 2)
        case "gone":
            path.unlink()
    assert version(device) == version(device) == 1
    [note] = device.refused
    assert note.version == 2 and note.at.endswith("Z")
    refusal(device, _older(site), "no older pack")
    assert device.offer(fetch_of(site)).version == version(device) == 2
    shutil.rmtree(device.folder / "2")
    assert version(device) == 1


def _older(site):
    fetch = fetch_of(site)
    return lambda name: iter([b"1\n"]) if name == "latest" else fetch(name)


def test_a_damaged_pack_is_nobodys_deputy(site, device):
    for seed in (0, 1):
        published(site, [seed])
        device.offer(fetch_of(site))
    spoil(device.folder / "2" / "items.safetensors")
    published(site, [2])
    device.offer(fetch_of(site))
    spoil(device.folder / "3" / "items.safetensors")
    assert version(device) == 1
    spoil(device.folder / "1" / "items.safetensors")
    assert device.current() is None
    assert device.offer(fetch_of(site)).version == version(device) == 3


def test_a_version_is_published_once(site, device):
    published(site, [0])
    device.offer(fetch_of(site))
    spoil(device.folder / "1" / "README.md")
    shutil.rmtree(site)
    published(site, [1])
    refusal(device, fetch_of(site), "a version is published once")
    published(site, [2])
    assert device.offer(fetch_of(site)).version == 2


@pytest.mark.parametrize(
    "state", [None, b"", b"{", b"[]", b"null", b'{"kept": 3}', b'{"kept": [["x", 1]], "refused": []}']
)
def test_without_its_notes_a_device_believes_the_signatures(site, device, state):
    published(site, [0, 1])
    for number in ("1", "2"):
        (site / "latest").write_text(number)
        device.offer(fetch_of(site))
    (device.folder / STATE).unlink()
    if state is not None:
        (device.folder / STATE).write_bytes(state)
    shutil.copytree(device.folder / "1", device.folder / "9")
    assert version(device) == 2
    assert [note.reason for note in device.refused] == ([] if state is None else ["packs.json cannot be read"])
    assert device.offer(fetch_of(site)) is None
    published(site, [2])
    assert device.offer(fetch_of(site)).version == version(device) == 3
    assert not (device.folder / "9").exists()


def test_refusals_do_not_pile_up(site, device):
    published(site, [0])
    for number in range(2, 32):
        nonsense = lambda name, number=number: iter([b"%d" % number if name == "latest" else b"{}"])
        for _ in range(2):
            refusal(device, nonsense, "signed by its site")
    assert [one.version for one in device.refused] == list(range(12, 32))
    assert device.offer(fetch_of(site)).version == 1


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), OSError(28, "No space left on device")])
def test_a_download_that_fails_is_no_refusal(site, device, error):
    published(site, [0])
    fetch = fetch_of(site, size=500)

    def broken(name):
        for number, piece in enumerate(fetch(name)):
            if name.endswith("model.safetensors") and number == 2:
                raise error
            yield piece

    refusal(device, broken, f"arrives whole.*{type(error).__name__}", WireError)
    asked = []
    assert device.offer(fetch_of(site, asked=asked)).version == 1
    assert device.refused == ()
    assert "1/README.md" not in asked and "1/model.safetensors" in asked


def test_what_fetch_itself_says_is_heard(device):
    def refuses(name):
        raise WireError("the site is out of reach")
        yield

    refusal(device, refuses, "out of reach", WireError)


def test_two_at_once_take_it_once(site, device):
    published(site, [0])
    asked, found = [], []
    both = [threading.Thread(target=lambda: found.append(device.offer(fetch_of(site, asked=asked)))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(info.version if info else 0 for info in found) == [0, 1]
    assert asked.count("1/items.safetensors") == 1


def test_a_folder_that_cannot_be_made_is_said(tmp_path, site):
    published(site, [0])
    (tmp_path / "file").touch()
    device = Packs(tmp_path / "file" / "packs", KEY.public_key())
    with pytest.raises(RunError, match="folder of packs can be written.*Make room"):
        device.offer(fetch_of(site))
    assert device.current() is None
