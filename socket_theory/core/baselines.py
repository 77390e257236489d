"""What an estimator must beat, and what it cannot: dense, oracle, window and random selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from socket_theory.core.draws import head_uniforms
from socket_theory.core.estimate import Outcome
from socket_theory.core.method import Method
from socket_theory.core.selector import Selector
from socket_theory.core.step import Step


@dataclass(frozen=True)
class Dense(Method):
    """Exact softmax attention over every valid token: what the others are measured against. Takes no budget.

    value = sum_i p_i v_i with p_i = exp(l_i) / sum_j exp(l_j) and l_i = sm_scale <q, k_i>, for a query q and the keys
    k_i and values v_i of its KV head; lse = ln sum_j exp(l_j). All keys and values are read at every step: bytes and
    time grow with the tokens. There is no index and no setting, and the captured mass is 1. States of disjoint tokens
    merge to that of their union (C1).
    """

    def step(self, step: Step) -> Outcome:
        used = step.everything()
        value, lse = step.backend.attend(step.query, step.rows, used, step.sm_scale)
        return Outcome(value, lse, used, captured_mass=np.ones(lse.shape))


@dataclass(frozen=True)
class OracleTopK(Selector):
    """Top-k by the exact logits sm_scale <q, k_i>, of a query q and the keys k_i: the most that ranking can reach.

    No set of that size with the same sink and window holds more softmax mass, and the mass left out bounds the error
    (S13): with a larger budget both fall. It is a yardstick and no method. A step computes every logit in the time of
    dense attention, while its `stats` count the kept rows alone, as if the ranking were free. The later token wins a
    tie; there is no setting.
    """

    def scores(self, step: Step) -> Any:
        return step.backend.exact_scores(step.query, step.rows, step.sm_scale)

    def captured_mass(self, step: Step, lse: Any) -> Any:
        whole = step.backend.attend(step.query, step.rows, step.everything(), step.sm_scale)[1]
        return np.exp(np.minimum(step.backend.to_host(lse - whole), 0.0))


@dataclass(frozen=True)
class Window(Selector):
    """Sliding-window attention with sinks: the budget's first `sink` tokens, and the most recent ones for the rest.

    What is kept does not depend on the query, so the error is that of whatever matters further back, and a larger
    budget removes it only as far as it reaches. A step reads keys and values of the kept tokens alone; there is no
    index and no setting.

    References
    ----------
    Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453.
    """

    def scores(self, step: Step) -> Any:
        shape = (*step.query.shape[:2], step.rows.shape[2])
        return step.backend.to_device(np.zeros(shape, dtype=np.float32))


@dataclass(frozen=True)
class RandomTokens(Selector):
    """The budget's sink and window, and a uniformly random set of the others: what a ranking must beat.

    `attend` requires `key`, and draws a set for each query head (for each KV head with `per="kv_head"`) that depends
    on the key and on the head's and the sequence's place in the batch, not on padding. The kept tokens get exact
    softmax attention among themselves, which does not estimate dense attention without bias. Bytes are those of the
    kept keys and values; there is no index and no setting.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"sm_scale", "budget", "key"})

    def scores(self, step: Step) -> Any:
        tokens = np.maximum(np.arange(step.rows.shape[2]) - step.rows.kv_range[:, :1], 0)
        scores = head_uniforms(step.key, step.query.shape, tokens[:, None], step.number).astype(np.float32)
        return step.backend.to_device(scores)
