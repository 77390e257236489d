"""What SANTA and Bernoulli scores refuse: what would be drawn, predicted or charged without a meaning."""

import numpy as np
import pytest

from socket_theory import Santa
from socket_theory.santa.cost import DecodeShape, group_reads, iid_inclusion, systematic_inclusion, tiled_inclusion
from socket_theory.santa.law import (
    iid_covariance,
    prop_bias,
    stratum_laws,
    systematic_covariance,
    tile_means,
    tiled_covariance,
    value_covariance,
)
from socket_theory.santa.query import features_read, firing_probabilities, iid_hits, query_variance, stratified_hits
from socket_theory.santa.samplers import iid_counts, stratified_counts, systematic_counts
from socket_theory.santa.tiles import flash_budgets, largest_remainder, merge_by_mass, tile_masses, tiled_counts


def cases():
    law, rows, half, two = np.array([0.2, 0.3, 0.5]), np.ones((3, 2)), np.array(0.5), np.array([1, 1])
    least = "pass an integer of at least 1"
    no_law, outside = "whose sum is finite and above 0", r"has an entry outside \[0, 1\)"
    yield "negative count", lambda: systematic_counts(law, -3, half), ValueError, f"num_samples=-3 was given: {least}"
    yield "fractional count", lambda: systematic_counts(law, 2.5, half), TypeError, "num_samples=2.5 is of type float"
    yield "offset above 1", lambda: systematic_counts(law, 4, np.array(1.7)), ValueError, f"offsets {outside}"
    yield "NaN offset", lambda: systematic_counts(law, 4, np.array(np.nan)), ValueError, f"offsets {outside}"
    yield "no tile", lambda: systematic_counts(law, 4, half, 0), ValueError, f"tile_len=0 was given: {least}"
    yield "text as weights", lambda: systematic_counts("law", 4, half), TypeError, "weights='law' was given"
    yield "huge weights", lambda: systematic_counts(np.full(2, 1e308), 4, half), ValueError, no_law
    yield "point of 1", lambda: iid_counts(law, np.array([0.2, 1.0])), ValueError, f"points {outside}"
    yield (
        "one point",
        lambda: stratified_counts(law, half),
        ValueError,
        r"points of shape \(\) were given: pass \[\.\.\., S\]",
    )
    yield "no point", lambda: iid_counts(law, np.zeros(0)), ValueError, r"points of shape \(0,\) were given"
    yield "NaN in tiles", lambda: tiled_counts(np.array([np.nan, 1, 1]), 2, two, np.zeros(2)), ValueError, no_law
    yield (
        "budgets of other tiles",
        lambda: tiled_counts(law, 2, np.ones(3, int), np.zeros(2)),
        ValueError,
        "for 2 tiles",
    )
    yield "fractional budgets", lambda: tiled_counts(law, 2, np.ones(2), np.zeros(2)), ValueError, "dtype float64"
    yield (
        "one offset for tiles",
        lambda: tiled_counts(law, 2, two, np.zeros(1)),
        ValueError,
        "offsets of shape .* 2 tiles",
    )
    yield "counts of other rows", lambda: merge_by_mass(np.ones(4), law, 2, two), ValueError, "for 3 weights"
    yield "masses above 1", lambda: largest_remainder(np.array([2.0, 1.0]), 8), ValueError, "masses add up to 3: pass"
    yield "NaN mass", lambda: largest_remainder(np.array([np.nan, 1.0]), 8), ValueError, f"masses of shape .*{no_law}"
    yield "no tiles", lambda: flash_budgets(0, 4), ValueError, f"num_tiles=0 was given: {least}"
    yield "masses without tiles", lambda: tile_masses(law, 0), ValueError, "tile_len=0 was given"
    flat = r"values has shape \(3,\): pass \[3, E\]"
    yield "flat values", lambda: value_covariance(law, np.ones(3)), ValueError, flat
    yield "flat values of tiles", lambda: prop_bias(law, np.ones(3), 4, 2), ValueError, flat
    yield "NaN values", lambda: value_covariance(law, rows * np.nan), ValueError, "values contains NaN or infinity"
    yield "values of other rows", lambda: systematic_covariance(law, rows[:2], 4), ValueError, r"pass \[3, E\]"
    yield "fewer values than rows", lambda: tile_means(law, rows[:1], 2), ValueError, r"pass \[3, E\]"
    yield (
        "covariance of no draws",
        lambda: iid_covariance(law, rows, 0),
        ValueError,
        f"num_samples=0 was given: {least}",
    )
    yield "no strata", lambda: stratum_laws(law, 0), ValueError, "num_samples=0 was given"
    short = lambda: tiled_covariance(law, rows, 2, np.array([1]), np.ones(2))  # noqa: E731
    yield "a budget short", short, ValueError, "for 2 tiles"
    yield "inclusion of too few tiles", lambda: tiled_inclusion(law, 2, np.array([1])), ValueError, "for 2 tiles"
    yield "inclusion of no draws", lambda: iid_inclusion(law, 0), ValueError, "num_samples=0 was given"
    yield "inclusion of less", lambda: systematic_inclusion(law, -1), ValueError, "num_samples=-1 was given"
    yield (
        "reads of no group",
        lambda: group_reads(law),
        ValueError,
        r"inclusion of shape \(3,\) was given: pass \[G, N\]",
    )
    yield "reads above certain", lambda: group_reads(2 * rows), ValueError, r"pass \[G, N\] probabilities"
    sampler = "sampler='Iid' is unknown: pass one of stratified, iid"
    yield "unknown firing", lambda: query_variance(law, 4, "Iid"), ValueError, sampler
    yield "unknown reads", lambda: features_read(law, 4, "Iid"), ValueError, sampler
    yield "no vectors", lambda: query_variance(law, 0, "iid"), ValueError, "num_vectors=0 was given"
    yield "reads beyond 1", lambda: features_read(3 * law, 4, "iid"), ValueError, "pass those of firing_probabilities"
    yield "NaN magnitude", lambda: firing_probabilities(law * np.nan), ValueError, "magnitudes contains NaN"
    yield "stratum beyond 1", lambda: stratified_hits(law, 4, law + 1), ValueError, f"points {outside}"
    yield "firing beyond 1", lambda: iid_hits(law, rows.T), ValueError, f"points {outside}"
    for name, bad in (("rows", -100), ("rows", 11), ("key_share", -3), ("key_share", 1.1), ("scratch", -1)):
        given = {"rows": 2} | {name: bad}
        yield (
            f"{name} {bad}",
            lambda g=given: DecodeShape(10, 4, 2, 8).sampled(**g),
            ValueError,
            f"{name}={bad} was given",
        )
    yield "shape of no token", lambda: DecodeShape(-5, 4, 2, 8), ValueError, f"kv_len=-5 was given: {least}"
    yield "shape of no size", lambda: DecodeShape(5, 4, 2, 0), ValueError, "head_dim=0 was given"
    yield "shape of odd heads", lambda: DecodeShape(5, 3, 2, 8), ValueError, "pass a positive multiple of 2 query heads"
    yield "scratch of no tile", lambda: DecodeShape(5, 4, 2, 8).score_scratch(0), ValueError, "num_tiles=0 was given"
    for sampler, given, needed in (("stratified", 8, 4), ("iid", 1, 4), ("flash", 1, 2), ("systematic", 2, 1)):
        drawn_by = Santa(4, sampler, 2 if sampler == "flash" else None)
        call = lambda m=drawn_by, n=given: m.draws(law, np.zeros(n))  # noqa: E731
        yield f"uniforms of {sampler}", call, ValueError, rf"uniforms have shape \({given},\): pass \[{needed}\] for 3"


CASES = list(cases())


@pytest.mark.parametrize(("call", "error", "sentence"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_bad_input_gets_a_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        call()
    assert str(caught.value).endswith(".")
