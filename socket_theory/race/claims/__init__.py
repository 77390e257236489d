"""The claims of RACE, R1 to R10."""

from itertools import chain

from socket_theory.core.claim import Claim
from socket_theory.race.claims import (
    beta,
    causal,
    entries,
    features,
    gradients,
    moments,
    ratio,
    streaming,
    symmetries,
)

_MODULES = (
    features,
    moments,
    entries,
    ratio,
    causal,
    streaming,
    gradients,
    symmetries,
    beta,
)

CLAIMS: tuple[Claim, ...] = tuple(chain.from_iterable(module.CLAIMS for module in _MODULES))
