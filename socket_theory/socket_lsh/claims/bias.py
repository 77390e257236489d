"""S11: what a temperature above 0 costs in the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.residual import residual_covariance
from socket_theory.core.angular import angles, angular_attention
from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality, worst
from socket_theory.socket_lsh.angular import soft_angular_attention
from socket_theory.socket_lsh.bounds.residual_moments import weight_covariance
from socket_theory.socket_lsh.bounds.temperature import output_bias_bound, uniform_output_bias_bound
from socket_theory.socket_lsh.claims.instances import query_and_keys
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
BiasBound = Callable[[Float, Float, float], Float]
HEAD_DIM = 8
ROUNDING = 1e-12


@dataclass(frozen=True)
class Problem:
    """A kernel, a query [D], keys [N, D] and values [N, E], with the two targets."""

    kernel: SoftKernel
    query: Float
    keys: Float
    values: Float

    @cached_property
    def soft_target(self) -> Float:
        """y_tau."""
        return np.asarray(soft_angular_attention(self.query, self.keys, self.values, self.kernel).value)

    @cached_property
    def target(self) -> Float:
        """y*."""
        return np.asarray(angular_attention(self.query, self.keys, self.values, self.kernel.num_planes).value)

    @cached_property
    def query_norm(self) -> float:
        return length(self.query)

    @cached_property
    def kernel_values(self) -> tuple[Float, Float]:
        """kappa_tau and kappa_0 of every key."""
        theta = angles(self.query, self.keys)
        return self.kernel.mean(theta, self.query_norm), self.kernel.hard_kernel(theta)

    @cached_property
    def second_moment(self) -> float:
        """s^2 = E|X|^2 of one table's residual, by quadrature over pairs of keys."""
        between = angles(self.keys, self.keys)
        covariance = weight_covariance(self.kernel, angles(self.query, self.keys), between, self.query_norm)
        return float(np.trace(residual_covariance(covariance, self.values - self.soft_target)))

    def bias_bound(self, bound: BiasBound) -> float:
        return float(bound(*self.kernel_values, self.value_radius(self.target)))

    def value_radius(self, center: Float) -> float:
        return float(np.max(np.linalg.norm(self.values - center, axis=-1)))


def length(vector: Float) -> float:
    return float(np.linalg.norm(vector))


def random_problem(context: Context) -> Problem:
    rng = context.generator()
    query, keys = np.sqrt(2) * rng.standard_normal(HEAD_DIM), rng.standard_normal((30, HEAD_DIM))
    return Problem(SoftKernel(3, 0.4, "tanh", HEAD_DIM), query, keys, rng.standard_normal((30, 3)))


def opposite_problem(context: Context) -> Problem:
    """Keys k and -k with values 1 and -1 at a hot temperature: the bias is most of the error."""
    query, keys = query_and_keys(context.generator(), HEAD_DIM, 4.0, [0.8])
    return Problem(SoftKernel(1, 3.0, "tanh", HEAD_DIM), query, np.vstack([keys, -keys]), np.array([[1.0], [-1.0]]))


def _bias(problem: Problem, bound: BiasBound) -> Measurement:
    """|y_tau - y*| <= sum form <= uniform form."""
    error, form = length(problem.soft_target - problem.target), problem.bias_bound(bound)
    mass, radius = float(problem.kernel_values[0].sum()), problem.value_radius(problem.target)
    uniform = uniform_output_bias_bound(problem.kernel, problem.query_norm, len(problem.keys), mass, radius)
    return combine(inequality(error, form + ROUNDING), worst(form, uniform))


def _signed_bias_bound(soft: Float, hard: Float, radius: float) -> Float:
    return np.asarray(radius * abs((soft - hard).sum()) / soft.sum())


def _bias_check(context: Context) -> Measurement:
    problems = random_problem(context), opposite_problem(context)
    return combine(*(_bias(problem, output_bias_bound) for problem in problems))


def _bias_control(context: Context) -> Measurement:
    return _bias(opposite_problem(context), _signed_bias_bound)


CLAIMS = (
    Claim(
        id="S11",
        title="Temperature bias of the output",
        statement="With D* = max|v - y*|, |y_tau - y*| <= D* sum_i |kappa_tau,i - kappa_0,i| / Z_tau, which is at most "
        "D* N P eps_tau / Z_tau: what a temperature above 0 costs against angular attention.",
        source="own proof; S6",
        kind="inequality",
        wrong="the sum without absolute values, on keys k and -k with values 1 and -1",
        check=_bias_check,
        control=_bias_control,
    ),
)
