"""Results in the caller's types: array type, dtype, batch shape and statistics."""

from __future__ import annotations

from importlib import import_module
from typing import Any, get_args

import numpy as np

from socket_theory.core.array_types import from_native
from socket_theory.core.attention import Kind
from socket_theory.core.checks import (
    bfloat16,
    cast_output,
    require_float,
)
from socket_theory.core.estimate import Estimate, Outcome, Stats
from socket_theory.core.step import Step


def _checked(step: Step, outcome: Any) -> Outcome:
    """What `Method.step` returned, or TypeError or ValueError naming the method."""
    name = f"{type(step.cache.method).__name__}.step"
    if not isinstance(outcome, Outcome):
        raise TypeError(f"{name} returned {type(outcome).__name__}: return an Outcome.")
    for part in ("value", "lse", "used"):
        if not hasattr(getattr(outcome, part), "shape"):
            raise TypeError(f"{name} returned {part} of type {type(getattr(outcome, part)).__name__}: return an array.")
    if outcome.used.ndim != 3 or outcome.used.dtype.kind not in "iu":
        raise ValueError(
            f"{name} returned used of {outcome.used.dtype}, {outcome.used.ndim} axes: return int32 [B, Hq, K]."
        )
    heads = tuple(step.query.shape[:2])
    shapes = {"value": (*heads, step.rows.value_dim), "lse": heads, "used": (*heads, outcome.used.shape[-1])}
    for part, want in shapes.items():
        if tuple(getattr(outcome, part).shape) != want:
            raise ValueError(f"{name} returned {part} of shape {tuple(getattr(outcome, part).shape)}: return {want}.")
    if outcome.weighting not in get_args(Kind):
        raise ValueError(f"{name} returned weighting={outcome.weighting!r}: return one of {', '.join(get_args(Kind))}.")
    if bool((outcome.lse != outcome.lse).any() or (outcome.value != outcome.value).any()):
        raise ValueError(f"{name} returned NaN: check its arithmetic, and the rows if another owner writes them.")
    if outcome.used.size and not bool((outcome.used >= -1).all() and (outcome.used < step.rows.shape[2]).all()):
        raise ValueError(f"{name} returned used slots beyond the {step.rows.shape[2]} there are: return slots, or -1.")
    return outcome


def finish(step: Step, outcome: Outcome, out_dtype: Any) -> Estimate:
    """The estimate in the caller's array type, dtype and batch shape."""
    cache, batch, outcome = step.cache, step.cache.batch_shape, _checked(step, outcome)
    shaped = [
        array.reshape(*batch, *array.shape[1:])
        for array in (cast_output(outcome.value, out_dtype), outcome.lse, outcome.used)
    ]
    value, lse, used = (from_native(array, cache.array_type) for array in shaped)
    return Estimate(value, lse, used, _stats(step, outcome), outcome.weighting, outcome.carry)


def _stats(step: Step, outcome: Outcome) -> Stats:
    cache, rows = step.cache, step.rows
    used = step.backend.to_host(outcome.used)
    (batch, kv_heads, slots, dim), batch_shape = rows.shape, cache.batch_shape
    kept = (used >= 0).sum(axis=-1)
    index_bytes = cache.index.bytes_per_token()
    key_bytes, value_bytes = (np.dtype(dtype).itemsize for dtype in rows.dtypes)
    read = np.zeros((batch, kv_heads, slots + 1), dtype=bool)
    np.put_along_axis(read, used.reshape(batch, kv_heads, -1).astype(np.int64), True, axis=-1)
    union = read[..., :slots].sum(axis=(1, 2))
    tokens = rows.kv_range[:, 1]
    keys_read = tokens * kv_heads if cache.method.reads_every_key else union
    row_bytes = dim * key_bytes * keys_read + rows.value_dim * value_bytes * union if cache.method.keeps_rows else 0
    mass = outcome.captured_mass
    return Stats(
        kept=kept.reshape(*batch_shape, -1),
        density=(kept / rows.kv_range[:, 1:]).reshape(*batch_shape, -1),
        nominal_bits=cache.method.nominal_bits,
        bits_per_token=8 * index_bytes // kv_heads,
        bytes=(cache.index.bytes_per_step() + index_bytes * tokens + row_bytes).reshape(batch_shape),
        captured_mass=None if mass is None else mass.reshape(*batch_shape, -1),
    )


def stack(estimates: list[Estimate]) -> Estimate:
    """Estimates of single tokens as one, the token axis behind that of query heads."""
    library = import_module(type(estimates[0].value).__module__.split(".")[0])
    stats = [estimate.stats for estimate in estimates]
    longest = max(estimate.indices.shape[-1] for estimate in estimates)
    indices = []
    for used in (estimate.indices for estimate in estimates):
        missing = longest - used.shape[-1]
        filler = library.broadcast_to(used[..., :1] * 0 - 1, (*used.shape[:-1], missing)) if missing else used[..., :0]
        indices.append(library.concatenate([used, filler], -1))
    masses = [one.captured_mass for one in stats]
    return Estimate(
        library.stack([estimate.value for estimate in estimates], -2),
        library.stack([estimate.lse for estimate in estimates], -1),
        library.stack(indices, -2),
        Stats(
            np.stack([one.kept for one in stats], -1),
            np.stack([one.density for one in stats], -1),
            stats[0].nominal_bits,
            stats[0].bits_per_token,
            np.sum([one.bytes for one in stats], axis=0),
            None if any(mass is None for mass in masses) else np.stack(masses, -1),
        ),
        estimates[0].kind,
        tuple(one.carry for one in estimates) if estimates[0].carry is not None else None,
    )


def output_dtype(out_dtype: Any) -> Any:
    """NumPy's dtype of a float dtype of NumPy, ml_dtypes or torch, or its name; TypeError for others."""
    name = require_float("out_dtype", np.dtype(out_dtype) if isinstance(out_dtype, type) else out_dtype)
    return bfloat16() if name == "bfloat16" else np.dtype(name)
