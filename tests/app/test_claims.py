"""Every claim of the registry: its check holds, and its control, a wrong variant, is rejected by the same check."""

import re

import pytest

from socket_theory.claims.registry import CLAIMS, run_by_id
from socket_theory.core.claim import TOTAL_FALSE_ALARM, Claim, Context
from socket_theory.core.rng import Key

STATISTICAL = {"mean", "tail"}
PARAMETERS = [
    pytest.param(claim, id=claim.id, marks=[pytest.mark.statistical] if claim.kind in STATISTICAL else [])
    for claim in CLAIMS
]


@pytest.mark.parametrize("claim", PARAMETERS)
def test_claim_holds_and_its_control_is_rejected(claim: Claim) -> None:
    result = run_by_id(claim.id, Key.from_seed(0), "quick")
    measured, control = result.measurement, result.control
    assert measured.holds, f"{claim.statement} Observed {measured.observed:g}, allowed {measured.allowed:g}."
    assert control.rejects, f"{claim.wrong}: observed {control.observed:g} is within {control.allowed:g}."


def test_ids_are_unique_and_well_formed() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Z]\d+(\.[a-z0-9-]+)?", name) for name in ids)


@pytest.mark.parametrize("family", ["C", "N", "R", "S"])
def test_families_are_complete(family: str) -> None:
    numbers = {int(claim.id[1:].split(".")[0]) for claim in CLAIMS if claim.id[0] == family}
    assert numbers == set(range(1, max(numbers) + 1))


def test_a_number_is_either_one_claim_or_all_children() -> None:
    ids = {claim.id for claim in CLAIMS}
    assert not {name for name in ids if "." in name and name.split(".")[0] in ids}


def test_every_claim_says_what_it_states_where_from_and_what_would_be_wrong() -> None:
    for claim in CLAIMS:
        assert len(claim.statement.split()) >= 5, claim.id
        assert claim.source.strip(), claim.id
        assert claim.wrong.strip(), claim.id


def test_false_alarms_of_a_whole_run_stay_within_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {}

    def note(claim: Claim, key: Key, effort: str, claims_in_run: int) -> None:
        shares[claim.id] = TOTAL_FALSE_ALARM / claims_in_run

    monkeypatch.setattr("socket_theory.claims.registry.run", note)
    for claim in CLAIMS:
        run_by_id(claim.id, Key.from_seed(0), "quick")
    assert set(shares) == {claim.id for claim in CLAIMS}
    assert sum(shares.values()) <= 1e-6 * (1 + 1e-12)


def test_a_result_depends_on_the_key_alone() -> None:
    first, again = (run_by_id("S3", Key.from_seed(7), "quick") for _ in range(2))
    assert (first.measurement, first.control) == (again.measurement, again.control)
    assert run_by_id("S3", Key.from_seed(8), "quick").measurement != first.measurement


def test_contexts_of_one_claim_spend_its_false_alarm_once() -> None:
    context = Context(Key.from_seed(0), "quick", 1e-8)
    parts = context.split("a", "b", "c")
    assert sum(part.false_alarm for part in parts) == pytest.approx(1e-8)
    assert len({part.key for part in (*parts, context)}) == 4
