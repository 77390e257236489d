"""The table of the real-attention page, from the JSON that `evaluate attention --json` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_HEADER = (
    "| method | settings | bits | density | captured mass | recall | relative error | s.e. | p90 |\n"
    "| --- | --- | --: | --: | --: | --: | --: | --: | --: |\n"
)
_SHORT = {"query_map": "{}", "temperature": "τ={:g}", "num_samples": "{} draws"}


def _settings(settings: dict[str, Any]) -> str:
    parts = [form.format(settings[name]) for name, form in _SHORT.items() if name in settings]
    parts += ["×‖v‖"] if settings.get("value_weight") else []
    parts += ["centred"] if settings.get("center_keys") else []
    return " ".join(parts)


def write_table(app: Sphinx) -> None:
    source = Path(app.srcdir)
    run = json.loads((source / "benchmarks" / "attention-smollm2.json").read_text())
    rows = "".join(
        f"| {row['method']} | {_settings(row['settings'])} | {row['nominal_bits']} | {row['density']:.3f} "
        f"| {row['captured_mass']:.3f} | {row['recall']:.3f} | {row['relative_error_mean']:.3f} "
        f"| {row['standard_error']:.3f} | {row['relative_error_p90']:.3f} |\n"
        for row in run["rows"]
    )
    facts = (
        f"{run['model']}, {run['context']} tokens, {len(run['layers'])} layers, {len(run['positions'])} positions, "
        f"sink {run['sink']}, window {run['window']}, seed {run['seed']}, commit {run['commit'][:7]}.\n\n"
    )
    page = source / "guide" / "generated" / "attention.md"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != facts + _HEADER + rows:
        page.write_text(facts + _HEADER + rows)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
