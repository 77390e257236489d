"""What a run on real attention says, in sentences made from its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from socket_theory.evaluate.contenders import short_settings
from socket_theory.socket_lsh.estimator import Socket

Row = dict[str, Any]


def percent(value: float) -> str:
    """A share in two digits, or three from 100 % on: 0.0554 is 5.5 %."""
    return f"{float(f'{100 * value:.{3 if value >= 1 else 2}g}'):g} %"


def relation(row: Row, other: Row) -> str:
    """How one mean error stands to another: apart by more than two standard errors of their difference, or not."""
    difference = row["relative_error_mean"] - other["relative_error_mean"]
    if None in (row["standard_error"], other["standard_error"]):
        return "with no standard error to judge it by, beside"
    if abs(difference) <= 2 * math.hypot(row["standard_error"], other["standard_error"]):
        return "not clearly apart from"
    return "clearly above" if difference > 0 else "clearly below"


def reading(record: dict[str, Any]) -> list[str]:
    """The sentences, from a record of `evaluate attention` with its two sweeps."""
    rows, by_bits = record["rows"], record["by_bits"]
    share = next(row.get("forced_only", 0) for row in rows if row["method"] == "oracle_top_k")
    by_density = [row for row in record["by_density"] if not row.get("forced_only")]
    if share == 1:
        return [*_without_choice(rows), *_over_densities(by_density)]
    partly = [
        f"At {percent(share)} of the positions the budget leaves scores no choice, and every selection keeps the same "
        "tokens. The means contain them, so nothing here compares the methods at this density."
    ]
    if share:
        return [*partly, *_over_densities(by_density)]
    return [*_at_one_density(rows), *_over_densities(by_density), *_over_bits(by_bits)]


def _without_choice(rows: Sequence[Row]) -> Iterator[str]:
    oracle = next(row for row in rows if row["method"] == "oracle_top_k")
    yield (
        "The budget leaves scores no choice at any position, as sink and window fill it or it keeps every token: "
        f"oracle, window, random tokens, hard LSH and SOCKET keep the same {percent(oracle['density'])} of the tokens, "
        f"whose error is {percent(_error(oracle))}. Nothing here compares them."
    )


def _at_one_density(rows: Sequence[Row]) -> Iterator[str]:
    by_name = {row["method"]: row for row in rows}
    oracle, window, random, hard = (by_name[name] for name in ("oracle_top_k", "window", "random", "hard_lsh"))
    socket = [row for row in rows if row["method"] == "socket"]
    best = min(socket, key=_error)
    released = next(row for row in socket if Socket(**row["settings"]) == Socket.as_released())
    yield (
        f"Keeping the {percent(oracle['density'])} of tokens with the largest exact logits (the oracle) leaves a mean "
        f"error of {percent(_error(oracle))}: the price of dropping the others, paid even by a perfect ranking."
    )
    times = f", {_error(best) / _error(oracle):.2g} times the oracle's" if _error(oracle) > 0 else ""
    yield (
        f"The best of {len(socket)} SOCKET settings, {short_settings(best['settings'])}, has "
        f"{percent(_error(best))}{times}. Hard LSH with {hard['nominal_bits']} bits a token has "
        f"{percent(_error(hard))}, the latest tokens (window) {percent(_error(window))}, random ones "
        f"{percent(_error(random))}."
    )
    yield (
        f"SOCKET as released ({short_settings(released['settings'])}) has {percent(_error(released))}, "
        f"{relation(released, window)} the window and {relation(released, random)} random tokens."
    )
    yield _effect(socket, "value_weight", "Weighing scores by |v|")
    yield _effect(socket, "center_keys", "Centring keys")
    yield (
        f"SOCKET sampling has {percent(_error(by_name['socket_sampling']))}. It estimates angular attention and not "
        "softmax, so this is the distance between the two targets as much as an error."
    )


def _effect(socket: Sequence[Row], setting: str, subject: str) -> str:
    """In how many pairs of settings that differ in one flag alone the flag raises the error."""
    pairs = _pairs(socket, setting)
    changes = [_error(with_it) - _error(without) for without, with_it in pairs]
    return (
        f"{subject} raises the error in {sum(change > 0 for change in changes)} of {len(pairs)} pairs of settings that "
        f"differ in nothing else; the mean change is {100 * sum(changes) / len(changes):+.1f} points.".replace("-", "−")
    )


def _pairs(socket: Sequence[Row], setting: str) -> list[tuple[Row, Row]]:
    def others(row: Row) -> tuple[Any, ...]:
        return tuple(value for name, value in row["settings"].items() if name != setting)

    without = {others(row): row for row in socket if not row["settings"][setting]}
    return [(without[others(row)], row) for row in socket if row["settings"][setting]]


def _over_densities(rows: Sequence[Row]) -> Iterator[str]:
    """Nothing unless scores decide at two densities at least."""
    if sum(row["method"] == "oracle_top_k" for row in rows) < 2:
        return
    changes = []
    for method, name in (("oracle_top_k", "the oracle"), ("socket_best", "the best SOCKET"), ("hard_lsh", "hard LSH")):
        first, *_, last = (row for row in rows if row["method"] == method)
        changes.append(f"{name} from {percent(_error(first))} to {percent(_error(last))}")
    span = f"{percent(first['density'])} to {percent(last['density'])}"
    yield f"Going from {span} of the tokens takes {_listed(changes)}."


def _over_bits(rows: Sequence[Row]) -> Iterator[str]:
    fewest, *_, most = (row for row in rows if row["method"] == "socket_best")
    hard = [row for row in rows if row["method"] == "hard_lsh"][-1]
    yield (
        f"With {fewest['nominal_bits']} bits a token in place of {most['nominal_bits']}, the best SOCKET has "
        f"{percent(_error(fewest))} in place of {percent(_error(most))}, {relation(fewest, hard)} hard LSH with all "
        f"{hard['nominal_bits']} ({percent(_error(hard))})."
    )


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _error(row: Row) -> float:
    return float(row["relative_error_mean"])
