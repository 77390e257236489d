"""`{claim}` puts a claim's box beside its proof, `{claim-table}` lists claims; both from the registry and its results.

The results are `benchmarks/verify.json`, what `socket-theory verify --json` wrote; the theory index says when.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from socket_theory.claims.registry import CLAIMS
from socket_theory.core.claim import Claim, select

RESULTS = "benchmarks/verify.json"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~$^&])", r"\\\1", text)


def _number(value: float | None) -> str:
    """Three digits, on one line: the hyphen of an exponent does not break."""
    return "-" if value is None else f"{value:.3g}".replace("-", "\u2011")


class _ClaimDirective(SphinxDirective):
    def result(self, claim: Claim) -> dict[str, Any]:
        """The committed numbers of a claim, which have to be those of a verified one."""
        self.env.note_dependency(RESULTS)
        self.env.note_reread()
        rows = json.loads((Path(self.env.srcdir) / RESULTS).read_text())
        found: dict[str, Any] = next((row for row in rows if row["id"] == claim.id), {})
        if not (found.get("holds") and found.get("control_rejected")):
            raise self.error(f"{RESULTS} holds no verified {claim.id}: write it anew, as the theory index says.")
        return found

    def claims(self, pattern: str) -> tuple[Claim, ...]:
        try:
            return select(CLAIMS, pattern)
        except ValueError as unknown:
            raise self.error(str(unknown)) from unknown


class ClaimBox(_ClaimDirective):
    """Statement, kind, control and measured numbers of one claim; the content says what the check computes."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        claim, *_ = self.claims(self.arguments[0])
        row = self.result(claim)
        tightness = "" if row["tightness"] is None else f", tightness {_number(row['tightness'])}"
        return self.parse_text_to_nodes(f"""\
(claim-{claim.id})=
````{{admonition}} {claim.id} · {_escape(claim.title)}
:class: claim

{_escape(claim.statement)}

- **Check** ({claim.kind}): {" ".join(self.content)}
- **Control**, rejected: {_escape(claim.wrong)}.
- **Measured**: observed {_number(row["observed"])}, allowed {_number(row["allowance"])}{tightness}.
- **Source**: {_escape(claim.source)}.
````
""")


class ClaimTable(_ClaimDirective):
    """What was measured for the claims of the given IDs or letters, each linked to its box."""

    required_arguments = 1
    optional_arguments = 100

    def run(self) -> list[nodes.Node]:
        chosen = [claim for pattern in self.arguments for claim in self.claims(pattern)]
        lines = ["| claim | title | kind | observed | allowed | tightness |", "| --- | --- | --- | --: | --: | --: |"]
        for claim in chosen:
            row = self.result(claim)
            numbers = " | ".join(_number(row[name]) for name in ("observed", "allowance", "tightness"))
            link = f"[{claim.id}](#claim-{claim.id})"
            lines.append(f"| {link} | {_escape(claim.title)} | {claim.kind} | {numbers} |")
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("claim", ClaimBox)
    app.add_directive("claim-table", ClaimTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
