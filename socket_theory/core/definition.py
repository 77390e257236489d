"""What a method defines: its settings, what it takes, what it draws, keeps beside the keys, and does in a step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from socket_theory.core.causal import Chunk, causal_attention
from socket_theory.core.estimate import Outcome
from socket_theory.core.index import Index, SumIndex, TokenIndex
from socket_theory.core.rng import Key
from socket_theory.core.rows import Rows
from socket_theory.core.step import Step

METHODS: dict[str, type[Any]] = {}
"""The estimators of this library by the name of their class."""


@dataclass(frozen=True)
class Definition:
    """What a method says of itself; `Method` makes an estimator of it."""

    takes: ClassVar[frozenset[str]] = frozenset({"sm_scale"})
    """Which of `attend`'s budget, key, carry and sm_scale the method uses. A key that it takes is required."""

    sample_type: ClassVar[type | None] = None
    """The type of what `draw` returns; None for a method that draws nothing at `prepare`."""

    keeps_rows: ClassVar[bool] = True
    """Whether a step reads keys or values, and not the index alone."""

    reads_every_key: ClassVar[bool] = False
    """Whether a step reads every valid key, and not only those of the kept tokens."""

    query_side: ClassVar[tuple[str, ...]] = ()
    """The settings that touch the query or the draws only: the index is the same whatever they are."""

    def __init_subclass__(cls, abstract: bool = False) -> None:
        super().__init_subclass__()
        if not abstract and cls.__module__.startswith("socket_theory."):
            METHODS[cls.__name__] = cls

    @property
    def nominal_bits(self) -> int:
        """Index bits per token by the method's own count; 0 without an index."""
        return 0

    def draw(self, head_dim: int, key: Key) -> Any:
        """What the index is made with, drawn from `key` for keys of length `head_dim`: of `sample_type`."""
        return None

    def check_sample(self, sample: Any, head_dim: int) -> None:
        """ValueError for a sample of `sample_type` that does not fit the settings or `head_dim`."""

    def freezes(self, num_kv_heads: int, head_dim: int) -> dict[str, tuple[int, ...]]:
        """What `index` measures on the first tokens unless it is passed to `prepare`: shapes behind [B], by name."""
        return {}

    def index(self, rows: Rows, sample: Any, frozen: dict[str, Any]) -> Index:
        """What is kept beside `rows`, made of their valid tokens: nothing unless a method says so.

        `sample` is what `draw` returned. `frozen` has what an earlier index measured, or `prepare` was passed, by name:
        empty at first. What is measured here goes into the index's own `frozen`.
        """
        return TokenIndex()

    def extend(self, index: Any, rows: Rows, new: Rows, sample: Any) -> Index:
        """The index of `rows` with the tokens of `new` behind each sequence's valid ones."""
        added = check_index(self, self.index(new, sample, dict(index.frozen)), new)
        require_like(self, added, index, rows)
        longer: Index = index.append(added, rows, new.shape[2])
        return longer

    def step(self, step: Step) -> Outcome:
        """One decode step of one token per sequence, in the arrays of `step.backend`."""
        raise NotImplementedError(f"{type(self).__name__} must define step, or derive from Selector or Sampler.")

    def causal(self, chunk: Chunk) -> tuple[Any, Any]:
        """Value [B, Hq, T, E] and lse [B, Hq, T] of the tokens of a prefill, 0 and -inf of padding.

        Each query attends to the valid tokens that are not behind it, those of earlier chunks among them: by exact
        softmax attention to the rows unless a method says otherwise. One that keeps no rows has to.
        """
        return causal_attention(chunk.query, chunk.cache.rows, chunk.first, chunk.sm_scale)

    @property
    def index_recipe(self) -> tuple[Any, ...]:
        """What a prepared cache depends on, by name: methods whose recipes are equal read each other's caches."""
        kind = type(self)
        if all(getattr(kind, name) is getattr(Definition, name) for name in ("index", "extend", "draw", "keeps_rows")):
            return ()
        settings = {name: value for name, value in asdict(self).items() if name not in self.query_side}
        return tuple(({"class": kind} | settings).items())


