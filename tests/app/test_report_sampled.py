"""The section on sampled values: its sentences and charts follow the numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from socket_theory.evaluate.sampled_attention import NUM_SAMPLES, sampled_field
from socket_theory.report.sampled_section import sampled_section, slope
from socket_theory.santa.bernoulli import Bernoulli, BernoulliSanta
from socket_theory.santa.estimator import Santa

NAMES = {Santa: "santa", Bernoulli: "bernoulli", BernoulliSanta: "bernoulli_santa"}


def record(**errors: float) -> dict[str, Any]:
    """A run in which the error is that of the sampler times 128/S for values, 16/B for scores."""
    error = {"iid": 0.2, "stratified": 0.12, "phase_carried": 0.11, "flash": 0.4, "biased_prop": 0.1} | errors
    rows = []
    for method in sampled_field():
        settings = asdict(method)
        if "sampler" in settings:
            base = error[settings["sampler"]] * 128 / settings["num_samples"]
        else:
            base = {"iid": 0.5, "stratified": 0.14}[settings["query_sampler"]] + 0.01 * settings["shared_query"]
            base *= 16 / settings["num_vectors"]
        rows.append(
            {
                "method": NAMES[type(method)],
                "settings": settings,
                "rows_per_head": 50.0,
                "rows_per_kv_head": 109.0,
                "key_share": 0.97,
                "bytes_share": 0.508,
                "relative_bias": 1 / settings["num_samples"] if method.scoring is None else None,
                "relative_error_mean": base,
                "relative_error_p90": 2 * base,
                "standard_error": 0.001,
            }
        )
    return {
        "sampled_rows": rows,
        "variance_curves": [curve("iid", -1.0), curve("stratified", -1.3), curve("systematic", -1.4)],
    }


def curve(sampler: str, power: float | None) -> dict[str, Any]:
    known = power is not None
    return {
        "sampler": sampler,
        "num_samples": list(NUM_SAMPLES),
        "relative_variance": [samples**power for samples in NUM_SAMPLES] if known else [],
        "slope": power,
        "slope_standard_error": 0.01 if known else None,
        "slope_p10": power - 0.1 if known else None,
        "slope_p90": power + 0.1 if known else None,
        "slope_of_mean": power,
        "heads": 270 if known else 0,
    }


def text(run: dict[str, Any]) -> str:
    return " ".join(sampled_section(run)["sampled_sentences"])


def test_the_sentences_hold_the_numbers_of_the_run() -> None:
    said = text(record())
    assert "With 128 systematic draws a head, a KV head reads 109 value rows" in said
    assert "keys and values are 51 % of the bytes of dense attention" in said
    assert "The error is 11 %, clearly below that of stratified draws (12 %)" in said
    assert "clearly below that of independent ones (20 %)" in said
    assert "Flash, with equal budgets for all tiles, has 40 %, clearly above independent draws" in said
    assert "still errs by 0.78 %, with 32 draws by 3.1 %" in said
    assert "to the power −1.40 for systematic draws (−1.50 to −1.30 for eight heads in ten)" in said
    assert "−1.30 for stratified (−1.40 to −1.20) and −1.00 for independent ones" in said
    assert "from 16 ternary vectors have an error of 14 % when stratified, 50 % when independent, and 15 %" in said
    assert "goes from 44 % with 32 draws to 1.4 % with 1024, clearly below the error of these scores alone" in said


def test_other_numbers_give_other_sentences() -> None:
    said = text(record(phase_carried=0.3, flash=0.2, biased_prop=0.299))
    assert "The error is 30 %, clearly above that of stratified draws" in said
    assert "has 20 %, not clearly apart from independent draws" in said
    assert "has 30 %, not clearly apart from systematic draws" in said


def test_without_a_slope_the_sentence_says_so() -> None:
    run = record() | {"variance_curves": [curve(name, None) for name in ("iid", "stratified", "systematic")]}
    section = sampled_section(run)
    assert "No head has a variance to fit a slope to." in section["sampled_sentences"]
    assert section["variance_chart"] is None


def test_the_variance_falls_on_the_page_as_its_slope_says() -> None:
    """On two logarithmic axes a power is a straight line, twice as steep for twice the exponent."""
    run = record() | {"variance_curves": [curve("iid", -1.0), curve("stratified", -1.0), curve("systematic", -2.0)]}
    chart = sampled_section(run)["variance_chart"]
    drops = {line.name: [place.y for place in places] for line, places in chart.lines}
    assert list(drops) == ["iid", "stratified", "phase_carried"]
    assert drops["phase_carried"][-1] - drops["phase_carried"][0] == pytest.approx(
        2 * (drops["iid"][-1] - drops["iid"][0]), abs=0.3
    )
    steps = [after - before for before, after in zip(drops["iid"], drops["iid"][1:], strict=False)]
    assert max(steps) - min(steps) < 0.3


def test_the_error_chart_has_every_sampler_and_number_of_draws() -> None:
    chart = sampled_section(record())["samplers_chart"]
    assert {line.name: len(places) for line, places in chart.lines} == dict.fromkeys(
        ("iid", "stratified", "flash", "biased_prop", "phase_carried"), len(NUM_SAMPLES)
    )
    assert [tick.value for tick in chart.x_ticks] == list(NUM_SAMPLES)


@pytest.mark.parametrize(("value", "shown"), [(-1.349, "−1.35"), (-1.0, "−1.00"), (None, "–")])
def test_slopes(value: float | None, shown: str) -> None:
    assert slope(value) == shown
