"""What every estimator shares: prepare a cache, attend over it, prefill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from socket_theory.core.array_types import callers_stream
from socket_theory.core.backend import Backend
from socket_theory.core.cache import Cache
from socket_theory.core.check_query import checked_query, checked_scale, single_steps
from socket_theory.core.definition import Definition, refuse, require_key
from socket_theory.core.estimate import Estimate
from socket_theory.core.finish import finish, output_dtype, stack
from socket_theory.core.host_plan import HostPlan
from socket_theory.core.plans import ANY, register_plan
from socket_theory.core.prefill import Prefill, prefilled
from socket_theory.core.prepare import prepared
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget, require_budget, warn_of_forced
from socket_theory.core.step import Step


@dataclass(frozen=True)
class Method(Definition, abstract=True):
    """An attention estimator: settings as a value, no state.

    A method of your own is a frozen dataclass derived from `Selector`, `Sampler` or this class, which defines what
    `socket_theory.core.definition.Definition` lists: `step` (a Selector only `scores`, a Sampler only `draws`), `index`
    if it keeps arrays beside the keys, and `draw` if these are made at random.
    """

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
        return prepared(self, keys, values, key, sample, (kv_start, kv_len), capacity, backend, frozen)

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
            For methods that take it: the `carry` of the layer below; for T tokens a tuple of one per token.

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
        values: Any = None,
        *,
        cache: Cache | None = None,
        sm_scale: float | None = None,
        out_dtype: Any | None = None,
        carry: Any = None,
        **prepared_with: Any,
    ) -> Prefill:
        """The outputs of all tokens of a prompt, or of its next chunk, and the cache to go on from.

        Query token t attends to the valid tokens that are not behind it, those of `cache` among them: by exact softmax
        attention, computed in blocks in time that grows as the square of the tokens, but by its own weights in a method
        that keeps no rows, such as `Race`. A prompt in chunks gives the value and lse of the whole; its index is that
        of the whole if the sample and what the method freezes are the same, as when they are passed.

        Parameters
        ----------
        query : array [..., Hq, T, D]
            A query for each token of keys.
        keys, values : arrays [..., Hkv, T, D] and [..., Hkv, T, E]
            Or instead of both an owner's rows: of the first chunk, or after they have grown by T tokens.
        cache : Cache, optional
            Of the chunks before, for a further one.
        sm_scale, out_dtype, carry
            As `attend`.
        **prepared_with
            What `prepare` takes, for the first chunk. Query tokens that are padding get a value of 0, an lse of -inf.

        Raises as `prepare`, `Cache.append` and `attend`; NotImplementedError for a method without a prefill.
        """
        if not self.keeps_rows and type(self).causal is Definition.causal:
            raise NotImplementedError(f"{type(self).__name__} keeps no rows to attend to: it must define causal.")
        if "carry" in self.takes:
            raise NotImplementedError(f"{type(self).__name__} takes a carry: it must define prefill.")
        refuse(self, carry=carry)
        if not self.keeps_rows and "sm_scale" not in self.takes:
            refuse(self, sm_scale=sm_scale)
        return prefilled(self, query, keys, values, cache, sm_scale, out_dtype, prepared_with)


register_plan(ANY, Method, HostPlan)
