"""The English that `tell` understands: its cues, its small words, and what is not English."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import cache

from fedrec.embed.preference import Polarity


class Cue(IntEnum):
    """What a cue says of whatever stands beside it. `DOUBLE` is a negation of a dislike, which says neither."""

    NEVER = Polarity.NEVER
    LESS = Polarity.LESS
    DOUBLE = 0
    MORE = Polarity.MORE


_SHORT = (
    (r"\bcan't\b|\bcant\b|\bcannot\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"\bain't\b|\baint\b", "am not"),
    (r"n't\b", " not"),
    (r"\b(do|does|did|is|are|was|have|would)nt\b", r"\1 not"),
    (r"\bi'?m\b", "i am"),
    (r"\b(it|that|there|what|who)'s\b", r"\1 is"),
    (r"\blet's\b", "let us"),
    (r"'ve\b", " have"),
    (r"'d\b", " would"),
    (r"'ll\b", " will"),
    (r"'re\b", " are"),
    (r"\bw/o\b", "without"),
    (r"\bw/", "with "),
    (r"&", " and "),
)

_REWRITTEN = (
    (r"\bnothing but\b", "only"),
    (r"\b(?:(?:give|show) me )?(?:anything|everything|all(?: genres| kinds)?) (?:but(?! not)|except(?: for)?)\b",
     "except"),
    (r"\b(?:if|whenever|where) possible\b", ""),
    (r"^(?:that is )?not (?:for me|my thing|interested|my cup of tea)$", "not this"),
    (r"\bnot (?:only|just)\b(?=.*\bbut\b)", "more"),
    (r"\bbut also\b", "and"),
    (r"\bas well as\b|\bplus\b", "and"),
    (r"\bi used to (?:like|love|enjoy)\b(.*?)(?:,| but)? not any ?more\b", r"i no longer like\1"),
    (r"^if (?:it|they|there|one) (?:has|have|is|are|contains?|involves?) (.+?),? (?:then )?"
     r"(?:please )?(?:skip|hide|drop|leave out|block) (?:it|them|that)$", r"no \1"),
    (r"^(?:more of )?the same(?: again)?$", "more like this"),
    (r"^the same (?=author|writer|director|artist)|^same (?=author|writer|director|artist)", "more from this "),
    (r"^(?:it would|would) be nice to (?:have|see|get) ", "more "),
    (r"\bno (?:thanks|thank you) to\b|\bhard pass on\b|\b(?:could you |please )?stop (?:it )?with\b", "no"),
    (r"^(?:i am )?(?:scared|afraid|terrified) of (.+?),? so (?:please )?(?:hide|skip|avoid|drop) (?:it|them)$",
     r"no \1"),
    (r"^i find (.+) (?:boring|dull|annoying|tedious|stupid|depressing|overrated)$", r"less \1"),
    (r"^i find (.+) (?:interesting|fascinating|exciting|funny|relaxing|great)$", r"more \1"),
    (r"^i am an? (?:(?:big|huge|great) )?(.+?) (?:fan|lover|addict|nerd|buff|person)$", r"more \1"),
    (r"^(?:please )?(?:keep|get|take) (.+?) (?:away|out of (?:my feed|my recommendations|here)|off my (?:feed|list))$",
     r"no \1"),
    (r"^keep (?:the )?(.+?) coming$", r"more \1"),
    (r"^(?:i would )?rather (?:have |see |watch |read |hear )?(.+?) than (.+)$", r"more \1, less \2"),
    (r"^(?:i )?(?:would )?prefer (.+?) (?:to|over|rather than) (.+)$", r"more \1, less \2"),
    (r"^(?:i )?(?:like|love|enjoy) (.+?) (?:more|better) than (.+)$", r"more \1, less \2"),
    (r"^(?:give me |show me )?(.+?) (?:instead of|rather than) (.+)$", r"more \1, less \2"),
    (r"^([^<>,]+?) ?> ?([^<>,]+)$", r"more \1, less \2"),
)  # fmt: skip

_OFTEN = "really|very|quite|just|also|especially|always|actually|definitely|absolutely|totally|truly|simply|even|still"
_LIKE = "like|love|enjoy|adore|appreciate|fancy|dig"
_LIKED = f"{_LIKE}|liked|loved|enjoyed|adored|appreciated|loves|likes|enjoys"
_SHOW = "show|give|recommend|suggest|find|get|bring|offer|send"
_SHOWING = "showing|giving|recommending|suggesting|offering|sending|pushing"
_HAVE = "watching|reading|seeing|getting|hearing|playing"
_WATCH = "watch|read|play|listen to"
_SEE = "see|watch|read|hear|get|have|find|try|listen to"
_FOND = "into|fond of|interested in|keen on|crazy about|obsessed with|fascinated by|mad about|curious about|a lover of"
_FAN = "(?:a )?(?:(?:big|huge|great) )?fan of"
_HATE = "hate|hated|loathe|loathed|detest|detested|despise|despised|abhor"
_NOT = "(?:do|did|does|would|could|will) not|never"

_GENERIC = "movies?|films?|flicks?|books?|articles?|posts?|videos?|stuff|things?|ones?|content|items?|products?|genres?"

# Longer ones first: the first that fits counts.
_CUES: tuple[tuple[Cue, str], ...] = (
    (Cue.DOUBLE, rf"(?:{_NOT}) (?:dislike|mind|{_HATE})(?! (?:more|some))"),
    (Cue.DOUBLE, "(?:am not|not) (?:against|opposed to|allergic to|tired of|sick of|bored of)"),
    (Cue.MORE, "(?:can not|could not|can never) (?:get enough(?: of)?|live without|do without)"),
    (Cue.MORE, rf"would not mind|(?:would )?never say no to|do not (?:ever )?stop (?:{_SHOWING})(?: me)?"),
    (Cue.MORE, "(?:there is |there are )?(?:not enough|too little|too few)"),
    (Cue.LESS, rf"(?:{_NOT}) (?:{_LIKE}|care for|care about)(?: to (?:{_SEE}))?"),
    (Cue.LESS, rf"(?:am |was )?(?:not|no longer|never) (?:{_FOND}|{_FAN}|big on)"),
    (Cue.LESS, "(?:am |have )?(?:over|gone off|going off|done with)|(?:have )?lost interest in"),
    (Cue.LESS, "(?:go |take it )?easy on|(?:cut|dial|ease|tone) (?:down|back|off)(?: on)?"),
    (Cue.LESS, rf"(?:rarely|seldom|hardly|hardly ever) (?:{_LIKE}|{_WATCH})"),
    (Cue.LESS, rf"no longer (?:{_LIKE}|want|watch|read)"),
    (Cue.LESS, "(?:do not have|have not got|have no|have not) (?:the )?(?:time|patience) for"),
    (Cue.LESS, "have (?:zero|no|little|not much) interest in|(?:have )?(?:had )?enough(?: (?:of|with))?"),
    (Cue.LESS, rf"(?:there is |there are |have been (?:{_HAVE}) )?too (?:much|many)"),
    (Cue.LESS, rf"(?:you )?(?:{_SHOW}|{_SEE}) (?:me )?too (?:much|many)"),
    (Cue.LESS, "(?:am |got |getting )?(?:tired|sick|bored|weary|fed up) (?:of|with|by)|dislike|disliked"),
    (Cue.LESS, "less(?: of)?|fewer(?: of)?"),
    (Cue.NEVER, rf"(?:do not|never|will not|stop|quit)(?: ever)?(?: again)? (?:{_SHOW}|{_SHOWING})(?: me)?"),
    (Cue.NEVER, rf"(?:{_NOT}) (?:want|need)(?: to (?:{_SEE}))?"),
    (Cue.NEVER, rf"(?:do not|never|will not|will never|would never|can not)(?: want to)? (?:{_SEE})"),
    (Cue.NEVER, "can not (?:stand|bear|abide|take|tolerate)|can not stand to (?:see|watch|read)"),
    (Cue.NEVER, f"{_HATE}|am allergic to|allergic to|steer clear of|(?:stay|keep) away from|get rid of|leave out"),
    (Cue.NEVER, "(?:can|could) do without|refuse to (?:watch|read|see)|spare me|filter out|ditch|not a single"),
    (Cue.NEVER, "(?:(?:tend|try|like|prefer|want) to )?(?:hide|block|avoid|exclude|remove|skip|ban|mute)"),
    (Cue.NEVER, "without|except(?: for)?|apart from|aside from"),
    (Cue.NEVER, "besides|other than|minus|neither|no more(?: of)?|nothing(?: more)?|never|no"),
    (Cue.LESS, "not"),
    (Cue.MORE, rf"would (?:{_LIKE})(?: to (?:{_SEE}))?|could do with|(?:want|like|love|need)(?: to (?:{_SEE}))"),
    (Cue.MORE, rf"(?:usually|mostly|mainly|often|only) (?:{_WATCH})|could (?:{_WATCH})"),
    (Cue.MORE, "(?:am )?(?:(?:trying|want|would like) to (?:get into|learn about|know more about)|up for|all about)"),
    (Cue.MORE, "have a (?:soft spot|weakness|thing) for|(?:am )?(?:craving|enjoying|loving)|bring on|how about"),
    (Cue.MORE, "have been (?:enjoying|loving)|let us see|let me see|live for|(?:big )?yes to"),
    (Cue.MORE, "(?:mainly |only |mostly )?(?:come |am )?here for|(?:suggestions|recommendations) (?:for|about)"),
    (Cue.MORE, rf"(?:can|could|may) (?:i|we) (?:{_SEE})|(?:{_GENERIC}) (?:like|similar to)|something"),
    (Cue.MORE, rf"(?:can|could|would|will) you (?:{_SHOW})(?: me)?|(?:{_SHOW})(?: me)?|only(?: (?:{_SHOW})(?: me)?)?"),
    (Cue.MORE, rf"(?:am )?(?:{_FOND}|{_FAN}|in the mood for|looking for|a sucker for)"),
    (Cue.MORE, "my (?:all time )?favou?rites? (?:genres? |topics? |kinds? )?(?:is|are)"),
    (Cue.MORE, rf"more(?: of)?|{_LIKED}|want|need|prefer|(?:anything|everything)(?= (?:about|with|by|on|from))"),
    (Cue.MORE, "(?=similar |ones like )"),
)  # fmt: skip

_GOOD = "great|fine|good|awesome|amazing|wonderful|cool|fun|lovely|nice|the best|fantastic|excellent|hilarious|ok|okay"
_MINE = "my thing|my cup of tea|for me|my jam|my guilty pleasure|my favou?rites?(?: genres?)?"
_BAD = (
    "boring|bad|terrible|awful|overrated|dull|annoying|dreadful|horrible|stupid|overdone|"
    "not for me|too (?:long|scary|sad|slow|violent)"
)
_BE = "(?:is|are|was|were|sounds?|looks?)"
_ENDINGS: tuple[tuple[Cue, str], ...] = (
    (Cue.DOUBLE, rf"{_BE} not (?:{_BAD})"),
    (Cue.LESS, rf"{_BE} not (?:{_MINE}|{_GOOD}|interesting)|{_BE} (?:{_BAD})|sucks?|not so much|not really"),
    (Cue.LESS, "(?:bores?|annoys?|scares?|depress(?:es)?|upsets?|tires?) me|drives? me (?:crazy|mad|nuts)"),
    (Cue.LESS, "bores? me to (?:tears|death)|puts? me to sleep|not ok|not okay"),
    (Cue.LESS, "makes? me (?:sad|angry|sick|anxious|sleepy)"),
    (Cue.NEVER, "no|no thanks|no thank you|no way|never"),
    (Cue.MORE, rf"{_BE} (?:(?:one|some) of )?(?:{_MINE}|{_GOOD})(?: (?:{_GENERIC}))?"),
    (Cue.MORE, "yes|yes please|ok|okay|rocks?|rules?|makes? me (?:happy|laugh|smile)"),
)  # fmt: skip


def _spoken(pattern: str) -> str:
    """Adverbs may stand between any two words of a cue."""
    return pattern.replace(" ", rf" (?:(?:{_OFTEN}) )*")


_I = rf"(?:do )?(?:i |we )?(?:do (?!not)|am trying to )?(?:(?:{_OFTEN}) )*"

Patterns = tuple[tuple[Cue, re.Pattern[str]], ...]


# Compiled with the first sentence: an app opens without them, in 45 ms less.
@cache
def _starts() -> Patterns:
    return tuple((cue, re.compile(rf"{_I}(?:{_spoken(pattern)})(?![\w'-]):? *")) for cue, pattern in _CUES)


@cache
def _ends() -> Patterns:
    often = rf"(?:(?:{_OFTEN}|all) )*"
    return tuple((cue, re.compile(rf"^(.+?) {often}(?:{_spoken(pattern)})$")) for cue, pattern in _ENDINGS)


_FILLERS = (
    "please|kindly|thanks|thank you|maybe|perhaps|lol|haha|today|a bit|a little|a lot|i think|i guess|for me|"
    "to me|now|right now|these days|lately|at all|again|any ?more|in general|generally|at the moment|honestly|"
    "personally|to be honest|tbh|never mind"
)
_BEFORE = (
    f"{_FILLERS}|ok|okay|hello|hi|hey|well|so|and|or|also|then|oh|yes|way|much|some|any|even|but|given that|since|"
    r"because|as|for (?:\w+ ){0,3}reasons?"
)
_AFTER = (
    f"{_FILLERS}|here|in here|the most|so much|very much|too|though|ever|already|all day|any day|"
    "from my (?:feed|list|page|recommendations)|from here"
)
LEADING = re.compile(rf"^(?:(?:{_BEFORE}),? +)+")
TRAILING = re.compile(rf"(?<!\bnot)(?:,? +(?:{_AFTER}))+$")
FILLER = re.compile(rf"(?:(?:{_BEFORE})(?:,? +|$))+")

_DETERMINERS = (
    r"(?:a|an|the|any|some|more|such|those|these|all|other|another|good|great|nice|of|kind of|lots of|both)\b"
)
_RELATIONS = (
    "with|about|on|by|from|like|in|of|that (?:are|is|have|has)|involving|containing|featuring|related to|to do with"
)
ABOUT = re.compile(
    rf"^(?:{_DETERMINERS} +|(?:anything|everything|ones?|those|{_GENERIC}) (?:{_RELATIONS}) +|(?:{_RELATIONS}) +"
    r"|(?:anything|something) )+"
)
GENERIC = re.compile(rf" +(?:{_GENERIC}|stories|ones)$")

ANYTHING = re.compile(
    rf"(?:everything|anything|something)(?: else)?|all|it all|whatever|(?:{_GENERIC})|help|problem|worries"
    r"|(?:completely )?different|(?:the )?same|them|this app|this site"
    r"|(?:(?:all|any|every|different) )?(?:kinds?|sorts?|types?|genres?)(?: of.*)?"
)
VERB = re.compile(rf"(?:{_LIKE})\b")
EXCEPTION = re.compile(r"(?:except(?: for)?|apart from|aside from|besides|other than|minus)\b")
PRONOUN = re.compile(r"(?:it|them|that|those|these|they)")
THIS = re.compile(
    rf"(?:(?:ones|things|{_GENERIC}|stuff)? ?(?:like|similar to) )?(?:this|that|it)(?: (?:{_GENERIC}|kind of thing))?"
    rf"|similar(?: (?:{_GENERIC}))?|(?:the|these|those) (?:{_GENERIC})"
)
ROLE = re.compile(r"(?:the same|this|that) (author|writer|director|artist|maker|brand|publisher|studio|singer|band)")

BOUNDARY = re.compile(
    r"\s*(?:[,;:()]|(?<!\w)-(?!\w)|–|—|\b(?:but|however|though|although|yet)\b)\s*"
    r"|\s+(?=(?:without|except|apart from|aside from|besides|other than|minus)\b)"
)
JOINED = re.compile(r"\s+(?:and|or|nor|so|then)\s+|\s*/\s*")
SENTENCES = re.compile(r"(?<!\b[a-z])[.!]+(?:\s+|$)|(?<=[?])\s+|[;\n]+")

ASIDE = re.compile(r"^(.+),\s*(?:any|can|could|do|does|what|which|where|how|got|is|are|would|will)\b[^,]*\?$")
QUESTION = re.compile(
    r"(?!(?:can|could|would|will) you )(?:.*\?|(?:do(?! not)|does|did|is|are|why|what|who|when|where|how|which)\b.*)$"
)
DEPENDS = re.compile(r"\b(?:if|when|unless|whether|sometimes|depends|not that|not sure|used to|do not know|no idea)\b")
# Words of a sentence, which a topic does not have: such a phrase was not understood.
TELLING = re.compile(
    r"\b(?:i|you|he|she|we|they|me|my|your|her|his|their|its|our|is|are|was|were|am|be|do|does|did|have|has|had|say|says|said|think|thinks|"
    r"because|if|who|which|not|no|never|less|hates?|likes|loves|how(?! to)|watched|told|should|could|would|can|will)\b"
)
AGREED = re.compile(r"^([^.?!]+)\? *(no|yes|never)\b(?: thanks| thank you| please| way)?")

_FOREIGN_WORDS = """
ich mag keine kein nicht aber mehr bitte und oder weniger gerne der das ist filme nie auch sehr
je aime aimes pas les des mais et une du moi plutôt est avec sans jamais moins veux voir
gusta gustan quiero ver pero el los las menos nunca muy más una por favor y con ciencia
mi piacciono piace ma il di che niente per favore meno più gli anche sono non voglio
gosto mas não com mais eu quero nao ik hou van maar niet geen meer graag alstublieft een het
lubię ale nie jest nic jag gillar inte och mer mindre en jeg ikke
severim sevmem ama ve daha çok değil istemiyorum saya suka tidak de prosím mám rád
"""
_ENGLISH_WORDS = """
i the a an of and or but no not more less like love hate enjoy with without about from this that is are am do does never
any some please show me my you to for want would fewer only nothing anything everything except hide stop into fan in it
on by give recommend too much many really
"""
_FOREIGN, _ENGLISH = frozenset(_FOREIGN_WORDS.split()), frozenset(_ENGLISH_WORDS.split())


def start(clause: str) -> tuple[Cue, str] | None:
    """The cue a clause begins with and what follows it."""
    for cue, pattern in _starts():
        if found := pattern.match(clause):
            return cue, clause[found.end() :].strip()
    return None


def end(clause: str) -> tuple[Cue, str] | None:
    """The cue a clause ends with and what stands before it."""
    for cue, pattern in _ends():
        if found := pattern.match(clause):
            return cue, found.group(1).strip()
    return None


def written_out(sentence: str) -> str:
    """In lower case, with contractions and abbreviations written out."""
    return _replaced(re.sub(r"[’‘`]", "'", sentence).lower(), _SHORT)


def rewritten(sentence: str) -> str:
    """Comparisons, exceptions and conditions that say a plain wish, as that wish."""
    return _replaced(sentence, _REWRITTEN)


def foreign(sentence: str) -> bool:
    """More words speak for another language than for English."""
    words = re.findall(r"[^\W\d_]+", sentence)
    other = sum(word in _FOREIGN or not word.isascii() for word in words)
    return other > sum(word in _ENGLISH for word in words)


def _replaced(text: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, instead in rules:
        text = re.sub(pattern, instead, text)
    return re.sub(r"\s+", " ", text).strip()
