"""Bounds of SOCKET's weights and of what they rank, S6, S8 and S14, with what each is compared with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from socket_theory.bounds.concentration import bernstein_radius, hoeffding_radius
from socket_theory.bounds.ranking import (
    misrank_bernstein_tables,
    misrank_hoeffding_range_tables,
    misrank_tables,
    recall_tables,
)
from socket_theory.evaluate.tightness.entry import DELTA, Compared, Entry
from socket_theory.evaluate.tightness.ratio_forms import Float
from socket_theory.evaluate.tightness.socket_setting import ANGLES, RECALL, SocketSetting
from socket_theory.socket_lsh.bounds.temperature import kernel_bias_bound, uniform_kernel_bias_bound
from socket_theory.socket_lsh.bounds.weight_range import collision_half_range
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
    variance, reach = s.kernel.variance(ANGLES, s.query_norm), 2 * collision_half_range(s.kernel)
    return bernstein_radius(DELTA, s.num_tables, variance, reach), s.entry_errors


def _gaps(s: SocketSetting) -> list[float]:
    """Delta of neighbours in ANGLES."""
    return [float(s.kernel.mean_difference(near, far, s.query_norm)) for near, far in pairwise(ANGLES)]


def _misranking(s: SocketSetting) -> Compared:
    return [misrank_tables(gap, DELTA) for gap in _gaps(s)], s.ranking_tables


def _misranking_range(s: SocketSetting) -> Compared:
    span = 2 * collision_half_range(s.kernel)
    return [misrank_hoeffding_range_tables(gap, DELTA, span) for gap in _gaps(s)], s.ranking_tables


def _misranking_bernstein(s: SocketSetting) -> Compared:
    apart = [(near, far, angle_between(near, far)) for near, far in pairwise(ANGLES)]
    variances = [float(s.kernel.difference_variance(*angles, s.query_norm)) for angles in apart]
    pairs = zip(_gaps(s), variances, strict=True)
    return [misrank_bernstein_tables(gap, DELTA, variance) for gap, variance in pairs], s.ranking_tables


def _recall(s: SocketSetting) -> Compared:
    kappa, k = s.recall_problem
    return recall_tables(kappa, k, RECALL, DELTA), s.recalling_tables


_SIGNS = "It adds up what every plane may be wrong by, while at an angle well above 0 errors of both signs cancel."
_RANGE = "It knows the range of a weight and not its variance, and most weights are far below the largest."
BIAS, MEAN, RANKING = "socket_lsh.bounds.temperature", "bounds.concentration", "bounds.ranking"

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
        "Its second term takes 1 for the range of a weight.",
    ),
    Entry(
        "S14.recall",
        "recall of half the top k",
        f"{RANKING}.recall_tables",
        "count",
        _recall,
        "It has every pair of a kept and a lost key ranked rightly, where many may be wrong, all with the gap of the "
        "closest pair, and 1 for the range of a weight.",
    ),
)
