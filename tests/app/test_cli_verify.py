"""`socket-theory verify` and `socket-theory claims` as a user runs them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pytest
from click.testing import CliRunner, Result
from joblib import parallel_config

from socket_theory import __version__
from socket_theory.claims import registry
from socket_theory.cli import main
from socket_theory.core import claim as engine
from socket_theory.core.rng import Key

FAST = ("--claim", "C", "--jobs", "1")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def read(path: Path) -> Any:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_version() -> None:
    assert __version__ in invoke("--version").output


def test_verify_prints_a_row_a_claim_and_succeeds() -> None:
    result = invoke("verify", *FAST)
    assert result.exit_code == 0, result.output
    for claim in registry.CLAIMS:
        assert (claim.id in result.output) == (claim.id[0] == "C")
    assert "control is rejected" in result.output


def test_json_has_one_row_a_claim_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert invoke("verify", *FAST, "--json", str(path)).exit_code == 0
    rows = read(path)
    assert [row["id"] for row in rows] == [claim.id for claim in registry.CLAIMS if claim.id[0] == "C"]
    fields = {"id", "holds", "observed", "allowance", "tightness", "control_rejected", "seconds"}
    assert all(set(row) == fields for row in rows)
    assert all(row["holds"] and row["control_rejected"] and row["tightness"] is None for row in rows)


def test_a_seed_decides_every_number_whatever_the_number_of_workers(tmp_path: Path) -> None:
    rows = []
    for name, seed, jobs in (("a", "3", "1"), ("b", "3", "2"), ("c", "4", "1")):
        path = tmp_path / name
        invoke("verify", "--claim", "S2", "--seed", seed, "--jobs", jobs, "--json", str(path))
        rows.append([{**row, "seconds": 0} for row in read(path)])
    assert rows[0] == rows[1] != rows[2]


def _with_outcome(monkeypatch: pytest.MonkeyPatch, observed: float, control: float) -> None:
    def run_by_id(claim_id: str, *_: object) -> engine.Result:
        return engine.Result(claim_id, engine.Measurement(observed, 1.0), engine.Measurement(control, 1.0), 0.1)

    monkeypatch.setattr(registry, "run_by_id", run_by_id)


@pytest.mark.parametrize(
    ("observed", "control", "word"), [(2.0, 2.0, "NO"), (0.5, 0.5, "PASSES"), (float("nan"), 2.0, "NO")]
)
def test_a_failure_exits_with_1_and_names_the_claim(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, observed: float, control: float, word: str
) -> None:
    _with_outcome(monkeypatch, observed, control)
    path = tmp_path / "result.json"
    result = invoke("verify", "--claim", "C1", "--jobs", "1", "--json", str(path))
    assert result.exit_code == 1
    assert word in result.output
    assert "Not verified: C1." in result.output
    (row,) = read(path)
    assert row["observed"] == (None if observed != observed else observed)
    assert (row["holds"], row["control_rejected"]) == (observed <= 1, control > 1)


def test_an_exception_in_a_claim_fails_that_claim_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(_: engine.Context) -> engine.Measurement:
        raise ZeroDivisionError("nothing was [drawn]")

    claims = tuple(replace(claim, check=fail) if claim.id == "C1" else claim for claim in registry.CLAIMS)
    monkeypatch.setattr(registry, "CLAIMS", claims)
    path = tmp_path / "result.json"
    result = invoke("verify", *FAST, "--json", str(path))
    assert result.exit_code == 1
    assert "C1 was not measured. ZeroDivisionError: nothing was [drawn]" in result.output
    assert "Not verified: C1." in result.output
    first, *others = read(path)
    assert (first["observed"], first["allowance"], first["holds"]) == (None, None, False)
    assert first["error"] == "ZeroDivisionError: nothing was [drawn]"
    assert all(row["holds"] and "error" not in row for row in others)


@pytest.mark.parametrize("jobs", ["0", "-2"])
def test_a_number_of_jobs_that_is_none_is_refused(jobs: str) -> None:
    result = invoke("verify", "--claim", "C", "--jobs", jobs)
    assert result.exit_code == 2
    assert f"{jobs} was given: pass 1 or more worker processes, or -1 for one a core." in result.output


@pytest.mark.parametrize("command", [("verify", *FAST), ("claims",)])
def test_json_on_the_standard_output_is_json_alone(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--json", "-")
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["id"] == "C1"
    assert "C1" in result.stderr


def test_an_interrupt_leaves_a_clean_partial_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = registry.verify

    def interrupted(*arguments: Any, **options: Any) -> Iterator[engine.Result]:
        results = whole(*arguments, **options)
        yield next(results)
        yield next(results)
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "verify", interrupted)
    path = tmp_path / "result.json"
    result = invoke("verify", *FAST, "--json", str(path))
    assert result.exit_code == 130
    assert "Interrupted: 2 of" in result.output
    assert "Traceback" not in result.output
    assert [row["id"] for row in read(path)] == [claim.id for claim in registry.CLAIMS][:2]


def test_an_unknown_claim_names_the_nearest_ones() -> None:
    result = invoke("verify", "--claim", "S2.colt")
    assert result.exit_code == 2
    assert "there is no claim 'S2.colt': the nearest are S2.cold" in result.output


def test_the_case_of_an_id_does_not_matter() -> None:
    for given in ("s2.COLD", "S2.cold"):
        assert [claim.id for claim in engine.select(registry.CLAIMS, given)] == ["S2.cold"]
    assert engine.select(registry.CLAIMS, "c") == engine.select(registry.CLAIMS, "C")


def test_one_claim_is_spoken_of_as_one() -> None:
    assert invoke("verify", "--claim", "c1").stdout.endswith("The claim holds and its control is rejected.\n")


def test_an_id_without_its_option_is_given_one() -> None:
    result = invoke("verify", "S1", "C2")
    assert result.exit_code == 2
    assert "to check a claim, pass --claim S1 --claim C2." in result.output


def test_claims_shows_those_asked_for() -> None:
    result = invoke("claims", "c2", "--json", "-")
    assert [row["id"] for row in json.loads(result.stdout)] == ["C2.set", "C2.order"]
    wrong = invoke("claims", "S2.colt")
    assert wrong.exit_code == 2
    assert "there is no claim 'S2.colt': the nearest are S2.cold" in wrong.output


@pytest.mark.parametrize("words", ["socket-theory verify --claim c2.", "socket-theory claims c2."])
def test_a_shell_completes_claim_ids(words: str) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_SOCKET_THEORY_COMPLETE": "bash_complete"}
    result = CliRunner().invoke(main, [], prog_name="socket-theory", env=asked)
    assert result.output.split() == ["plain,C2.set", "plain,C2.order"]


def test_no_more_workers_are_started_than_there_are_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    class Parallel(joblib.Parallel):  # type: ignore[misc]
        def __init__(self, n_jobs: int | None = None, **options: Any) -> None:
            asked.append(n_jobs)
            super().__init__(1, **options)

    monkeypatch.setattr(joblib, "Parallel", Parallel)
    assert invoke("verify", "--claim", "C2", "--jobs", "1000").exit_code == 0
    assert asked == [2]


def test_an_unwritable_json_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    result = invoke("verify", *FAST, "--json", str(tmp_path / "missing" / "result.json"))
    assert result.exit_code == 2
    assert "is no directory: make it first." in result.output


def test_claims_lists_id_title_statement_and_source(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    result = invoke("claims", "--json", str(path))
    assert result.exit_code == 0
    for row, claim in zip(read(path), registry.CLAIMS, strict=True):
        assert row == {"id": claim.id, "title": claim.title, "statement": claim.statement, "source": claim.source}
        assert claim.id in result.output
        assert claim.title in result.output


def test_claims_run_on_a_backend_that_returns_all_results_at_the_end() -> None:
    claims = engine.select(registry.CLAIMS, "S2")
    with parallel_config(backend="multiprocessing", n_jobs=2):
        results = {result.id: result.measurement for result in registry.verify(claims, key=Key.from_seed(0))}
    assert results == {result.id: result.measurement for result in registry.verify(claims, key=Key.from_seed(0))}


def test_claims_run_on_dask_where_joblib_is_told_so(require_extra: Callable[..., Any]) -> None:
    distributed = require_extra("test", "dask.distributed")
    claims = engine.select(registry.CLAIMS, "S2")
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        parallel_config(backend="dask"),
    ):
        results = list(registry.verify(claims, key=Key.from_seed(0)))
    alone = {result.id: result for result in registry.verify(claims, key=Key.from_seed(0))}
    assert {result.id: result.measurement for result in results} == {name: r.measurement for name, r in alone.items()}
