"""The claims of SANTA, N1 to N16."""

from itertools import chain

from socket_theory.core.claim import Claim
from socket_theory.santa.claims import (
    budgets,
    carried,
    composition,
    offsets,
    rounding,
    rows,
    scores,
    scores_returned,
    softmax,
    tails,
    tile_rows,
    tiles,
    two_points,
    unbiased,
    variance,
)

_MODULES = (
    unbiased,
    variance,
    rows,
    tiles,
    tile_rows,
    budgets,
    carried,
    scores,
    scores_returned,
    softmax,
    composition,
    two_points,
    tails,
    offsets,
    rounding,
)

CLAIMS: tuple[Claim, ...] = tuple(chain.from_iterable(module.CLAIMS for module in _MODULES))
