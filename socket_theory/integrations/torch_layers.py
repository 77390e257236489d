"""RACE attention to train with, in torch: a function of tensors, and a module with planes and a learnable beta."""

from __future__ import annotations

import math
from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError(f"layers for torch need an extra ({error}): pip install 'socket-theory[torch]'.") from error

from socket_theory.core.checks import require_flag, require_float, require_head_ratio, require_positive
from socket_theory.core.hashing import SignHash
from socket_theory.core.rng import Key
from socket_theory.integrations.race_torch.chunks import compute_dtype
from socket_theory.integrations.race_torch.torch_operator import attend, require_steepness, steepest_beta
from socket_theory.race.features import require_features

__all__ = ["RaceAttention", "race_attention"]

LEAST_BETA = 1e-6
"""Where the module's beta ends: all weights are nearly equal long before."""


def race_attention(query: Any, keys: Any, values: Any, planes: Any, beta: Any, causal: bool = False) -> Any:
    """RACE attention of torch tensors in linear time, with a gradient for every tensor it is given.

    O_i = sum_j w_ij v_j / sum_j w_ij with w_ij = sum_l <phi_l(q_i), phi_l(k_j)>, the soft collisions of query and key
    (R1), as `socket_theory.race.attention.race_attention` defines them. The memory it keeps for the backward pass is
    its inputs and sums of few tokens; features are computed again there, a chunk of tokens at a time (R8). CUDA tensors
    go to kernels where CuPy is installed and there are some for their shapes and dtype; the guide to training says
    which.

    Parameters
    ----------
    query : Tensor [..., Hq, T, D]
    keys, values : Tensor [..., Hkv, N, D] and [..., Hkv, N, E]
        Hq is a multiple of Hkv; query head h reads KV head h // (Hq / Hkv). All three have one device and one dtype,
        float16, bfloat16, float32 or float64; sums are in float32, or in float64 for float64. Any strides.
    planes : Tensor [L, P, D]
        P planes for each of L tables, of any floating dtype: `torch.tensor(SignHash(L, P, D).draw(key).weights)`. They
        get a gradient if they require one.
    beta : float or Tensor without an axis
        Steepness of the soft buckets, above 0, and at most 30 / P, or 80 / P for float64.
    causal : bool
        Whether query t attends to the keys up to N - T + t only (T <= N, the ends aligned), and not to all.

    All tokens count: there is no mask, so pass sequences of one length, without padding.

    Returns
    -------
    Tensor [..., Hq, T, E]
        In the inputs' dtype.

    Raises
    ------
    TypeError, ValueError
        For dtypes and devices that differ, shapes, more than 4096 features L 2^P, and a beta out of its range. Two
        things are not looked at, because that would wait for a GPU: whether tensors hold NaN, which spreads to the
        outputs whose sums it enters, and the value of a `beta` that lies on another device than the CPU. There is no
        second derivative.
    """
    _require_heads(query, keys, values, require_flag("causal", causal))
    _require_like("planes", planes, query)
    if planes.ndim != 3 or 0 in planes.shape or planes.shape[-1] != query.shape[-1]:
        raise ValueError(
            f"planes of shape {list(planes.shape)} were given for vectors of length {query.shape[-1]}: "
            f"pass [num_tables, num_planes, {query.shape[-1]}], none of them 0."
        )
    require_features(planes.shape[1], planes.shape[0])
    if isinstance(beta, torch.Tensor):
        _require_like("beta", beta, query)
        if beta.ndim:
            raise ValueError(f"beta has shape {list(beta.shape)}: pass a tensor without an axis, or a float.")
    else:
        dtype = compute_dtype(query.dtype)
        number = require_steepness(require_positive("beta", beta), planes.shape[1], dtype)
        beta = torch.full((), number, dtype=dtype, device=query.device)
    value, _, _ = attend(query, keys, values, planes, beta, causal)
    return value


