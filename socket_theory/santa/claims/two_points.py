"""N13: B.1 and Bennett's form where the law is binomial, so that every probability is exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binom

from socket_theory.bounds.importance import SamplingSpread, plain_spread
from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality
from socket_theory.santa.bounds import bennett_failure, sampling_failure
from socket_theory.santa.claims.problems import ROUNDING, Float, mildest

Bound = Callable[[Float, int, SamplingSpread], Float]
Spread = Callable[[float, int], tuple[SamplingSpread, int]]
SMALLEST = 1e-200  # of the probabilities compared
RARE = (1e-4, 1e-3, 0.02, 0.1, 0.3, 0.5)
CENTRED = np.array([[0.5], [-0.5]])  # at distance 1 from each other, so nearly 1 from the mean of a rare one


def _exceeded(samples: int, rare: float) -> tuple[Float, Float]:
    """Every deviation t > 0 of Binomial(S, p)/S from p, and P(at least t)."""
    law, deviation = binom(samples, rare), np.abs(np.arange(samples + 1) / samples - rare)
    deviation = deviation[deviation > ROUNDING]
    above = np.ceil(samples * (rare + deviation) - 1e-9) - 1
    return deviation, law.sf(above) + law.cdf(np.floor(samples * (rare - deviation) + 1e-9))


def two_points(bound: Bound, spread: Spread) -> Measurement:
    """P(|m^ - E m^| >= t) of the share of `CENTRED[0]`, Binomial(S, p)/S, against a bound with a spread and its count.

    At every t that occurs and a bound below 1 says something about. The tightness is that of the first pair.
    """
    parts = []
    for samples, rare in ((64, 0.3), *((s, p) for s in (1, 8, 64, 512) for p in RARE)):
        deviation, truth = _exceeded(samples, rare)
        known, count = spread(rare, samples)
        promised = bound(deviation, count, known)
        told = (promised < 1) & (truth > SMALLEST)
        if told.any():
            parts.append(inequality(truth[told], np.maximum(promised[told], SMALLEST)))
    return combine(*parts)


def _plain(rare: float, samples: int) -> tuple[SamplingSpread, int]:
    return plain_spread(np.array([rare, 1 - rare]), CENTRED), samples


def _bennett_below_bernstein(context: Context) -> Measurement:
    spreads, t = [_plain(rare, 128)[0] for rare in RARE], np.linspace(0.2, 1, 50)
    pairs = [(bennett_failure(t, 128, spread), sampling_failure(t, 128, spread)) for spread in spreads]
    return combine(*(inequality(bennett, bernstein) for bennett, bernstein in pairs))


def _without_linear_term(t: Float, samples: int, spread: SamplingSpread) -> Float:
    return np.asarray(np.minimum(1, 2 * np.exp(-samples * t**2 / (2 * spread.variance))))


def _one_sided(t: Float, samples: int, spread: SamplingSpread) -> Float:
    return np.asarray(np.exp(-samples * t**2 / (2 * (spread.variance + spread.radius * t / 3))))


def _samples_squared(t: Float, samples: int, spread: SamplingSpread) -> Float:
    return sampling_failure(t, samples**2, spread)


def _largest_norm(t: Float, samples: int, spread: SamplingSpread) -> Float:
    return sampling_failure(t, samples, SamplingSpread(float(np.abs(CENTRED).max()), spread.variance))


def _check(context: Context) -> Measurement:
    exact = [two_points(bound, _plain) for bound in (sampling_failure, bennett_failure)]
    return combine(*exact, _bennett_below_bernstein(context))


def _control(context: Context) -> Measurement:
    wrong = (_without_linear_term, _one_sided, _samples_squared, _largest_norm)
    return mildest(*(two_points(bound, _plain) for bound in wrong))


CLAIMS = (
    Claim(
        id="N13.two-points",
        title="B.1 and Bennett's form, exactly",
        statement="P(|m-hat - mu| >= t) <= 2 exp(-(S v/L^2) H(Lt/v)) <= 2 exp(-S t^2 / (2 (v + L t/3))) for the mean "
        "m-hat of S iid draws, v = tr Sigma, L = max_j |v_j - mu|, H(x) = (1+x) ln(1+x) - x.",
        source="Lee et al. 2026, B.1; Pinelis 1994",
        kind="inequality",
        wrong="no term L t/3; prefactor 1; S^2 for S; the largest |v_j| for L",
        check=_check,
        control=_control,
    ),
)
