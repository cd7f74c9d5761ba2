"""The ranking module for browsers, in one: the golden vectors, and packs that it must not believe."""

import json
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from screens import screen

CLIENT = Path(__file__).parents[2] / "client"
RUNTIME = "node_modules/onnxruntime-web"
USES = "import('./fedrec.mjs').then(async ({openPack, folder, Taste, PackError}) => {%s})"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folders `web` and `golden`, and onnxruntime-web from where the repository or npm has it."""
    place = tmp_path_factory.mktemp("client")
    shutil.copytree(CLIENT / "golden", place / "golden")
    shutil.copytree(CLIENT / "web", place / "web", ignore=shutil.ignore_patterns("node_modules"))
    if (CLIENT / "web" / RUNTIME).is_dir():
        (place / "web" / "node_modules").symlink_to(CLIENT / "web" / "node_modules")
    return place


@pytest.fixture(scope="module")
def address(place):
    class Quiet(SimpleHTTPRequestHandler):
        extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

        def end_headers(self):
            self.send_header("Cache-Control", "no-store")
            super().end_headers()

        def log_message(self, *args):
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=place))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def tab():
    with screen() as opened:
        yield opened


@pytest.fixture(scope="module")
def runtime(place):
    """onnxruntime-web, fetched if it is not there."""
    if (place / "web" / RUNTIME).is_dir():
        return
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on the PATH")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    if subprocess.run(command, cwd=place / "web", capture_output=True, timeout=300).returncode:
        pytest.skip("npm cannot fetch onnxruntime-web")


def in_page(tab, address, script):
    """What `script` returns, run beside the module; "PackError: …" where the module refuses."""
    tab.open(f"{address}/web/")
    refused = "catch (error) { return error.constructor.name + ': ' + error.message }"
    return tab.value(USES % ("try {" + script + "}" + refused))


def test_ids_vectors_and_rankings_are_those_of_python(tab, runtime, address):
    tab.open(f"{address}/web/golden.html")
    patience = (
        "new Promise((done, fail) => { const look = () => window.result ? done(window.result) : setTimeout(look, 50);"
    )
    found = tab.value(patience + " look(); setTimeout(() => fail(new Error(document.body.innerText)), 30000) })")
    golden = json.loads((CLIENT / "golden" / "golden.json").read_text())
    assert found == {"cases": len(golden["cases"]), "histories": len(golden["histories"]), "wrong": []}
    assert "are equal" in tab.value("document.querySelector('#verdict').textContent")


def test_a_golden_vector_that_is_off_is_found(tab, runtime, address, place):
    path = place / "golden" / "golden.json"
    kept = path.read_text()
    golden = json.loads(kept)
    golden["cases"][0]["vector"][0] += 1e-3
    golden["cases"][1]["ids"][1] += 1
    golden["cases"][2]["ranking"][:2] = golden["cases"][2]["ranking"][1::-1]
    golden["histories"][1]["popular"][0][1] += 1e-3
    path.write_text(json.dumps(golden))
    try:
        tab.open(f"{address}/web/golden.html")
        patience = (
            "new Promise(done => { const look = () => window.result ? done(window.result) : setTimeout(look, 50);"
        )
        wrong = tab.value(patience + " look() })")["wrong"]
    finally:
        path.write_text(kept)
    assert sorted(name for _, name in wrong) == ["ids", "popular", "ranking", "vector"]


def test_events_about_items_rank_without_any_runtime_and_what_was_chosen_is_hidden(tab, address, place):
    from fedrec.model.pack_files import read_pack

    pack = read_pack(place / "golden" / "pack", None)
    found = in_page(tab, address, """
        const taste = new Taste(await openPack(folder("../golden/pack")));
        for (const event of [{kind: "click", item: "item-3"}, {kind: "skip", item: "item-5"},
                             {kind: "like", item: "item-8", weight: 2}, {kind: "view", item: "not there"}])
          await taste.add(event);
        return {listed: taste.recommend(20).map(({id}) => id), scores: Array.from(taste.scores())}
    """)  # fmt: skip
    assert set(pack.catalogue.ids) - set(found["listed"]) == {"item-3", "item-8"}
    assert found["scores"] == pytest.approx(expected_scores(pack).tolist(), abs=1e-5)


def expected_scores(pack):
    import numpy as np

    profile = pack.info.plan["profile"]
    events = [("click", 3, 1.0), ("skip", 5, 1.0), ("like", 8, 2.0)]
    sums = [
        sum(
            profile[kind] * weight * pack.vectors[row] * decay**age
            for age, (kind, row, weight) in enumerate(events[::-1])
        )
        for decay in pack.info.ranking.decays
    ]
    contexts = np.stack([total / np.linalg.norm(total) for total in sums])
    return pack.scores(contexts, np.zeros(pack.info.ranking.dim, np.float32))


def test_a_signature_is_checked_and_a_changed_file_refused(tab, address, place):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fedrec.model.publish import sign_pack

    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    shutil.copytree(place / "golden" / "pack", place / "signed")
    sign_pack(place / "signed", key, version=3)
    opening = 'return (await openPack(folder("../signed"), {key: "%s"})).info.version'
    assert in_page(tab, address, opening % public) == 3
    assert "signed by its site" in in_page(tab, address, opening % ("0" * 62 + "01"))
    assert "hexadecimal" in in_page(tab, address, opening % "abc")
    items = place / "signed" / "items.safetensors"
    items.write_bytes(items.read_bytes()[:-1] + b"\1")
    assert "items.safetensors has the hash" in in_page(tab, address, opening % public)


def test_whose_events_say_nothing_together_is_a_stranger(tab, address):
    found = in_page(tab, address, """
        const pack = await openPack(folder("../golden/popular")), taste = new Taste(pack), shares = [taste.others()];
        await taste.add({kind: "click", item: "item-3"});
        shares.push(taste.others());
        pack.vectors.values.fill(0);
        const blank = new Taste(pack);
        await blank.add({kind: "click", item: "item-3"});
        return [...shares, blank.others(), new Taste(await openPack(folder("../golden/pack"))).others()];
    """)  # fmt: skip
    assert found == pytest.approx([1, 8 / 9, 1, 0])


@pytest.mark.parametrize(("tensor", "shares"), [
    ("popularity", [0.2] * 10),
    ("popularity", [0.2] * 5),
    ("popularity", [0.5, 0.5] + [0.0] * 8),
    ("else", [0.1] * 10),
])  # fmt: skip
def test_popularity_that_is_none_is_refused(tab, address, place, tensor, shares):
    import numpy as np
    from safetensors.numpy import save_file
    from shelf import claim

    shutil.copytree(place / "golden" / "popular", place / "lying", dirs_exist_ok=True)
    save_file({tensor: np.array(shares, np.float32)}, place / "lying" / "popularity.safetensors")
    claim(place / "lying")
    said = in_page(tab, address, 'return (await openPack(folder("../lying"))).items.length')
    assert said == "PackError: popularities are positive and add up to 1"


@pytest.mark.parametrize(("script", "words"), [
    ('await new Taste(await openPack(folder("../golden/pack"))).add({kind: "stare", item: "a"})', "kind is one of"),
    ('await new Taste(await openPack(folder("../golden/pack"))).add({kind: "search", text: "x"})', "by a reader"),
    ('await openPack(folder("../nowhere"))', "can be fetched"),
])  # fmt: skip
def test_mistakes_are_told_in_words(tab, address, script, words):
    said = in_page(tab, address, script)
    assert said.startswith("PackError: ") and words in said
