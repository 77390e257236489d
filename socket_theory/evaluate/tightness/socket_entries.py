"""Every bound of SOCKET, S6 to S14, with what it is compared with."""

from __future__ import annotations

import numpy as np

from socket_theory.bounds.concentration import bernstein_radius, hoeffding_radius
from socket_theory.bounds.end_to_end import end_to_end
from socket_theory.bounds.importance import plain_spread, value_aware_spread
from socket_theory.bounds.ranking import (
    misrank_bernstein_tables,
    misrank_hoeffding_range_tables,
    misrank_tables,
    recall_tables,
)
from socket_theory.bounds.ratio import (
    fourth_moment_radius,
    normaliser_failure_tables,
    normaliser_tables,
    paper_condition_tables,
)
from socket_theory.bounds.top_k import top_k_error_bound
from socket_theory.evaluate.tightness.entry import DELTA, Compared, Entry
from socket_theory.evaluate.tightness.ratio_forms import ALL_ALIGNED, ratio_entries
from socket_theory.evaluate.tightness.socket_setting import ANGLES, RECALL, SocketSetting
from socket_theory.socket_lsh.bounds.temperature import (
    kernel_bias_bound,
    output_bias_bound,
    uniform_kernel_bias_bound,
    uniform_output_bias_bound,
)
from socket_theory.socket_lsh.bounds.weight_range import collision_half_range
from socket_theory.socket_lsh.claims.instances import angle_between

BIASED = ANGLES[:-1]  # at a right angle there is no bias
KEPT = 0.05


def _kernel_bias(s: SocketSetting, uniform: bool) -> Compared:
    bias = np.abs(s.kernel.mean(BIASED, s.query_norm) - s.kernel.hard_kernel(BIASED))
    if uniform:
        return np.broadcast_to(uniform_kernel_bias_bound(s.kernel, s.query_norm), bias.shape), bias
    return kernel_bias_bound(s.kernel, BIASED, s.query_norm), bias


def _entry_hoeffding(s: SocketSetting) -> Compared:
    radius = hoeffding_radius(DELTA, s.num_tables, collision_half_range(s.kernel))
    return np.broadcast_to(radius, ANGLES.shape), s.entry_errors


def _entry_bernstein(s: SocketSetting) -> Compared:
    variance, reach = s.kernel.variance(ANGLES, s.query_norm), 2 * collision_half_range(s.kernel)
    return bernstein_radius(DELTA, s.num_tables, variance, reach), s.entry_errors


def _sampling(s: SocketSetting, value_aware: bool, form: str) -> Compared:
    weights, values = s.mean_weights, s.problem.values
    target, norms = weights @ values / weights.sum(), np.linalg.norm(values, axis=1)
    spread = value_aware_spread(weights, values) if value_aware else plain_spread(weights, values)
    law = weights * norms if value_aware else weights
    terms = law.sum() / weights.sum() * values / norms[:, None] if value_aware else values
    return getattr(spread, form)(DELTA, s.num_samples), s.sampling_errors(law, terms, target)


def _output_bias(s: SocketSetting, uniform: bool) -> Compared:
    problem, mass = s.problem, float(s.problem.kernel_values[0].sum())
    error, radius = np.linalg.norm(problem.soft_target - problem.target), problem.value_radius(problem.target)
    if uniform:
        return uniform_output_bias_bound(s.kernel, s.query_norm, s.num_keys, mass, radius), error
    return problem.bias_bound(output_bias_bound), error


def _whole(s: SocketSetting) -> Compared:
    """Sampling by Bernstein, tables by the fourth moment, temperature by the sum form."""
    errors, drawn, masses = s.whole_errors
    bias = s.problem.bias_bound(output_bias_bound)

    def total(radius: float, mass: float) -> float:
        tables = lambda delta: float(fourth_moment_radius(delta, s.num_tables, s.sets.moments, mass))  # noqa: E731
        return end_to_end(DELTA, finite_tables=tables, temperature=bias, sampling=lambda _: radius).total

    return [total(*pair) for pair in zip(drawn, masses, strict=True)], errors


def _top_k(s: SocketSetting) -> Compared:
    """Exact attention to the 5 % of the keys with the largest logits."""
    logits = s.problem.keys @ s.problem.query / np.sqrt(s.kernel.head_dim)
    law = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    kept = np.argsort(law)[-max(1, int(KEPT * len(law))) :]
    mass, values = law[kept].sum(), s.problem.values
    error = np.linalg.norm(law @ values - law[kept] @ values[kept] / mass)
    return top_k_error_bound(mass, s.sets.value_diameter), error


def _gaps(s: SocketSetting) -> np.ndarray:
    return s.kernel.mean_difference(ANGLES[:-1], ANGLES[1:], s.query_norm)


def _misranking(s: SocketSetting, form: str) -> Compared:
    low, high = s.kernel.weight_range()
    apart = np.array([angle_between(*pair) for pair in zip(ANGLES[:-1], ANGLES[1:], strict=True)])
    variances = s.kernel.difference_variance(ANGLES[:-1], ANGLES[1:], apart, s.query_norm)
    counts = {
        "plain": [misrank_tables(gap, DELTA) for gap in _gaps(s)],
        "range": [misrank_hoeffding_range_tables(gap, DELTA, high - low) for gap in _gaps(s)],
        "bernstein": [misrank_bernstein_tables(gap, DELTA, v) for gap, v in zip(_gaps(s), variances, strict=True)],
    }
    return counts[form], s.ranking_tables


def _recall(s: SocketSetting) -> Compared:
    kappa, k = s.recall_problem
    return recall_tables(kappa, k, RECALL, DELTA), s.recalling_tables


