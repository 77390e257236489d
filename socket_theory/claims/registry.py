"""All claims in one place, and running many of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from socket_theory.claims import core, core_selection
from socket_theory.core.claim import Claim, Effort, Result, run
from socket_theory.core.rng import Key
from socket_theory.core.workers import results_of
from socket_theory.race import claims as race
from socket_theory.santa import claims as santa
from socket_theory.socket_lsh import claims as socket_lsh

_FAMILIES = (
    core,
    core_selection,
    socket_lsh,
    santa,
    race,
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
