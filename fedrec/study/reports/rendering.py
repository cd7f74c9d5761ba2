"""A drawing as PNG, as SVG for paper, and as SVG in the colours of the page that holds it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from fedrec.study.reports.document import Figure, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# The page's --c1 to --c8 in its light theme: hues after Okabe and Ito, darkened to 3:1 or more against white.
COLOURS = ("#1b6ca8", "#c4500c", "#00795c", "#a8447f", "#97690a", "#2585b8", "#6b5bb5", "#5c6670")
INK = "#1a1a1a"  # never #000000, which matplotlib leaves out of an SVG
DPI = 144
_INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
_STYLE: dict[Any, object] = {
    "font.size": 10.0, "axes.titlesize": 10.0, "axes.labelsize": 10.0, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "axes.facecolor": "none", "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "fedrec",
} | dict.fromkeys(_INKED, INK)  # fmt: skip
_LINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_FACES = re.compile(r"font-family:[^;]*;?\s*")
_UNTURNED = re.compile(r"rotate\(-?0(\.0)? [^)]*\)")
_PLACED = ("d", "x", "y", "width", "height", "transform", "viewBox", "points")


@dataclass(frozen=True)
class Caption:
    """What is said of a picture: its slug, its title, a sentence with numbers, and all its numbers."""

    slug: str
    title: str
    alt: str
    table: Table


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own defaults and ours on top, whatever this machine has configured; undone at the end."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def lay_out(drawing: Drawing) -> None:
    """Once, not once for each form; what is drawn later has to fit."""
    if (engine := drawing.get_layout_engine()) is not None:
        engine.execute(drawing)
        drawing.set_layout_engine(None)


def rendered(drawing: Drawing, caption: Caption) -> Figure:
    """The drawing in all its forms; the same bytes each time. Call it within `house_style`."""
    lay_out(drawing)
    raw = _saved(drawing, "svg").decode()
    return Figure(
        caption.slug, caption.title, caption.alt,
        svg=_themed(_tidy(raw, caption)), print_svg=_printed(_tidy(raw, caption)),
        png=_saved(drawing, "png"), table=caption.table,
    )  # fmt: skip


def _saved(drawing: Drawing, form: str) -> bytes:
    buffer = io.BytesIO()
    absent = {"Date": None} if form == "svg" else {"Software": None}
    drawing.savefig(buffer, format=form, dpi=DPI, facecolor="none" if form == "svg" else "white", metadata=absent)
    return buffer.getvalue()


def _tidy(raw: str, caption: Caption) -> ElementTree.Element:
    """Matplotlib's SVG without metadata, style sheet and unused ids; every other id starts with the slug."""
    root = ElementTree.fromstring(raw)
    root.remove(next(child for child in root if child.tag.endswith("}metadata")))
    root.remove(next(child for child in root if child.tag.endswith("}defs")))  # a style sheet would reach the page
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        _rename(element, caption.slug)
        for name in _PLACED:
            if name in element.attrib:
                element.set(name, _NUMBER.sub(_rounded, element.attrib[name]).replace("\n", " ").strip())
        if _UNTURNED.fullmatch(element.get("transform", "")):
            del element.attrib["transform"]
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg", "role": "img", "stroke-linejoin": "round",
        "aria-labelledby": f"{caption.slug}-title {caption.slug}-desc",
    }  # fmt: skip
    for at, (name, text) in enumerate((("title", caption.title), ("desc", caption.alt))):
        label = ElementTree.Element(name, id=f"{caption.slug}-{name}")
        label.text = text
        root.insert(at, label)
    return root


def _rename(element: ElementTree.Element, slug: str) -> None:
    """Several figures share a page: groups lose their ids, what is referred to gets the slug before its id."""
    if element.tag == "g":
        element.attrib.pop("id", None)
    if "id" in element.attrib:
        element.set("id", f"{slug}-{element.attrib['id']}")
    if _LINK in element.attrib:
        element.set("href", f"#{slug}-{element.attrib.pop(_LINK)[1:]}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{slug}-"))


def _rounded(number: re.Match[str]) -> str:
    """A hundredth of a point is finer than any screen."""
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _themed(root: ElementTree.Element) -> str:
    """In the page's font and text colour, at the page's width, with colours that the page may set."""
    del root.attrib["width"], root.attrib["height"]
    theme = {INK: "currentColor"} | {hue: f"var(--c{n}, {hue})" for n, hue in enumerate(COLOURS, 1)}
    for element in root.iter():
        if "style" in element.attrib:
            look = _FACES.sub("", element.attrib["style"])
            for plain, themed in theme.items():
                look = look.replace(plain, themed)
            if element.tag == "text" and "fill:" not in look:
                look += "; fill: currentColor"
            element.set("style", look)
    return ElementTree.tostring(root, encoding="unicode")


def _printed(root: ElementTree.Element) -> str:
    """On white, in any sans-serif font."""
    for element in root.iter("text"):
        element.set("style", _FACES.sub("font-family: sans-serif; ", element.get("style", "")))
    root.insert(2, ElementTree.Element("rect", width="100%", height="100%", fill="#ffffff"))
    return ElementTree.tostring(root, encoding="unicode")
