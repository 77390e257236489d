"""R8: gradients in linear time against derivatives of the dense form by complex steps, which cancel nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.hashing import Planes
from socket_theory.race.feature_gradient import through_features
from socket_theory.race.gradient import RaceGradients, Tokens, race_gradients
from socket_theory.race.running_sums import sums_over_prefixes

Float = NDArray[np.float64]
EXACT, STEP, CHUNK = 1e-9, 1e-30, 3
NAMES = tuple(field.name for field in fields(RaceGradients))


@dataclass(frozen=True, eq=False)
class Case:
    """inputs: query [2, T, D], keys [1, N, D], values [1, N, E], planes [L, P, D] and beta []; gradient [2, T, E]."""

    inputs: dict[str, Float]
    gradient: Float
    causal: bool

    def loss(self, inputs: dict[str, Any]) -> Any:
        """<g, O> of the dense form, its weights by R1 as products over planes; of real or complex inputs."""
        asked, held = (
            np.tanh(inputs["beta"] * np.tanh(np.einsum("hnd,lpd->hnlp", inputs[name], inputs["planes"])))
            for name in ("query", "keys")
        )
        weights = np.prod(1 + asked[:, :, None] * held[:, None], axis=-1).sum(axis=-1)
        if self.causal:
            weights = np.tril(weights, held.shape[1] - asked.shape[1])
        return (self.gradient * (weights @ inputs["values"] / weights.sum(axis=-1, keepdims=True))).sum()

    def derivatives(self) -> RaceGradients:
        """Im <g, O(x + i h e)> / h for each entry of each input."""
        found = {}
        for name, array in self.inputs.items():
            found[name] = np.empty(array.shape)
            for index in np.ndindex(array.shape):
                moved = array.astype(np.complex128)
                moved[index] += 1j * STEP
                found[name][index] = np.imag(self.loss(self.inputs | {name: moved})) / STEP
        return RaceGradients(**found)

    def arguments(self) -> tuple[Any, ...]:
        planes, beta = Planes(self.inputs["planes"]), float(self.inputs["beta"])
        return *(self.inputs[name] for name in NAMES[:3]), planes, beta, self.gradient, self.causal


def _cases(context: Context, causal: bool) -> Iterator[Case]:
    for key, _ in context.batches(context.samples(4), 1):
        rng = key.generator()
        shapes = {"query": (2, 5, 4), "keys": (1, 7, 4), "values": (1, 7, 3), "planes": (2, 2, 4)}
        inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        inputs["beta"] = np.asarray(rng.uniform(0.3, 4.0))
        yield Case(inputs, rng.standard_normal((2, 5, 3)), causal)


def _gradients(case: Case) -> RaceGradients:
    return race_gradients(*case.arguments(), chunk=CHUNK)


def _values_over_prefixes(case: Case) -> RaceGradients:
    """Right but for the values' gradient, whose sum runs over the queries up to a key and not from it on."""
    tokens = Tokens.of(*case.arguments())
    incoming = tokens.gradient / tokens.attend(tokens.values)[1]
    wrong = sums_over_prefixes(tokens.held, tokens.asked, incoming, True, tokens.chunk).sum(axis=-3)
    return replace(_gradients(case), values=wrong)


def _constant_normaliser(case: Case) -> RaceGradients:
    """As if Den were a constant."""
    tokens = Tokens.of(*case.arguments())
    incoming = tokens.gradient / tokens.attend(tokens.values)[1]
    forgotten = np.concatenate([incoming, np.zeros((*incoming.shape[:-1], 1))], axis=-1)
    return tokens.back(forgotten, tokens.values, through_features)


def _errors(context: Context, causal: bool, form: Callable[[Case], RaceGradients]) -> Measurement:
    """The largest error in units of the largest entry of the gradient."""
    parts = []
    for case in _cases(context, causal):
        right, found = case.derivatives(), form(case)
        for name in NAMES:
            exact = getattr(right, name)
            parts.append(np.max(np.abs(getattr(found, name) - exact)) / np.max(np.abs(exact)))
    return worst(parts, EXACT)


def _full(context: Context) -> Measurement:
    return combine(*(_errors(context, causal, _gradients) for causal in (False, True)))


CLAIMS = (
    Claim(
        id="R8.normaliser",
        title="Gradients in linear time",
        statement="dNum = g/Den, dDen = -<g, O>/Den, dPhi_Q = B dNum + A dDen, dB = Phi_Q' dNum, dA = Phi_Q' dDen, "
        "dPhi_K = V dB' + dA, dV = Phi_K dB, and d phi_r / d t_p = beta phi_r (c_rp - tanh(beta t_p)) give the "
        "derivatives of the dense form with respect to query, keys, values, planes and beta.",
        source="own proof; the chain rule",
        kind="identity",
        wrong="dDen forgotten, as if the normaliser were a constant",
        check=_full,
        control=partial(_errors, causal=False, form=_constant_normaliser),
    ),
    Claim(
        id="R8.causal",
        title="Causal gradients",
        statement="In causal attention dPhi_Q reads A and B of the prefix that the query sees, and dPhi_K and dV read "
        "dA and dB of the suffix of queries that see the key.",
        source="own proof; key j is in row i where j <= i",
        kind="identity",
        wrong="dV from the queries before a key in place of those after it",
        check=partial(_errors, causal=True, form=_gradients),
        control=partial(_errors, causal=True, form=_values_over_prefixes),
    ),
)