def _normaliser(s: SocketSetting) -> Compared:
    second = float(np.mean(s.sets.z**2))
    return normaliser_failure_tables(DELTA, s.sets.mass, second), s.too_light_tables(DELTA)


def _condition(s: SocketSetting, paper: bool) -> Compared:
    count = (paper_condition_tables if paper else normaliser_tables)(DELTA, s.sets.weight_bound, s.sets.mass)
    return count, s.too_light_tables(DELTA / (4 if paper else 2))


_SIGNS = "It adds up what every plane may be wrong by, while at an angle well above 0 errors of both signs cancel."
_RANGE = "It knows the range of a weight and not its variance, and most weights are far below the largest."
_FAR = "The sum of the keys' biases has no signs, while the biases of keys with values on all sides of y* cancel."
_ONE_ROW = "One row may lie far from the mean of all, and the bound allows all draws to be that row."
_LIGHT = "It is Hoeffding's bound with the weight of every key at its largest, which no table comes near."
S9, S10, S14 = "bounds.ratio", "bounds.importance.SamplingSpread", "bounds.ranking"
S6, S8 = "socket_lsh.bounds.temperature", "bounds.concentration"

SOCKET_ENTRIES: tuple[Entry[SocketSetting], ...] = (
    Entry(
        "S6.bias",
        "kernel bias, by the bit's",
        f"{S6}.kernel_bias_bound",
        "value",
        lambda s: _kernel_bias(s, False),
        "A power's derivative is taken at the larger end, which matters where a bit's bias is not small.",
    ),
    Entry(
        "S6.bias",
        "kernel bias, at all angles",
        f"{S6}.uniform_kernel_bias_bound",
        "value",
        lambda s: _kernel_bias(s, True),
        _SIGNS,
    ),
    Entry("S8.hoeffding", "entries, Hoeffding", f"{S8}.hoeffding_radius", "tail", _entry_hoeffding, _RANGE),
    Entry(
        "S8.bernstein",
        "entries, Bernstein",
        f"{S8}.bernstein_radius",
        "tail",
        _entry_bernstein,
        "Where a weight is rarely large its L tables hold few large ones, and Bernstein's second term takes over.",
    ),
    Entry(
        "S9.normaliser",
        "too light a normaliser, lower tail",
        f"{S9}.normaliser_failure_tables",
        "count",
        _normaliser,
        "The exponent's 1/8 is for any nonnegative sum; that of many keys' weights is close to normal, or to its mean.",
    ),
    Entry(
        "S9.normaliser",
        "the paper's condition",
        f"{S9}.paper_condition_tables",
        "count",
        lambda s: _condition(s, True),
        _LIGHT,
    ),
    Entry(
        "S9.hoeffding",
        "condition of the Hoeffding form",
        f"{S9}.normaliser_tables",
        "count",
        lambda s: _condition(s, False),
        _LIGHT,
    ),
    *ratio_entries("S9", lambda s: s.sets),
    Entry(
        "S10.hoeffding",
        "draws, Hoeffding",
        f"{S10}.hoeffding",
        "tail",
        lambda s: _sampling(s, False, "hoeffding"),
        _ONE_ROW,
    ),
    Entry(
        "S10.bernstein",
        "draws, Bernstein",
        f"{S10}.bernstein",
        "tail",
        lambda s: _sampling(s, False, "bernstein"),
        _ONE_ROW,
    ),
    Entry(
        "S10.hoeffding",
        "value-aware draws, Hoeffding",
        f"{S10}.hoeffding",
        "tail",
        lambda s: _sampling(s, True, "hoeffding"),
        _ONE_ROW,
    ),
    Entry(
        "S10.bernstein",
        "value-aware draws, Bernstein",
        f"{S10}.bernstein",
        "tail",
        lambda s: _sampling(s, True, "bernstein"),
        _ONE_ROW,
    ),
    Entry("S11", "output bias, sum form", f"{S6}.output_bias_bound", "value", lambda s: _output_bias(s, False), _FAR),
    Entry(
        "S11",
        "output bias, uniform form",
        f"{S6}.uniform_output_bias_bound",
        "value",
        lambda s: _output_bias(s, True),
        _FAR + " It also has every key at the worst angle.",
    ),
    Entry(
        "S12.moment",
        "all three terms",
        "bounds.end_to_end.end_to_end",
        "tail",
        _whole,
        "The largest term is S11's, which has no signs; the other two are within a small factor.",
    ),
    Entry(
        "S13.bound",
        "top k of exact attention",
        "bounds.top_k.top_k_error_bound",
        "value",
        _top_k,
        "It places the kept and the lost values at the two ends of the set of all values; random values have nearly one "
        "mean on both sides.",
    ),
    Entry(
        "S14.hoeffding",
        "misranking, Hoeffding",
        f"{S14}.misrank_tables",
        "count",
        lambda s: _misranking(s, "plain"),
        "It takes 1 for the range of a weight, whose largest value is far below.",
    ),
    Entry(
        "S14.range",
        "misranking, Hoeffding with the range",
        f"{S14}.misrank_hoeffding_range_tables",
        "count",
        lambda s: _misranking(s, "range"),
        _RANGE,
    ),
    Entry(
        "S14.bernstein",
        "misranking, Bernstein",
        f"{S14}.misrank_bernstein_tables",
        "count",
        lambda s: _misranking(s, "bernstein"),
        "Its second term takes 1 for the range of a weight.",
    ),
    Entry(
        "S14.recall",
        "recall of half the top k",
        f"{S14}.recall_tables",
        "count",
        _recall,
        "It asks that no pair of a kept and a lost key be misranked, where most of the k may be, with the closest pair's "
        "gap for all and 1 for the range of a weight.",
    ),
)
