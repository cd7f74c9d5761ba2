"""An app's environments, made for real: pip, the packages that it gets, and a recommender that needs no others."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from shelf import TEXTS, build

from fedrec.model.catalogue import Catalogue
from fedrec.model.equip import equip
from fedrec.spec import Plan
from fedrec.task import Task

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CORE = {
    "fedrec", "pip", "setuptools", "cryptography", "httpx", "numpy", "pydantic", "safetensors", "annotated-types",
    "anyio", "certifi", "cffi", "h11", "httpcore", "idna", "pycparser", "pydantic_core", "sniffio",
    "typing_extensions", "typing-inspection",
}  # fmt: skip
TEXT = {"onnxruntime", "flatbuffers", "packaging", "protobuf"}

APP = """
import json, sys
import fedrec
from pathlib import Path

with fedrec.Recommender.open(Path("me"), pack=Path(sys.argv[1])) as rec:
    first = [pick.item for pick in rec.recommend(6)]
    rec.log("search", text="a lighthouse keeper learns to sail")
    found = [pick.item for pick in rec.recommend(6)]
    rec.log("like", item=first[-1])
    rec.tell("I like slow")
    page = rec.recommend(6)
    why = page[0].why.sentence
    rec.export(Path("me.zip"))
    rec.forget(everything=True)
    print(json.dumps({"first": first, "found": found, "then": [pick.item for pick in page], "why": why,
                      "after": [pick.item for pick in rec.recommend(6)], "notices": rec.notices,
                      "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def environment(place, what):
    """A fresh environment with `what` of this project and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", "constraints.txt", what], cwd=ROOT, check=True)
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return environment(tmp_path_factory.mktemp("core"), ".")


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    return environment(tmp_path_factory.mktemp("text"), ".[text]")


def used(python, pack, folder):
    """What an app sees that runs in this environment."""
    folder.mkdir()
    done = subprocess.run([python, "-I", "-c", APP, pack], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "me.zip").stat().st_size
    told = json.loads(done.stdout)
    assert not {"torch", "pandas", "pyarrow", "flwr", "typer", "tokenizers"} & set(told["loaded"])
    return told


def installed(python):
    code = "from importlib.metadata import distributions; print(*(each.name for each in distributions()))"
    return set(subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_recommender_lives_on_five_packages(python, tmp_path):
    build(tmp_path / "pack")
    told = used(python, tmp_path / "pack", tmp_path / "app")
    assert len(told["first"]) == 6 and told["found"] != told["first"]  # a hashing encoder reads searches by itself
    assert told["first"][-1] not in told["then"]  # what was liked is not shown again
    assert told["after"] == told["first"] and told["why"] and not told["notices"]
    assert installed(python) <= CORE


def test_a_transformer_reads_with_one_more(python, reading, tmp_path):
    catalogue = Catalogue([f"book-{n}" for n in range(6)], [*TEXTS, *TEXTS[::-1]])
    plan = Plan.of({"clients": 10, "model": {"encoder": "tiny", "dim": 3, "rank": 1, "decays": [0.0, 0.9]}})
    build(tmp_path / "pack", of=Task(plan, catalogue))
    equip(tmp_path / "pack")
    told = used(reading, tmp_path / "pack", tmp_path / "reading")
    assert told["found"] != told["first"] and "onnxruntime" in told["loaded"] and not told["notices"]
    assert installed(reading) <= CORE | TEXT
    without = used(python, tmp_path / "pack", tmp_path / "without")
    assert without["found"] == without["first"] == told["first"]
    assert any('pip install "fedrec[text]"' in said for said in without["notices"])


def test_the_command_says_what_to_install(python, tmp_path):
    done = subprocess.run([python.with_name("fedrec"), "simulate"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == 'fedrec: commands need more than an app does. Run: pip install "fedrec[train]"\n'
