"""JSON of others is what it is asked to be, to the type, or is refused with its place."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import pytest

from fedrec.model.pack_format import Profile
from fedrec.sections import ProfileSpec
from fedrec.strict import Misfit, counted, parsed, read, spelled, within


@dataclass(frozen=True)
class Leaf:
    count: Annotated[int, within(1, 9)]
    code: Annotated[str, spelled("[a-z]*")] = ""


@dataclass(frozen=True)
class Tree:
    name: str
    share: float
    open: bool
    kind: Literal["oak", 1]
    leaf: Leaf
    leaves: Annotated[tuple[Leaf, ...], counted(1)]
    pair: tuple[str, tuple[int, ...]]
    named: dict[Annotated[str, counted(1, 3)], Leaf]
    maybe: Annotated[int, within(0)] | None
    more: Any
    later: bool = False


LEAF = {"count": 3, "code": "ab"}
TREE = {
    "name": "é", "share": 0.5, "open": True, "kind": "oak", "leaf": LEAF, "leaves": [LEAF, {"count": 1}],
    "pair": ["x", [1, 2]], "named": {"a": LEAF}, "maybe": None, "more": [1, {"x": None}],
}  # fmt: skip


def test_every_value_has_its_type():
    tree = read(Tree, TREE)
    assert tree == Tree("é", 0.5, True, "oak", Leaf(3, "ab"), (Leaf(3, "ab"), Leaf(1)), ("x", (1, 2)),
                        {"a": Leaf(3, "ab")}, None, [1, {"x": None}])  # fmt: skip
    assert read(Tree, json.loads(json.dumps(asdict(tree)))) == tree


def test_integers_may_stand_for_floats_and_nothing_else_for_anything():
    assert isinstance(read(Tree, TREE | {"share": 1}).share, float)
    assert read(Tree, TREE | {"maybe": 0}).maybe == 0


def test_what_a_later_writer_adds_is_passed_over():
    assert read(Tree, TREE | {"new": 1, "leaf": LEAF | {"new": 1}}) == read(Tree, TREE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 1}, "name: a text is asked for"),
        ({"name": None}, "name: a text"),
        ({"share": "0.5"}, "share: a finite number"),
        ({"share": True}, "share: a finite number"),
        ({"share": math.inf}, "share: a finite number"),
        ({"share": 2**53 + 1}, "share: a finite number"),
        ({"open": 1}, "open: true or false"),
        ({"kind": "elm"}, "kind: one of 'oak', 1 is asked for"),
        ({"kind": True}, "kind: one of"),
        ({"kind": 1.0}, "kind: one of"),
        ({"leaf": []}, "leaf: an object"),
        ({"leaf": {}}, "leaf.count: it is missing"),
        ({"leaf": {"count": 0}}, "leaf.count: 1 to 9 is asked for"),
        ({"leaf": {"count": 10}}, "leaf.count: 1 to 9"),
        ({"leaf": {"count": 3.0}}, "leaf.count: an integer"),
        ({"leaf": {"count": True}}, "leaf.count: an integer"),
        ({"leaf": {"count": 3, "code": "a\n"}}, "leaf.code: it is not spelled"),
        ({"leaves": []}, "leaves: at least 1"),
        ({"leaves": {"0": LEAF}}, "leaves: a list"),
        ({"leaves": [LEAF, {"count": ""}]}, "leaves.1.count: an integer"),
        ({"pair": ["x"]}, "pair: 2 values"),
        ({"pair": ["x", [1, "2"]]}, "pair.1.1: an integer"),
        ({"named": {"long": LEAF}}, "named.long: 1 to 3"),
        ({"named": {"a": 1}}, "named.a: an object"),
        ({"maybe": -1}, "maybe: at least 0"),
        ({"maybe": "1"}, "maybe: an integer"),
    ],
)
def test_anything_else_is_refused_with_its_place(change, said):
    with pytest.raises(Misfit) as refused:
        read(Tree, TREE | change)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("name", [name for name in TREE])
def test_nothing_may_be_missing_but_what_has_a_default(name):
    with pytest.raises(Misfit, match=f"^{name}: it is missing$"):
        read(Tree, {key: value for key, value in TREE.items() if key != name})


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(Misfit, match="^an object is asked for$"):
        read(Tree, value)


def test_what_is_parsed():
    assert parsed(b' {"a": [1, 2.5, "\xc3\xa9", "\\u00e9\\ud83d\\ude00"]} \n') == {"a": [1, 2.5, "é", "é😀"]}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"1 2", b"NaN", b"[-Infinity]", b"\xff", b'"\\ud83d"', b'{"\\ude00": 1}', b"[" * 100_000,
     "\ufeff1".encode(), '"é"'.encode("utf-16")],
)  # fmt: skip
def test_what_is_no_json_is_refused(content):
    with pytest.raises(ValueError, match="."):
        parsed(content)


def test_a_pack_reads_the_profile_that_a_plan_writes():
    assert asdict(Profile()) == ProfileSpec().model_dump()
    assert Profile(view=2.0, skip=-3.0).kinds() == ProfileSpec(view=2.0, skip=-3.0).kinds()
