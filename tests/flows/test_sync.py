"""The newest model from a site's door over TLS, from a folder, and from whoever may not be believed."""

import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from shelf import KEY, STRANGER, contents, published
from sites import make_site, open_door

from fedrec.device.packs import Packs
from fedrec.embed.sync import opened, sync
from fedrec.errors import DataError, FedrecError, RunError, SpecError, WireError


@pytest.fixture
def packs(tmp_path):
    return Packs(tmp_path / "mine", KEY.public_key())


@pytest.fixture
def shelf(tmp_path):
    """A folder with two published versions."""
    published(tmp_path / "shelf", [0, 1])
    return tmp_path / "shelf"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = make_site(tmp_path_factory.mktemp("door") / "site")
    published(site.packs, [0], key=STRANGER)
    with open_door(site, None):
        yield site


def address(site):
    return f"https://127.0.0.1:{site.spec.port}"


def test_a_folder_is_as_good_as_a_site(packs, shelf):
    assert sync(packs, shelf).version == 2
    assert contents(packs.folder / "2") == contents(shelf / "2")
    assert sync(packs, shelf) is None
    published(shelf, [2])
    assert sync(packs, shelf).version == 3


def test_an_older_one_is_taken_by_whoever_asks_for_it(packs, shelf):
    sync(packs, shelf)
    (shelf / "latest").write_text("1\n")
    with pytest.raises(DataError, match="a device takes no older pack"):
        sync(packs, shelf)
    assert sync(packs, shelf, older=True).version == 1


def test_a_door_is_asked_over_tls_and_its_authority_is_the_only_one(packs, site):
    theirs = Packs(packs.folder, STRANGER.public_key())
    assert sync(theirs, address(site), authority=site.ca).version == 1
    assert theirs.current().info.version == 1
    assert sync(theirs, address(site) + "/fedrec/v1/pack/", authority=site.ca) is None


def test_a_server_of_another_authority_is_not_believed(packs, site, tmp_path):
    other = make_site(tmp_path / "other")
    for authority in (other.ca, None):
        with pytest.raises(WireError, match="not from the authority"):
            sync(packs, address(site), authority=authority)
    assert packs.current() is None


def test_a_pack_of_another_signer_is_refused(packs, site):
    with pytest.raises(DataError):
        sync(packs, address(site), authority=site.ca)
    assert packs.current() is None


def test_a_server_that_is_away_and_one_that_has_nothing_are_said_to_be(packs, site):
    with pytest.raises(RunError, match="out of reach"):
        sync(packs, "https://127.0.0.1:9", authority=site.ca)
    with pytest.raises(RunError, match="the site has what a device asks for"):
        sync(packs, address(site) + "/nothing/here", authority=site.ca)


@pytest.mark.parametrize("source", ["http://127.0.0.1:9", "ftp://x", "127.0.0.1", "https://", "https://x/?a=1", ""])
def test_only_https_is_spoken(packs, source):
    with pytest.raises(SpecError, match="packs come over https, or from a folder"):
        sync(packs, source)


def test_a_folder_that_is_no_shelf_is_named_by_what_it_lacks(packs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a folder of packs has what a site publishes") as refusal:
        sync(packs, tmp_path / "empty")
    assert refusal.value.got["file"] == "latest"


def test_what_is_damaged_in_the_folder_leaves_the_current_one(packs, shelf):
    sync(packs, shelf)
    published(shelf, [2])
    victim = shelf / "3" / "items.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    with pytest.raises(FedrecError):
        sync(packs, shelf)
    assert packs.current().info.version == 2
    shutil.rmtree(shelf)
    with pytest.raises(FedrecError):
        sync(packs, shelf)
    assert packs.current().info.version == 2


@pytest.mark.parametrize("name", ["../x", "1/../../x", "/etc/passwd", "1//x", "1/x/y/z", "1/.part", "", "LATEST/../a"])
def test_names_that_lead_elsewhere_are_refused(shelf, name):
    """They come from signed manifests, and are looked at all the same."""
    for source in (shelf, "https://127.0.0.1:9"):
        with pytest.raises(DataError, match="a pack's files have plain names"):
            list(opened(source)(name))


def test_any_way_to_fetch_will_do(packs, shelf):
    asked = []

    def fetch(name):
        asked.append(name)
        return opened(shelf)(name)

    assert sync(packs, fetch).version == 2
    assert asked[0] == "latest"


def test_keys_are_those_of_the_site(shelf, tmp_path):
    with pytest.raises(DataError):
        sync(Packs(tmp_path / "other", Ed25519PublicKey.from_public_bytes(bytes(32))), shelf)
