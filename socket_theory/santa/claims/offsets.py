"""N15: offsets are fresh for every request, layer, step, head and tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.importance import SamplingSpread
from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.draws import head_uniforms
from socket_theory.core.rng import Key
from socket_theory.core.step import Step
from socket_theory.santa.bounds import flash_spread
from socket_theory.santa.claims.problems import Float, alternating, largest_gap, mildest
from socket_theory.santa.estimator import Santa
from socket_theory.santa.samplers import systematic_counts

Fold = Callable[[Key, str, int], Key]
Draw = Callable[[Key, tuple[int, ...], NDArray[np.int64]], Float]
TAGS = ("request", "layer", "step")
KV_LEN, SAMPLES = 40, 8


def _step(batch: int, heads: int) -> Step:
    """A step at which all keys score alike; value j is j."""
    method, values = Santa(SAMPLES), np.broadcast_to(np.arange(float(KV_LEN))[:, None], (batch, 1, KV_LEN, 1))
    return Step(np.ones((batch, heads, 1)), method.prepare(np.ones(values.shape), values), sm_scale=1.0)


def _nested(key: Key, fold: Fold, sizes: Sequence[int]) -> list[Key]:
    """A key for every request, layer and step of a grid."""
    keys = [key]
    for tag, size in zip(TAGS, sizes, strict=True):
        keys = [fold(one, tag, place) for one in keys for place in range(size)]
    return keys


def _offsets(keys: Sequence[Key], draw: Draw, step: Step, tiles: int) -> Float:
    """Those of every key, sequence, head and tile, in one array."""
    return np.concatenate([draw(key, step.query.shape, np.arange(tiles)).ravel() for key in keys])


def _repeated(context: Context, fold: Fold, draw: Draw) -> Measurement:
    """How many uniforms of grids of request, layer, step, head and tile occur twice.

    Few enough that ideal ones, of 53 bits, would with a probability below 1e-9.
    """
    grid, alone = _nested(context.key.fold_in("grid"), fold, (2, 2, 4)), context.key.fold_in("alone")
    long = [fold(alone, tag, place) for tag in TAGS for place in range(128)]
    points = np.append(_offsets(grid, draw, _step(3, 4), 8), _offsets(long, draw, _step(1, 2), 1))
    return Measurement(len(points) - len(np.unique(points)), 0)


def _estimator(context: Context) -> Measurement:
    """Outputs of Santa at two steps against the systematic averages at these uniforms, where no score is rounded."""
    step, parts = _step(3, 4), []
    for key in _nested(context.key, Key.fold_in, (1, 1, 2)):
        seen = step.cache.method.attend(np.ones((3, 4, 1)), step.cache, key=key).value[..., 0]
        counts = systematic_counts(np.ones(KV_LEN), SAMPLES, head_uniforms(key, step.query.shape, np.arange(1))[..., 0])
        parts.append(largest_gap(seen, counts @ np.arange(float(KV_LEN)) / SAMPLES))
    return combine(*parts)


def _mean_error(context: Context, offsets: Float) -> Measurement:
    """|mean| at offsets [16 n], and at the first n, of outputs that are 1 or -1, against Bernstein's radius."""
    problem, one_draw = alternating(SAMPLES), SamplingSpread(1.0, 1.0)
    drawn = systematic_counts(problem.weights, SAMPLES, offsets) @ problem.values[:, 0] / SAMPLES
    counts = np.array([len(offsets) // 16, len(offsets)])
    errors = [abs(drawn[:count].mean()) for count in counts]
    return worst(errors, [one_draw.bernstein(context.level(2), int(count)) for count in counts])


def _averaged(context: Context, fold: Fold) -> Measurement:
    """Over requests, layers, steps, sequences of a batch, and heads."""
    count, one = context.samples(320), _step(1, 1)
    *folded, sequences, heads = context.split(*TAGS, "sequence", "head")
    long = [[fold(part.key, tag, place) for place in range(count)] for tag, part in zip(TAGS, folded, strict=True)]
    return combine(
        *(_mean_error(part, _offsets(keys, head_uniforms, one, 1)) for part, keys in zip(folded, long, strict=True)),
        _mean_error(sequences, _offsets([sequences.key], head_uniforms, _step(count, 1), 1)),
        _mean_error(heads, _offsets([heads.key], head_uniforms, _step(1, count), 1)),
    )


def _tiles(context: Context) -> Measurement:
    """One step of flash on 256 tiles of equal keys with alternating values, where equal offsets cannot cancel."""
    tokens, values = np.ones((1024, 4)), np.tile([[1.0], [-1.0]], (512, 1))
    method = Santa(512, "flash", 4)
    drawn = method.attend(np.ones((1, 4)), method.prepare(tokens[None], values[None]), key=context.key).value
    bound = flash_spread(np.ones(1024), values, 512, 4).bernstein(context.level(), 1)
    return Measurement(float(np.abs(drawn).max()), bound)


def _check(context: Context) -> Measurement:
    repeated, averaged, tiles = context.split("repeated", "averaged", "tiles")
    return combine(
        _repeated(repeated, Key.fold_in, head_uniforms),
        _averaged(averaged, Key.fold_in),
        _tiles(tiles),
        _estimator(context),
    )


def _released(key: Key, tag: str, place: int) -> Key:
    return key


def _every_sixteenth_alike(key: Key, tag: str, place: int) -> Key:
    return key.fold_in(tag, place % 16)


def _tag_ignored(key: Key, tag: str, place: int) -> Key:
    return key.fold_in("place", place)


def _heads_in_pairs(key: Key, shape: tuple[int, ...], tiles: NDArray[np.int64]) -> Float:
    heads = np.arange(shape[1])
    return head_uniforms(key, shape, tiles)[:, heads - heads % 2]


def _control(context: Context) -> Measurement:
    folds = (_released, _every_sixteenth_alike, _tag_ignored)
    repeated, averaged = context.split("repeated", "averaged", "tiles")[:2]
    return mildest(
        *(_repeated(repeated, fold, head_uniforms) for fold in folds),
        _repeated(repeated, Key.fold_in, _heads_in_pairs),
        _averaged(averaged, _released),
    )


CLAIMS = (
    Claim(
        id="N15",
        title="Fresh offsets",
        statement="With a key folded for request, layer and step, no two of these, nor two sequences, heads or tiles, "
        "share an offset. The mean of n outputs at fixed q, K, V over any of them is within Bernstein's radius for n "
        "independent draws, which shrinks like 1/sqrt n.",
        source="Pinelis 1994",
        kind="mean",
        wrong="one key for all steps, as released, where the error stays; keys again after 16 steps; layer 3 with the "
        "key of step 3; heads in pairs",
        check=_check,
        control=_control,
    ),
)
