"""How long the residual of one table can be: |X| for X = sum_i w_i (v_i - y) with every weight in a known interval.

With w_i = m + h e_i, |e_i| <= 1, m and h the midpoint and the half-length of the interval and u_i = v_i - y,

    |X| <= m |sum_i u_i| + h |sum_i e_i u_i|, and the last norm is at most sum_i |u_i| and at most sqrt(N) |U|,

|U| the largest singular value of the rows u_i. It holds for every draw of the planes and is never above N w_max D,
D = max |u_i|. Values that point in many directions cannot all add up, and |U| knows that: N random values of E entries
have sqrt(N) |U| near N sqrt(1/E) times their length, so the range is about sqrt(E) times shorter than N w_max D.
"""

from __future__ import annotations

import numpy as np

from socket_theory.core.arguments import Float, require_nonnegative, require_rows
from socket_theory.core.checks import require_count


def residual_range(weight_range: tuple[float, float], residuals: Float) -> float:
    """R with |sum_i w_i u_i| <= R for all weights in `weight_range` (S9, R5).

    Parameters
    ----------
    weight_range : (low, high)
        The ends of every weight, as the `weight_range` of a kernel gives them; 0 <= low <= high.
    residuals : [N, E]
        u_i = v_i - y.

    Returns
    -------
    float
        m |sum u_i| + h min(sum |u_i|, sqrt(N) |U|), with m = (high + low)/2 and h = (high - low)/2.
    """
    middle, half = _middle_and_half(weight_range)
    rows = _some_rows("residuals", residuals)
    unit = _scale(rows)
    rows = rows / unit
    apart = min(float(_norms(rows).sum()), float(np.sqrt(len(rows) * _largest_square(rows))))
    return unit * (middle * float(_norms(rows.sum(axis=0))) + half * apart)


def residual_range_of_any_target(weight_range: tuple[float, float], values: Float) -> float:
    """R with |sum_i w_i (v_i - y)| <= R for all weights in `weight_range` and every weighted mean y of the values.

    With c the plain mean of the values, r = max |v_i - c| and |C| the largest singular value of the rows v_i - c,
    R = N (m r + h sqrt(|C|^2/N + r^2)): rows about y have the Gram matrix of the rows about c plus N (c - y)(c - y)'.

    Shapes: values [N, E], about any origin.
    """
    middle, half = _middle_and_half(weight_range)
    rows = _some_rows("values", values)
    unit = _scale(rows)
    rows = rows / unit
    centred = rows - rows.mean(axis=0)
    furthest = float(_norms(centred).max())
    apart = np.sqrt(_largest_square(centred) / len(rows) + furthest**2)
    return unit * len(rows) * (middle * furthest + half * float(apart))


def _middle_and_half(weight_range: tuple[float, float]) -> tuple[float, float]:
    low, high = require_nonnegative("weight_range", weight_range)
    if low > high:
        raise ValueError(f"weight_range={weight_range!r} was given: pass (low, high) with low <= high.")
    return float(high + low) / 2, float(high - low) / 2


def _some_rows(name: str, value: Float) -> Float:
    rows = require_rows(name, value)
    require_count(f"the number of rows of {name}", len(rows))
    require_count(f"the number of columns of {name}", rows.shape[1])
    return rows


def _scale(rows: Float) -> float:
    """A power of two near the largest entry, by which rows are divided so that their squares neither vanish nor
    overflow; 1 for zeros."""
    largest = float(np.abs(rows).max())
    return 2.0 ** int(np.frexp(largest)[1]) if 0 < largest < np.inf else 1.0


def _norms(rows: Float) -> Float:
    return np.asarray(np.sqrt((rows * rows).sum(axis=-1)))


def _largest_square(rows: Float) -> float:
    """The square of the largest singular value, from the smaller Gram matrix."""
    gram = rows.T @ rows if rows.shape[0] > rows.shape[1] else rows @ rows.T
    return float(np.linalg.eigvalsh(gram)[-1])
