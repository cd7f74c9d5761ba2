"""A report made by hand, for tests of the page that shows it."""

from dataclasses import replace

from fedrec.study.reports.document import Card, Figure, Line, Report, Section, Table, Tone

NASTY = """<script>alert("ε")</script>' דירוג & "quoted" {{ 7 * 7 }} \u202e"""


def drawing(slug):
    """As our figures are: its own title and ids, a clip path by reference, colours of the page."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10" role="img" aria-labelledby="{slug}-title">'
        f'<title id="{slug}-title">t</title><clipPath id="{slug}-clip"><path d="M0 0h9v9z"/></clipPath>'
        f'<g clip-path="url(#{slug}-clip)"><path d="M0 0L9 9" stroke="var(--c1, #1b6ca8)"/></g></svg>'
    )


def table(title="Every arm", name="federated"):
    rows = ((name, "0.5", "0.312 ± 0.011", "kept"), (name, "∞", "0.2 (0.1 to 0.3)", "x" * 60))
    return Table(title, ("arm", "ε", "NDCG@10", "why"), rows, "Full catalogue, seen items masked.")


def picture(slug):
    return Figure(slug, f"Figure {slug}", f"What {slug} shows.", drawing(slug), "<svg>print</svg>", b"png", table(slug))


def card(title):
    facts = (("unit", "person"), ("ε, δ", "2.00, 1e-6"))
    return Card(title, "user-level ε = 2.00", "One person's data.", facts, ("An honest server.",), ("Timing.",))


def report(name="federated"):
    bare = replace(card("none"), facts=(), assumptions=())
    verdict = tuple(Line(tone, f"A {tone.name} line of {name}.") for tone in Tone)
    return Report(f"Study of {name}", f"Arms: {name}", (
        Section("verdict", "Verdict", (f"All ε are user-level ({name}).",), verdict),
        Section("results", "Results", figures=(picture("headline"), picture("groups")), tables=(table(name=name),)),
        Section("groups", "Groups", lines=(Line(Tone.WARN, "The worst of 12."),), tables=(table("By group"),)),
        Section("guarantees", "Guarantees", cards=(card(name), card(name), bare)),
        Section("reproduce", "Make it again", code=(("The command", f"fedrec sweep {name}\n  --seeds 5"),)),
    ))  # fmt: skip
