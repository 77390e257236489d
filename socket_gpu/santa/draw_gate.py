"""The gate of sampled values: exact scores, the draws that follow from scores, and what is made of the rows drawn.

Every stage is judged on what it was given, so each margin is that of its own rounding. All on the host, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_gpu.bench.gate import GateError
from socket_theory.santa.estimator import Santa
from socket_theory.santa.tiles import flash_budgets

Array = NDArray[Any]

LSE_ERROR = 1e-4
_FLOAT32 = 2.0**-24


@dataclass(frozen=True, eq=False)
class DrawLaw:
    """Draw i is the first token whose edge reaches goal i, and its value counts `weights[i]`.

    Shapes: edges [N] ascending, goals and weights [M]. `margin` is how far rounding in float32 may move an edge from a
    goal.
    """

    edges: Array
    goals: Array
    weights: Array
    margin: float

    @classmethod
    def of(cls, method: Santa, scores: Array, uniforms: Array, tile_len: int) -> DrawLaw:
        """The law of a head's draws from its scores [N] (natural log) and its uniforms, by tiles of `tile_len`.

        The kernels sum weights in float32 inside a tile and in float64 over tiles. By the time a weight is in its
        tile's mass it has met r = tile_len / 2 + 40 roundings of 2^-24 at most: an addition, a rescaling and their
        exponentials, within 2 ulp, every 16 tokens, and a few to merge lanes. So a mass is off by a factor within
        1 ± r 2^-24, which moves a distribution function F by 2 F (1 - F) r 2^-24 at most, half of r 2^-24, and
        the place inside a tile by r 2^-24 of what the tile draws.
        """
        tiles = np.full((-(-len(scores) // tile_len), tile_len), -np.inf)
        tiles.reshape(-1)[: len(scores)] = scores
        peaks = tiles.max(axis=1)
        inside = np.cumsum(np.exp(tiles - peaks[:, None]), axis=1)
        masses = np.exp(peaks - peaks.max()) * inside[:, -1]
        inside, shares = inside / inside[:, -1:], masses / masses.sum()
        rounding, samples = (tile_len / 2 + 40) * _FLOAT32, method.num_samples
        if method.sampler == "flash":
            each = int(flash_budgets(len(tiles), samples)[0])
            edges = each * (np.arange(len(tiles))[:, None] + inside)
            goals = np.arange(1, each * len(tiles) + 1) - np.repeat(uniforms, each)
            weights, margin = np.repeat(shares / each, each), each * rounding
        else:
            edges = samples * (np.cumsum(shares) - shares)[:, None] + samples * shares[:, None] * inside
            goals, weights = np.arange(1, samples + 1) - uniforms, np.full(samples, 1 / samples)
            margin = samples * rounding * (0.5 + float(shares.max()))
        return cls(edges.reshape(-1)[: len(scores)], goals, weights, margin)


def require_exact_scores(name: str, scores: Array, exact: Array, sizes: Array) -> None:
    """Scores [N] of keys in 16 bits within their rounding of the exact ones; sizes [N] = sm_scale D sum_i |q_i k_i|.

    The products are exact in float32. Tensor cores add 16 of them at a time to the sum so far, and may cut each of
    these 17 terms at 2^-23 of the largest; with the scale's roundings that is less than 2^-22 sizes.
    """
    wrong = int((~(np.abs(scores - exact) <= 2.0**-22 * sizes)).sum())
    if wrong:
        raise GateError(f"{wrong} of {scores.size} scores of {name} differ from the exact ones beyond rounding.")


def require_draws(name: str, draws: Array, law: DrawLaw) -> None:
    """Draws [M] are the law's tokens in order, and -1 behind them.

    A goal within the law's margin of an edge may fall on either side of it.
    """
    drawn, rest = draws[: len(law.goals)], draws[len(law.goals) :]
    inside = (drawn >= 0) & (drawn < len(law.edges))
    if len(drawn) < len(law.goals) or not inside.all() or (rest != -1).any():
        raise GateError(f"{name} has {int((draws >= 0).sum())} draws, and {len(law.goals)} tokens are to be drawn.")
    before = np.concatenate([[-np.inf], law.edges])[drawn]
    wrong = int(((law.goals <= before - law.margin) | (law.goals > law.edges[drawn] + law.margin)).sum())
    if wrong:
        raise GateError(
            f"{wrong} of {len(drawn)} draws of {name} are other tokens than those of its scores and offsets; rounding "
            f"explains {law.margin:.2g} of the way from draw to draw."
        )


def require_lse(name: str, lse: float, exact: float) -> None:
    """A log-sum-exp within 1e-4 of the exact one."""
    if not abs(lse - exact) <= LSE_ERROR:
        raise GateError(f"the lse of {name} is {lse:.7g}, and the exact one {exact:.7g}.")
