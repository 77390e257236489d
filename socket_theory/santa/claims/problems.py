"""Laws, values and uniforms the SANTA claims share, and how to enumerate what a sampler does with its uniforms.

A claim about a sampler is checked on `Santa.draws`, which the estimator calls (`drawn_rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.claim import Context, Measurement
from socket_theory.core.claim import mildest as mildest
from socket_theory.core.thresholds import Moments, bounded_mean
from socket_theory.santa.estimator import Santa

Float = NDArray[np.float64]
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Problem:
    """Weights [N], values [N, E] and S."""

    weights: Float
    values: Float
    samples: int

    @property
    def law(self) -> Float:
        """p [N]."""
        return np.asarray(self.weights / self.weights.sum())

    @property
    def edges(self) -> Float:
        """S F_j inside (0, S): where draws pass from one token to the next, [N - 1]."""
        total = np.cumsum(self.weights)
        return np.asarray(self.samples * (total[:-1] / total[-1]))


def softmax_weights(rng: np.random.Generator, tokens: int, spread: float = 2.0) -> Float:
    """exp(s - max s) for Gaussian scores of this deviation."""
    scores = spread * rng.standard_normal(tokens)
    return np.asarray(np.exp(scores - scores.max()))


def small_problem(rng: np.random.Generator) -> Problem:
    """Five tokens and four samples, few enough to enumerate every outcome."""
    return Problem(softmax_weights(rng, 5, 1.0), rng.standard_normal((5, 2)), 4)


def tiny_problems(rng: np.random.Generator) -> tuple[Problem, ...]:
    """The small one; more samples than tokens; masked tokens; ties; one certain token: all few enough to enumerate."""
    masked = softmax_weights(rng, 5, 1.0)
    masked[[0, 3]] = 0
    laws = [(softmax_weights(rng, 3, 1.0), 6), (masked, 4), (np.ones(3), 4), (np.array([0, 0, 0.3, 0]), 4)]
    drawn = (Problem(weights, rng.standard_normal((len(weights), 2)), samples) for weights, samples in laws)
    return (small_problem(rng), *drawn)


def problems(context: Context) -> tuple[Problem, ...]:
    """The small one; more tokens; masked ones; ties; one certain token; more samples than tokens; random ones."""
    rng = context.generator()
    masked, certain = softmax_weights(rng, 31), np.zeros(10)
    masked[[0, *range(7, 14), 30]], certain[6] = 0, 0.3
    laws = [(softmax_weights(rng, 60), 17), (masked, 16), (np.ones(24), 9), (certain, 5), (softmax_weights(rng, 9), 40)]
    laws += [(rng.gamma(0.3, size=20) + 1e-9, int(rng.integers(1, 60))) for _ in range(context.samples(40))]
    drawn = (Problem(weights, rng.standard_normal((len(weights), 2)), samples) for weights, samples in laws)
    return (small_problem(rng), *drawn)


def alternating(samples: int) -> Problem:
    """2S tokens of equal mass with values 1, -1, 1, ...: two a stratum, and one offset draws all of one sign."""
    return Problem(np.ones(2 * samples), np.tile([[1.0], [-1.0]], (samples, 1)), samples)


def cells(places: ArrayLike) -> tuple[Float, Float]:
    """Middles and lengths of the pieces into which `places` in [0, 1] cut the unit interval."""
    borders = np.unique(np.concatenate([[0.0], np.ravel(places), [1.0]]))
    return np.minimum((borders[1:] + borders[:-1]) / 2, np.nextafter(1.0, 0.0)), np.diff(borders)


def independent_uniforms(places: Sequence[ArrayLike]) -> tuple[Float, Float]:
    """All outcomes of K independent uniforms, number k cut at `places[k]`: points [M, K], probabilities [M]."""
    middles, lengths = zip(*map(cells, places), strict=True)
    return np.array(list(product(*middles))), np.array([np.prod(sides) for sides in product(*lengths)])


def one_uniform(places: ArrayLike, copies: int) -> tuple[Float, Float]:
    """The same uniform `copies` times: points [M, copies], probabilities [M].

    A mean depends on the law of each uniform alone, so it is that of independent ones.
    """
    middles, lengths = cells(places)
    return np.repeat(middles[:, None], copies, axis=1), lengths


def drawn_rows(method: Santa, weights: Float, points: Float) -> Float:
    """What the estimator multiplies each row by at uniforms [M, K]: [M, N]."""
    return np.stack([method.draws(weights, uniforms) for uniforms in points])


def gauss_in_strata(strata: int, nodes: int) -> tuple[Float, Float]:
    """A rule for the mean over [0, 1) of what is smooth inside each of so many equal strata: points, weights."""
    places, shares = np.polynomial.legendre.leggauss(nodes)
    points = (np.arange(strata)[:, None] + (places + 1) / 2) / strata
    return points.ravel(), np.tile(shares, strata) / (2 * strata)


def covariance(probability: Float, outputs: Float) -> Float:
    """Covariance [E, E] of outputs [M, E] with these probabilities."""
    centred = outputs - probability @ outputs
    return np.asarray((probability[:, None] * centred).T @ centred)


def mean_of_law(drawn: Float, outputs: Float, chances: Float, mean: Float, level: float) -> Measurement:
    """Outputs drawn [n, E], on average, against a mean; `outputs` [M, E] with `chances` [M] is their exact law."""
    centre = chances @ outputs
    spread, furthest = chances @ (outputs - centre) ** 2, np.abs(outputs - centre).max(axis=0)
    return bounded_mean(Moments.of(drawn), mean, spread, furthest, level)


def largest_gap(seen: ArrayLike, expected: ArrayLike) -> Measurement:
    """The largest |seen - expected|, which rounding alone may cause."""
    return Measurement(float(np.max(np.abs(np.asarray(seen) - np.asarray(expected)))), ROUNDING)
