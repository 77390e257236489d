"""Gradients of RACE attention (R8): against the dense form's, and what their tolerance lets pass and sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest

from socket_theory.core.hashing import Planes, round_to_bfloat16
from socket_theory.core.rng import Key
from socket_theory.race.feature_gradient import corners
from socket_theory.race.features import collision_weights, soft_buckets
from socket_theory.race.gradient import RaceGradients, Tokens, race_gradients
from socket_theory.race.gradient_scale import SUM_ROUNDING, gradient_scale, gradient_tolerance
from socket_theory.race.running_sums import sums_over_prefixes

Float = np.ndarray[Any, np.dtype[np.float64]]
NAMES = tuple(field.name for field in fields(RaceGradients))
PLACE = 170


def draw(
    q_heads: int = 4, kv_heads: int = 2, queries: int = 5, tokens: int = 7, dim: int = 6, tables: int = 3
) -> dict[str, Any]:
    """Inputs of a batch of one sequence."""
    rng = Key.from_seed(14).generator()
    return {
        "query": rng.standard_normal((1, q_heads, queries, dim)),
        "keys": rng.standard_normal((1, kv_heads, tokens, dim)),
        "values": rng.standard_normal((1, kv_heads, tokens, 5)) + 0.5,
        "planes": rng.standard_normal((tables, 2, dim)),
        "output_gradient": rng.standard_normal((1, q_heads, queries, 5)),
    }


def gradients(given: dict[str, Any], beta: float, causal: bool, chunk: int = 256) -> RaceGradients:
    return race_gradients(**given | {"planes": Planes(given["planes"])}, beta=beta, causal=causal, chunk=chunk)


def dense_loss(given: dict[str, Any], beta: float, causal: bool) -> float:
    """<g, O> of the masked dense form."""
    groups = given["query"].shape[-3] // given["keys"].shape[-3]
    keys, values = (np.repeat(given[name], groups, axis=-3) for name in ("keys", "values"))
    weights = collision_weights(given["query"], keys, Planes(given["planes"]), beta)
    if causal:
        weights = np.tril(weights, keys.shape[-2] - given["query"].shape[-2])
    return float((given["output_gradient"] * (weights @ values / weights.sum(axis=-1, keepdims=True))).sum())


def along_line(given: dict[str, Any], name: str, along: Float, beta: float, causal: bool, step: float) -> float:
    return dense_loss(given | {name: given[name] + step * along}, beta, causal)


def slope(function: Callable[[float], float]) -> float:
    """The derivative at 0 by central differences of two widths, exact to fourth order."""
    h = 1e-4
    near, far = (function(s) - function(-s) for s in (h, 2 * h))
    return (8 * near - far) / (12 * h)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_gradients_are_the_slopes_of_the_dense_form(causal: bool, beta: float) -> None:
    given, rng = draw(), Key.from_seed(3).generator()
    found = gradients(given, beta, causal, chunk=3)
    for name in ("query", "keys", "values", "planes"):
        for _ in range(4):
            along = rng.standard_normal(given[name].shape)
            numeric = slope(partial(along_line, given, name, along, beta, causal))
            np.testing.assert_allclose((getattr(found, name) * along).sum(), numeric, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.beta, slope(lambda s: dense_loss(given, beta + s, causal)), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_chunks_change_roundings_only(causal: bool, chunk: int) -> None:
    found, whole = (gradients(draw(), 1.0, causal, chunk=size) for size in (chunk, 1000))
    for name in NAMES:
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-13)


def test_shared_kv_heads_add_the_gradients_of_their_query_heads() -> None:
    given = draw()
    repeated = given | {name: np.repeat(given[name], 2, axis=-3) for name in ("keys", "values")}
    shared, apart = gradients(given, 1.0, True), gradients(repeated, 1.0, True)
    np.testing.assert_allclose(shared.query, apart.query, rtol=1e-12)
    for name in ("keys", "values"):
        pairs = getattr(apart, name).reshape(1, 2, 2, 7, -1)
        np.testing.assert_allclose(getattr(shared, name), pairs.sum(axis=2), rtol=1e-10, atol=1e-14)


def test_a_constant_added_to_all_values_changes_no_gradient_but_the_scale() -> None:
    given = draw()
    moved = given | {"values": given["values"] + 3.0}
    shifted, right = gradients(moved, 1.0, True), gradients(given, 1.0, True)
    for name in NAMES:
        np.testing.assert_allclose(getattr(shifted, name), getattr(right, name), rtol=1e-9, atol=1e-12)
    assert (_scale(moved, 1.0, True).query > _scale(given, 1.0, True).query).all()


def _scale(given: dict[str, Any], beta: float, causal: bool) -> RaceGradients:
    return gradient_scale(**given | {"planes": Planes(given["planes"])}, beta=beta, causal=causal)


def excess(found: RaceGradients, given: dict[str, Any], beta: float, causal: bool) -> dict[str, float]:
    """The largest error of each gradient in units of its tolerance."""
    right = gradients(given, beta, causal)
    allowed = gradient_tolerance(right, _scale(given, beta, causal), beta)
    off = {name: np.abs(getattr(found, name) - getattr(right, name)) / getattr(allowed, name) for name in NAMES}
    return {name: float(np.max(one)) for name, one in off.items()}


def long_rows() -> dict[str, Any]:
    return draw(q_heads=2, kv_heads=1, queries=512, tokens=512, dim=64, tables=4)


@pytest.mark.parametrize("causal", [False, True])
def test_the_scale_is_at_least_the_gradient(causal: bool) -> None:
    given = long_rows()
    right, scale = gradients(given, 2.0, causal), _scale(given, 2.0, causal)
    for name in NAMES:
        assert (np.abs(getattr(right, name)) <= (1 + 1e-12) * getattr(scale, name)).all(), name


def in_float32(given: dict[str, Any], beta: float, causal: bool) -> RaceGradients:
    """The dense backward pass of one KV head with all numbers and sums in float32."""
    query, keys, values, planes, g = (given[n][0] if n != "planes" else given[n] for n in given)
    q, k, v, w, g = (x.astype(np.float32) for x in (query, keys[0], values[0], planes, g))
    signs, steep = corners(w.shape[1]).astype(np.float32), np.float32(beta)

    def features(x: Any) -> tuple[Any, Any]:
        t = np.tanh(np.einsum("...d,lpd->...lp", x, w))
        return t, np.prod(1 / (1 + np.exp(-2 * steep * signs * t[..., None, :])), axis=-1)

    def back(of_phi: Any, x: Any, t: Any, phi: Any) -> tuple[Any, Any, Any]:
        moved = np.einsum("...lr,...lrp->...lp", of_phi * phi, signs - np.tanh(steep * t)[..., None, :])
        z = steep * moved * (1 - t * t)
        rows = z.reshape(-1, *w.shape[:2])
        return (
            np.einsum("...lp,lpd->...d", z, w),
            np.einsum("nlp,nd->lpd", rows, x.reshape(-1, x.shape[-1])),
            (moved * t).sum(),
        )

    (tq, fq), (tk, fk) = features(q), features(k)
    flat_q, flat_k = fq.reshape(*fq.shape[:2], -1), fk.reshape(len(fk), -1)
    mask = np.tril(np.ones((len(k), len(k)), np.float32)) if causal else np.ones((len(k), len(k)), np.float32)
    weights = flat_q @ flat_k.T * mask
    total = weights.sum(axis=-1, keepdims=True)
    out = weights @ v / total
    u, down = g / total, -(g * out).sum(axis=-1, keepdims=True) / total
    among = (u @ v.T + down) * mask
    dq, wq, bq = back((among @ flat_k).reshape(fq.shape), q, tq, fq)
    dk, wk, bk = back(np.einsum("htn,htf->nf", among, flat_q).reshape(fk.shape), k, tk, fk)
    dv = np.einsum("htn,hte->ne", weights, u)
    results = dq[None], dk[None, None], dv[None, None], wq + wk, np.asarray(bq + bk)
    return RaceGradients(*(x.astype(np.float64) for x in results))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("beta", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("length", [1.0, 0.2])
def test_a_pass_in_float32_is_far_within_the_tolerance_and_its_bfloat16_within(
    causal: bool, beta: float, length: float
) -> None:
    given = long_rows() | {name: length * long_rows()[name] for name in ("query", "keys")}
    given = {name: x.astype(np.float32).astype(np.float64) for name, x in given.items()}
    found, right, scale = in_float32(given, beta, causal), gradients(given, beta, causal), _scale(given, beta, causal)
    for name in NAMES:
        error = np.abs(getattr(found, name) - getattr(right, name))
        assert (error < 0.1 * SUM_ROUNDING * max(1.0, beta) * getattr(scale, name)).all(), name
    rounded = RaceGradients(*(round_to_bfloat16(getattr(found, name)) for name in NAMES))
    assert max(excess(rounded, given, beta, causal).values()) < 1


@pytest.mark.parametrize("beta", [0.5, 2.0, 5.0])
def test_a_key_that_is_dropped_is_seen_in_the_queries_gradients_too(beta: float) -> None:
    given = long_rows()
    fewer = given | {name: np.delete(given[name], PLACE, axis=-2) for name in ("keys", "values")}
    found = gradients(fewer, beta, False)
    filled = {name: np.insert(getattr(found, name), PLACE, 0, axis=-2) for name in ("keys", "values")}
    found = RaceGradients(found.query, filled["keys"], filled["values"], found.planes, found.beta)
    seen = excess(found, given, beta, False)
    assert min(seen[name] for name in ("query", "keys", "values")) > 2


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("beta", [0.5, 2.0, 5.0])
def test_a_query_that_is_dropped_is_seen_in_every_tokens_gradient(causal: bool, beta: float) -> None:
    given = long_rows()
    silent = given["output_gradient"].copy()
    silent[:, 0, PLACE] = 0
    found = gradients(given | {"output_gradient": silent}, beta, causal)
    seen = excess(found, given, beta, causal)
    assert min(seen[name] for name in ("query", "keys", "values")) > 2


@pytest.mark.parametrize("beta", [0.5, 2.0, 5.0])
def test_a_prefix_in_place_of_a_suffix_is_seen(monkeypatch: pytest.MonkeyPatch, beta: float) -> None:
    given = long_rows()
    with monkeypatch.context() as patch:
        patch.setattr("socket_theory.race.gradient.sums_over_suffixes", sums_over_prefixes)
        found = gradients(given, beta, True)
    seen = excess(found, given, beta, True)
    assert min(seen[name] for name in ("keys", "values", "planes")) > 100


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("beta", [0.5, 2.0, 5.0])
def test_a_forgotten_gradient_of_the_normaliser_is_seen(
    monkeypatch: pytest.MonkeyPatch, causal: bool, beta: float
) -> None:
    given, back = long_rows(), Tokens.back

    def without(tokens: Tokens, u: Float, *rest: Any) -> RaceGradients:
        return back(tokens, np.concatenate([u[..., :-1], 0 * u[..., -1:]], axis=-1), *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Tokens, "back", without)
        found = gradients(given, beta, causal)
    seen = excess(found, given, beta, causal)
    assert min(seen[name] for name in ("query", "keys", "planes")) > 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"beta": 0.0}, "beta=0.0 was given"),
        ({"output_gradient": np.zeros((1, 4, 5, 4))}, r"output_gradient of shape \(1, 4, 5, 4\) was given: pass"),
        ({"keys": np.zeros((1, 2, 7, 5))}, "query of shape .* was given"),
        ({"values": np.zeros((1, 2, 6, 5))}, "keys .* and values .* were given"),
        ({"keys": np.zeros((1, 3, 7, 6)), "values": np.zeros((1, 3, 7, 5))}, "pass a positive multiple of 3"),
        ({"keys": np.zeros((1, 2, 3, 6)), "values": np.zeros((1, 2, 3, 5))}, "5 query tokens and 3 slots were given"),
        ({"chunk": 0}, "chunk=0 was given"),
        ({"output_gradient": np.full((1, 4, 5, 5), np.nan)}, "output_gradient contains NaN"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], sentence: str) -> None:
    given = draw()
    with pytest.raises(ValueError, match=sentence):
        race_gradients(**given | {"planes": Planes(given["planes"]), "beta": 1.0, "causal": True} | change)


@pytest.mark.parametrize("beta", [1.0, 3.0])
@pytest.mark.parametrize("causal", [False, True])
def test_features_of_bfloat16_are_not_allowed(monkeypatch: pytest.MonkeyPatch, causal: bool, beta: float) -> None:
    rng = Key.from_seed(15).generator()
    query, keys, values, above = rng.standard_normal((4, 1, 1, 512, 64))
    planes = Planes(rng.standard_normal((4, 4, 64)))
    given = query, keys, values, planes, beta, above, causal
    right = race_gradients(*given)
    tolerance = gradient_tolerance(right, gradient_scale(*given), beta)

    def rounded(*arguments: Any) -> Any:
        return round_to_bfloat16(soft_buckets(*arguments))

    for module in ("gradient", "feature_gradient"):
        monkeypatch.setattr(f"socket_theory.race.{module}.soft_buckets", rounded)
    wrong = race_gradients(*given)
    assert np.max(np.abs(wrong.values - right.values) / tolerance.values) > 3
