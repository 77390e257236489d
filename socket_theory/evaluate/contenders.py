"""Who is compared: every selection method under one budget, and SOCKET over its settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from socket_theory.core.baselines import Dense, OracleTopK, RandomTokens, Window
from socket_theory.core.hashing import QueryMap
from socket_theory.core.method import Method
from socket_theory.core.selection import Budget
from socket_theory.socket_lsh.estimator import Socket
from socket_theory.socket_lsh.hard_lsh import HardLSH
from socket_theory.socket_lsh.sampling import SocketSampling

# The temperatures at which each map was measured: the released one near its defaults, the published one up to
# where it stops losing the signal (theory, "What real attention says").
TEMPERATURES: dict[QueryMap, tuple[float, ...]] = {"tanh_scaled": (0.3, 0.4, 1.0), "tanh": (0.4, 1.0, 3.0)}


@dataclass(frozen=True)
class Contender:
    """A method under the name it has in the results.

    `fraction` is the share of the tokens it keeps where that is its own and not the run's.
    """

    name: str
    method: Method
    fraction: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self.method)

    def budget(self, run: Budget) -> Budget | None:
        """What it keeps in a run with the budget `run`; None for a method that selects nothing."""
        if "budget" not in self.method.takes:
            return None
        return run if self.fraction is None else replace(run, tokens=None, fraction=self.fraction)


def contenders(num_samples: int) -> list[Contender]:
    """The rows of `evaluate attention`, in order; `num_samples` is what the sampling estimator draws."""
    return [
        Contender("dense", Dense()),
        Contender("oracle_top_k", OracleTopK()),
        Contender("window", Window()),
        Contender("random", RandomTokens()),
        Contender("hard_lsh", HardLSH()),
        *(Contender("socket", method) for method in socket_grid()),
        Contender("socket_sampling", SocketSampling(num_samples=num_samples)),
    ]


def short_settings(settings: dict[str, Any]) -> str:
    """Settings in few words; the size of the index, the same in every row of a table, is left out."""
    words = {
        "query_map": "{}",
        "temperature": "τ={}",
        "num_samples": "{} draws",
        "sampler": "{}",
        "num_vectors": "{} vectors",
        "query_sampler": "{}",
        "value_weight": "×|v|",
        "center_keys": "centred",
        "value_aware": "value-aware",
        "shared_query": "shared",
    }
    return " ".join(
        words[name].format(value) for name, value in settings.items() if name in words and value is not False
    )


def socket_grid() -> list[Socket]:
    """Socket over query_map and temperature, each with and without value_weight and center_keys."""
    return [
        Socket(query_map=query_map, temperature=temperature, value_weight=value_weight, center_keys=center_keys)
        for value_weight, center_keys in product((False, True), repeat=2)
        for query_map, temperatures in TEMPERATURES.items()
        for temperature in temperatures
    ]
