"""All of the client in thirty lines: `python client/examples/thirty_lines.py runs/NAME/pack ~/.thirty`."""

import sys
from pathlib import Path

from fedrec import Recommender

pack, folder = map(Path, sys.argv[1:3])
with Recommender.open(folder, pack=pack) as me:
    first = me.recommend(k=3)
    print("To begin with:", *(f"  {pick.title}" for pick in first), sep="\n")

    me.log("click", first[0].item, dwell_s=40, page=first)
    me.log("search", text=first[1].title)
    told = me.tell("I like jazz but no football")
    print(f"Understood {len(told.preferences)} wishes.", *told.unclear)

    for pick in me.recommend(k=3, diversity=0.3):
        print(f"  {pick.score:+.2f}  {pick.title}\n         {pick.why.sentence}")

    change = me.feedback(me.recommend(k=1)[0], "hide")
    print("Hidden, and taken back:", me.undo(change))

    given = me.ledger.summary()
    print(f"Sent so far: {given.bytes_sent} bytes in {given.rounds} rounds.")
    print(f"May take part in learning: {me.consent.state().contribute}")

    me.export(folder / "me.zip")
    print("Forgot", me.forget(everything=True), "things.")
