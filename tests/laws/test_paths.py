"""What passes a door means one thing to everybody who reads it."""

import posixpath
import re
from urllib.parse import unquote, urlsplit

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedrec.deploy.paths import ENROL, FLEET, LOOK, Place, place

GOOD = (
    "POST /v1/fleet/pull-messages",
    "POST /v1/fleet/push-object",
    "POST /fedrec/v1/enrol",
    "GET /fedrec/v1/ca",
    "GET /fedrec/v1/bell",
    "GET /fedrec/v1/bell?after=17",
    "GET /fedrec/v1/task/catalogue.parquet",
    "GET /fedrec/v1/pack/latest",
    "GET /fedrec/v1/pack/12/model.safetensors",
    f"GET /fedrec/v1/pack/encoders/{'0a' * 32}/encoder.onnx",
)
LAW = settings(derandomize=True, deadline=None, max_examples=400)

pieces = st.lists(
    st.sampled_from(
        ["/", "//", ".", "..", "/v1", "/fleet", "/control", "/fedrec", "/task", "/pack", "/latest", "/bell", "?after=",
         "%2e", "%2f", "%00", "\\", ";", "#", "?", "pull-messages", "start-run", "1", "a.b", "é", " ", "\n", "\r\n"]
    ),
    max_size=9,
)  # fmt: skip
methods = st.sampled_from(["GET", "POST", "PUT", "HEAD", "get", "", "GET /fedrec/v1/ca", "POST "])


@st.composite
def near_misses(draw) -> tuple[str, str]:
    """A good line with one change."""
    method, target = draw(st.sampled_from(GOOD)).split(" ")
    at = draw(st.integers(0, len(target)))
    cut = draw(st.integers(0, 3))
    return method, target[:at] + draw(st.sampled_from(["", *"/.%?&#;\\ \n\0éA1-"]) | st.text(max_size=3)) + target[
        at + cut :
    ]


def asked(method: str, target: str) -> Place | None:
    return place(method, target.encode("latin-1", "replace"))


def test_what_devices_need_is_there():
    assert [asked(*line.split(" ")) for line in GOOD] == [Place.FLEET] * 2 + [Place.DESK] * 8


def means_one_thing(method: str, target: str) -> bool:
    parts = urlsplit(target)
    plain = unquote(target) == target and posixpath.normpath(parts.path) == parts.path
    clean = re.fullmatch(r"[A-Za-z0-9/._?=-]+", target) and "//" not in target and "/." not in target
    return plain and bool(clean) and not parts.netloc and not parts.fragment and method in ("GET", "POST")


@LAW
@given(methods, pieces.map("".join))
@example("POST", "/v1/fleet/../control/start-run")
def test_whatever_passes_means_one_thing(method, target):
    if asked(method, target) is not None:
        assert means_one_thing(method, target)


@LAW
@given(near_misses())
def test_so_does_whatever_is_nearly_right(line):
    found = asked(*line)
    if found is not None:
        assert means_one_thing(*line)
    if found is Place.FLEET:
        assert line[0] == "POST" and line[1].startswith("/v1/fleet/") and line[1].count("/") == 3


def test_the_law_would_notice_a_careless_rule():
    assert not means_one_thing("POST", "/v1/fleet/../control/start-run")
    assert not means_one_thing("POST", "/v1/fleet/%2e%2e/control/start-run")
    assert not means_one_thing("GET", "//v1/control")


def test_a_long_target_is_nobodys():
    assert asked("GET", "/fedrec/v1/task/" + "a" * 600) is None


@LAW
@given(near_misses())
def test_nginx_and_we_read_the_same_rules(line):
    """nginx searches `^rule$` in PCRE; on one line of text that is what `fullmatch` does in Python."""
    text = " ".join(line)
    if text.isprintable() and text.isascii():
        found = any(re.search(f"^{rule}$", text) for rule in (FLEET, ENROL, LOOK))
        assert found == (asked(*line) is not None)
