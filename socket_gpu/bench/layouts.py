"""Where the keys and values of a benchmark lie: in a cache's own arrays, in an owner's, or in pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.bench.inputs import Inputs
from socket_gpu.bench.shape import SEED
from socket_theory.core.owned_elsewhere import BorrowedRows, PagedRows

OWN = "own"


def laid_out(inputs: Inputs, layout: str) -> tuple[Any, ...]:
    """What `prepare` is given for these keys and values, by the name of a layout."""
    return _LAYOUTS[layout](inputs.keys, inputs.values)


def named(layout: str) -> dict[str, str]:
    """The layout among a row's settings, where it is not a cache's own arrays."""
    return {} if layout == OWN else {"rows": layout}


def _borrowed(keys: Any, values: Any) -> tuple[Any, ...]:
    return (BorrowedRows(keys, values),)


def _tokens_first(keys: Any, values: Any) -> tuple[Any, ...]:
    """Views of [B, N, Hkv, D]: a token's heads are neighbours."""
    stored = [array.swapaxes(1, 2).copy().swapaxes(1, 2) for array in (keys, values)]
    return (BorrowedRows(*stored),)


def _paged(page: int, keys: Any, values: Any) -> tuple[Any, ...]:
    """Pages [pages, Hkv, S, D] in random order."""
    batch, heads, slots, dim = keys.shape
    blocks = slots // page
    table = np.random.default_rng(SEED).permutation(batch * blocks).reshape(batch, blocks)
    order = import_module("cupy").asarray(np.argsort(table.reshape(-1)))
    key_pages, value_pages = (
        array.reshape(batch, heads, blocks, page, dim).swapaxes(1, 2).reshape(-1, heads, page, dim)[order]
        for array in (keys, values)
    )
    return (PagedRows(key_pages, value_pages, table),)


_LAYOUTS: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    OWN: lambda keys, values: (keys, values),
    "borrowed": _borrowed,
    "borrowed, tokens first": _tokens_first,
    **{f"pages of {page}": partial(_paged, page) for page in (1, 16, 64)},
}
LAYOUTS = tuple(_LAYOUTS)
