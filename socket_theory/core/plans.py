"""Plans of a decode step: what they have in common, and which backend plans which method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

ANY = "any"
_PLANS: dict[tuple[str, type], Callable[..., Any]] = {}

STATUS = {
    1: "an append exceeded the planned capacity and was dropped: prepare the cache with a larger capacity.",
    4: "every score of a row is below 1e-38: raise the temperature, or decode with method.attend; or all values are 0.",
    2: "an output is not finite: check the query, keys and values for NaN and infinity, or pass a wider out_dtype.",
}
"""What `check` says for each bit of a plan's status."""


def require_no(status: int) -> None:
    """RuntimeError with the sentences of the bits that are set."""
    if status:
        raise RuntimeError(" ".join(sentence for bit, sentence in STATUS.items() if status & bit))


class Plan(Protocol):
    """What a plan of any backend has. `value` [B, Hq, E] and `lse` [B, Hq] are its own, overwritten by the next run."""

    value: Any
    lse: Any

    def run(self, query: Any) -> tuple[Any, Any]:
        """One step for queries [B, Hq, D]: (value, lse)."""

    def append(self, keys: Any, values: Any = None, *, tokens: int | None = None) -> None:
        """Add tokens keys [B, Hkv, T, D], values [B, Hkv, T, E] behind every sequence, in place.

        Of a cache that reads an owner's rows: pass those with `tokens` = T, as to `Cache.append`, at the same place.
        Of a sequence where they exceed the planned capacity, or an owner's slots, they are dropped, which `check` says.
        """

    def check(self) -> None:
        """RuntimeError with all that went wrong in runs and appends since the last check."""

    def stages(self, query: Any) -> dict[str, Callable[[], None]]:
        """What a step does, by name and in order, to be timed apart."""


def register_plan(backend: str, method: type, plan: Callable[..., Any]) -> None:
    """Say what plans the steps of a class of methods on the backend of that name, or on `ANY` without plans."""
    _PLANS[backend, method] = plan


def plan_of(backend: str, method: type) -> Callable[..., Any]:
    """What was registered for the class or a base of it.

    Raises
    ------
    TypeError
        If the backend plans other methods and not this one.
    """
    planned = sorted(kind.__name__ for name, kind in _PLANS if name == backend)
    name = backend if planned else ANY
    for kind in method.__mro__:
        if (name, kind) in _PLANS:
            return _PLANS[name, kind]
    raise TypeError(
        f"{method.__name__} has no planned step on backend {backend!r}, which plans {', '.join(planned)}: "
        "decode with method.attend."
    )
