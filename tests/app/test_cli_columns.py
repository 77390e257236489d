"""Tables fit their terminal, and what is left out for that is named."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from socket_theory.claims import registry
from socket_theory.cli.attention_tables import print_tables
from socket_theory.cli.columns import Column, print_fitted
from socket_theory.cli.stages import stages
from socket_theory.cli.verify_table import print_results
from socket_theory.core import claim as engine
from socket_theory.evaluate.accuracy import Row

METHODS = ("socket_sampling", "oracle_top_k")


def console(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, highlight=False)


def printed(to: Console) -> list[str]:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_the_tables_of_an_evaluation_fit_and_keep_method_and_error(width: int) -> None:
    settings = {"query_map": "tanh_scaled", "temperature": 0.4, "value_weight": True, "center_keys": True}
    rows = [Row(method, settings, 600, 672, 0.05, 0.5, 0.5, 0.123, 0.9, 0.01) for method in METHODS]
    to = console(width)
    print_tables(rows, [], [], to)
    lines = printed(to)
    assert max(map(len, lines)) <= width
    assert lines[0].split()[0] == "method"
    assert "error" in lines[0]
    for method in METHODS:
        (line,) = (line for line in lines if line.startswith(method))
        assert "0.123" in line
    if width < 80:
        assert f"At {width} columns there is no room for stored, recall" in " ".join(lines)


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_the_table_of_claims_fits_and_keeps_ids_and_verdicts(width: int) -> None:
    right, wrong = engine.Measurement(1.23e-16, 1e-12, 1.5), engine.Measurement(2.0, 1.0)
    results = [engine.Result(claim.id, right, wrong, 123.4) for claim in registry.CLAIMS]
    to = console(width)
    print_results(results, registry.CLAIMS, to)
    lines = printed(to)
    assert max(map(len, lines)) <= width
    for line, claim in zip(lines[1:], registry.CLAIMS, strict=False):
        assert line.split()[0] == claim.id
        assert "yes" in line
        assert "rejected" in line


def test_columns_go_in_their_order() -> None:
    columns = [Column("name"), Column("first", drop=2), Column("second", drop=1)]
    for width, shown in ((19, "name first second"), (18, "name second"), (11, "name")):
        to = console(width)
        print_fitted(to, columns, [["a", "b", "c"]])
        assert printed(to)[0].split() == shown.split()


def test_without_a_terminal_every_stage_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with stages() as start:
        start("reading", None)()
        start("comparing, 3 layers", 3)()
    assert capsys.readouterr().err == "reading\ncomparing, 3 layers\n"
