"""Which tokens a decode step keeps: the budget, the total order of scores, and exact top-k under it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_count, require_plain, require_positive

Per = Literal["query_head", "kv_head"]
Indices = NDArray[np.int32]


class ForcedTokensWarning(UserWarning):
    """A budget's sink and window keep more than its fraction of a sequence."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many tokens a head keeps, and which are forced.

    The error of a step is at most (1 - m) times the diameter of the values, m being the softmax mass of what is kept
    (S13); bytes and time of attending grow with the number kept.

    Parameters
    ----------
    tokens : int, optional
        Tokens kept, forced ones included; all where a sequence has no more. Exactly one of `tokens` and `fraction` is
        given.
    fraction : float, optional
        Share of the valid tokens, in (0, 1]; the count is rounded half up and at least 1.
    sink, window : int
        The first `sink` and the last `window` valid tokens, the current one included, are always kept. Raised, fewer of
        the budget's tokens are left to be chosen by score. Where they fill `fraction` of a sequence, all of them and no
        others are kept, no score decides anything, and `attend` warns
        (`socket_theory.core.selection.ForcedTokensWarning`) with the length from which on scores decide.
    per : {"query_head", "kv_head"}
        Whose set of tokens it is. "query_head": each query head keeps its own, and a KV head reads their union.
        "kv_head": the query heads of a KV head keep one common set, fewer rows to read and more error for heads that
        look elsewhere. It is ranked by the sum of their scores: of soft weights on one scale, of shares of matching
        tables, or of exact logits, whose sum ranks alike whatever is subtracted from each head's. Scores of a method of
        your own are added as they are.

    Raises
    ------
    ValueError
        If both or neither of tokens and fraction are given, or tokens < sink + window.
    TypeError
        If a count is not an integer.
    """

    tokens: int | None = None
    fraction: float | None = None
    sink: int = 0
    window: int = 0
    per: Per = "query_head"

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.fraction is None):
            raise ValueError(f"tokens={self.tokens} and fraction={self.fraction} were given: pass exactly one of them.")
        for name in ("sink", "window"):
            object.__setattr__(self, name, require_count(name, getattr(self, name), least=0))
        if self.tokens is not None:
            object.__setattr__(self, "tokens", require_count("tokens", self.tokens))
        if self.fraction is not None:
            object.__setattr__(self, "fraction", require_positive("fraction", self.fraction))
        if self.tokens is not None and self.tokens < self.sink + self.window:
            raise ValueError(
                f"tokens={self.tokens} was given with sink={self.sink} and window={self.window}: "
                f"pass at least {self.sink + self.window} tokens, forced ones count."
            )
        if self.fraction is not None and self.fraction > 1:
            raise ValueError(f"fraction={self.fraction} was given: pass a share of the tokens in (0, 1].")
        if self.per not in ("query_head", "kv_head"):
            raise ValueError(f"per={self.per!r} was given: pass 'query_head' or 'kv_head'.")

    def kept(self, kv_len: int) -> int:
        """How many of `kv_len` valid tokens are kept."""
        if self.tokens is not None:
            return min(kv_len, self.tokens)
        return max(self._share(kv_len), min(kv_len, self.sink + self.window))

    def leaves_choice(self, kv_len: int) -> bool:
        """Whether scores decide what is kept of `kv_len` valid tokens: more than the forced, fewer than all."""
        return self.sink + self.window < self.kept(kv_len) < kv_len

    def _share(self, kv_len: int) -> int:
        return min(kv_len, max(1, int(np.floor((self.fraction or 0.0) * kv_len + 0.5))))


def warn_of_forced(budget: Budget, kv_len: int) -> None:
    """ForcedTokensWarning at the caller's caller where sink and window fill the fraction of `kv_len` tokens.

    The sentence does not depend on kv_len, so Python shows it once for a loop of decode steps.
    """
    forced = budget.sink + budget.window
    if budget.fraction is None or forced == 0 or budget._share(kv_len) >= min(kv_len, forced + 1):
        return
    enough = int((forced + 0.5) / budget.fraction)
    while budget._share(enough) <= forced:
        enough += 1
    warnings.warn(
        f"fraction={budget.fraction} was given with sink={budget.sink} and window={budget.window}: of fewer than "
        f"{enough} tokens these {forced} fill that share, they are what is kept, and no score decides. "
        "Pass a larger fraction, or a smaller sink and window.",
        ForcedTokensWarning,
        stacklevel=3,
    )


def require_budget(budget: Budget) -> Budget:
    """`budget` if it is a Budget, else TypeError."""
    if not isinstance(budget, Budget):
        raise TypeError(f"budget is of type {type(budget).__name__}: pass Budget(tokens=n) or Budget(fraction=f).")
    return budget


def rank_keys(scores: NDArray[Any]) -> NDArray[np.uint64]:
    """Integers whose order is the selection order: score first (float32, -0.0 as 0.0), the later token wins a tie.

    Shapes: scores [N] -> uint64 [N], all different.
    """
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    return np.asarray((ordered << np.uint64(32)) | np.arange(len(scores), dtype=np.uint64))


def select_tokens(scores: NDArray[Any], budget: Budget) -> Indices:
    """The kept tokens of one head, ascending. Source: C2.

    Shapes: scores [N] over the valid tokens -> int32 [kept(N)].

    Raises
    ------
    ValueError
        If a score is NaN.
    """
    require_plain("scores", scores)
    if np.isnan(scores).any():
        raise ValueError("the scores contain NaN: pass finite scores, they decide which tokens are kept.")
    count = len(scores)
    order = rank_keys(scores)
    last = np.uint64(2**64 - 1)
    order[: budget.sink] = last
    order[max(0, count - budget.window) :] = last
    kept = budget.kept(count)
    chosen = np.argpartition(order, count - kept)[count - kept :] if kept < count else np.arange(count)
    return np.sort(chosen).astype(np.int32)


def sum_group(scores: NDArray[np.float32], num_kv_heads: int) -> NDArray[np.float32]:
    """Scores summed over the query heads of each KV head, in head order and in float32 (`per="kv_head"`).

    Shapes: [Hq, N] -> [Hkv, N].
    """
    grouped = scores.reshape(num_kv_heads, -1, scores.shape[-1])
    total = grouped[:, 0].copy()
    for head in range(1, grouped.shape[1]):
        total += grouped[:, head]
    return total


def without_underflow(rows: Any, xp: Any) -> Any:
    """Float64 scores [..., M] as float32, rows that float32 cannot hold times a power of two that brings them below 1.

    `xp` is numpy or cupy, as the rows are. A row of zeros stays one; entries of -inf stay.
    """
    largest = rows.max(axis=-1, keepdims=True)
    vanished = (largest > 0) & (largest < np.finfo(np.float32).tiny)
    _, exponent = xp.frexp(xp.where(vanished, largest, 0.5))
    with np.errstate(under="ignore"):
        return xp.ldexp(rows, -exponent).astype(np.float32)


def pad_rows(rows: list[Indices]) -> Indices:
    """Index lists as one int32 array [rows, longest], padded with -1."""
    padded = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int32)
    for row, kept in zip(padded, rows, strict=True):
        row[: len(kept)] = kept
    return padded
