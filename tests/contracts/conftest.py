"""The backends the contract tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from socket_gpu import missing_requirement
from socket_theory.core.backend import Backend, resolve_backend


@dataclass(frozen=True)
class Device:
    """A backend with the way to it and back."""

    engine: Backend
    put: Callable[[Any], Any]
    get: Callable[[Any], Any]
    score_error: float
    """RMS, in standard deviations over tokens: float32 in the reference, byte look-up tables on the GPU."""


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Device:
    if request.param == "numpy":
        return Device(resolve_backend("numpy"), np.asarray, np.asarray, 1e-6)
    missing = missing_requirement()
    if missing:
        pytest.skip(missing)
    import cupy

    try:
        return Device(resolve_backend("cupy"), cupy.asarray, cupy.asnumpy, 2e-2)
    except RuntimeError as error:
        pytest.skip(str(error))
