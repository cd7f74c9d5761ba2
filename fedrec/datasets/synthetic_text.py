"""The words of the synthetic library: topics, invented authors, and a small grammar for every text.

Every function is pure: `dice` are large random integers, and each choice is one of them modulo the
number of options.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

DICE = 10  # random integers that one text uses up at most


class Topic(NamedTuple):
    """`people` read about it, in `place`; each of `strands` is "sub-topic: phrase, phrase, …"."""

    name: str
    people: str
    place: str
    strands: tuple[str, str, str, str]


# The order is planted structure: readers of a topic also like the topics before and after it (the last
# is next to the first). Neighbours share no words, so that only behaviour can tell that they are related.
TOPICS = (
    Topic("jazz", "jazz lovers", "the bandstand", (
        "bebop: breakneck solos, smoky clubs, alto saxophones, angular melodies, walking bass lines, jam sessions",
        "big band swing: brass sections, dance halls, clarinet choruses, bandleaders, late ballrooms, horn riffs",
        "free jazz: collective improvisation, loft concerts, wild saxophones, broken rhythms, drum duets, open scores",
        "jazz piano: stride left hands, midnight ballads, upright pianos, modal harmony, piano trios, blue notes",
    )),
    Topic("coffee", "coffee drinkers", "the roastery", (
        "espresso: pressure gauges, milk foam, careful tamping, double shots, burr grinders, latte art",
        "pour-over brewing: paper filters, gooseneck kettles, slow blooms, water quality, glass drippers, brew ratios",
        "coffee roasting: green beans, first crack, shop roasters, roast curves, cupping tables, caramel scents",
        "coffee farming: shade trees, highland growers, washed cherries, drying beds, harvest seasons, fair prices",
    )),
    Topic("cycling", "cyclists", "the saddle", (
        "bicycle touring: loaded panniers, back roads, campsite dinners, border crossings, headwinds, handlebar maps",
        "road racing: breakaways, mountain stages, nervous pelotons, sprint finishes, time trials, team cars",
        "bicycle repair: squeaky chains, true wheels, worn brake pads, bottom brackets, puncture kits, gear cables",
        "mountain biking: rooty descents, full suspension, singletrack, bunny hops, muddy berms, tubeless tyres",
    )),
    Topic("robotics", "robot builders", "the robot lab", (
        "robot arms: servo joints, gripper fingers, inverse kinematics, factory cells, torque limits, welding lines",
        "self-driving machines: lidar data, lane keeping, sensor fusion, path planners, test tracks, emergency braking",
        "hobby robots: line followers, cheap motors, soldering irons, cardboard chassis, tiny circuits, battery packs",
        "robots and society: care homes, warehouse work, polite machines, human trust, automation, android rights",
    )),
    Topic("chess", "chess players", "the chessboard", (
        "chess openings: gambits, pawn centres, fianchettoes, early castling, opening traps, forgotten sidelines",
        "chess endgames: rook endings, king marches, passed pawns, fortresses, zugzwang, endgame studies",
        "attacking chess: queen sacrifices, mating nets, open files, kingside storms, knight forks, exposed kings",
        "chess history: café champions, match scandals, candidates matches, old masters, adjourned games, rating lists",
    )),
    Topic("Roman history", "friends of antiquity", "the forum", (
        "the Roman republic: senate quarrels, civil wars, land reforms, street gangs, proud consuls, bribed elections",
        "Roman legions: marching camps, shield walls, frontier forts, centurions, siege engines, veteran colonies",
        "Roman daily life: public baths, bread stalls, crowded tenements, household gods, wax tablets, chariot crowds",
        "Roman emperors: palace plots, imperial cults, succession crises, marble portraits, bodyguards, mad edicts",
    )),
    Topic("gardening", "gardeners", "the potting shed", (
        "vegetable growing: raised beds, heritage tomatoes, runner beans, seed trays, slug patrols, winter kale",
        "flower borders: late dahlias, old roses, self-seeded poppies, cutting patches, tall delphiniums, spring bulbs",
        "composting: leaf mould, earthworms, green manure, mulch layers, compost heaps, clay soils",
        "balcony gardens: window boxes, potted herbs, trailing nasturtiums, dwarf citrus, rain barrels, climbing peas",
    )),
    Topic("detective stories", "mystery readers", "the incident room", (
        "country house mysteries: locked libraries, missing wills, sly butlers, snowed-in guests, sherry, uneasy heirs",
        "hardboiled noir: wet streets, private eyes, double crosses, cheap hotels, crooked officials, unpaid debts",
        "police procedurals: cold cases, night shifts, forensic reports, interview rooms, stubborn inspectors, alibis",
        "village sleuths: parish secrets, tea-shop gossip, odd letters, lost vicars, church bells, curtain twitchers",
    )),
    Topic("space", "stargazers", "the observatory", (
        "Mars exploration: red dust, rover wheels, ancient riverbeds, landing sites, sample tubes, thin atmospheres",
        "black holes: event horizons, gravitational waves, warped time, accretion discs, galaxy cores, spinning stars",
        "backyard astronomy: small telescopes, meteor showers, moon craters, star charts, planetary rings, dark skies",
        "crewed spaceflight: launch pads, zero gravity, spacewalks, docking manoeuvres, heat shields, orbital stations",
    )),
    Topic("baking", "bakers", "the bakery", (
        "sourdough bread: wild yeast, rye starters, long proofs, open crumb, crisp crusts, stone-milled flour",
        "layer cakes: buttercream, sponge tiers, piping bags, citrus curd, sugar flowers, chocolate ganache",
        "pastry: laminated dough, cold butter, flaky croissants, choux buns, fruit tarts, custard fillings",
        "biscuits: ginger snaps, shortbread, brown sugar, oat cookies, chewy middles, holiday cutters",
    )),
    Topic("football", "football supporters", "the terraces", (
        "football tactics: high pressing, back threes, false nines, midfield diamonds, counter-attacks, set pieces",
        "football fan culture: terrace songs, away days, matchday pies, local derbies, striped scarves, fanzines",
        "women's football: sold-out finals, pioneer teams, lost decades, rising leagues, star strikers, equal pay",
        "club histories: relegation battles, giant killings, mill clubs, old trophies, shoot-outs, academies",
    )),
    Topic("photography", "photographers", "the darkroom", (
        "street photography: candid moments, midday glare, full pavements, quick timing, shop mirrors, small cameras",
        "landscape photography: golden hours, tripods, misty valleys, long exposures, neutral filters, wide lenses",
        "portrait photography: window light, backdrops, catchlights, nervous sitters, reflectors, family albums",
        "film photography: contact sheets, grainy negatives, chemical tanks, expired rolls, silver prints, hand focus",
    )),
    Topic("meditation", "meditators", "the cushion", (
        "breath meditation: slow breathing, counted breaths, busy minds, mornings, gentle attention, stray thoughts",
        "walking meditation: bare feet, slow steps, cloister paths, mindful strides, silent circles, city pauses",
        "loving-kindness practice: kind wishes, hard people, warm hearts, self-compassion, forgiveness, old grudges",
        "silent retreats: monastery bells, noble silence, early gongs, simple meals, daily sittings, empty rooms",
    )),
    Topic("oceans", "ocean lovers", "the harbour", (
        "deep-sea life: anglerfish, hydrothermal vents, bioluminescence, giant squid, submersibles, abyssal plains",
        "coral reefs: bleached corals, reef sharks, clownfish, snorkel trips, sea turtles, blue lagoons",
        "sailing voyages: trade winds, storm sails, lonely watches, celestial navigation, tarred rope, leaking hulls",
        "whales and dolphins: whale songs, migration routes, humpbacks, family pods, echolocation, tail flukes",
    )),
    Topic("woodworking", "woodworkers", "the workbench", (
        "hand tools: sharp chisels, smoothing planes, dovetail saws, marking gauges, honing stones, spokeshaves",
        "furniture making: mortise joints, oak tables, drawer slides, chair legs, cabinet doors, clamps and glue",
        "wood carving: lime-wood figures, whittling knives, carved spoons, relief panels, grain direction, bent gouges",
        "wood turning: lathes, salad bowls, roughing gouges, green timber, spindle work, finishing wax",
    )),
    Topic("hiking", "walkers", "the trail", (
        "mountain summits: ridge scrambles, cairns, alpine huts, weather windows, scree slopes, dawn starts",
        "long-distance trails: waymarks, resupply towns, blistered feet, trail angels, logbooks, footsore miles",
        "forest walks: mossy paths, birdsong, ancient oaks, hidden streams, fallen leaves, woodland clearings",
        "ultralight backpacking: tarp tents, gram counting, frameless packs, down quilts, tiny stoves, cold suppers",
    )),
)  # fmt: skip

GIVEN = (
    "Ilse", "Tomas", "Wren", "Oona", "Casimir", "Petra", "Lucan", "Maribel", "Anselm", "Ffion", "Jorah", "Sunniva",
    "Baptiste", "Nerys", "Ottoline", "Ravi", "Thandi", "Emeka", "Yuki", "Leocadia", "Hamish", "Zaynab", "Corin",
)  # fmt: skip
FAMILY = (
    "Pellbrook", "Orlavane", "Tamsworth-Gray", "Quillmere", "Dunnavey", "Ashgrove-Lund", "Velloway", "Marrowden",
    "Fennimoor", "Hollisane", "Birkavel", "Stellarby", "Corvandale", "Wexmoor", "Lindqvale", "Thornapple", "Okonara",
    "Brightwater-Sen", "Castellune", "Ravenhythe", "Zellendorf", "Mosswick", "Ellerbeam", "Juniparo", "Kestrelby",
    "Nakavale", "Windrush-Osei", "Sorrelton", "Yarrowby",
)  # fmt: skip
MOST_AUTHORS = len(GIVEN) * len(FAMILY) * 27  # the two lengths share no factor; 26 initials, or none

TITLES = (
    "{a} and {b}", "the secret life of {a}", "notes on {a}", "what {a} can teach us", "between {a} and {b}",
    "in praise of {a}", "a year of {a}", "{strand}: {a} and beyond", "letters from {place}", "the trouble with {a}",
    "a short history of {a}", "{a} for the curious", "why we need {a}", "the {people}' companion to {a}",
    "first lessons in {strand}", "beyond {a}", "a case for {a}", "{strand} without fear", "{a}, {b} and me",
)  # fmt: skip
OPENINGS = (
    "In this {form}, {author} explores {c}, {d} and {e}.",
    "From {c} to {d}, {author} follows the {people} who care most about {e}.",
    "{author} returns to {place} with a {form} about {c} and {d}.",
    "Everything {people} ask about {strand}, answered by {author} through {c} and {d}.",
    "Part {form}, part confession: {author} on {c}, {d} and the pull of {strand}.",
    "{author} spent ten years on {strand}; this {form} gathers the best of {c} and {d}.",
    "{author} opens with {c} and ends, many evenings later, with {d}.",
)
CLOSINGS = (
    "For {people} of every level.", "Best read slowly.", "Written for anyone who has wondered about {f}.",
    "There is plenty of practical advice on {f}.", "Small, warm and precise.", "Half the fun is in {f}.",
    "It ends, as it should, at {place}.", "You will never think of {f} in the same way again.",
)  # fmt: skip
ASIDES = (
    "Long detours lead to {g} and {h}.",
    "Half of the pages belong to {other}, with {g} and {h}.",
    "It finds the same spirit in {other}: {g}, {h}.",
)
FORMS = ("handbook", "memoir", "long read", "novel", "picture book", "story collection", "beginner's guide", "lecture")

QUERIES = (
    "{strand}", "books about {strand}", "{a}", "best {strand} books", "{a} and {b}", "something about {a}",
    "{strand} for beginners", "{a} explained", "new {strand}", "long reads on {a}",
)  # fmt: skip

HARSH = ("tedious", "muddled", "disappointing", "shallow", "dreary", "careless")
MIXED = ("uneven", "decent", "middling", "passable", "acceptable", "forgettable")
GLOWING = ("wonderful", "absorbing", "delightful", "superb", "brilliant", "moving")
VERDICTS = {
    HARSH: (
        "{mood}. The chapter on {a} went nowhere.", "I gave up during {a}. So {mood}.",
        "If you care about {strand}, look elsewhere; this was {mood}.", "{mood}, and wrong about {a}.",
    ),
    MIXED: (
        "{mood}. Some pages on {a}, then a lot of padding.", "The part about {a} was fine, the rest {mood}.",
        "{mood} for a book on {strand}.", "I expected more on {a}, but it was {mood} overall.",
    ),
    GLOWING: (
        "{mood}! I loved the pages on {a}.", "Simply {mood}. Now I want to know everything about {strand}.",
        "The best thing I have read on {a}, and {mood} throughout.", "{mood}. Made me see {a} and {b} afresh.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Strand:
    """A sub-topic: its index is its address in every planted array."""

    name: str
    topic: int
    phrases: tuple[str, ...]

    def words(self, turn: int) -> dict[str, str]:
        """What the templates may say about the strand, starting with phrase number `turn`."""
        phrases = {key: self.phrases[(turn + n) % len(self.phrases)] for n, key in enumerate("abcdef")}
        return {"strand": self.name, "people": TOPICS[self.topic].people, "place": TOPICS[self.topic].place, **phrases}


def _strand(topic: int, line: str) -> Strand:
    name, phrases = line.split(": ")
    return Strand(name, topic, tuple(phrases.split(", ")))


STRANDS = tuple(_strand(number, line) for number, topic in enumerate(TOPICS) for line in topic.strands)


def author_name(author: int) -> str:
    """An invented name; the first `MOST_AUTHORS` differ."""
    given, family = GIVEN[author % len(GIVEN)], FAMILY[author % len(FAMILY)]
    initial = author // (len(GIVEN) * len(FAMILY))
    return f"{given} {chr(64 + initial)}. {family}" if initial else f"{given} {family}"


def title(strand: int, dice: Sequence[int]) -> str:
    """A title in title case; not necessarily unique."""
    return _headline(_pick(TITLES, dice[0]).format_map(STRANDS[strand].words(dice[1])))


def description(strands: tuple[int, int], author: str, dice: Sequence[int]) -> str:
    """One to three sentences about the first strand, with an aside on the second when it is another."""
    strand, other = strands
    words = STRANDS[strand].words(dice[1]) | {"author": author, "form": _pick(FORMS, dice[2])}
    sentences = [_pick(OPENINGS, dice[3])] + [_pick(CLOSINGS, dice[4])] * (dice[5] % 4 > 0)
    if other != strand:
        aside = STRANDS[other].words(dice[6])
        words |= {"other": aside["strand"], "g": aside["a"], "h": aside["b"]}
        sentences.insert(1, _pick(ASIDES, dice[7]))
    return " ".join(sentences).format_map(words)


def query(strand: int, dice: Sequence[int]) -> str:
    """A short search, lower case, that names the strand or one of its phrases."""
    return _query(strand, dice[0] % len(QUERIES), dice[1] % len(STRANDS[strand].phrases))


def review(strand: int, stars: int, dice: Sequence[int]) -> str:
    """A short review whose words agree with `stars` (0 to 4) and name the strand or one of its phrases."""
    # Every mood has as many verdicts and words as the first.
    said = (dice[0] % len(VERDICTS[HARSH]), dice[1] % len(STRANDS[strand].phrases), dice[2] % len(HARSH))
    return _review(strand, stars, said)


@cache  # some thousands: a large population says all of them, often
def _query(strand: int, template: int, turn: int) -> str:
    return QUERIES[template].format_map(STRANDS[strand].words(turn)).lower()


@cache
def _review(strand: int, stars: int, said: tuple[int, int, int]) -> str:
    moods = (HARSH, HARSH, MIXED, GLOWING, GLOWING)[stars]
    template, turn, mood = said
    text = VERDICTS[moods][template].format_map(STRANDS[strand].words(turn) | {"mood": moods[mood]})
    return text[0].upper() + text[1:]


def strand_of(text: str) -> int:
    """The strand that a text of `query` or `review` names; -1 when it names none."""
    found = _names().search(text.lower())
    return _addresses()[found.group()] if found else -1


def _pick(options: Sequence[str], die: int) -> str:
    return options[die % len(options)]


def _headline(text: str) -> str:
    small = {"a", "and", "for", "in", "of", "on", "the", "to"}
    words = [word if word in small else word[0].upper() + word[1:] for word in text.split()]
    return " ".join([words[0][0].upper() + words[0][1:], *words[1:]]).replace(": a ", ": A ")


@cache
def _addresses() -> dict[str, int]:
    return {name.lower(): n for n, strand in enumerate(STRANDS) for name in (strand.name, *strand.phrases)}


@cache
def _names() -> re.Pattern[str]:
    longest_first = sorted(_addresses(), key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)))
