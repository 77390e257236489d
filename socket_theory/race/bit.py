"""The law of one bit of a soft collision of a query and a key, (1 + a b)/2 over its Gaussian plane (R2, R3 with P = 1).

a = tanh(beta tanh(rho_q x)), b = tanh(beta tanh(rho_k y)), x and y standard normal with correlation cos theta. In polar
coordinates x = r cos(alpha), y = r cos(alpha - theta) with a uniform direction alpha, and |a|, |b| depend on the
distance of alpha to the nearest direction at which x or y is 0. These directions cut the circle into four arcs, two of
length pi - theta, on which a b > 0, and two of length theta, on which a b < 0. So with

    F_n(w) = (1/pi) E_r integral over s in (0, w) of (A(r sin s) B(r sin(w - s)))^n,  A = |a|, B = |b|,

E[a b] = F_1(pi - theta) - F_1(theta) and E[a^2 b^2] = F_2(pi - theta) + F_2(theta): sums of positive terms.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.arguments import require_nonnegative
from socket_theory.core.checks import require_angle
from socket_theory.core.quadrature import half_normal_mean

Float = NDArray[np.float64]
_ARC_STEP, _LENGTH_STEP = 1 / 3, 1 / 6
_ARC_END = 14.0  # arcs are cut off at w exp(-14), where A B is 0 to first order in s or, for steep bits, at w exp(-28)
_SHORTEST, _LONGEST = -13.0, 2.1  # ln r
_ENTRIES_AT_ONCE = 32


def steep(beta: float, projections: Float) -> Float:
    """tanh(beta tanh z): twice the soft probability that z is on the positive side of its plane, less one."""
    return np.asarray(np.tanh(beta * np.tanh(projections)))


def gap(beta: float, norm: ArrayLike) -> Float:
    """eps_beta(rho) = E sigma(-2 beta |tanh(rho g)|) = E[1 - |a|]/2, g standard normal (R3)."""
    length = require_nonnegative("norm", norm)
    scale = min(1.0, 1 / beta) / max(1.0, float(np.max(length, initial=0.0)))
    return half_normal_mean(lambda g, rho: np.exp(-np.logaddexp(0, 2 * beta * np.tanh(g * rho))), scale, length)


def products(beta: float, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> tuple[Float, Float]:
    """E[a b] and E[a^2 b^2] to 1e-11, broadcast over angles in [0, pi] and lengths of at least 0 (R2)."""
    angle, asked = require_angle("theta", theta), require_nonnegative("query_norm", query_norm)
    held = require_nonnegative("key_norm", key_norm)
    shape = np.broadcast_shapes(angle.shape, asked.shape, held.shape)
    columns = [np.broadcast_to(x, shape).ravel() for x in (angle, asked, held)]
    first, square = np.empty(math.prod(shape)), np.empty(math.prod(shape))
    for start in range(0, len(first), _ENTRIES_AT_ONCE):
        part = slice(start, start + _ENTRIES_AT_ONCE)
        near, asked, held = (column[part] for column in columns)
        same, opposite = _arc(beta, np.pi - near, asked, held), _arc(beta, near, asked, held)
        first[part], square[part] = same[0] - opposite[0], same[1] + opposite[1]
    return first.reshape(shape), square.reshape(shape)


def _arc(beta: float, width: Float, query_norm: Float, key_norm: Float) -> tuple[Float, Float]:
    """F_1 and F_2 of arcs of widths [n].

    With s = w / (1 + exp(-t)) and r = exp(u), A and B are analytic where |Im t| < pi/2 and |Im u| < pi/2, whatever
    beta and the lengths, and the density of r where |Im u| < pi/4: trapezoid rules converge exponentially.
    """
    end = min(_ARC_END + math.log1p(beta * max(query_norm.max(), key_norm.max())) / 2, 2 * _ARC_END)
    count = math.ceil(end / _ARC_STEP)
    share = 1 / (1 + np.exp(-_ARC_STEP * np.arange(-count, count + 1)))
    arc_weights = _ARC_STEP * share * share[::-1]
    radius = np.exp(np.arange(_SHORTEST, _LONGEST, _LENGTH_STEP))
    radius_weights = radius**2 * np.exp(-(radius**2) / 2)
    radius_weights /= radius_weights.sum()
    x = (query_norm[:, None] * np.sin(width[:, None] * share))[..., None] * radius
    y = (key_norm[:, None] * np.sin(width[:, None] * share[::-1]))[..., None] * radius
    product = steep(beta, x) * steep(beta, y)
    first, square = ((part @ radius_weights) @ arc_weights for part in (product, product**2))
    return width / np.pi * first, width / np.pi * square
