"""What every estimator shares: prepare a cache, attend over it. A method adds an index and a score."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from socket_theory.core.array_types import array_type, callers_stream, to_native
from socket_theory.core.backend import Backend, resolve_backend
from socket_theory.core.cache import Cache
from socket_theory.core.checks import require_finite
from socket_theory.core.estimate import Estimate
from socket_theory.core.hashing import Planes
from socket_theory.core.inputs import (
    check_capacity,
    check_center,
    check_index,
    check_key_values,
    flatten_lead,
    make_spans,
    refuse,
)
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget, require_budget, warn_of_forced
from socket_theory.core.step import Step


METHODS: dict[str, type[Method]] = {}
"""The estimators of this library by the name of their class."""


@dataclass(frozen=True)
class Method:
    """An attention estimator: settings as a value, no state.

    A method of your own is a frozen dataclass that defines `scores`, and `index` if it keeps arrays beside the keys.
    """

    def __init_subclass__(cls, abstract: bool = False) -> None:
        super().__init_subclass__()
        if not abstract and cls.__module__.startswith("socket_theory."):
            METHODS[cls.__name__] = cls

    reads_every_key: ClassVar[bool] = False
    """Whether a step reads every valid key, and not only those of the kept tokens."""

    query_side: ClassVar[tuple[str, ...]] = ()
    """The settings that touch the query or the draws only: the index is the same whatever they are."""

    @property
    def index_recipe(self) -> tuple[Any, ...]:
        """What a prepared cache depends on, by name: methods whose recipes are equal read each other's caches."""
        kind = type(self)
        makers = ("index", "draw_planes", "choose_center")
        if all(getattr(kind, name) is getattr(Method, name) for name in makers):
            return ()
        settings = {name: value for name, value in asdict(self).items() if name not in self.query_side}
        return tuple(({"class": kind} | settings).items())

    @property
    def nominal_bits(self) -> int:
        """Index bits a token by the method's own count; 0 without an index."""
        return 0

    def index(self, backend: Backend, keys: Any, values: Any, spans: Any, planes: Any, center: Any) -> dict[str, Any]:
        """The arrays kept beside keys and values, token axis last; none unless a method says so."""
        return {}

    def draw_planes(self, head_dim: int, key: Key | None, planes: Planes | None) -> Planes | None:
        """The planes a method hashes with; methods without an index take neither argument."""
        refuse(self, key=key, planes=planes)
        return None

    def choose_center(self, backend: Backend, keys: Any, spans: Any, center: Any | None) -> Any | None:
        """The offset subtracted from keys before hashing, [B, Hkv, D]; methods that do not center take none."""
        refuse(self, center=center)
        return None

    def prepare(
        self,
        keys: Any,
        values: Any,
        *,
        key: Key | None = None,
        planes: Planes | None = None,
        center: Any | None = None,
        kv_start: Any | None = None,
        kv_len: Any | None = None,
        capacity: int | None = None,
        backend: Backend | str | None = None,
    ) -> Cache:
        """Copy keys and values and build the method's index: time and memory in proportion to the slots.

        Parameters
        ----------
        keys, values : arrays [..., Hkv, N, D] and [..., Hkv, N, E]
            Of N token slots, heads first, with any leading shape: floats of 16, 32 or 64 bits, of one library.
        key, planes : Key or Planes
            Exactly one for methods that hash: what to draw the planes from, or the planes themselves.
        center : array [..., Hkv, D], optional
            For methods with `center_keys=True`: the offset; by default the mean of the valid keys. It is frozen.
        kv_start, kv_len : int or integers of the leading shape, optional
            The valid tokens of a sequence are the slots kv_start to kv_start + kv_len - 1, by default all. The others
            are padding: never hashed, scored, counted or read, so they may hold anything.
        capacity : int, optional
            Most token slots the cache will ever hold. Their memory is taken at once, and `append` then writes the new
            tokens only, where without it keys, values and index are copied.
        backend : Backend or str, optional
            Overrides the choice by array type.

        Raises
        ------
        TypeError, ValueError
            For arrays of integers or quantised numbers, masked, sparse or nested ones, mixed array libraries, or an
            argument the method does not use; empty or mismatched shapes, NaN or infinity among valid tokens, or planes
            of another head_dim.
        """
        keys, values, kind = check_key_values(keys, values)
        engine = resolve_backend(kind, backend)
        lead = tuple(keys.shape[:-3])
        keys, values = flatten_lead(keys, len(lead)), flatten_lead(values, len(lead))
        spans = make_spans(lead, keys.shape[-2], kv_start, kv_len)
        for row, (start, length) in enumerate(spans):
            require_finite("keys", keys[row, :, start : start + length])
            require_finite("values", values[row, :, start : start + length])
        sample = self.draw_planes(keys.shape[-1], key, planes)
        if center is not None:
            if (other := array_type(center, "center")) != kind:
                raise TypeError(f"center is a {other} array and keys a {kind} array: pass one kind.")
            center = check_center(to_native("center", center), keys, lead)
        room = check_capacity(capacity, keys.shape[-2])
        with callers_stream(kind):
            # The index is made from row-major copies, so the caller's memory order cannot change a rounding.
            keys, values = engine.store(keys, room), engine.store(values, room)
            offset = self.choose_center(engine, keys, spans, center)
            index = self.index(engine, keys, values, spans, sample, offset)
        index = check_index(self, index, keys, engine.slot_block)
        arrays = {"keys": keys, "values": values} | index
        return Cache(self, arrays, spans, lead, sample, offset, room, kind, engine)

    def check_key(self, key: Key | None) -> None:
        """Refuse a key; methods that draw at every step require one instead."""
        refuse(self, key=key)

    def scores(self, step: Step, key: Key | None) -> Any:
        """What tokens are ranked by, the largest first: all that a selecting method of your own has to define.

        It returns floats [B, Hq, N] in the array type of `step.query` [B, Hq, D]; `step.cache.keys` is [B, Hkv, N, D].
        They are ranked in float32. Slots outside the valid ones are not looked at; NaN inside is refused.
        """
        raise NotImplementedError(f"{type(self).__name__} must define scores or attend.")

    def captured_mass(self, step: Step, lse: Any) -> Any | None:
        """Exact softmax mass of the kept tokens [B, Hq], where the method knows it."""
        return None

    def attend(
        self,
        query: Any,
        cache: Cache,
        *,
        budget: Budget | None = None,
        sm_scale: float | None = None,
        out_dtype: Any | None = None,
        key: Key | None = None,
    ) -> Estimate:
        """One decode step: rank the valid tokens, keep the budget's, attend to those exactly.

        Parameters
        ----------
        query : array [..., Hq, D]
            One token a sequence, with the cache's leading shape; Hq is a multiple of Hkv, and head h reads KV head
            h // (Hq / Hkv).
        cache : Cache
            What this method prepared, or one of `Cache.with_method`.
        budget : Budget, optional
            What is kept; None keeps everything and equals dense attention.
        sm_scale : float, optional
            The logits are sm_scale <q, k>; 1/sqrt(D) by default. Raised, fewer tokens hold the mass.
        out_dtype : dtype, optional
            Of the value; the query's by default.
        key : Key, optional
            For methods that draw at every step. Fold in request, layer and step yourself.

        Returns
        -------
        Estimate
            value [..., Hq, E], lse [..., Hq], indices [..., Hq, K] and what was read.

        Raises
        ------
        TypeError, ValueError
            For arrays of integers or quantised numbers, masked, sparse or nested ones, mixed array libraries, or an
            argument the method does not use or needs; a wrong shape or head ratio, NaN, or a cache of another method.
        """
        step = Step.start(self, query, cache, sm_scale, out_dtype)
        self.check_key(key)
        if budget is not None:
            warn_of_forced(require_budget(budget), int(cache.spans[:, 1].min()))
            step = replace(step, shared=budget.group == "shared")
        with callers_stream(cache.array_type):
            if budget is None:
                indices = step.everything()
            else:
                scores = step.checked_scores(self.scores(step, key))
                indices = cache.backend.select(scores, cache.spans, budget, cache.keys.shape[1])
            value, lse = cache.backend.attend(step.query, cache.keys, cache.values, indices, step.sm_scale)
            return step.finish(value, lse, indices, captured_mass=self.captured_mass(step, lse))
