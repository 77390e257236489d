"""Methods that compute every weight and average values drawn by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_count
from socket_theory.core.draws import head_uniforms
from socket_theory.core.estimate import Outcome
from socket_theory.core.method import Method
from socket_theory.core.selection import pad_rows
from socket_theory.core.step import Step

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Sampler(Method, abstract=True):
    """A method that gives `draws`: what each value row is multiplied by, drawn by the softmax law of the exact scores.

    The lse is the exact one, so a sampled state merges with exact ones.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"sm_scale", "key"})
    reads_every_key: ClassVar[bool] = True

    def num_uniforms(self, kv_len: int) -> int:
        """How many uniforms `draws` takes for a sequence of `kv_len` tokens."""
        raise NotImplementedError(f"{type(self).__name__} must define num_uniforms.")

    def draws(self, law: Float, uniforms: Float) -> Float:
        """What each value row is multiplied by, adding up to 1: tokens' weights `law` [N], uniforms [M] -> [N]."""
        raise NotImplementedError(f"{type(self).__name__} must define draws.")

    def scored_query(self, step: Step) -> Any:
        """The query that scores the keys."""
        return step.query

    def step(self, step: Step) -> Outcome:
        backend, rows = step.backend, step.rows
        asked = self.scored_query(step)
        scores = backend.to_host(backend.exact_scores(asked, rows, step.sm_scale))
        weights, used, mass = self._draw(scores, step)
        value = backend.average(backend.to_device(weights), rows)[0]
        lse = backend.attend(asked, rows, step.everything(), step.sm_scale)[1]
        known = mass if asked is step.query else None  # other scores have another mass than the softmax's
        return Outcome(value, lse, backend.to_device(used), captured_mass=known)

    def _draw(self, scores: Any, step: Step) -> tuple[Float, Any, Float]:
        """Log row weights [B, Hq, N], the rows of positive weight [B, Hq, K], and their softmax mass [B, Hq]."""
        kv_range = step.rows.kv_range
        counts = [require_count("num_uniforms", self.num_uniforms(int(length)), least=0) for length in kv_range[:, 1]]
        uniforms = head_uniforms(step.key, scores.shape, np.arange(max(counts)), step.number)
        logs, mass, drawn = np.full(scores.shape, -np.inf), np.empty(scores.shape[:2]), []
        for row, head in np.ndindex(*scores.shape[:2]):
            start, length = (int(n) for n in kv_range[row])
            weights = np.exp(scores[row, head, start : start + length].astype(np.float64))
            rows = self._checked(self.draws(weights, uniforms[row, head, : counts[row]]), length)
            hit = np.flatnonzero(rows)
            logs[row, head, start + hit] = np.log(rows[hit])
            mass[row, head] = weights[hit].sum() / weights.sum()
            drawn.append((start + hit).astype(np.int32))
        return logs, pad_rows(drawn).reshape(*mass.shape, -1), mass

    def _checked(self, rows: Any, kv_len: int) -> Float:
        """What `draws` returned, or TypeError or ValueError naming the method."""
        name = f"{type(self).__name__}.draws"
        if not isinstance(rows, np.ndarray) or rows.shape != (kv_len,):
            given = f"shape {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise TypeError(f"{name} returned {given}: return [{kv_len}], what each value row is multiplied by.")
        if rows.dtype.kind not in "biuf":
            raise TypeError(f"{name} returned {rows.dtype}: return real numbers.")
        if not (np.isfinite(rows).all() and (rows >= 0).all() and abs(rows.sum() - 1) < 1e-6):
            raise ValueError(f"{name} returned numbers that are below 0 or do not add up to 1: return shares of rows.")
        return rows
