"""How often each value row is drawn: counts c with E c = S p, so that sum_j c_j v_j / S is unbiased (N1-N4, N9).

`weights` [N] are p up to a factor, in token order, which matters to all but the iid law. Randomness is given as
uniforms on [0, 1). A token of weight zero is never drawn, and the counts add up to S.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.checks import require_count, require_numbers
from socket_theory.core.draws import draw_tokens, within_range
from socket_theory.santa.exact import require_draws, strata_of

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def require_law(weights: ArrayLike, name: str = "weights") -> Float:
    """`weights` as float64 if they are [N], at least 0 and of a finite sum above 0, else TypeError or ValueError.

    Where the largest is beyond 2^500 or below 2^-500 they come back times a power of two, so as to be added safely.
    """
    law = require_numbers(name, weights)
    with np.errstate(over="ignore", invalid="ignore"):
        total = law.sum()
    if law.ndim != 1 or not 0 < total < np.inf or law.min() < 0:
        raise ValueError(
            f"{name} of shape {law.shape} were given: pass [N] numbers of at least 0 whose sum is finite and above 0."
        )
    return within_range(law)


def probabilities(weights: ArrayLike) -> Float:
    """p = weights / sum(weights), [N] -> [N]. Raises as `require_law`."""
    law = require_law(weights)
    return np.asarray(law / law.sum())


def require_uniforms(name: str, value: ArrayLike) -> Float:
    """`value` as float64 if all of it is in [0, 1), else TypeError or ValueError."""
    array = require_numbers(name, value)
    if not ((array >= 0) & (array < 1)).all():
        raise ValueError(f"{name} has an entry outside [0, 1): pass uniforms, as rng.uniform gives them.")
    return array


def iid_counts(weights: Float, points: Float) -> Int:
    """Multinomial counts of S draws with replacement at independent uniforms. Source: N2, N3.

    Shapes: weights [N], points [..., S] -> [..., N]. Raises as `require_law` and `require_uniforms`.
    """
    law = require_law(weights)
    return _tally(draw_tokens(law, _require_draws(points)), len(law))


def stratified_counts(weights: Float, points: Float) -> Int:
    """Counts of one draw in each of S equal strata of probability, at independent uniforms. Source: N2, N4.

    Which tokens a stratum meets is decided by the weights as they are given, without rounding.

    Shapes: weights [N], points [..., S] -> [..., N]. Raises as `require_law` and `require_uniforms`.
    """
    law, inside = require_law(weights), _require_draws(points)
    return _tally(strata_of(law, inside.shape[-1]).draw(inside), len(law))


def systematic_counts(weights: Float, num_samples: int, offsets: Float, tile_len: int | None = None) -> Int:
    """floor(a + S F_j) - floor(a + S F_(j-1)) with one offset a for all tokens, F the distribution function.

    With `tile_len` the phase S F is carried from tile to tile, as a kernel does that scans tile masses first: the same
    counts for every tile length, but where a + S F_j is within rounding of an integer. S F_j is rounded by at most
    about 2^-52 N S F_j, and the counts add up to S whatever the rounding. Source: N1, N2, N5, N9.

    Shapes: weights [N], offsets [...] -> [..., N]. Raises as `require_law` and `require_uniforms`, and for a
    num_samples that is no integer from 1 to 2^32.
    """
    law, samples = require_law(weights), require_draws(num_samples)
    total = carried_cumsum(law, len(law) if tile_len is None else tile_len)
    return counts_of_edges(samples * (total / total[-1]), require_uniforms("offsets", offsets))


def carried_cumsum(weights: Float, tile_len: int) -> Float:
    """The cumulative sum in two levels: inside tiles, and of the tiles before. Consecutive tiles share their border."""
    within = np.cumsum(split_tiles(weights, tile_len), axis=1)
    before = np.concatenate([[0.0], np.cumsum(within[:, -1])[:-1]])
    return (before[:, None] + within).reshape(-1)[: len(weights)]


def split_tiles(weights: Float, tile_len: int) -> Float:
    """[N] -> [T, tile_len], the last tile padded with zeros."""
    num_tiles = -(-len(weights) // require_count("tile_len", tile_len))
    padded = np.zeros(num_tiles * tile_len)
    padded[: len(weights)] = weights
    return padded.reshape(num_tiles, tile_len)


def counts_of_edges(edges: Float, offsets: Float) -> Int:
    """floor(a + x_j) - floor(a + x_(j-1)), x_(-1) = 0: ascending edges [..., N], offsets [...] -> [..., N]."""
    return np.diff(shifted_floor(edges, np.asarray(offsets)[..., None]), axis=-1, prepend=0)


def shifted_floor(x: Float, offsets: Float) -> Int:
    """floor(a + x) for a in [0, 1) without rounding the sum, so an offset just below 1 adds nothing to an integer x."""
    whole = np.floor(x)
    return (whole + (x - whole >= 1 - offsets)).astype(np.int64)


def _require_draws(points: ArrayLike) -> Float:
    array = require_uniforms("points", points)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"points of shape {array.shape} were given: pass [..., S], one uniform a draw.")
    return array


def _tally(drawn: Int, num_tokens: int) -> Int:
    """How often each token is in each row: [..., S] -> [..., N]."""
    rows = drawn.reshape(-1, drawn.shape[-1])
    places = rows + num_tokens * np.arange(len(rows))[:, None]
    return np.bincount(places.reshape(-1), minlength=len(rows) * num_tokens).reshape(*drawn.shape[:-1], num_tokens)
