"""How time grows with the number of tokens: slopes on logarithmic axes, fitted over the large sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from socket_gpu.race.cases import series

LARGE = 2**20
"""Tokens from which a size is large: below, launches and half-empty devices count."""


def slope(tokens: Sequence[int], us: Sequence[float]) -> float:
    """The slope of ln(us) against ln(tokens) by least squares."""
    x, y = (np.log(np.asarray(numbers, np.float64)) for numbers in (tokens, us))
    x -= x.mean()
    return float(x @ y / (x @ x))


def fitted_slopes(rows: Sequence[dict[str, Any]], large: int = LARGE) -> list[dict[str, Any]]:
    """The slope of every series of a record, over its large sizes where there are two at least, else over all."""
    found = []
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["us"] is not None:
            grouped.setdefault(series(row), []).append(row)
    for name, points in grouped.items():
        chosen = [row for row in points if row["kv_len"] >= large] if len(_sizes(points, large)) > 1 else points
        tokens = [row["kv_len"] for row in chosen]
        if len(set(tokens)) > 1:
            found.append(
                {
                    "method": name[0],
                    "causal": name[1],
                    "backward": name[2],
                    "dtype": name[3],
                    "num_qo_heads": name[4],
                    "num_kv_heads": name[5],
                    "from": min(tokens),
                    "to": max(tokens),
                    "slope": round(slope(tokens, [row["us"] for row in chosen]), 4),
                }
            )
    return found


def _sizes(rows: Sequence[dict[str, Any]], least: int) -> set[int]:
    return {row["kv_len"] for row in rows if row["kv_len"] >= least}


def predicted_us(tokens: Sequence[int], us: Sequence[float], next_tokens: int, power: float) -> float:
    """The time at `next_tokens` if it grows from the last size on by that power of the tokens, or by more if it did."""
    grown = slope(tokens[-2:], us[-2:]) if len(tokens) > 1 else power
    return us[-1] * math.pow(next_tokens / tokens[-1], max(grown, power))
