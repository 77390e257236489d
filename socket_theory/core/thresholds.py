"""Thresholds that are exact or proved at any sample size; no normal approximation is trusted at a 1e-8 tail.

Counts use the exact binomial, means of bounded variables Bennett's inequality with their known variance (or an upper
bound on it). Each function takes `level`, the false-alarm probability it may spend (`Context.level`), and splits it
over the entries of an array.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, lambertw

from socket_theory.core.claim import Measurement, worst

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations along the first axis: what two batches need in order to be merged."""

    count: int
    mean: Float
    squares: Float

    @classmethod
    def of(cls, samples: ArrayLike) -> Moments:
        """The moments of samples [n, ...]."""
        values = np.asarray(samples, dtype=np.float64)
        mean = values.mean(axis=0)
        return cls(len(values), np.asarray(mean), np.asarray(((values - mean) ** 2).sum(axis=0)))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        shift = other.mean - self.mean
        squares = self.squares + other.squares + shift**2 * (self.count * other.count / count)
        return Moments(count, self.mean + shift * (other.count / count), squares)

    @property
    def variance(self) -> Float:
        """The unbiased variance; needs a count of at least 2."""
        return np.asarray(self.squares / (self.count - 1))


def critical_count(probability: float, trials: int, level: float) -> int:
    """The smallest k with P(Binomial(trials, probability) > k) <= level, exactly."""
    low, high = -1, trials
    while high - low > 1:
        middle = (low + high) // 2
        exceeds = betainc(middle + 1, trials - middle, probability) if probability < 1 else 1.0
        low, high = (low, middle) if exceeds <= level else (middle, high)
    return high


def trials_to_reject(null: float, alternative: float, level: float, miss: float = 1e-9) -> int:
    """A number of trials at which a test of "rate <= null" rejects the rate `alternative` but with probability `miss`.

    Grows by quarters until it is enough, so it is near the smallest.
    """
    if not 0 <= null < alternative <= 1:
        raise ValueError(f"null={null}, alternative={alternative} were given: pass 0 <= null < alternative <= 1.")
    trials = 8
    while True:
        limit = critical_count(null, trials, level)
        if limit < trials and (alternative == 1 or betainc(trials - limit, limit + 1, 1 - alternative) <= miss):
            return trials
        trials += trials // 4


def failure_rate(failures: int, trials: int, delta: float, level: float, tightness: float | None = None) -> Measurement:
    """Tail check: does a bound that promises to fail with probability <= delta keep it? Exact binomial, one-sided."""
    return Measurement(failures / trials, critical_count(delta, trials, level) / trials, tightness)


def binomial_mean(successes: ArrayLike, trials: int, probability: ArrayLike, level: float) -> Measurement:
    """Mean check of Bernoulli variables: exact binomial, two-sided; observed is |successes / trials - probability|."""
    counts, rates = np.broadcast_arrays(np.asarray(successes), np.asarray(probability, dtype=float))
    side = level / (2 * counts.size)
    above = np.array([critical_count(p, trials, side) / trials - p for p in rates.flat]).reshape(rates.shape)
    below = np.array([critical_count(1 - p, trials, side) / trials - (1 - p) for p in rates.flat]).reshape(rates.shape)
    difference = counts / trials - rates
    return worst(np.abs(difference), np.where(difference > 0, above, below))


def bennett_radius(variance: ArrayLike, bound: ArrayLike, count: int, level: float) -> Float:
    """r with P(|mean of count iid X - E X| >= r) <= level, for |X - E X| <= bound and Var X <= variance.

    Bennett: a side has probability <= exp(-count (v/b^2) H(b r/v)), H(u) = (1+u) ln(1+u) - u, inverted by Lambert's W.
    """
    v, b = np.asarray(variance, dtype=float), np.asarray(bound, dtype=float)
    height = np.log(2 / level) * b**2 / (count * v)
    return np.asarray(v / b * np.expm1(1 + lambertw((height - 1) / np.e).real))


def bounded_mean(
    moments: Moments, expected: ArrayLike, variance: ArrayLike, bound: ArrayLike, level: float
) -> Measurement:
    """Mean check of variables with |X - E X| <= bound and Var X <= variance (Bennett); entries share the level."""
    radius = bennett_radius(variance, bound, moments.count, level / moments.mean.size)
    return worst(np.abs(moments.mean - np.asarray(expected)), radius)


def tightness(bound: ArrayLike, errors: ArrayLike, delta: float) -> float:
    """bound / measured (1 - delta)-quantile of the errors; with one bound an error, the quantile of errors / bound."""
    with np.errstate(divide="ignore"):
        ratios = np.asarray(errors, dtype=float) / np.asarray(bound, dtype=float)
    quantile = np.quantile(ratios, 1 - delta, method="higher")
    return float(1 / quantile) if quantile > 0 else float("inf")
