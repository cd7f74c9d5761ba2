"""The reader app in a real federation: its user joins, takes part, sees what it cost, and reads what came of it."""

import re
from base64 import b64decode

import pytest
from apps import begun, invitation, plan_of
from screens import screen
from shelf import build
from visitors import look, opened, press, served, settled

from client.examples.reader.library import Library
from client.examples.reader.shelves import shelves
from fedrec import Recommender
from fedrec.deploy.folder import POLICY
from fedrec.device.act import acts_of
from fedrec.task import Task
from simulations.deployments.federation import ANY

ROUNDS, OTHERS = 2, 2
PLAN = plan_of(OTHERS + 1, ROUNDS).override({
    "privacy": {"mode": "user-local", "noise": "test", "force": True, "epsilon": 50.0, "allow_large_epsilon": True},
})  # fmt: skip


@pytest.fixture
def federation(tmp_path):
    """A site whose rounds wait for the app's device: a third of everybody."""
    made = begun(tmp_path / "it", PLAN, OTHERS)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def room(federation, tmp_path):
    """Of somebody who has read, with terms, over the model before its first round; their device has no seat yet."""
    build(tmp_path / "app" / "pack", of=Task.open(federation.site.run))
    home, world = tmp_path / "me", federation.world
    home.mkdir()
    (home / POLICY).write_text(ANY)
    with opened(tmp_path / "app" / "pack", home) as made:
        for act in acts_of(world.population[OTHERS].before(int(world.cuts[OTHERS])), world.dataset.catalogue.ids):
            made.rec.log(act.kind, act.item, text=act.text)
        yield made


def submit(tab, action, press_on="button"):
    """Send a form from the keyboard, and wait for what its page shows."""
    tab.events.clear()
    button = f"""document.querySelector('form[action="{action}"] {press_on}')"""
    tab.value(f"{button}.focus()")
    press(tab, "Enter", "\r")
    settled(tab)
    return tab.value("document.querySelector('main').innerText")


def test_its_user_takes_part_and_reads_from_what_came_of_it(federation, room, tmp_path):
    with screen() as tab, served(room) as address:
        tab.call("Emulation.setScriptExecutionDisabled", {"value": True})
        tab.look(width=1280)
        look(tab, f"{address}/enter/{room.keys.door}")
        before = shelf(tab)
        look(tab, f"{address}/privacy")
        tab.value("document.querySelector('#invitation').focus()")
        tab.call("Input.insertText", {"text": invitation(federation)})
        assert f"This device has joined {federation.site.spec.url}." in submit(tab, "/join")
        assert "Allowed, up to" not in submit(tab, "/consent", "button[value=contribute]")
        said = submit(tab, "/contribute")
        while "nothing is left to give" not in said:  # half a minute may be short where much else runs
            assert "the time is over" in said
            said = submit(tab, "/contribute")
        (spent,) = room.rec.ledger.summary().together
        assert re.search(rf"Took part in\s+{ROUNDS} rounds", said) and str(spent.so_far) in said
        steps = "[...document.querySelectorAll('#given ~ details td:nth-child(2)')].map(td => td.textContent)"
        assert tab.value(steps) == ["enrolled", *["reserved", "sealed"] * ROUNDS]
        federation.finished(seconds=60)
        assert "It is version 1, published" in submit(tab, "/sync")
        look(tab, f"{address}/")
        assert shelf(tab) == other(room, federation.site.packs / "1", tmp_path) != before
        photograph(tab, tmp_path / "books.png")
        look(tab, f"{address}/privacy")
        tab.value("document.querySelectorAll('details').forEach(each => each.open = true)")
        photograph(tab, tmp_path / "privacy.png")


def shelf(tab):
    """Ids of the books on the first shelf."""
    links = tab.value("[...document.querySelector('.shelf').querySelectorAll('h3 a')].map(link => link.href)")
    return [re.search(r"id=([^&]+)", link)[1] for link in links]


def other(room, pack, folder):
    """The first shelf of another app whose person did the same, over the pack as the site has it."""
    room.rec.export(folder / "copy.zip")
    with Recommender.restore(folder / "copy.zip", folder / "other", pack=pack) as rec:
        return [pick.item for pick in shelves(rec, Library(rec.catalogue))[0].picks]


def photograph(tab, path):
    """For whoever wants to look."""
    size = tab.call("Page.getLayoutMetrics")["cssContentSize"]
    asked = {"captureBeyondViewport": True, "clip": {**size, "x": 0, "y": 0, "scale": 1}}
    path.write_bytes(b64decode(tab.call("Page.captureScreenshot", asked)["data"]))
