"""`evaluate tightness`: ratios by hand, a run at tiny effort, and every bound in it."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from click.testing import CliRunner, Result

import socket_theory.bounds
import socket_theory.race.bounds
import socket_theory.santa.bounds
import socket_theory.socket_lsh.bounds
from socket_theory.claims.registry import CLAIMS
from socket_theory.cli import main
from socket_theory.core.rng import Key
from socket_theory.evaluate.tightness import settings
from socket_theory.evaluate.tightness.entry import Entry, row_of
from socket_theory.evaluate.tightness.race_setting import RaceSetting
from socket_theory.evaluate.tightness.santa_setting import SantaSetting
from socket_theory.evaluate.tightness.socket_setting import ANGLES, SocketSetting, first_counts
from socket_theory.race.law import RaceKernel
from socket_theory.socket_lsh.law import SoftKernel

KEY = Key.from_seed(5)
SMALL: dict[str, Any] = {
    "SOCKET": lambda n, key: SocketSetting(SoftKernel(2, 0.7, "tanh", 8), 3.0, 40, 30, 16, n, key),
    "RACE": lambda n, key: RaceSetting(RaceKernel(2, 2.0), 3.0, 8, 40, 30, n, key),
    "SANTA": lambda n, key: SantaSetting(40, 16, 8, n, key),
}
# What is no bound on an error: inverses of bounds that are there, and what bounds are made of.
NO_ERROR = {
    "normaliser_failure": "normaliser_failure_tables, its inverse, is there",
    "hoeffding_failure": "hoeffding_radius is its inverse",
    "bernstein_failure": "bernstein_radius is its inverse",
    "two_point_failure": "two_point_radius is its inverse",
    "misrank_hoeffding": "misrank_tables is its inverse",
    "misrank_hoeffding_range": "misrank_hoeffding_range_tables is its inverse",
    "misrank_bernstein": "misrank_bernstein_tables is its inverse",
    "weight_bound": "the largest sum of weights, which S9's forms take",
}


def entry(kind: Any, compared: Any, reason: str = "Because.") -> Entry[None]:
    return Entry("S8.hoeffding", "title", "a.b", kind, lambda _: compared, reason)


def test_a_radius_is_divided_by_the_quantile_of_the_errors() -> None:
    row = row_of(entry("tail", (4.0, np.arange(1, 21) / 10)), "toy", None)
    assert (row.bound, row.tightness) == (4.0, pytest.approx(2.0))  # the 20th of 20 errors, at 1 - delta = .95
    assert row.measured == pytest.approx(2.0)
    assert row.reason is None


def test_of_several_cases_the_loosest_counts() -> None:
    errors = np.stack([np.ones(40), np.full(40, 0.1)], axis=1)
    row = row_of(entry("tail", ([2.0, 1.0], errors)), "toy", None)
    assert (row.bound, row.measured, row.tightness, row.reason) == (1.0, pytest.approx(0.1), 10, "Because.")
    row = row_of(entry("count", ([40, 12], [20, 3])), "toy", None)
    assert (row.bound, row.measured, row.tightness) == (12, 3, 4)


def test_an_infinite_radius_says_nothing() -> None:
    row = row_of(entry("tail", (np.inf, np.arange(1.0, 21))), "toy", None)
    assert (row.bound, row.measured, row.tightness, row.reason) == (None, 20, None, "Because.")


def test_the_first_count_that_passes_is_found_for_each_case() -> None:
    found = first_counts(lambda n: np.ones((1, n)), lambda total: np.array([total[0] >= 1, total[0] >= 7]))
    assert found.tolist() == [1, 7]
    assert first_counts(lambda n: np.ones((1, n)), lambda _: np.array([False])).tolist() == [20_000]


@pytest.mark.statistical
def test_what_is_measured_has_the_law_it_is_taken_for() -> None:
    setting = SMALL["SOCKET"](100, KEY)
    weights = setting.angle_weights(20_000, KEY.generator())
    np.testing.assert_allclose(weights.mean(axis=0), setting.means, atol=0.015)
    np.testing.assert_allclose(weights.var(axis=0), setting.kernel.variance(ANGLES, 3.0), atol=0.015)
    sets = setting.sets
    assert np.mean(sets.errors**2 * sets.masses**2) == pytest.approx(sets.moments.second / 30, rel=0.3)
    assert sets.masses.mean() == pytest.approx(sets.mass, rel=0.05)
    santa = SMALL["SANTA"](100, KEY)
    assert santa.systematic.mean() < santa.iid.mean()


def small_run(arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> Result:
    small = tuple(replace(setting, make=SMALL[setting.family]) for setting in settings.SETTINGS)
    monkeypatch.setattr(settings, "SETTINGS", small)
    with joblib.parallel_config(backend="threading"):  # these settings are no part of the package
        return CliRunner().invoke(main, ["evaluate", "tightness", *map(str, arguments)])


def test_the_results_are_printed_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "tightness.json"
    done = small_run(("--trials", 20, "--json", output, "--commit", "c0ffee"), monkeypatch)
    assert done.exit_code == 0, done.output
    record = json.loads(output.read_text())
    rows = record["rows"]
    assert (record["schema"], record["trials"], record["delta"], record["commit"]) == (1, 20, 0.05, "c0ffee")
    names = {(setting["family"], setting["name"]) for setting in record["settings"]}
    assert names == {(row["family"], row["setting"]) for row in rows}
    assert len(names) == 9
    assert all(row["tightness"] is None or row["tightness"] > 0.5 for row in rows)
    assert all(row["reason"] for row in rows if row["tightness"] is None or row["tightness"] > 3)
    assert sum(line.startswith("S14.recall ") for line in done.stdout.splitlines()) == 2


def test_too_few_trials_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    done = small_run(("--trials", 19), monkeypatch)
    assert done.exit_code == 2
    assert "--trials 19 was given: pass an integer of at least 20." in " ".join(done.output.split())


def forms() -> set[str]:
    return {entry.form for setting in settings.SETTINGS for entry in setting.entries}


def public_bounds() -> Iterator[tuple[str, str]]:
    """Functions of the bounds modules that are named a radius, a failure, a bound, a misranking or a recall."""
    packages = socket_theory.bounds, socket_theory.socket_lsh.bounds, socket_theory.race.bounds
    modules: list[types.ModuleType] = [socket_theory.santa.bounds]
    for package in packages:
        found = pkgutil.iter_modules(package.__path__, package.__name__ + ".")
        modules += [importlib.import_module(module.name) for module in found]
    for module in modules:
        for name, thing in inspect.getmembers(module, inspect.isfunction):
            bounds = name.endswith(("_radius", "_failure", "_bound")) or name.startswith(("misrank", "recall"))
            if bounds and thing.__module__ == module.__name__ and not name.startswith("_"):
                yield module.__name__.removeprefix("socket_theory."), name


def test_every_bound_of_the_library_is_measured() -> None:
    missing = {name for module, name in public_bounds() if f"{module}.{name}" not in forms()}
    assert missing == set(NO_ERROR)


def test_what_the_entries_name_is_there() -> None:
    ids = {claim.id for claim in CLAIMS}
    for setting in settings.SETTINGS:
        for one in setting.entries:
            assert one.claim in ids
            *where, name = one.form.split(".")
            holder = socket_theory
            for part in where:
                holder = getattr(holder, part)
            assert callable(getattr(holder, name))
            assert one.reason.endswith(".")
