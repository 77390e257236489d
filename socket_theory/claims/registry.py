"""All claims in one place, and running many of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from socket_theory.claims import (
    core,
    core_selection,
    santa_budgets,
    santa_carried,
    santa_composition,
    santa_offsets,
    santa_rounding,
    santa_rows,
    santa_scores,
    santa_scores_returned,
    santa_softmax,
    santa_tails,
    santa_tile_rows,
    santa_tiles,
    santa_two_points,
    santa_unbiased,
    santa_variance,
    socket_bias,
    socket_collisions,
    socket_concentration,
    socket_end_to_end,
    socket_finite_tables,
    socket_moments,
    socket_ranking,
    socket_sampling,
    socket_table_moments,
    socket_temperature,
    socket_truncation,
)
from socket_theory.claims.engine import Claim, Effort, Result, run
from socket_theory.rng import Key
from socket_theory.workers import results_of

_FAMILIES = (
    core,
    core_selection,
    socket_collisions,
    socket_moments,
    socket_concentration,
    socket_finite_tables,
    socket_table_moments,
    socket_sampling,
    socket_bias,
    socket_end_to_end,
    socket_truncation,
    socket_ranking,
    socket_temperature,
    santa_unbiased,
    santa_variance,
    santa_rows,
    santa_tiles,
    santa_tile_rows,
    santa_budgets,
    santa_carried,
    santa_scores,
    santa_scores_returned,
    santa_softmax,
    santa_composition,
    santa_two_points,
    santa_tails,
    santa_offsets,
    santa_rounding,
)


def _place(claim: Claim) -> tuple[str, int]:
    return claim.id[0], int(claim.id[1:].split(".")[0])


CLAIMS: tuple[Claim, ...] = tuple(sorted(chain.from_iterable(family.CLAIMS for family in _FAMILIES), key=_place))


def run_by_id(claim_id: str, key: Key, effort: Effort) -> Result:
    """Run one registered claim with its part of the whole registry's false alarm. Everything passed is picklable."""
    claim = next(claim for claim in CLAIMS if claim.id == claim_id)
    return run(claim, key, effort, len(CLAIMS))


def verify(
    claims: Sequence[Claim] = CLAIMS, *, key: Key, effort: Effort = "quick", n_jobs: int | None = None
) -> Iterator[Result]:
    """The results of `claims`, each as soon as it is known.

    No joblib backend is named, so `joblib.parallel_config(backend="dask")` or `"ray"` spreads the work;
    `n_jobs` None leaves the number of workers to it too (one, without it), and no more are started than there are
    claims. A backend that cannot hand over results one by one, as those made from `multiprocessing`, hands over all at
    the end. Where a worker is killed, `concurrent.futures.process.BrokenProcessPool` is raised after what was finished.
    """
    from joblib import delayed

    yield from results_of([delayed(run_by_id)(claim.id, key, effort) for claim in claims], n_jobs, ordered=False)
