"""Publishing: nobody sees half a version, numbers grow, and the version before the latest stays."""

import os
import shutil

import pytest
from shelf import ALL, KEY, build, contents, published

from fedrec.errors import DataError, RunError, SpecError
from fedrec.model import publish as publishing
from fedrec.model.pack_files import verify_pack
from fedrec.model.pack_format import MANIFEST, SIGNATURE, versions
from fedrec.model.publish import latest, publish, published_file, sign_pack

PUBLIC = KEY.public_key()


pytestmark = pytest.mark.usefixtures("no_disk")


@pytest.fixture
def packs(tmp_path):
    return tmp_path / "packs"


def test_versions_count_up_and_old_ones_go(packs):
    assert latest(packs) is None
    assert [published(packs, [seed]) for seed in range(5)] == [1, 2, 3, 4, 5]
    assert (latest(packs), versions(packs)) == (5, [5, 4, 3])
    infos = [verify_pack(packs / str(version), PUBLIC) for version in (3, 4, 5)]
    assert [info.version for info in infos] == [3, 4, 5]
    assert {path.name for path in packs.iterdir()} == {"3", "4", "5", "latest", ".lock"}


def test_the_one_before_the_latest_stays_whatever_lies_between(packs, monkeypatch):
    published(packs, [0, 1])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # killed before it names its version
        patch.setattr(publishing, "write_atomic", _killed_at("latest"))
        published(packs, [2])
    assert (latest(packs), versions(packs)) == (2, [3, 2, 1])
    assert published(packs, [3], keep=2) == 4
    assert versions(packs) == [4, 3, 2]
    with pytest.raises(SpecError, match="keep=1"):
        published(packs, [4], keep=1)


def test_a_site_that_lost_its_packs_goes_on_after_those_of_its_devices(packs):
    assert publish(packs, build, KEY, after=41) == 42
    assert published(packs, [1]) == 43


@pytest.mark.parametrize("step", [MANIFEST, SIGNATURE, "latest", "rename", "build"])
def test_a_killed_publisher_leaves_the_latest_as_it_was(packs, monkeypatch, step):
    published(packs, [0, 1])
    before = {version: contents(packs / version) for version in ("1", "2")}

    def half(folder):
        build(folder)
        if step == "build":
            (folder / "model.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publishing, "write_atomic", _killed_at(step))
        patch.setattr(shutil, "rmtree", lambda *arguments, **settings: None)  # nobody cleans up after a kill
        if step == "rename":
            patch.setattr(type(packs), "rename", _kill)
        publish(packs, half, KEY)
    assert latest(packs) == 2
    assert before == {version: contents(packs / version) for version in before}
    number = published(packs, [5])
    assert number == latest(packs) == (4 if step == "latest" else 3)
    assert verify_pack(packs / str(number), PUBLIC).version == number
    assert not (packs / ".new").exists()


def _kill(*_):
    raise KeyboardInterrupt


def _killed_at(name):
    write = publishing.write_atomic
    return lambda path, content: _kill() if path.name == name else write(path, content)


@pytest.mark.parametrize("spoil", ["nothing", "torn", "extra", "text"])
def test_what_devices_would_refuse_is_not_published(packs, spoil):
    published(packs, [0])

    def bad(folder):
        if spoil != "nothing":
            build(folder)
        match spoil:
            case "torn":
                with (folder / "items.safetensors").open("r+b") as file:
                    file.truncate(100)
            case "extra":
                (folder / "notes.txt").touch()
            case "text":
                (folder / MANIFEST).write_text("no manifest")

    with pytest.raises(DataError):
        publish(packs, bad, KEY)
    assert (latest(packs), versions(packs)) == (1, [1])
    assert not (packs / ".new").exists()


def test_a_full_disk_publishes_nothing(packs):
    published(packs, [0])

    def full(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left.*Make room"):
        publish(packs, full, KEY)
    assert (latest(packs), versions(packs)) == (1, [1])


def test_signing_again_mends_what_was_cut_short(tmp_path, monkeypatch):
    build(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publishing, "write_atomic", _killed_at(MANIFEST))
        sign_pack(tmp_path, KEY, version=1)
    with pytest.raises(DataError):
        verify_pack(tmp_path, PUBLIC)
    assert sign_pack(tmp_path, KEY, version=1) == verify_pack(tmp_path, PUBLIC)
    for version in (0, -1, 10**9):
        with pytest.raises(SpecError, match="count from 1"):
            sign_pack(tmp_path, KEY, version=version)


def test_what_is_served_is_what_was_published_and_nothing_else(packs):
    published(packs, [0, 1])
    (packs / "2" / "secret.txt").write_text("not published")
    for link in ("link", "8"):
        (packs / link).symlink_to(packs / "1")
    os.symlink("/etc/hostname", packs / "1" / "extra")
    (packs / "1" / "README.md").unlink()
    os.symlink(packs.parent, packs / "1" / "README.md")
    assert published_file(packs, "latest") == packs / "latest"
    assert all(published_file(packs, f"2/{name}") == packs / "2" / name for name in ALL)
    odd = (
        "", "/", ".", "..", ".lock", "2", "2/", "2//pack.json", "2/secret.txt", "2/../latest", "../packs/latest",
        "3/pack.json", "02/pack.json", " 2/pack.json", "link/pack.json", "8/pack.json",
        "../server.toml", "../../x", "1/extra", "1/README.md", "2/pack.json/",
        "2/pack.json\0", "latest/", "/etc/passwd", "2\n/pack.json",
    )  # fmt: skip
    assert [name for name in odd if published_file(packs, name)] == []


@pytest.mark.parametrize("content", [b"", b"x", b"0\n", b"9" * 100, b"\xff"])
def test_a_torn_latest_names_nothing_and_is_mended(packs, content):
    published(packs, [0, 1])
    (packs / "latest").write_bytes(content)
    assert latest(packs) is None
    assert published(packs, [2]) == latest(packs) == 3
