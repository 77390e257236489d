"""The claims engine: what holds, what is rejected, how claims are chosen and how the false alarm is spent."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from socket_theory.core.claim import (
    TOTAL_FALSE_ALARM,
    Claim,
    Context,
    Measurement,
    combine,
    inequality,
    run,
    select,
    worst,
)
from socket_theory.core.rng import Key


def measure(context: Context, observed: float) -> Measurement:
    return Measurement(observed, context.level() * 1e9)


def make_claim(name: str = "S1", check: float = 0.0, control: float = 1e9) -> Claim:
    parts = partial(measure, observed=check), partial(measure, observed=control)
    return Claim(name, "title", "a statement", "a source", "identity", "something wrong", *parts)


@pytest.mark.parametrize(
    ("observed", "holds", "rejects"),
    [(0.0, True, False), (1.0, True, False), (1.1, False, True), (np.inf, False, True), (np.nan, False, False)],
)
def test_a_nan_neither_holds_nor_rejects(observed: float, holds: bool, rejects: bool) -> None:
    measurement = Measurement(observed, 1.0)
    assert (measurement.holds, measurement.rejects) == (holds, rejects)


def test_worst_is_the_entry_with_the_largest_ratio() -> None:
    assert worst([[1.0, 4.0], [2.0, 0.0]], [[10.0, 8.0], [1.0, 0.0]]) == Measurement(2.0, 1.0)
    assert worst([0.0, 0.0], 0.0) == Measurement(0.0, 0.0)
    assert worst([1.0, 0.1], [0.5, 0.0]) == Measurement(0.1, 0.0)


@pytest.mark.parametrize("limits", [[-1.0, 1.0], [0.0, 1.0]])
def test_worst_does_not_hide_a_violation_of_an_allowance_of_0_or_less(limits: list[float]) -> None:
    assert not worst([1.0, 0.5], limits).holds
    assert not combine(Measurement(1.0, limits[0]), Measurement(0.5, limits[1])).holds
    assert worst([-2.0, 1.5], [-1.0, 1.0]) == Measurement(1.5, 1.0)
    assert worst([-2.0, np.inf, 1.5], [-1.0, np.inf, 1.0]) == Measurement(1.5, 1.0)
    assert worst([-2.0, -1.0], limits).holds


def test_worst_does_not_hide_a_nan() -> None:
    assert not worst([0.0, np.nan, 5.0], 10.0).holds


def test_inequality_reports_how_tight_it_is() -> None:
    assert inequality([1.0, 2.0], [8.0, 6.0]) == Measurement(2.0, 6.0, tightness=3.0)
    assert inequality([0.0], [6.0]).tightness is None


def test_combine_holds_only_if_all_do_and_keeps_tightness_and_details() -> None:
    first = Measurement(1.0, 2.0, tightness=2.0, detail=(("a", 1.0),))
    second = Measurement(30.0, 10.0, tightness=9.0, detail=(("b", 2.0),))
    assert combine(first, second) == Measurement(30.0, 10.0, 2.0, (("a", 1.0), ("b", 2.0)))
    assert not combine(first, Measurement(np.nan, 1.0)).holds


def test_a_claim_is_verified_when_it_holds_and_its_control_is_rejected() -> None:
    key = Key.from_seed(0)
    assert run(make_claim(), key, "quick", 1).verified
    assert not run(make_claim(check=1e9), key, "quick", 1).verified
    assert not run(make_claim(control=0.0), key, "quick", 1).verified
    assert not run(make_claim(control=float("nan")), key, "quick", 1).verified


@pytest.mark.parametrize("broken", ["check", "control"])
def test_an_exception_fails_its_claim_and_is_told(broken: str) -> None:
    def fail(_: Context) -> Measurement:
        raise ZeroDivisionError("nothing was drawn")

    claim = replace(make_claim(), check=fail) if broken == "check" else replace(make_claim(), control=fail)
    result = run(claim, Key.from_seed(0), "quick", 1)
    assert not result.verified
    assert not result.measurement.holds
    assert result.error == "ZeroDivisionError: nothing was drawn"


def test_a_claim_gets_its_own_key_and_an_equal_part_of_the_false_alarm() -> None:
    seen: list[Context] = []

    def note(context: Context) -> Measurement:
        seen.append(context)
        return Measurement(0.0, 0.0)

    for name in ("S1", "S2"):
        run(Claim(name, "t", "s", "s", "mean", "w", note, note), Key.from_seed(0), "full", 40)
    assert [context.false_alarm for context in seen] == [TOTAL_FALSE_ALARM / 40] * 4
    assert seen[0].key == seen[1].key != seen[2].key
    assert seen[0].samples(30) == 300
    assert seen[0].level(4) == TOTAL_FALSE_ALARM / 160


def test_batches_cover_the_total_with_different_keys() -> None:
    batches = list(Context(Key.from_seed(0), "quick", 1e-8).batches(10, 4))
    assert [count for _, count in batches] == [4, 4, 2]
    assert len({key for key, _ in batches}) == 3


REGISTRY = [make_claim(name) for name in ("C1", "S1", "S9.plug-in", "S9.bernstein", "S10")]


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("S1", ["S1"]),
        ("S9", ["S9.plug-in", "S9.bernstein"]),
        ("S9.plug-in", ["S9.plug-in"]),
        ("S", ["S1", "S9.plug-in", "S9.bernstein", "S10"]),
        ("C", ["C1"]),
    ],
)
def test_select_takes_an_id_its_children_or_a_letter(pattern: str, ids: list[str]) -> None:
    assert [claim.id for claim in select(REGISTRY, pattern)] == ids


@pytest.mark.parametrize("pattern", ["S2", "S9.", "S9.plug", "", "X", "plug-in"])
def test_select_refuses_what_is_not_there(pattern: str) -> None:
    with pytest.raises(ValueError, match="there is no claim"):
        select(REGISTRY, pattern)


def test_select_names_the_nearest_ids() -> None:
    with pytest.raises(ValueError, match=r"the nearest are S9\.plug-in"):
        select(REGISTRY, "S9.plugin")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": "s1"}, "id='s1' was given: pass a letter and a number"),
        ({"id": "S1.A"}, "pass a letter and a number"),
        ({"kind": "guess"}, "kind='guess' was given for S1: pass one of identity"),
        ({"statement": "  "}, "statement of claim S1 is empty"),
        ({"wrong": ""}, "wrong of claim S1 is empty"),
    ],
)
def test_a_malformed_claim_is_refused(change: dict[str, str], sentence: str) -> None:
    fields = {"id": "S1", "title": "t", "statement": "s", "source": "s", "kind": "mean", "wrong": "w"} | change
    with pytest.raises(ValueError, match=sentence):
        Claim(**fields, check=partial(measure, observed=0.0), control=partial(measure, observed=1.0))  # type: ignore[arg-type]
