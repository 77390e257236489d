"""Which methods read each other's caches: those that would make the same index."""

from __future__ import annotations

from typing import Any, Protocol


class Prepared(Protocol):
    """What is asked of the method of a cache."""

    @property
    def index_recipe(self) -> tuple[Any, ...]: ...


def require_same_index(prepared: Prepared, method: Any) -> None:
    """TypeError if `method` is no Method, ValueError if its index is another one than that of `prepared`."""
    if isinstance(method, type) or not hasattr(method, "index_recipe"):
        raise TypeError(f"method is of type {type(method).__name__}: pass an estimator, such as Socket().")
    have, want = dict(prepared.index_recipe), dict(method.index_recipe)
    name = next((name for name in have | want if have.get(name) != want.get(name)), None)
    if name is None:
        return
    why = f"{type(method).__name__} does not read the index of {type(prepared).__name__}"
    if type(method) is type(prepared):
        why = f"{name}={want[name]!r} was given and the index was made with {name}={have[name]!r}"
    raise ValueError(f"{why}: prepare a cache with {method}.")
