"""`evaluate ranking`: what it writes, what it prints, and the sentences for wrong options."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from socket_theory.cli import main
from socket_theory.evaluate.ranking import MEASURES, SETTINGS

SMALL = ("--tokens", 200, "--head-dim", 16, "--trials", 2, "--queries", 1)


def ranking(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", "ranking", *map(str, (*SMALL, *arguments))])


def test_the_results_are_printed_and_written(tmp_path: Path) -> None:
    output = tmp_path / "ranking.json"
    done = ranking("--planes", "2,4", "--tables", "5", "--ks", "10,3", "--json", output, "--commit", "c0ffee")
    assert done.exit_code == 0, done.output
    record = json.loads(output.read_text())
    rows = record.pop("rows")
    assert record.pop("versions").keys() >= {"python", "socket_theory", "numpy", "scipy"}
    size = {"num_keys": 200, "head_dim": 16, "num_trials": 2, "num_queries": 1}
    assert record == {"schema": 1, "seed": 0, **size, "ks": [3, 10], "commit": "c0ffee"}
    assert len(rows) == 2 * (1 + len(SETTINGS))
    assert list(rows[0]) == ["method", "settings", "means", "standard_errors"]
    for figures in (rows[0]["means"], rows[0]["standard_errors"]):
        assert list(figures) == list(MEASURES)
        assert all(len(curve) == 2 for curve in figures.values())
    assert rows[0]["settings"] == {"num_planes": 2, "num_tables": 5}
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["method", "settings", "P", "L", "bits", "p@3", "p@10", "ndcg@10", "rho@10", "tau@10"]
    assert lines[1].split()[:6] == ["hard_lsh", "-", "2", "5", "10", f"{rows[0]['means']['precision'][0]:.3f}"]
    assert sum(line.startswith("socket") for line in lines) == 2 * len(SETTINGS)
    assert max(map(len, lines)) <= 110


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    options = ("--planes", 3, "--tables", 4, "--ks", 20)
    first, again, other = (ranking(*options, "--seed", seed).output for seed in (1, 1, 2))
    assert first == again != other


def test_wrong_options_are_named() -> None:
    for option, given, sentence in (
        ("--ks", "4,many", "'4,many' is not a list of integers: pass some such as 4,16,64."),
        ("--ks", "0", "--ks 0 was given: pass an integer of at least 1."),
        ("--ks", "300", "--ks 300 were given for 200 keys: pass integers from 1 to 200."),
        ("--planes", "17", "--planes 17 was given: pass at most 16"),
        ("--trials", "1", "--trials 1 was given: pass an integer of at least 2."),
    ):
        done = ranking(option, given)
        assert done.exit_code == 2
        assert sentence in " ".join(done.output.split()), done.output
        assert "Traceback" not in done.output
