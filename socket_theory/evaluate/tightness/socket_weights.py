"""Bounds of SOCKET's weights and of what they rank, S6, S8 and S14, with what each is compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from socket_theory.bounds.concentration import bernstein_radius, hoeffding_radius, two_point_radius
from socket_theory.bounds.large_deviations import TiltedLaw
from socket_theory.bounds.ranking import (
    misrank_bernstein_tables,
    misrank_hoeffding_range_tables,
    misrank_tables,
)
from socket_theory.evaluate.tightness.entry import DELTA, Compared, Entry
from socket_theory.evaluate.tightness.socket_setting import ANGLES, RECALL, SocketSetting
from socket_theory.evaluate.tightness.table_sets import Float
from socket_theory.socket_lsh.bounds.pair_difference import pair_difference
from socket_theory.socket_lsh.bounds.recall_estimate import RecallEstimate
from socket_theory.socket_lsh.bounds.temperature import kernel_bias_bound, uniform_kernel_bias_bound
from socket_theory.socket_lsh.bounds.weight_range import collision_half_range, collision_reach
from socket_theory.socket_lsh.claims.instances import angle_between

BIASED = ANGLES[:-1]  # at a right angle there is no bias


def _bias(s: SocketSetting) -> Float:
    return np.abs(s.kernel.mean(BIASED, s.query_norm) - s.kernel.hard_kernel(BIASED))


def _kernel_bias(s: SocketSetting) -> Compared:
    return kernel_bias_bound(s.kernel, BIASED, s.query_norm), _bias(s)


def _uniform_bias(s: SocketSetting) -> Compared:
    return np.broadcast_to(uniform_kernel_bias_bound(s.kernel, s.query_norm), BIASED.shape), _bias(s)


def _hoeffding(s: SocketSetting) -> Compared:
    radius = hoeffding_radius(DELTA, s.num_tables, collision_half_range(s.kernel))
    return np.broadcast_to(radius, ANGLES.shape), s.entry_errors


def _bernstein(s: SocketSetting) -> Compared:
    variance, reach = s.kernel.variance(ANGLES, s.query_norm), collision_reach(s.kernel, ANGLES, s.query_norm)
    return bernstein_radius(DELTA, s.num_tables, variance, np.maximum(*reach)), s.entry_errors


def _two_point(s: SocketSetting) -> Compared:
    variance, reach = s.kernel.variance(ANGLES, s.query_norm), collision_reach(s.kernel, ANGLES, s.query_norm)
    return two_point_radius(DELTA, s.num_tables, variance, *reach), s.entry_errors


def _gaps(s: SocketSetting) -> list[float]:
    """Delta of neighbours in ANGLES."""
    return [float(s.kernel.mean_difference(near, far, s.query_norm)) for near, far in pairwise(ANGLES)]


def _misranking(s: SocketSetting) -> Compared:
    return [misrank_tables(gap, DELTA) for gap in _gaps(s)], s.ranking_tables


def _misranking_range(s: SocketSetting) -> Compared:
    span = 2 * collision_half_range(s.kernel)
    return [misrank_hoeffding_range_tables(gap, DELTA, span) for gap in _gaps(s)], s.ranking_tables


def _misranking_bernstein(s: SocketSetting) -> Compared:
    variances = [float(s.kernel.difference_variance(*angles, s.query_norm)) for angles in _apart()]
    pairs, span = zip(_gaps(s), variances, strict=True), 2 * collision_half_range(s.kernel)
    return [misrank_bernstein_tables(gap, DELTA, variance, span) for gap, variance in pairs], s.ranking_tables


def _apart() -> list[tuple[float, float, float]]:
    """The angles of neighbours in ANGLES to the query, and that between them."""
    return [(near, far, angle_between(near, far)) for near, far in pairwise(ANGLES)]


def _large_deviations(s: SocketSetting, tables: Callable[[TiltedLaw, float], int]) -> Compared:
    return [tables(pair_difference(s.kernel, *angles, s.query_norm), DELTA) for angles in _apart()], s.ranking_tables


def _recall(s: SocketSetting) -> Compared:
    return s.key_scores.recall_tables(s.recall_problem[1], RECALL, DELTA), s.recalling_tables[0]


def _recall_estimate(s: SocketSetting) -> Compared:
    near, k = s.recall_problem
    return RecallEstimate.of(s.kernel, near.query, near.keys, k).tables(RECALL), s.recalling_tables[1]


_SIGNS = "It adds up what every plane may be wrong by, while at an angle well above 0 errors of both signs cancel."
_RANGE = "It knows the range of a weight and not its variance, and most weights are far below the largest."
_EXPONENT = "Its exponent is right, but at delta = .05 so few tables do that the factor before the exponential matters."
BIAS, MEAN, RANKING = "socket_lsh.bounds.temperature", "bounds.concentration", "bounds.ranking"
TILTED = "bounds.large_deviations.TiltedLaw"

WEIGHTS: tuple[Entry[SocketSetting], ...] = (
    Entry(
        "S6.bias",
        "kernel bias, by the bit's",
        f"{BIAS}.kernel_bias_bound",
        "value",
        _kernel_bias,
        "The derivative of the power is taken at the larger end, and the bias of a bit is no small step there.",
    ),
    Entry("S6.bias", "kernel bias, all angles", f"{BIAS}.uniform_kernel_bias_bound", "value", _uniform_bias, _SIGNS),
    Entry("S8.hoeffding", "entries, Hoeffding", f"{MEAN}.hoeffding_radius", "tail", _hoeffding, _RANGE),
    Entry(
        "S8.bernstein",
        "entries, Bernstein",
        f"{MEAN}.bernstein_radius",
        "tail",
        _bernstein,
        "Where a weight is rarely large, Bernstein's second term, which knows the range alone, takes over.",
    ),
    Entry(
        "S8.two-point",
        "entries, two-point form",
        f"{MEAN}.two_point_radius",
        "tail",
        _two_point,
        "It allows the law of that variance that is largest most often, while weights near the largest are rarer.",
    ),
    Entry(
        "S14.hoeffding",
        "misranking, Hoeffding",
        f"{RANKING}.misrank_tables",
        "count",
        _misranking,
        "It takes 1 for the range of a weight, and knows nothing of the variance.",
    ),
    Entry(
        "S14.range",
        "misranking, Hoeffding with the range",
        f"{RANKING}.misrank_hoeffding_range_tables",
        "count",
        _misranking_range,
        _RANGE,
    ),
    Entry(
        "S14.bernstein",
        "misranking, Bernstein",
        f"{RANKING}.misrank_bernstein_tables",
        "count",
        _misranking_bernstein,
        "At delta = .05 an exponential tail asks for 2.2 times the tables that a normal law does, and a second term, "
        "which knows the range alone, adds to them.",
    ),
    Entry(
        "S14.large-deviations",
        "misranking, Chernoff",
        f"{TILTED}.chernoff_tables",
        "count",
        partial(_large_deviations, tables=TiltedLaw.chernoff_tables),
        _EXPONENT,
    ),
    Entry(
        "S14.large-deviations",
        "misranking, Chernoff corrected",
        f"{TILTED}.bahadur_rao_tables",
        "count",
        partial(_large_deviations, tables=TiltedLaw.bahadur_rao_tables),
        _EXPONENT,
    ),
    Entry(
        "S14.recall",
        "recall of half the top k",
        "bounds.recall.KeyScores.recall_tables",
        "count",
        _recall,
        "It adds up the chances of all keys to be on the wrong side of a threshold, and charges them for noise that "
        "all keys of a table share, which costs no recall.",
    ),
    Entry(
        "S14.recall",
        "recall of half the top k in the mean, an estimate and no bound",
        "socket_lsh.bounds.recall_estimate.RecallEstimate.tables",
        "count",
        _recall_estimate,
        "It takes the scores for normal, and the scores of few tables are skewed.",
    ),
)
