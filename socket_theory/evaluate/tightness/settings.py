"""The three settings of each family: a toy's, the paper's and the deployed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import joblib

from socket_theory.core.checks import require_count
from socket_theory.core.rng import Key
from socket_theory.core.workers import results_of
from socket_theory.evaluate.tightness.entry import Entry, Row, row_of
from socket_theory.evaluate.tightness.race_entries import RACE_ENTRIES
from socket_theory.evaluate.tightness.race_setting import RaceSetting
from socket_theory.evaluate.tightness.santa_entries import SANTA_ENTRIES
from socket_theory.evaluate.tightness.santa_setting import SantaSetting
from socket_theory.evaluate.tightness.socket_outputs import OUTPUTS
from socket_theory.evaluate.tightness.socket_setting import SocketSetting
from socket_theory.evaluate.tightness.socket_weights import WEIGHTS
from socket_theory.race.law import RaceKernel
from socket_theory.socket_lsh.law import SoftKernel


@dataclass(frozen=True)
class Setting:
    """`make(trials, key)` is the setting of a family; `words` describe it in one line."""

    family: str
    name: str
    words: str
    entries: tuple[Entry[Any], ...]
    make: Callable[[int, Key], Any]


def _socket(name: str, words: str, kernel: SoftKernel, norm: float, sizes: tuple[int, int, int]) -> Setting:
    return Setting(
        "SOCKET", name, words, (*WEIGHTS, *OUTPUTS), lambda n, key: SocketSetting(kernel, norm, *sizes, n, key)
    )


def _race(name: str, words: str, kernel: RaceKernel, length: float, sizes: tuple[int, int, int]) -> Setting:
    return Setting("RACE", name, words, RACE_ENTRIES, lambda n, key: RaceSetting(kernel, length, *sizes, n, key))


def _santa(name: str, words: str, sizes: tuple[int, int, int]) -> Setting:
    return Setting("SANTA", name, words, SANTA_ENTRIES, lambda n, key: SantaSetting(*sizes, n, key))


SETTINGS: tuple[Setting, ...] = (
    _socket(
        "toy",
        "P = 3, L = 200, τ = 0.7, the documented map, d = 16; a query of length 4, 64 keys, M = 64 draws",
        SoftKernel(3, 0.7, "tanh", 16),
        4.0,
        (64, 200, 64),
    ),
    _socket(
        "paper",
        "P = 10, L = 60, τ = 0.4, the documented map, d = 128; a query of length 11, 512 keys, M = 128 draws",
        SoftKernel(10, 0.4, "tanh", 128),
        11.0,
        (512, 60, 128),
    ),
    _socket(
        "deployed",
        "P = 10, L = 60, τ = 0.4, the released map, d = 128; a query of length 11, 8192 keys, M = 128 draws",
        SoftKernel(10, 0.4, "tanh_scaled", 128),
        11.0,
        (8192, 60, 128),
    ),
    _race(
        "toy",
        "P = 3, L = 100, β = 2, d = 16; vectors of length 4, 64 keys",
        RaceKernel(3, 2.0),
        4.0,
        (16, 64, 100),
    ),
    _race(
        "paper",
        "P = 4, L = 4, β = 3 as if trained, d = 128; vectors of length 11, 1024 keys",
        RaceKernel(4, 3.0),
        11.0,
        (128, 1024, 4),
    ),
    _race(
        "deployed",
        "P = 4, L = 4, β = 1/√128 as released, d = 128; vectors of length 11, 1024 keys",
        RaceKernel(4, 128**-0.5),
        11.0,
        (128, 1024, 4),
    ),
    _santa("toy", "30 tokens, S = 24 draws, tiles of 4", (30, 24, 4)),
    _santa("paper", "8192 tokens, S = 128 draws, tiles of 256", (8192, 128, 256)),
    _santa("deployed", "32768 tokens, S = 128 draws, tiles of 256", (32768, 128, 256)),
)


def evaluate_tightness(
    trials: int = 200,
    *,
    seed: int = 0,
    settings: tuple[Setting, ...] = SETTINGS,
) -> Iterator[tuple[Setting, list[Row]]]:
    """Every bound at every setting, in their order: `trials` sets of tables, and ten times as many of what is cheap.

    Settings go through joblib, so `joblib.parallel_config` decides where they run.

    Raises TypeError or ValueError for fewer than 20 trials, which have no quantile at 1 - delta = .95.
    """
    require_count("trials", trials, 20)
    key = Key.from_seed(seed)
    work = [joblib.delayed(rows_at)(setting, trials, key) for setting in settings]
    yield from zip(settings, results_of(work), strict=True)


def rows_at(setting: Setting, trials: int, key: Key) -> list[Row]:
    problem = setting.make(trials, key.fold_in(setting.family).fold_in(setting.name))
    return [row_of(entry, setting.name, problem) for entry in setting.entries]
