"""R1: the soft buckets of a query and a key, and what their inner product is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from socket_theory.core.claim import Claim, Context, Measurement, worst
from socket_theory.core.hashing import SignHash, code_signs
from socket_theory.race.features import soft_buckets

Float = NDArray[np.float64]
HEAD_DIM, ROUNDING = 8, 1e-11


def _both_soft(asked: Float, held: Float) -> Float:
    """sigma(u) sigma(v) + sigma(-u) sigma(-v) of u [..., P] and v [..., P]."""
    return np.asarray(expit(asked) * expit(held) + expit(-asked) * expit(-held))


def _one_soft(asked: Float, held: Float) -> Float:
    return np.asarray(expit(asked * np.where(held >= 0, 1, -1)))


def _identity(context: Context, bit: Callable[[Float, Float], Float]) -> Measurement:
    """Features against the softmax over corners, and their inner products against products of bits, relatively."""
    errors = []
    vectors = 2 * context.generator().standard_normal((2, 32, HEAD_DIM))
    for num_planes in (1, 3, 7):
        planes = SignHash(8, num_planes, HEAD_DIM).draw(context.key)
        corners = code_signs(np.arange(2**num_planes, dtype=np.uint16), num_planes)
        for beta in (1 / np.sqrt(128), 2.0, 4.0):
            mapped = beta * np.tanh(np.einsum("snd,lpd->snlp", vectors, planes.weights))
            features = soft_buckets(vectors, planes.weights, beta)
            errors.append(np.max(np.abs(features / softmax(mapped @ corners.T, axis=-1) - 1)))
            (asked, held), product = 2 * mapped, np.einsum("nlr,nlr->nl", *features)
            errors.append(np.max(np.abs(bit(asked, held).prod(axis=-1) / product - 1)))
            tanh = 2.0**-num_planes * np.prod(1 + np.tanh(asked / 2) * np.tanh(held / 2), axis=-1)
            errors.append(np.max(np.abs(tanh / product - 1)))
    return worst(errors, ROUNDING)


CLAIMS = (
    Claim(
        id="R1",
        title="Identity of the features",
        statement="phi(x) is the softmax of beta <tanh(W x), c> over the 2^P corners c, and <phi(q), phi(k)> = "
        "prod_p [sigma(u) sigma(v) + sigma(-u) sigma(-v)] = 2^-P prod_p (1 + tanh(beta t_q) tanh(beta t_k)) with "
        "t = tanh z, u = 2 beta t_q, v = 2 beta t_k.",
        source="own proof; a sum over corners of a product over planes is a product of two-term sums",
        kind="identity",
        wrong="sigma(u s) with s the sign of the key's projection, a soft query and a hard key as in SOCKET",
        check=partial(_identity, bit=_both_soft),
        control=partial(_identity, bit=_one_soft),
    ),
)
