"""RACE attention where every query sees every key: sums over the keys' buckets, then reads of them (R7, R8)."""

from __future__ import annotations

import math
from typing import Any

import torch

from socket_theory.integrations.race_torch.buckets import Hash
from socket_theory.integrations.race_torch.chunks import chunk_size, read, spans, write
from socket_theory.integrations.race_torch.gradients import Gradients


def empty_sums(keys: Any, values: Any, hashed: Hash) -> tuple[Any, Any]:
    """A [G, F] and B [G, F, E] of no keys, for `grouped` views."""
    shape = (math.prod(keys.shape[:-2]), hashed.num_features)
    return hashed.rows.new_zeros(shape), hashed.rows.new_zeros(*shape, values.shape[-1])


def add_keys(keys: Any, values: Any, hashed: Hash, mass: Any, weighted: Any) -> None:
    """Add sum_j phi(k_j) to `mass` [G, F] and sum_j phi(k_j) v_j to `weighted` [G, F, E]."""
    for span in spans(keys.shape[-2], chunk_size(keys, hashed.num_features)):
        held = hashed.features(read(keys, span, mass.dtype))
        mass += held.sum(-1)
        weighted += torch.bmm(held, read(values, span, mass.dtype))


def sums(keys: Any, values: Any, hashed: Hash) -> tuple[Any, Any]:
    """A [G, F] and B [G, F, E] over all keys."""
    found = empty_sums(keys, values, hashed)
    add_keys(keys, values, hashed, *found)
    return found


def attend(query: Any, keys: Any, values: Any, value: Any, hashed: Hash, mass: Any, weighted: Any) -> None:
    """Write O = sum_r phi_r(q) B_r / sum_r phi_r(q) A_r into `value`, and leave A and B in `mass` and `weighted`."""
    add_keys(keys, values, hashed, mass, weighted)
    for span in spans(query.shape[-2], chunk_size(query, hashed.num_features)):
        asked = hashed.features(read(query, span, mass.dtype))
        asked /= torch.bmm(mass[:, None], asked)
        write(value, span, torch.bmm(asked.mT, weighted))


def backward(
    query: Any, keys: Any, values: Any, above: Any, hashed: Hash, mass: Any, weighted: Any, into: Gradients
) -> None:
    """For the gradient `above` of the value: of the queries, whose sums dA and dB the keys then read."""
    d_mass, d_weighted = torch.zeros_like(mass), torch.zeros_like(weighted)
    for span in spans(query.shape[-2], chunk_size(query, hashed.num_features)):
        asked, g = hashed.buckets(read(query, span, mass.dtype)), read(above, span, mass.dtype)
        total = torch.bmm(mass[:, None], asked.features).squeeze(1)
        towards = torch.bmm(weighted, g.mT)
        along = along_outputs(asked.features, towards, total)
        towards.addcmul_(mass[:, :, None], along[:, None], value=-1)
        into.put(into.query, span, asked, towards.mul_(asked.features), 1 / total)
        share = asked.features.div_(total[:, None])
        d_weighted += torch.bmm(share, g)
        d_mass -= torch.bmm(share, along[:, :, None]).squeeze(-1)
    into.put_all_keys(keys, values, hashed, d_mass, d_weighted)


def along_outputs(features: Any, towards: Any, total: Any) -> Any:
    """<g, O> [G, n], the sum over buckets of phi_r (B g)_r by the denominator, with (B g)_r in `towards` [G, F, n].

    So it comes from the sums and not from the outputs, which may have been rounded to 16 bits.
    """
    return (features * towards).sum(1) / total
