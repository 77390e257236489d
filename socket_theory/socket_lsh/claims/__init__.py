"""The claims of SOCKET, S1 to S15."""

from itertools import chain

from socket_theory.core.claim import Claim
from socket_theory.socket_lsh.claims import (
    bias,
    collisions,
    concentration,
    end_to_end,
    moments,
    ranking,
    ratio,
    sampling,
    sampling_radii,
    spare_sets,
    table_moments,
    table_variance,
    temperature,
    truncation,
)

_MODULES = (
    collisions,
    moments,
    concentration,
    ratio,
    table_moments,
    table_variance,
    spare_sets,
    sampling,
    sampling_radii,
    bias,
    end_to_end,
    truncation,
    ranking,
    temperature,
)

CLAIMS: tuple[Claim, ...] = tuple(chain.from_iterable(module.CLAIMS for module in _MODULES))
