"""What every estimator shares: prepare a cache, attend over it. A method adds an index and a score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from socket_theory.backend import Backend, array_type, callers_stream, resolve_backend, to_native
from socket_theory.checks import require_finite
from socket_theory.estimators.cache import Cache
from socket_theory.estimators.estimate import Estimate
from socket_theory.estimators.inputs import check_capacity, check_center, check_key_values, flatten_lead, make_spans
from socket_theory.estimators.step import Step
from socket_theory.hashing import Planes, SignHash
from socket_theory.rng import Key
from socket_theory.selection import Budget, require_budget


@dataclass(frozen=True)
class Method:
    """An attention estimator: settings as a value, no state."""

    reads_every_key: ClassVar[bool] = False
    """Whether a step reads every valid key, and not only those of the kept tokens."""

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
        """Copy keys and values and build the method's index.

        Shapes: keys [..., Hkv, N, D], values [..., Hkv, N, E]; kv_start, kv_len integers of the leading shape;
        center [..., Hkv, D]. The valid tokens of a sequence are slots kv_start to kv_start + kv_len.

        Parameters
        ----------
        key, planes : Key or Planes
            Exactly one for methods that hash: what to draw the planes from, or the planes themselves.
        center : array, optional
            For methods with `center_keys=True`: the offset; by default the mean of the valid keys. It is frozen.
        capacity : int, optional
            Most token slots the cache will ever hold.
        backend : Backend or str, optional
            Overrides the choice by array type.

        Raises
        ------
        TypeError
            For integer or quantised arrays, mixed array libraries, or an argument the method does not use.
        ValueError
            For empty or mismatched shapes, NaN or infinity among valid tokens, or planes of another head_dim.
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
            if array_type(center) != kind:
                raise TypeError(f"center is a {array_type(center)} array and keys a {kind} array: pass one kind.")
            center = check_center(to_native("center", center), keys, lead)
        room = check_capacity(capacity, keys.shape[-2])
        with callers_stream(kind):
            # The index is made from row-major copies, so the caller's memory order cannot change a rounding.
            keys, values = engine.store(keys, room), engine.store(values, room)
            offset = self.choose_center(engine, keys, spans, center)
            arrays = {"keys": keys, "values": values} | self.index(engine, keys, values, spans, sample, offset)
        return Cache(self, arrays, spans, lead, sample, offset, room, kind, engine)

    def check_key(self, key: Key | None) -> None:
        """Refuse a key; methods that draw at every step require one instead."""
        refuse(self, key=key)

    def scores(self, step: Step, key: Key | None) -> Any:
        """What tokens are ranked by, float32 [B, Hq, N]."""
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

        Shapes: query [..., Hq, D] -> value [..., Hq, E], lse [..., Hq], indices [..., Hq, K].

        Parameters
        ----------
        budget : Budget, optional
            What is kept; None keeps everything and equals dense attention.
        sm_scale : float, optional
            Softmax scale; 1/sqrt(D) by default.
        out_dtype : dtype, optional
            Of the value; the query's by default.
        key : Key, optional
            For methods that draw at every step. Fold in request, layer and step yourself.

        Raises
        ------
        TypeError
            For integer or quantised arrays, mixed array libraries, or an argument the method does not use.
        ValueError
            For a wrong shape or head ratio, NaN or infinity, or a cache of another method.
        """
        step = Step.start(self, query, cache, sm_scale, out_dtype)
        self.check_key(key)
        if budget is not None:
            step = replace(step, shared=require_budget(budget).group == "shared")
        with callers_stream(cache.array_type):
            if budget is None:
                indices = step.everything()
            else:
                indices = cache.backend.select(self.scores(step, key), cache.spans, budget, cache.keys.shape[1])
            value, lse = cache.backend.attend(step.query, cache.keys, cache.values, indices, step.sm_scale)
            return step.finish(value, lse, indices, captured_mass=self.captured_mass(step, lse))


@dataclass(frozen=True)
class HashingMethod(Method):
    """A method that needs planes: num_tables tables of num_planes."""

    num_planes: int = 10
    num_tables: int = 60

    def __post_init__(self) -> None:
        law = SignHash(self.num_tables, self.num_planes, 1)
        object.__setattr__(self, "num_tables", law.num_tables)
        object.__setattr__(self, "num_planes", law.num_planes)

    def draw_planes(self, head_dim: int, key: Key | None, planes: Planes | None) -> Planes:
        if (key is None) == (planes is None):
            given = "neither" if key is None else "both"
            raise ValueError(f"{given} of key and planes were given to {type(self).__name__}: pass exactly one.")
        law = SignHash(self.num_tables, self.num_planes, head_dim)
        if planes is None:
            if not isinstance(key, Key):
                raise TypeError(f"key={key!r} is of type {type(key).__name__}: pass Key.from_seed(integer).")
            return law.draw(key)
        if not isinstance(planes, Planes):
            raise TypeError(f"planes is of type {type(planes).__name__}: pass Planes(weights) or SignHash.draw(key).")
        have = (planes.num_tables, planes.num_planes, planes.head_dim)
        if have != (law.num_tables, law.num_planes, law.head_dim):
            raise ValueError(
                f"planes of (num_tables, num_planes, head_dim) = {have} were given: "
                f"pass planes of {(law.num_tables, law.num_planes, law.head_dim)}."
            )
        return planes


def refuse(method: Method, **arguments: Any) -> None:
    """TypeError for every argument given that the method does not use."""
    for name, given in arguments.items():
        if given is not None:
            raise TypeError(f"{type(method).__name__} does not use {name}, and {name}={given!r} was given: drop it.")
