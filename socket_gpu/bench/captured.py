"""A model's own queries, keys and values as inputs: as many tokens as there are, and repeated to a long cache."""

from __future__ import annotations

from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from socket_gpu.bench.flash_infer import PAGE
from socket_gpu.bench.inputs import QUERIES, Inputs
from socket_gpu.bench.shape import Shape
from socket_theory.core.checks import bfloat16
from socket_theory.evaluate.capture import Capture

REPEATED_LEN = 131072


def captured_shapes(capture: Capture) -> dict[Shape, str]:
    """The shapes that each layer is measured at, with what its name says of them.

    All steps attend to the tokens that the first of them may see, without the last page where that is not full.
    """
    first = int(capture.positions[_last_steps(capture)].min()) + 1
    length = max(first // PAGE * PAGE, min(first, PAGE))
    heads = (capture.q.shape[1], capture.k.shape[1])
    lengths = {max(length, REPEATED_LEN): ", repeated", length: ""}
    return {Shape(1, *heads, n, capture.k.shape[3]): words for n, words in sorted(lengths.items())}


def layer_inputs(capture: Capture, layer: int, kv_len: int) -> Inputs:
    """One layer as a batch of one in bfloat16 on the device: its first tokens, over and over, as far as `kv_len`."""
    slots = np.arange(kv_len) % min(shape.kv_len for shape in captured_shapes(capture))
    keys, values = (array[layer][None].take(slots, axis=2) for array in (capture.k, capture.v))
    queries = capture.q[layer][:, _last_steps(capture)].swapaxes(0, 1)[:, None]
    put, dtype = import_module("cupy").asarray, bfloat16()
    return Inputs(*(put(np.ascontiguousarray(array).astype(dtype)) for array in (keys, values, queries)))


def _last_steps(capture: Capture) -> NDArray[np.int64]:
    return np.argsort(capture.positions, kind="stable")[-QUERIES:]
