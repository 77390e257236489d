"""Tables of the page on tightness, from the JSON that `evaluate tightness --json` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from page_parts import Row, table

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SILENT = "says nothing"


def figure(row: Row) -> str:
    """The ratio, in three digits up to a thousand."""
    if row["tightness"] is None:
        return SILENT
    ratio = row["tightness"]
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" if ratio < 10_000 else f"{ratio:.1e}"


def family_part(run: Row, family: str) -> str:
    """The settings, a table with a row for each bound, and the reasons of those that are loose somewhere."""
    settings = [setting for setting in run["settings"] if setting["family"] == family]
    bounds: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in run["rows"]:
        if row["family"] == family:
            bounds.setdefault((row["claim"], row["title"], row["form"]), {})[row["setting"]] = row
    names = [setting["name"] for setting in settings]
    lines = [
        [f"[{claim}](#claim-{claim})", title, f"`{form}`", *(figure(found[name]) for name in names)]
        for (claim, title, form), found in bounds.items()
    ]
    described = "".join(f"- **{setting['name']}**: {setting['words']}.\n" for setting in settings)
    heading = "claim | bound | function | " + " | ".join(names)
    return f"## {family}\n\n{described}\n{table(heading, lines)}{_reasons(bounds)}"


def _reasons(bounds: dict[tuple[str, str, str], dict[str, Row]]) -> str:
    """Each reason once, with the bounds that it is the reason of."""
    whose: dict[str, list[str]] = {}
    for (claim, title, _), found in bounds.items():
        for reason in dict.fromkeys(row["reason"] for row in found.values() if row["reason"]):
            whose.setdefault(reason, []).append(f"{claim} {title}")
    lines = [f"- **{'; '.join(names)}.** {reason}\n" for reason, names in whose.items()]
    return "Why a ratio exceeds 3:\n\n" + "".join(lines) + "\n" if lines else ""


def fragment(run: Row) -> str:
    """The generated part of the page."""
    facts = f"{run['trials']} trials, δ = {run['delta']:g}, seed {run['seed']}, commit {run['commit'][:7]}.\n\n"
    families = dict.fromkeys(setting["family"] for setting in run["settings"])
    return facts + "".join(family_part(run, family) for family in families)


def write_page(app: Sphinx) -> None:
    source = Path(app.srcdir)
    text = fragment(json.loads((source / "benchmarks" / "tightness.json").read_text()))
    page = source / "theory" / "generated" / "tightness.md"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
