"""N15: offsets are fresh for every request, head, layer, step and, in flash, tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from socket_theory.bounds.sampling import SamplingSpread, plain_spread
from socket_theory.bounds.santa import flash_spread
from socket_theory.claims.engine import Claim, Context, Measurement, combine, worst
from socket_theory.claims.santa_problems import Float
from socket_theory.estimators.santa import Santa
from socket_theory.rng import Key
from socket_theory.value_sampling_moments import systematic_covariance

Fold = Callable[[Key, str, int], Key]
HEAD_DIM, KV_LEN, SAMPLES = 4, 40, 8


def _outputs(context: Context, batch: int, heads: int, keys: Sequence[Key]) -> tuple[Float, Float, SamplingSpread]:
    """Outputs [len(keys), batch, heads, E] at one query, keys and values for all; their mean; the spread of one."""
    rng, method = context.generator(), Santa(SAMPLES)
    tokens, values = rng.standard_normal((2, KV_LEN, HEAD_DIM))
    query = rng.standard_normal(HEAD_DIM)
    cache = method.prepare(*(np.broadcast_to(rows, (batch, 1, KV_LEN, HEAD_DIM)) for rows in (tokens, values)))
    asked = np.broadcast_to(query, (batch, heads, HEAD_DIM))
    weights = np.exp(tokens @ query / np.sqrt(HEAD_DIM))
    variance = float(np.trace(systematic_covariance(weights, values, SAMPLES)))
    drawn = np.stack([method.attend(asked, cache, key=key).value for key in keys])
    return drawn, weights @ values / weights.sum(), SamplingSpread(plain_spread(weights, values).radius, variance)


def _mean_error(context: Context, batch: int, heads: int, keys: Sequence[Key], axis: int) -> Measurement:
    """The largest |mean over an axis - mu| against Bernstein's radius of as many independent draws."""
    drawn, target, spread = _outputs(context, batch, heads, keys)
    errors = np.linalg.norm(drawn.mean(axis=axis) - target, axis=-1)
    return worst(errors, spread.bernstein(context.level(errors.size), drawn.shape[axis]))


def _keys(context: Context, tag: str, fold: Fold) -> list[Key]:
    return [fold(context.key, tag, place) for place in range(context.samples(250))]


def _tiles(context: Context) -> Measurement:
    """One step of flash on 256 tiles of equal keys with alternating values, where equal offsets cannot cancel."""
    tokens, values = np.ones((1024, 4)), np.tile([[1.0], [-1.0]], (512, 1))
    method = Santa(512, "flash", 4)
    drawn = method.attend(np.ones((1, 4)), method.prepare(tokens[None], values[None]), key=context.key).value
    bound = flash_spread(np.ones(1024), values, 512, 4).bernstein(context.level(), 1)
    return Measurement(float(np.abs(drawn).max()), bound)


def _fresh(context: Context, fold: Fold) -> Measurement:
    """Over steps for each head, and over layers alike."""
    steps, layers = context.split("steps", "layers")
    return combine(
        _mean_error(steps, 1, 4, _keys(steps, "step", fold), axis=0),
        _mean_error(layers, 1, 4, _keys(layers, "layer", fold), axis=0),
    )


def _fresh_check(context: Context) -> Measurement:
    folded, requests, heads, tiles = context.split("folded", "requests", "heads", "tiles")
    return combine(
        _fresh(folded, Key.fold_in),
        _mean_error(requests, requests.samples(200), 4, [requests.key], axis=1),
        _mean_error(heads, 1, heads.samples(200), [heads.key], axis=2),
        _tiles(tiles),
    )


def _released(key: Key, tag: str, place: int) -> Key:
    return key


def _fresh_control(context: Context) -> Measurement:
    return _fresh(context.split("folded", "requests", "heads", "tiles")[0], _released)


CLAIMS = (
    Claim(
        id="N15",
        title="Fresh offsets",
        statement="With a key folded for each layer and step, the mean of n outputs at fixed q, K, V over steps, "
        "layers, requests or heads is within Bernstein's radius for n independent draws, which shrinks like 1/sqrt n.",
        source="Pinelis 1994; own proof of the variance",
        kind="mean",
        wrong="one key for all steps, as released: the error stays",
        check=_fresh_check,
        control=_fresh_control,
    ),
)
