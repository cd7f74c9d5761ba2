"""A monitor under Python's own sockets: of all that an app can call, `contribute` and `sync` alone open a line."""

import json
import subprocess
import sys

import pocket
import pytest
from devices import Settlement

from fedrec.embed.asynchronous import AsyncRecommender
from fedrec.embed.recommender import Recommender

ON_LINE = {"contribute", "sync"}

MONITOR = """
import json, sys
HEARD = []
WATCHED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "socket.sendmsg")
sys.addaudithook(lambda name, args: HEARD.append(name) if name.startswith(WATCHED) else None)
from pathlib import Path
from fedrec.errors import FedrecError
from fedrec.embed.recommender import Recommender
from fedrec.embed.stay import Occasion
home, pack, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
CALLED = set()

class Spied:
    def __init__(self, rec):
        self.rec = rec
    def __getattr__(self, name):
        CALLED.add(name)
        return getattr(self.rec, name)

def tell(**more):
    print(json.dumps({"heard": HEARD, "called": sorted(CALLED), **more}))
"""

QUIET = """
import asyncio
from fedrec.model.catalogue import Catalogue
from fedrec.embed.asynchronous import AsyncRecommender
from fedrec.model.catalogue import Catalogue

def use(rec):
    rec.log("like", "sea-1")
    rec.log("search", text="sourdough in the oven")
    rec.log("review", "clocks-1", text="a pendulum with gears", rating=0.8)
    rec.tell("I like sea but no bread")
    page = rec.recommend(5, diversity=0.3, calibration=0.3, explore=0.2, filter=["Sea", "Stars"])
    page[0].why
    rec.explain("stars-1")
    rec.stock(Catalogue(["new-1"], ["a comet over the harbour"]))
    rec.narrate(lambda reason: "because")
    rec.stock(Catalogue(["new"], ["sailing"]))
    rec.feedback(page[0], "less_like_this")
    rec.undo()
    rec.preferences, rec.notices, rec.pack, rec.catalogue
    consent = rec.consent
    consent.grant("contribute", max_epsilon=1.0); consent.withdraw("contribute"); consent.pause(); consent.resume()
    consent.grant("personalize"); consent.state()
    ledger = rec.ledger
    ledger.summary(); ledger.entries()
    try:
        ledger.preview()
    except FedrecError:
        pass
    print(rec.rec.contribute(Occasion(invitation="of no use")).ending)
    rec.export(home / "me.zip")
    rec.forget(item="sea-1")
    rec.forget(topic="bread")
    rec.forget(everything=True)
    rec.close()

CALLED |= {"open", "restore"}
use(Spied(Recommender.open(home / "plain", pack=pack)))
use(Spied(Recommender.open(home / "secret", pack=pack, secret=bytes(32))))
use(Spied(Recommender.restore(home / "me.zip", home / "again", pack=pack)))

async def awaited():
    async with await AsyncRecommender.open(home / "loop", pack=pack) as rec:
        await rec.log("like", "sea-1")
        await rec.recommend(3)

asyncio.run(awaited())
tell(loaded=sorted({name.split(".")[0] for name in sys.modules}))
"""

CONTRIBUTE = """
with Recommender.open(home) as rec:
    rec.consent.grant("contribute")
    print(rec.contribute(Occasion(seconds=1.0)).ending)
tell()
"""

LEDGER = """
with Recommender.open(home) as rec:
    print(rec.ledger.preview().seat)
tell()
"""

SYNC = """
with Recommender.open(home, key=key) as rec:
    try:
        rec.sync("https://127.0.0.1:9")
    except FedrecError as error:
        print(type(error).__name__)
tell()
"""


def watched(script, home, *, pack="", key=""):
    """What a program's last line tells, and what it printed before."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", MONITOR + script, str(home), str(pack), key],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    *said, told = done.stdout.splitlines()
    return json.loads(told), said


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


def test_nothing_else_opens_a_connection(tmp_path):
    told, said = watched(QUIET, tmp_path, pack=pocket.pack())
    assert told["heard"] == []
    assert set(told["called"]) == public(Recommender) - ON_LINE, "whatever is new is watched too"
    assert said == ["no consent"] * 3
    assert not {"torch", "flwr", "pyarrow", "pandas", "httpx"} & set(told["loaded"])


def test_a_preview_of_what_would_be_sent_sends_nothing(tmp_path):
    """Some imported libraries try whether an address of this machine can be bound; nobody is called."""
    told, said = watched(LEDGER, Settlement(tmp_path).device(0))
    assert (set(told["heard"]) - {"socket.bind"}, said) == (set(), ["0"])


def test_contribute_does_and_the_monitor_hears_it(tmp_path):
    home = Settlement(tmp_path).device(0)
    told, said = watched(CONTRIBUTE, home)
    assert "socket.connect" in told["heard"]
    assert said == ["the server could not be reached"]


def test_sync_does_and_the_monitor_hears_it(tmp_path):
    told, said = watched(SYNC, tmp_path, key=bytes(32).hex())
    assert "socket.connect" in told["heard"]
    assert said == ["RunError"]


@pytest.mark.parametrize("call", ["rec.contribute()", "rec.ledger.preview()"])
def test_without_what_trains_one_is_told_what_to_install(tmp_path, call):
    script = f"""
for name in ("torch", "flwr", "dp_accounting", "tomli_w"):
    sys.modules[name] = None
with Recommender.open(home) as rec:
    rec.consent.grant("contribute")
    rec.ledger.summary()
    try:
        {call}
    except FedrecError as error:
        print(type(error).__name__, error.remedy)
tell()
"""
    told, said = watched(script, Settlement(tmp_path).device(0))
    assert said == ['RunError Install it: pip install "fedrec[train]".']
    assert not {"socket.connect", "socket.getaddrinfo"} & set(told["heard"])


@pytest.mark.parametrize("name", sorted(public(AsyncRecommender) - {"recommender"}))
def test_the_asynchronous_twin_has_nothing_of_its_own(name):
    assert name in public(Recommender)
