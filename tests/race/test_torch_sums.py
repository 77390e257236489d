"""Sums of torch's RACE attention at every chunk's border: they see a token that gradients of many tokens hide (R8).

Features of one token add up to L, so the sums over features of A and B are L times a count and L times a sum of values,
whatever the queries and keys; dA and dB are the same of the queries' numbers.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

import torch

from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.rng import Key
from socket_theory.integrations.race_torch import causal, torch_operator, whole
from socket_theory.integrations.race_torch.buckets import Hash
from socket_theory.integrations.race_torch.chunks import CAUSAL
from socket_theory.integrations.race_torch.gradients import Gradients
from socket_theory.integrations.torch_layers import race_attention
from socket_theory.race.gradient import Tokens

KEY, BETA, TABLES, WIDTH = Key.from_seed(131072), 2.0, 4, 8
PLANES: Planes = SignHash(num_tables=TABLES, num_planes=4, head_dim=WIDTH).draw(KEY)
SIZES = [1500, pytest.param(2**18, marks=pytest.mark.slow)]


class Case:
    """One head's tensors, and what float64 says of them."""

    def __init__(self, tokens: int, is_causal: bool) -> None:
        rng = KEY.generator()
        self.tensors = [
            torch.from_numpy(shift + size * rng.standard_normal((1, tokens, WIDTH), dtype=np.float32))
            for size, shift in ((2.0, 0.0), (2.0, 0.0), (1.0, 0.5), (1.0, 0.0))
        ]
        self.is_causal = is_causal
        query, keys, values, above = (tensor.double().numpy() for tensor in self.tensors)
        exact = Tokens.of(query, keys, values, PLANES, BETA, above, is_causal)
        weighted, total = exact.attend(exact.values)
        self.value = (weighted / total).reshape(tokens, WIDTH)
        self.size = (exact.attend(abs(exact.values))[0] / total).reshape(tokens, WIDTH)
        shares = above[0] / total.reshape(tokens, 1)
        self.keys = TABLES * np.concatenate([np.ones((tokens, 1)), values[0]], axis=1)
        self.queries = TABLES * np.concatenate([-(shares * self.value).sum(1, keepdims=True), shares], axis=1)
        self.of_a_key, self.of_a_query = (abs(tokens).max(axis=1).min() for tokens in (self.keys, self.queries))

    def failing(self) -> set[str]:
        """The names of the checks that a pass in float32 fails."""
        value, passes, last = self._watched()
        ratios = {
            "value": float((abs(value - self.value) / self.size).max() / VALUES),
            "keys' sums": _off(last[0], self.keys.sum(0), self.of_a_key),
        }
        if not self.is_causal:
            ratios["queries' sums"] = _off(last[1], self.queries.sum(0), self.of_a_query)
        else:
            before = np.cumsum(np.pad(self.keys, ((1, 0), (0, 0))), axis=0)[:-1:CAUSAL]
            after = np.cumsum(self.queries[::-1], axis=0)[::-1]
            after = np.concatenate([after[CAUSAL::CAUSAL], np.zeros((1, WIDTH + 1))])[::-1]
            forward, backward, suffixes = passes
            ratios["prefixes"] = max(_off(f, b, self.of_a_key) for f, b in zip(forward, before, strict=True))
            ratios["prefixes again"] = max(_off(f, b, self.of_a_key) for f, b in zip(backward, before, strict=True))
            ratios["suffixes"] = max(_off(f, a, self.of_a_query) for f, a in zip(suffixes[::2], after, strict=True))
        print(self.is_causal, len(self.value), ratios)
        return {name for name, ratio in ratios.items() if not ratio < 1}

    def _watched(self) -> tuple[Any, list[list[Any]], list[Any]]:
        """The value, the sums before each chunk of each causal pass, and the last sums of keys and of queries."""
        passes: list[list[Any]] = []
        last: list[Any] = []
        current: list[Any] = []
        empty, seen, put = whole.empty_sums, causal._seen, Gradients.put_all_keys

        def remember(*given: Any) -> Any:
            current[:] = empty(*given)
            passes.append([])
            return tuple(current)

        def look(pairs: Any) -> Any:
            passes[-1].append(_over_features(*current))
            return seen(pairs)

        def end(into: Any, keys: Any, values: Any, hashed: Hash, mass: Any, weighted: Any) -> None:
            last.append(_over_features(mass, weighted))
            put(into, keys, values, hashed, mass, weighted)

        *heads, above = self.tensors
        leaves = [tensor.clone().requires_grad_() for tensor in heads]
        with pytest.MonkeyPatch.context() as patch:
            for module in (torch_operator, causal):
                patch.setattr(module, "empty_sums", remember)
            patch.setattr(causal, "_seen", look)
            patch.setattr(Gradients, "put_all_keys", end)
            value = race_attention(*leaves, torch.tensor(PLANES.weights).float(), BETA, self.is_causal)
            last.append(_over_features(*current))
            torch.autograd.grad(value, leaves, above)
        return value.detach().double().numpy()[0], passes, last


VALUES = 2e-5
"""How far a value may be off by its size sum_j w_ij |v_j| / sum_j w_ij: some 300 roundings of float32."""


def _over_features(mass: Any, weighted: Any) -> Any:
    return torch.cat([mass.double().sum(1)[:, None], weighted.double().sum(1)], dim=1)[0].numpy()


def _off(found: Any, wanted: Any, of_a_token: float) -> float:
    """The error of a sum by half of what one of its tokens adds to its largest entry at least, `of_a_token`.

    Below 1 the sum is nearer to the right one than to any that lacks a token.
    """
    return float(abs(found - wanted).max() / (of_a_token / 2))


@pytest.mark.parametrize("tokens", SIZES)
@pytest.mark.parametrize("is_causal", [False, True])
def test_sums_are_exact_and_a_fault_of_any_token_is_seen(tokens: int, is_causal: bool) -> None:
    case, chunks = Case(tokens, is_causal), -(-tokens // CAUSAL)
    assert case.failing() == set()
    middle = chunks // 2
    # A causal pass asks 2 * chunks times for features forward, of queries and keys in turn; then for those of keys,
    # then for those of queries. A pass over all keys asks for those of keys first.
    dropped = (
        {2 * middle + 1: "prefixes", 2 * chunks + middle: "prefixes again", 3 * chunks + middle: "suffixes"}
        if is_causal
        else {0: "keys' sums"}
    )
    for call, name in dropped.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Hash, "features", _without_one(call))
            assert name in case.failing()
    with pytest.MonkeyPatch.context() as patch:
        for module in (whole, causal):
            patch.setattr(module, "along_outputs", lambda features, towards, total: torch.zeros_like(total))
        assert case.failing() == {"suffixes" if is_causal else "queries' sums"}
    if is_causal:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(causal, "reversed", iter, raising=False)
            assert case.failing() == {"suffixes"}


def _without_one(call: int) -> Any:
    """`Hash.features` whose call of this number forgets its last token."""
    features, calls = Hash.features, count()

    def without_one(hashed: Hash, vectors: Any) -> Any:
        made = features(hashed, vectors)
        if next(calls) == call:
            made[:, :, -1] = 0
        return made

    return without_one
