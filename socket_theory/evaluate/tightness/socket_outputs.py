"""Bounds of SOCKET's outputs, S9 to S13, with what each is compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from socket_theory.bounds.end_to_end import end_to_end
from socket_theory.bounds.importance import SamplingSpread, plain_spread, value_aware_spread
from socket_theory.bounds.ratio import (
    fourth_moment_radius,
    normaliser_failure_tables,
    normaliser_tables,
    paper_condition_tables,
)
from socket_theory.bounds.top_k import top_k_error_bound
from socket_theory.evaluate.tightness.entry import DELTA, Compared, Entry
from socket_theory.evaluate.tightness.ratio_forms import SHARPER_FORMS, ratio_entries
from socket_theory.evaluate.tightness.socket_setting import SocketSetting
from socket_theory.evaluate.tightness.table_sets import diameter
from socket_theory.socket_lsh.bounds.temperature import output_bias_bound, uniform_output_bias_bound

Radius = Callable[[SamplingSpread, float, int], float]
KEPT = 0.05


def _normaliser(s: SocketSetting) -> Compared:
    second = float(np.mean(s.sets.z**2))
    return normaliser_failure_tables(DELTA, s.sets.mass, second), s.too_light_tables(DELTA)


def _condition(s: SocketSetting) -> Compared:
    return normaliser_tables(DELTA, s.sets.weight_bound, s.sets.mass), s.too_light_tables(DELTA / 2)


def _paper_condition(s: SocketSetting) -> Compared:
    return paper_condition_tables(DELTA, s.sets.weight_bound, s.sets.mass), s.too_light_tables(DELTA / 4)


def _plain(s: SocketSetting, radius: Radius) -> Compared:
    weights, values = s.mean_weights, s.problem.values
    bound = radius(plain_spread(weights, values), DELTA, s.num_samples)
    return bound, s.sampling_errors(weights, values, weights @ values / weights.sum())


def _value_aware(s: SocketSetting, radius: Radius) -> Compared:
    weights, values = s.mean_weights, s.problem.values
    norms = np.linalg.norm(values, axis=1)
    bound, law = radius(value_aware_spread(weights, values), DELTA, s.num_samples), weights * norms
    terms = law.sum() / weights.sum() * values / norms[:, None]
    return bound, s.sampling_errors(law, terms, weights @ values / weights.sum())


def _output_bias(s: SocketSetting) -> Compared:
    return s.problem.bias_bound(output_bias_bound), np.linalg.norm(s.problem.soft_target - s.problem.target)


def _uniform_output_bias(s: SocketSetting) -> Compared:
    mass, radius = float(s.problem.kernel_values[0].sum()), s.problem.value_radius(s.problem.target)
    return uniform_output_bias_bound(s.kernel, s.query_norm, s.num_keys, mass, radius), _output_bias(s)[1]


def _whole(s: SocketSetting) -> Compared:
    """Sampling by Bernstein, tables by the fourth moment, temperature by the sum form."""
    errors, drawn, masses = s.whole_errors
    bias = s.problem.bias_bound(output_bias_bound)

    def total(radius: float, mass: float) -> float:
        def tables(delta: float) -> float:
            return float(fourth_moment_radius(delta, s.num_tables, s.sets.moments, mass))

        return end_to_end(DELTA, finite_tables=tables, temperature=bias, sampling=lambda _: radius).total

    return [total(*pair) for pair in zip(drawn, masses, strict=True)], errors


def _top_k(s: SocketSetting) -> Compared:
    """Exact attention to the 5 % of the keys with the largest logits."""
    logits = s.problem.keys @ s.problem.query / np.sqrt(s.kernel.head_dim)
    law = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    kept = np.argsort(law)[-max(1, int(KEPT * len(law))) :]
    mass, values = law[kept].sum(), s.problem.values
    error = np.linalg.norm(law @ values - law[kept] @ values[kept] / mass)
    return top_k_error_bound(mass, diameter(values)), error


_FAR = "The sum of the keys' biases has no signs, while the biases of keys with values on all sides of y* cancel."
_ONE_ROW = "One row may lie far from the mean of all, and the bound allows all draws to be that row."
_LIGHT = "It is Hoeffding's bound with the weight of every key at its largest, which no table comes near."
RATIO, SPREAD, BIAS = "bounds.ratio", "bounds.importance.SamplingSpread", "socket_lsh.bounds.temperature"
_hoeffding, _bernstein = SamplingSpread.hoeffding, SamplingSpread.bernstein
_draws = partial(Entry[SocketSetting], kind="tail", reason=_ONE_ROW)

OUTPUTS: tuple[Entry[SocketSetting], ...] = (
    Entry(
        "S9.normaliser",
        "too light a normaliser, lower tail",
        f"{RATIO}.normaliser_failure_tables",
        "count",
        _normaliser,
        "The 1/8 in the exponent is that of any sum of nonnegative terms; the sum over many keys is near its mean.",
    ),
    Entry(
        "S9.normaliser", "the paper's condition", f"{RATIO}.paper_condition_tables", "count", _paper_condition, _LIGHT
    ),
    Entry("S9.hoeffding", "condition of the Hoeffding form", f"{RATIO}.normaliser_tables", "count", _condition, _LIGHT),
    *ratio_entries("S9", lambda s: s.sets, SHARPER_FORMS),
    _draws("S10.hoeffding", "draws, Hoeffding", f"{SPREAD}.hoeffding", compare=lambda s: _plain(s, _hoeffding)),
    _draws("S10.bernstein", "draws, Bernstein", f"{SPREAD}.bernstein", compare=lambda s: _plain(s, _bernstein)),
    _draws(
        "S10.hoeffding",
        "value-aware draws, Hoeffding",
        f"{SPREAD}.hoeffding",
        compare=lambda s: _value_aware(s, _hoeffding),
    ),
    _draws(
        "S10.bernstein",
        "value-aware draws, Bernstein",
        f"{SPREAD}.bernstein",
        compare=lambda s: _value_aware(s, _bernstein),
    ),
    Entry("S11", "output bias, sum form", f"{BIAS}.output_bias_bound", "value", _output_bias, _FAR),
    Entry(
        "S11",
        "output bias, uniform form",
        f"{BIAS}.uniform_output_bias_bound",
        "value",
        _uniform_output_bias,
        f"{_FAR} It also takes every key at the worst angle.",
    ),
    Entry(
        "S12.moment",
        "all three terms",
        "bounds.end_to_end.end_to_end",
        "tail",
        _whole,
        "Three radii are added, with half of delta each for two of them, where independent errors add in squares; and "
        "S11's part has no signs.",
    ),
    Entry(
        "S13.bound",
        "top k of exact attention",
        "bounds.top_k.top_k_error_bound",
        "value",
        _top_k,
        "It places the values that are kept and those that are lost at opposite ends of all values, while the means of "
        "both are close.",
    ),
)
