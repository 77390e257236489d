"""The peers' rows: each peer gated on some tokens, then timed at growing sizes as long as it fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from socket_gpu.bench.clock import Clock, Timing
from socket_gpu.bench.dense import reason
from socket_gpu.bench.gate import GateError, require_close
from socket_gpu.bench.inputs import free_memory
from socket_gpu.bench.rows import Row
from socket_gpu.race.bench_pass import LONG, SHORT, SHORT_US
from socket_gpu.race.bench_peers import PEERS, Call, Peer
from socket_gpu.race.cases import Case
from socket_gpu.race.exact import BLOCK, wide
from socket_gpu.race.gate import on_host
from socket_gpu.race.inputs import SequenceInputs
from socket_gpu.race.slopes import predicted_us
from socket_gpu.race.traffic import tensor_bytes

LIMIT_S = 20.0
"""How long the runs of a row may take, as the rows before it predict."""
_TOKENS = 64
_TUNED = 2**18
"""Up to this many tokens a second run before the timed ones costs little, whatever the first one compiled."""


def measure_peers(
    cases: Sequence[Case], clock: Clock, announce: Callable[[str], None], peers: Sequence[Peer] = PEERS
) -> list[Row]:
    """Rows of every peer, forward and forward with backward, at growing sizes.

    A peer's last row may be one without a time, whose note says why there is none: it is missing, it failed, its value
    is wrong, its memory does not suffice, or it would take too long. It is not asked for more tokens then.
    """
    rows: list[Row] = []
    for peer in peers:
        ended: set[bool] = set()
        for case in cases:
            for backward in (False, True):
                if backward in ended:
                    continue
                earlier = [row for row in rows if row.method == peer.method and row.settings["backward"] == backward]
                announce(f"{peer.method}, {'forward and backward' if backward else 'forward'}, {case}")
                row = _measure(peer, case, backward, earlier, clock)
                free_memory()
                rows.append(row)
                if row.timing is None:
                    ended.add(backward)
    return rows


def _measure(peer: Peer, case: Case, backward: bool, earlier: Sequence[Row], clock: Clock) -> Row:
    timing, peak, note = None, None, _too_large(peer, case) or _too_long(peer, case, earlier)
    if note is None:
        try:
            timing, peak = _time(peer.call(SequenceInputs.draw(case)), case, backward, clock)
        except GateError as error:
            note = f"not shown: {error}"
        except Exception as error:
            note = f"not run: {reason(error)}"
    return Row(
        method=peer.method,
        settings=case.settings(backward) | peer.settings,
        shape=case.shape,
        bytes=tensor_bytes(case.shape, backward, case.element),
        timing=timing,
        peak_bytes=peak,
        note=note,
    )


def _too_large(peer: Peer, case: Case) -> str | None:
    elements = case.shape.num_qo_heads * case.shape.kv_len * case.shape.head_dim
    return None if elements <= peer.most_elements else f"not run: it may not address {elements} elements of a tensor."


def _too_long(peer: Peer, case: Case, earlier: Sequence[Row]) -> str | None:
    timed = [(row.shape.kv_len, row.timing.us) for row in earlier if row.timing]
    if not timed:
        return None
    tokens, us = zip(*timed, strict=True)
    one = predicted_us(tokens, us, case.shape.kv_len, peer.power) / 1e6
    runs = 2 + sum(LONG)
    if one * runs <= LIMIT_S:
        return None
    return f"not run: the smaller sizes predict {one:.3g} s a run, and {runs} runs may take {LIMIT_S:g} s."


def _time(call: Call, case: Case, backward: bool, clock: Clock) -> tuple[Timing, int]:
    """The time of a gated call, and the most that torch's tensors held."""
    cuda = import_module("torch").cuda
    work = call.both if backward else call.forward
    cuda.reset_peak_memory_stats()
    with call.choice():
        once = _seconds(work)  # this run may compile and tune
        if case.shape.kv_len <= _TUNED or once < 1:
            cuda.reset_peak_memory_stats()
            once = _seconds(work)
        peak = int(cuda.max_memory_allocated())
        _require_value(call, work(), case.shape.kv_len)
        return clock.repeating(*(SHORT if once * 1e6 < SHORT_US else LONG)).time(work), peak


def _seconds(work: Callable[[], Any]) -> float:
    cuda = import_module("torch").cuda
    start = perf_counter()
    work()
    cuda.synchronize()
    return perf_counter() - start


def _require_value(call: Call, value: Any, tokens: int) -> None:
    rows = np.unique(np.linspace(0, tokens - 1, _TOKENS).astype(int))
    cupy = import_module("cupy")
    expected = on_host(_attended(call, cupy.asarray(rows)))
    found = call.head(value.detach())[rows.tolist()].double().cpu().numpy()
    size = np.sqrt((expected**2).mean(axis=1, keepdims=True))
    require_close("its value", found / size, expected / size)


def _attended(call: Call, rows: Any) -> Any:
    """The value [s, E] of tokens [s], each over the tokens up to itself, in float64."""
    weights_of, keys, values = call.expected(rows)
    top: Any = 0.0
    bottom: Any = 0.0
    for start in range(0, len(keys), BLOCK):
        held, v = (wide(array[start : start + BLOCK]) for array in (keys, values))
        seen = import_module("cupy").arange(start, start + len(held)) <= rows[:, None]
        weights = weights_of(held) * seen
        top, bottom = top + weights @ v, bottom + weights.sum(axis=-1, keepdims=True)
    return top / bottom if call.normalised else top