class RaceAttention(torch.nn.Module):  # type: ignore[misc]
    """RACE attention of given heads, with planes of its own and a steepness beta that is learned.

    It takes the place of `torch.nn.functional.scaled_dot_product_attention` in a block: queries, keys and values come
    in as heads, after the block's own projections and rotary embedding, and it has neither.

    Parameters
    ----------
    head_dim : int
        D, the length of a query and of a key.
    num_planes, num_tables : int
        P and L. Its state has L 2^P features, at most 4096.
    key : Key
        What the planes are drawn from, `SignHash(num_tables, num_planes, head_dim).draw(key)`. Layers that shall differ
        take keys that differ, `key.fold_in("layer", i)`.
    beta : float
        Where learning starts; 1 is near the best of 4 tables of 4 planes at vectors longer than 4 (R10). The parameter
        is `log_beta`, and wherever an optimiser takes it, the property `beta` stays between 1e-6 and 30 / P.
    causal : bool
        Whether token t attends to the tokens up to itself only.

    Parameter and planes stay in float32 where a model is cast to 16 bits, by `.to(torch.bfloat16)` or `.half()`: an
    optimiser's steps are smaller than the spacing of 16-bit numbers.

    Raises
    ------
    TypeError, ValueError
        For counts, a beta and a key as in `race_attention`, which `forward` raises from too.
    """

    def __init__(
        self,
        head_dim: int,
        *,
        key: Key,
        num_planes: int = 4,
        num_tables: int = 4,
        beta: float = 1.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        law = SignHash(num_tables, num_planes, head_dim)
        require_features(law.num_planes, law.num_tables)
        number = require_steepness(require_positive("beta", beta), law.num_planes, torch.float32)
        self.causal = require_flag("causal", causal)
        self.register_buffer("planes", torch.tensor(law.draw(key).weights, dtype=torch.float32))
        self.log_beta = torch.nn.Parameter(torch.tensor(math.log(number), dtype=torch.float32))

    @property
    def beta(self) -> Any:
        """The steepness, a tensor without an axis: exp(log_beta), or the nearer of 1e-6 and 30 / P beyond them.

        Its derivative by `log_beta` is its value, within the bounds and beyond them. So a `log_beta` that an optimiser
        took past a bound comes back from there when the loss asks for it, which no gradient of 0 would let it do.
        """
        log_beta = self.log_beta.to(compute_dtype(self.log_beta.dtype))
        most = steepest_beta(self.planes.shape[1], torch.float32)
        value = log_beta.detach().clamp(math.log(LEAST_BETA), math.log(most)).exp().clamp(max=most)
        return value * (log_beta - log_beta.detach()).exp()

    def forward(self, query: Any, keys: Any, values: Any) -> Any:
        """`race_attention` of query [..., Hq, T, D], keys [..., Hkv, N, D] and values [..., Hkv, N, E]."""
        return race_attention(query, keys, values, self.planes, self.beta, self.causal)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """torch's way to cast and to move a module, here without the casts to fewer bits."""

        def widely(tensor: Any) -> Any:
            made = fn(tensor)
            return tensor.to(made.device) if made.dtype.itemsize < tensor.dtype.itemsize else made

        return super()._apply(widely, recurse)

    def extra_repr(self) -> str:
        """What stands between the brackets of the printed module."""
        num_tables, num_planes, head_dim = self.planes.shape
        return (
            f"head_dim={head_dim}, num_planes={num_planes}, num_tables={num_tables}, "
            f"beta={float(self.beta.detach()):.3g}, causal={self.causal}"
        )


def _require_like(name: str, given: Any, query: Any) -> None:
    """A floating tensor on the query's device."""
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"{name} is of type {type(given).__name__}: pass a torch.Tensor.")
    require_float(name, given.dtype)
    if given.device != query.device:
        raise ValueError(f"query is on {query.device} and {name} on {given.device}: pass {name}.to({query.device}).")


def _require_heads(query: Any, keys: Any, values: Any, causal: bool) -> None:
    for name, given in (("query", query), ("keys", keys), ("values", values)):
        _require_like(name, given, query if isinstance(query, torch.Tensor) else given)
        if given.dtype != query.dtype:
            raise TypeError(f"query has dtype {query.dtype} and {name} {given.dtype}: pass one dtype.")
        if given.ndim < 3 or 0 in given.shape:
            raise ValueError(
                f"{name} of shape {list(given.shape)} was given: pass [..., heads, tokens, length], none 0."
            )
    if keys.shape[:-1] != values.shape[:-1] or keys.shape[:-3] != query.shape[:-3] or keys.shape[-1] != query.shape[-1]:
        raise ValueError(
            f"query {list(query.shape)}, keys {list(keys.shape)} and values {list(values.shape)} do not fit: "
            "pass [..., Hq, T, D], [..., Hkv, N, D] and [..., Hkv, N, E]."
        )
    require_head_ratio(query.shape[-3], keys.shape[-3])
    if causal and query.shape[-2] > keys.shape[-2]:
        raise ValueError(
            f"{query.shape[-2]} causal queries were given for {keys.shape[-2]} keys: pass a key for each query at "
            "least, the last key for the last query."
        )