def check_index(method: Definition, index: Any, rows: Rows) -> Any:
    """What `method.index` returned for `rows`, if a cache can hold, append to and save it.

    Raises TypeError or ValueError naming the method otherwise.
    """
    name = f"{type(method).__name__}.index"
    cached = {key for key in vars(method) if isinstance(getattr(type(method), key, None), cached_property)}
    unknown = vars(method).keys() - {field.name for field in fields(method)} - cached
    if unknown:
        listed = ", ".join(sorted(unknown))
        raise TypeError(f"{type(method).__name__} keeps {listed}, no field: declare it in a frozen dataclass.")
    if not isinstance(index, Index):
        raise TypeError(
            f"{name} returned {type(index).__name__}: return a TokenIndex of arrays by name, or a SumIndex."
        )
    if not isinstance(index.arrays, dict) or not all(isinstance(key, str) for key in index.arrays):
        raise TypeError(f"{name} returned {type(index.arrays).__name__}: return a dict of arrays by name.")
    keys, (batch, heads, slots, dim) = rows.keys, rows.shape
    known = method.freezes(heads, dim)
    for frozen_name, array in index.frozen.items():
        if frozen_name not in known:
            raise TypeError(f"{name} freezes {frozen_name}: name it, with its shape, in freezes.")
        if tuple(np.shape(array)) != (batch, *known[frozen_name]):
            raise ValueError(
                f"{name} freezes {frozen_name} {np.shape(array)}, and freezes says {(batch, *known[frozen_name])}."
            )
    for array_name, array in (index.arrays | dict(index.frozen)).items():
        kind = type(array)
        if kind is not type(keys) or (array.dtype.kind not in "biuf" and str(array.dtype) != "bfloat16"):
            given = array.dtype if kind is type(keys) else f"{kind.__module__}.{kind.__name__}"
            raise TypeError(f"{name} returned {array_name} of {given}: return numbers in the type of the keys it gets.")
        per_token = isinstance(index, TokenIndex) and array_name in index.arrays
        # A backend that packs slots in blocks has shapes of its own.
        wrong = per_token and (array.ndim < 2 or (rows.backend.slot_block == 1 and array.shape[-1] != slots))
        if wrong or array.ndim < 1 or len(array) != batch:
            tail = f", {slots}" if per_token else ""
            raise ValueError(f"{name} returned {array_name} {array.shape}: return [{batch}, ...{tail}].")
    return index


def require_like(method: Definition, added: Index, held: Index, rows: Rows) -> None:
    """TypeError or ValueError unless the index of new tokens has the arrays of the one held, of any number of slots."""
    name = f"{type(method).__name__}.index"
    if type(added) is not type(held):
        raise TypeError(
            f"{name} returned {type(added).__name__} of new tokens, {type(held).__name__} before: return that."
        )
    if added.arrays.keys() != held.arrays.keys():
        raise TypeError(
            f"{name} returned {list(added.arrays)} of new tokens, {list(held.arrays)} before: return those."
        )
    packed = rows.backend.slot_block > 1
    for array_name, array in added.arrays.items():
        before = held.arrays[array_name]
        own = isinstance(held, TokenIndex | SumIndex) and not packed
        shapes = (array.shape[:-1], before.shape[:-1]) if isinstance(held, TokenIndex) else (array.shape, before.shape)
        if array.dtype != before.dtype or (own and shapes[0] != shapes[1]):
            raise ValueError(
                f"{name} returned {array_name} of {array.dtype} {array.shape} for new tokens, and it had "
                f"{before.dtype} {before.shape} before: return the same, with any number of slots."
            )


def refuse(method: Definition, **arguments: Any) -> None:
    """TypeError for every argument given that the method does not use."""
    for name, given in arguments.items():
        if given is not None:
            shown = f"array of shape {tuple(given.shape)}" if hasattr(given, "shape") else f"{given!r}"
            raise TypeError(f"{type(method).__name__} does not use {name}, and {name}={shown} was given: drop it.")


def require_key(method: Definition, key: Key | None) -> Key:
    """`key`, or TypeError: a method that draws at every step has no default randomness."""
    if not isinstance(key, Key):
        raise TypeError(f"{type(method).__name__} draws at every step, key={key!r} was given: pass Key.from_seed(n).")
    return key
