"""The gate of SOCKET's index: the codes and norms of some tokens. All on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_gpu.bench.gate import GateError, require_close
from socket_theory.core.hashing import Planes, hash_keys
from socket_theory.socket_lsh.operations import NumpyOperations
from socket_theory.testing import rounding_margin

Array = NDArray[Any]

LEAST_CERTAIN = 0.99


def require_codes(name: str, codes: Array, keys: Array, planes: Planes) -> None:
    """Codes [L, n] of keys [n, D] equal the reference's where a bit is beyond rounding, which is nearly everywhere."""
    certain = rounding_margin(keys, planes)
    if certain.mean() < LEAST_CERTAIN:
        raise GateError(f"only {certain.mean():.4f} of the code bits of {name} are certain enough to be compared.")
    place = (1 << np.arange(planes.num_planes)).astype(np.uint16)[:, None]
    mask = (certain * place).sum(axis=1).astype(np.uint16)
    wrong = int(((codes ^ hash_keys(keys, planes)) & mask != 0).sum())
    if wrong:
        raise GateError(f"{wrong} of {codes.size} codes of {name} differ from the reference beyond rounding.")


def require_norms(name: str, norms: Array, values: Array) -> None:
    """Norms [n] of values [n, D] within the bfloat16 tolerance."""
    expected = NumpyOperations().value_norms(values[None, None], np.array([[0, len(values)]]))[0, 0]
    require_close(f"the value norms of {name}", norms, expected)
