"""One page per claim family, written from the registry before every build, so docs and checks cannot disagree."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from sphinx.application import Sphinx

from socket_theory.claims.engine import Claim
from socket_theory.claims.registry import CLAIMS

FAMILIES = {"C": "Core", "S": "SOCKET", "N": "SANTA", "R": "RACE", "K": "Sketch&Walk"}


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~$^&])", r"\\\1", text)


def _section(claim: Claim) -> str:
    return f"""(claim-{claim.id})=
## {claim.id}: {_escape(claim.title)}

{_escape(claim.statement)}

- Kind: {claim.kind}
- Source: {_escape(claim.source)}
- Control, which the check must reject: {_escape(claim.wrong)}
- Run it: `socket-theory verify --claim {claim.id}`
"""


def write_pages(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "theory" / "generated"
    folder.mkdir(exist_ok=True)
    for letter, claims in groupby(CLAIMS, key=lambda claim: claim.id[0]):
        sections = "\n".join(_section(claim) for claim in claims)
        page = folder / f"{letter}.md"
        text = f"# {_escape(FAMILIES[letter])} claims\n\n{sections}"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
