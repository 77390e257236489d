"""What every estimator shares: prepare a cache, attend over it, prefill. A method adds an index and a step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np

from socket_theory.core.array_types import callers_stream
from socket_theory.core.backend import Backend, resolve_backend
from socket_theory.core.cache import Cache
from socket_theory.core.checks import require_finite
from socket_theory.core.estimate import Estimate, Outcome
from socket_theory.core.index import Index, TokenIndex
from socket_theory.core.inputs import check_capacity, check_frozen, check_key_values, flatten_batch, make_kv_range
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.prefill import Prefill, causal_attention, checked_chunk
from socket_theory.core.rng import Key, require_rng_key
from socket_theory.core.rows import DenseRows, NoRows, Rows
from socket_theory.core.selection import Budget, require_budget, warn_of_forced
from socket_theory.core.step import (
    Step,
    checked_method,
    checked_query,
    checked_scale,
    finish,
    output_dtype,
    single_steps,
    stack,
)

METHODS: dict[str, type[Method]] = {}
"""The estimators of this library by the name of their class."""


@dataclass(frozen=True)
class Method:
    """An attention estimator: settings as a value, no state.

    A method of your own is a frozen dataclass derived from `Selector`, `Sampler` or this class. It defines `step`
    (a Selector only `scores`, a Sampler only `draws`), `index` if it keeps arrays beside the keys, and `draw` if these
    are made at random.
    """

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

    # What a method defines.

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
        longer: Index = index.append(added, rows)
        return longer

    def step(self, step: Step) -> Outcome:
        """One decode step of one token per sequence, in the arrays of `step.backend`."""
        raise NotImplementedError(f"{type(self).__name__} must define step, or derive from Selector or Sampler.")

    # What the frame makes of it.

    @property
    def index_recipe(self) -> tuple[Any, ...]:
        """What a prepared cache depends on, by name: methods whose recipes are equal read each other's caches."""
        kind = type(self)
        if all(getattr(kind, name) is getattr(Method, name) for name in ("index", "extend", "draw", "keeps_rows")):
            return ()
        settings = {name: value for name, value in asdict(self).items() if name not in self.query_side}
        return tuple(({"class": kind} | settings).items())

    @final
    def prepare(
        self,
        keys: Any,
        values: Any = None,
        *,
        key: Key | None = None,
        sample: Any = None,
        kv_start: Any | None = None,
        kv_len: Any | None = None,
        capacity: int | None = None,
        backend: Backend | str | None = None,
        **frozen: Any,
    ) -> Cache:
        """Copy keys and values and build the method's index: time and memory in proportion to the slots.

        Parameters
        ----------
        keys, values : arrays [..., Hkv, N, D] and [..., Hkv, N, E]
            Of N token slots, heads first, with any batch shape: floats of 16, 32 or 64 bits, of one library. Or instead
            of both the rows of another owner, `BorrowedRows` or `PagedRows`, which are read where they are.
        key, sample : Key and object
            Exactly one of them, for methods that draw: what to draw from, or what was drawn, such as `Planes`.
        kv_start, kv_len : int or integers of the batch shape, optional
            The valid tokens of a sequence are the slots kv_start to kv_start + kv_len - 1, by default all. The others
            are padding: never hashed, scored, counted or read, so they may hold anything.
        capacity : int, optional
            Most token slots the cache will ever hold. Their memory is taken at once, and `append` then writes the new
            tokens only, where without it keys, values and index are copied.
        backend : Backend or str, optional
            Overrides the choice by array type.
        **frozen : arrays, optional
            What the method otherwise measures on these tokens, and keeps for those appended later. `center` [..., Hkv,
            D] for methods with `center_keys=True`: the offset, by default the mean of the valid keys.

        Raises
        ------
        TypeError, ValueError
            For arrays of integers or quantised numbers, masked, sparse or nested ones, mixed array libraries, or an
            argument the method does not use; empty or mismatched shapes, NaN or infinity among valid tokens, or a
            sample of another head_dim.
        """
        if isinstance(keys, OwnedElsewhere):
            refuse(self, values=values, capacity=capacity)
            rows, array_type = keys.native()
            batch_shape: tuple[int, ...] = rows.shape[:1]
        else:
            keys, values, array_type = check_key_values(keys, values)
            batch_shape = tuple(keys.shape[:-3])
            rows = DenseRows(*(flatten_batch(array, len(batch_shape)) for array in (keys, values)))
        kv_range = make_kv_range(batch_shape, rows.shape[2], kv_start, kv_len)
        rows = rows.bind(kv_range, resolve_backend(array_type, backend))
        for name, array in (("keys", rows.keys), ("values", rows.values)):
            for row, (start, length) in enumerate(kv_range):
                require_finite(name, array[row, :, start : start + length])
        drawn = self._drawn(key, sample, rows.shape[3])
        given = self._given(frozen, rows, array_type, batch_shape)
        room = check_capacity(capacity, rows.shape[2])
        with callers_stream(array_type):
            # The index is made from row-major copies, so the caller's memory order cannot change a rounding.
            rows = rows.stored(room)
            index = check_index(self, self.index(rows, drawn, given), rows)
        return Cache(self, rows if self.keeps_rows else NoRows.of(rows), index, drawn, batch_shape, array_type)

    @final
    def attend(
        self,
        query: Any,
        cache: Cache,
        *,
        budget: Budget | None = None,
        sm_scale: float | None = None,
        out_dtype: Any | None = None,
        key: Key | None = None,
        carry: Any = None,
    ) -> Estimate:
        """One decode step for the last token of each sequence, or one for each of its last T tokens.

        Parameters
        ----------
        query : array [..., Hq, D] or [..., Hq, T, D]
            With the cache's batch shape; Hq is a multiple of Hkv, and head h reads KV head h // (Hq / Hkv). Of T tokens
            (those of a question, or a draft), whose keys and values are in the cache, token t attends to what is not
            behind it: the result is that of T steps over the cache truncated to its last T - 1 - t tokens.
        cache : Cache
            What this method prepared, or one of `Cache.with_method`.
        budget : Budget, optional
            What is kept, for methods that select; None keeps everything and equals dense attention.
        sm_scale : float, optional
            The logits are sm_scale <q, k>; 1/sqrt(D) by default. Raised, fewer tokens hold the mass.
        out_dtype : dtype, optional
            Of the value; the query's by default.
        key : Key, optional
            Required by methods that draw at every step, which fold in nothing of their own: fold in request, layer and
            step yourself. Of T tokens, token t draws by `key.fold_in("token", t)`.
        carry : object, optional
            For methods that take it: the `carry` of the layer below.

        Returns
        -------
        Estimate
            value [..., Hq, E], lse [..., Hq], indices [..., Hq, K] and what was read; for T tokens [..., Hq, T, E],
            [..., Hq, T] and [..., Hq, T, K].

        Raises
        ------
        TypeError, ValueError
            For arrays of integers or quantised numbers, masked, sparse or nested ones, mixed array libraries, or an
            argument the method does not use or needs; a wrong shape or head ratio, NaN, or a cache of another method.
        """
        given = {"budget": budget, "sm_scale": sm_scale, "key": key, "carry": carry}
        refuse(self, **{name: value for name, value in given.items() if name not in self.takes})
        native = checked_query(query, cache, self)
        if "key" in self.takes:
            require_key(self, key)
        if budget is not None:
            warn_of_forced(require_budget(budget), int(cache.kv_range[:, 1].min()))
        dtype = native.dtype if out_dtype is None else output_dtype(out_dtype)
        scale = checked_scale(sm_scale, native.shape[-1])
        with callers_stream(cache.array_type):
            if native.ndim == 3:
                step = Step(native, cache, scale, budget, key, carry)
                return finish(step, self.step(step), dtype)
            steps = single_steps(native, cache, scale, budget, key, carry)
            return stack([finish(step, self.step(step), dtype) for step in steps])

    def prefill(
        self,
        query: Any,
        keys: Any,
        values: Any,
        *,
        cache: Cache | None = None,
        sm_scale: float | None = None,
        out_dtype: Any | None = None,
        carry: Any = None,
        **prepared_with: Any,
    ) -> Prefill:
        """The outputs of all tokens of a prompt, or of its next chunk, and the cache to go on from.

        This default is exact causal softmax attention, computed in blocks: query token t attends to the valid tokens
        that are not behind it, those of `cache` among them. Time grows as the square of the tokens. A prompt in chunks
        gives the value and lse of the whole; its index is that of the whole if the sample and what the method freezes
        are the same, as when they are passed.

        Parameters
        ----------
        query : array [..., Hq, T, D]
            A query for each token of keys.
        keys, values : arrays [..., Hkv, T, D] and [..., Hkv, T, E]
        cache : Cache, optional
            Of the chunks before, for a further one.
        sm_scale, out_dtype, carry
            As `attend`.
        **prepared_with
            What `prepare` takes, for the first chunk: `key` or `sample`, kv_start, kv_len, capacity, backend and what
            the method freezes. Query tokens that are padding get a value of 0 and an lse of -inf.

        Returns
        -------
        Prefill

        Raises
        ------
        TypeError, ValueError
            As `prepare`, `Cache.append` and `attend`.
        """
        refuse(self, carry=carry)
        if not self.keeps_rows:
            raise NotImplementedError(
                f"{type(self).__name__} keeps no rows for exact attention: it must define prefill."
            )
        if cache is None:
            grown, first = self.prepare(keys, values, **prepared_with), 0
        else:
            refuse(self, **prepared_with)
            checked_method(cache, self)
            grown, first = cache.append(keys, values), cache.rows.ends
        native = checked_chunk(query, grown, np.shape(keys)[-2])
        dtype = native.dtype if out_dtype is None else output_dtype(out_dtype)
        scale = checked_scale(sm_scale, native.shape[-1])
        with callers_stream(grown.array_type):
            value, lse = causal_attention(native, grown.rows, first, scale)
        return Prefill.of(value, lse, dtype, grown, () if cache is None else tuple(cache.index.frozen))

    def _drawn(self, key: Key | None, sample: Any, head_dim: int) -> Any:
        """The sample drawn from `key`, or the one given."""
        name = type(self).__name__
        if self.sample_type is None:
            refuse(self, key=key, sample=sample)
            return None
        if (key is None) == (sample is None):
            given = "neither" if key is None else "both"
            raise ValueError(f"{given} of key and sample were given to {name}: pass exactly one.")
        if sample is None:
            return self.draw(head_dim, require_rng_key(key))
        if not isinstance(sample, self.sample_type):
            raise TypeError(
                f"sample is of type {type(sample).__name__}: pass {self.sample_type.__name__}, as {name}.draw returns."
            )
        self.check_sample(sample, head_dim)
        return sample

    def _given(
        self, frozen: dict[str, Any], rows: Rows, array_type: str, batch_shape: tuple[int, ...]
    ) -> dict[str, Any]:
        """What was passed instead of being measured, by name, as arrays [B, ...] of the backend."""
        known = self.freezes(rows.shape[1], rows.shape[3])
        refuse(self, **{name: array for name, array in frozen.items() if name not in known})
        return {
            name: check_frozen(name, array, array_type, batch_shape, known[name], rows.dtypes[0])
            for name, array in frozen.items()
            if array is not None
        }


def check_index(method: Method, index: Any, rows: Rows) -> Any:
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
    keys, (batch, _, slots, _) = rows.keys, rows.shape
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


def refuse(method: Method, **arguments: Any) -> None:
    """TypeError for every argument given that the method does not use."""
    for name, given in arguments.items():
        if given is not None:
            raise TypeError(f"{type(method).__name__} does not use {name}, and {name}={given!r} was given: drop it.")


def require_key(method: Method, key: Key | None) -> Key:
    """`key`, or TypeError: a method that draws at every step has no default randomness."""
    if not isinstance(key, Key):
        raise TypeError(f"{type(method).__name__} draws at every step, key={key!r} was given: pass Key.from_seed(n).")
    return key
