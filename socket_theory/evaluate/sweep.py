"""How the error falls with the tokens kept, and with the bits of the index: the two curves of the report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

from socket_theory.core.baselines import OracleTopK, Window
from socket_theory.core.hashing_method import HashingMethod
from socket_theory.core.selection import Budget, ForcedTokensWarning
from socket_theory.evaluate.accuracy import Row, evaluate_attention
from socket_theory.evaluate.capture import Capture
from socket_theory.evaluate.contenders import Contender
from socket_theory.socket_lsh.estimator import Socket
from socket_theory.socket_lsh.hard_lsh import HardLSH

DENSITIES = (0.02, 0.05, 0.1, 0.2)
NUM_TABLES = (8, 15, 30, 60)


def sweep(
    capture: Capture,
    budget: Budget,
    best: Socket,
    *,
    seed: int = 0,
    layers: Sequence[int] | None = None,
    on_layer: Callable[[], None] = lambda: None,
) -> dict[str, list[Row]]:
    """`by_density`: oracle, window, hard LSH, SOCKET as released and `best` at each of DENSITIES in turn, under the
    sink and window of `budget`. `by_bits`: the last three under `budget` with each of NUM_TABLES in turn.

    The other arguments are those of `evaluate_attention`, which raises the same errors.
    """
    indexed: dict[str, HashingMethod] = {
        "hard_lsh": HardLSH(),
        "socket_released": Socket.as_released(),
        "socket_best": best,
    }
    everyone = {"oracle_top_k": OracleTopK(), "window": Window(), **indexed}
    by_density = [
        Contender(name, method, fraction=density) for density in DENSITIES for name, method in everyone.items()
    ]
    by_bits = [
        Contender(name, replace(method, num_tables=num_tables))
        for num_tables in NUM_TABLES
        for name, method in indexed.items()
    ]
    field = [*by_density, *by_bits]
    with warnings.catch_warnings():
        # Rows where no score decides are marked; the densities are not the caller's, who cannot mend them.
        warnings.simplefilter("ignore", ForcedTokensWarning)
        rows = evaluate_attention(capture, budget, field=field, seed=seed, layers=layers, on_layer=on_layer)
    return {"by_density": rows[: len(by_density)], "by_bits": rows[len(by_density) :]}


def best_socket(rows: Sequence[Row]) -> Socket:
    """The settings of SOCKET with the least mean error among `rows`."""
    best = min((row for row in rows if row.method == "socket"), key=lambda row: row.relative_error_mean)
    return Socket(**best.settings)
