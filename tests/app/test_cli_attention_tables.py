"""The tables of `evaluate attention` show each number under its own heading."""

from __future__ import annotations

import re
from io import StringIO

from rich.console import Console

from socket_theory.cli.attention_tables import PIPED_WIDTH, print_tables
from socket_theory.evaluate.accuracy import Row
from socket_theory.evaluate.sampled_attention import SampledRow
from socket_theory.evaluate.sampling_variance import VarianceCurve


def test_error_standard_error_and_p90_stand_under_their_headings() -> None:
    row = Row("window", {}, 600, 960, 0.05, 0.61, 0.42, 0.111, 0.333, 0.022)
    sampled = SampledRow("santa", {"sampler": "iid"}, 50.0, 109.0, 0.97, 0.508, 0.0, 0.123, 0.345, 0.034)
    curve = VarianceCurve("iid", [32, 64], [0.1, 0.05], -1.25, 0.07, -1.5, -1.125, -1.375, 270)
    text = StringIO()
    print_tables([row], [sampled], [curve], Console(file=text, width=PIPED_WIDTH))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    shown = {
        "error s.e. p90": r"window .*0\.111 0\.022 0\.333",
        "bias error s.e. p90": r"santa .*0\.000 0\.123 0\.034 0\.345",
        "slope s.e. p10 p90 of mean heads": r"iid -1\.250 0\.070 -1\.500 -1\.125 -1\.375 270",
    }
    for headings, numbers in shown.items():
        (place,) = (n for n, line in enumerate(lines) if line.endswith(headings) and re.search(numbers, lines[n + 1]))
        assert place < len(lines) - 1
