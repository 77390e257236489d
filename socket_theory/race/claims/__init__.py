"""The claims of RACE, R1 to R10."""

from itertools import chain

from socket_theory.core.claim import Claim
from socket_theory.race.claims import beta, entries, features, moments

_MODULES = (
    features,
    moments,
    entries,
    beta,
)

CLAIMS: tuple[Claim, ...] = tuple(chain.from_iterable(module.CLAIMS for module in _MODULES))
