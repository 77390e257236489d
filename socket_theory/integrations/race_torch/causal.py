"""RACE attention where query t sees the keys up to its own: running sums over buckets, chunk by chunk (R7, R8).

Of N keys and T queries the ends are aligned, so the first N - T keys are seen by all queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from socket_theory.integrations.race_torch.buckets import Hash
from socket_theory.integrations.race_torch.chunks import CAUSAL, chunk_size, read, spans, write
from socket_theory.integrations.race_torch.gradients import Gradients
from socket_theory.integrations.race_torch.whole import add_keys, along_outputs, empty_sums


def attend(query: Any, keys: Any, values: Any, value: Any, hashed: Hash, mass: Any, weighted: Any) -> None:
    """Write the outputs into `value`, and leave the sums over all keys in `mass` [G, F] and `weighted` [G, F, E]."""
    add_keys(*_seen_by_all(query, keys, values), hashed, mass, weighted)
    for asking, holding in _chunks(query, keys, hashed):
        asked, held = (
            hashed.features(read(heads, span, mass.dtype)) for heads, span in ((query, asking), (keys, holding))
        )
        v = read(values, holding, mass.dtype)
        among = _seen(torch.bmm(asked.mT, held))
        total = torch.bmm(mass[:, None], asked).squeeze(1) + among.sum(-1)
        numerator = torch.bmm(among, v).baddbmm_(asked.mT, weighted)
        write(value, asking, numerator.div_(total[:, :, None]))
        mass += held.sum(-1)
        weighted += torch.bmm(held, v)


def backward(query: Any, keys: Any, values: Any, above: Any, hashed: Hash, into: Gradients) -> None:
    """For the gradient `above` of the value: of the queries with prefix sums A, B, then of the keys with suffix sums.

    The prefix sums are added up again from the keys: taken off the final sums they would lose the digits that the later
    keys share with them. Between the two, each query leaves its denominator and <g, O>.
    """
    dtype = hashed.rows.dtype
    mass, weighted = empty_sums(keys, values, hashed)
    add_keys(*_seen_by_all(query, keys, values), hashed, mass, weighted)
    rows = []
    for asking, holding in _chunks(query, keys, hashed):
        asked, held = hashed.buckets(read(query, asking, dtype)), hashed.features(read(keys, holding, dtype))
        v, g = read(values, holding, dtype), read(above, asking, dtype)
        towards = torch.bmm(weighted, g.mT).baddbmm_(held, _seen(torch.bmm(g, v.mT)).mT)
        masses = (held.cumsum(-1) + mass[:, :, None]).repeat(1, 1, asked.features.shape[-1] // held.shape[-1])
        total = (asked.features * masses).sum(1)
        along = along_outputs(asked.features, towards, total)
        towards.addcmul_(masses, along[:, None], value=-1)
        into.put(into.query, asking, asked, towards.mul_(asked.features), 1 / total)
        mass += held.sum(-1)
        weighted += torch.bmm(held, v)
        rows.append((total, along))
    mass, weighted = empty_sums(keys, values, hashed)
    for (asking, holding), (total, along) in reversed(list(zip(_chunks(query, keys, hashed), rows, strict=True))):
        asked, held = hashed.features(read(query, asking, dtype)), hashed.buckets(read(keys, holding, dtype))
        v, g = read(values, holding, dtype), read(above, asking, dtype)
        share = asked.div_(total[:, None])
        towards = torch.baddbmm(mass[:, :, None], weighted, v.mT)
        towards.baddbmm_(share, _seen(torch.bmm(g, v.mT).sub_(along[:, :, None])))
        among = _seen(torch.bmm(share.mT, held.features))
        write(into.values, holding, torch.bmm(held.features.mT, weighted).baddbmm_(among.mT, g))
        into.put(into.keys, holding, held, towards.mul_(held.features))
        weighted += torch.bmm(share, g)
        mass -= torch.bmm(share, along[:, :, None]).squeeze(-1)
    into.put_all_keys(*_seen_by_all(query, keys, values), hashed, mass, weighted)


def _seen_by_all(query: Any, keys: Any, values: Any) -> tuple[Any, Any]:
    first = keys.shape[-2] - query.shape[-2]
    return keys[..., :first, :], values[..., :first, :]


def _chunks(query: Any, keys: Any, hashed: Hash) -> Iterator[tuple[slice, slice]]:
    """Spans of queries and of the keys that stand beside them."""
    first = keys.shape[-2] - query.shape[-2]
    for span in spans(query.shape[-2], min(chunk_size(query, hashed.num_features), CAUSAL)):
        yield span, slice(first + span.start, first + span.stop)


def _seen(pairs: Any) -> Any:
    """`pairs` [G, r n, n] of a chunk's queries and keys with zeros where the query does not see the key, in place."""
    count = pairs.shape[-1]
    pairs.view(-1, count, count).tril_()
    return pairs
