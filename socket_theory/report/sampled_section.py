"""The part of the attention report on sampled values and scores: two charts, their numbers, and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from socket_theory.report.chart import Curve, draw
from socket_theory.report.reading import percent, relation

Row = dict[str, Any]
SAMPLERS = {
    "iid": "independent (iid)",
    "stratified": "stratified",
    "flash": "flash",
    "biased_prop": "prop (biased)",
    "phase_carried": "systematic",
}
# Lee et al., appendix D: another model, 8k question answering.
PAPER_SLOPES = {"iid": -1.1, "stratified": -1.27, "systematic": -1.29}
_TYPICAL = 128


def sampled_section(record: dict[str, Any]) -> dict[str, Any]:
    """Values for the template `sampled.html`, from a record with `sampled_rows` and `variance_curves`."""
    by_sampler = {
        sampler: [{**row, "num_samples": row["settings"]["num_samples"]} for row in _of(record, "santa", sampler)]
        for sampler in SAMPLERS
    }
    errors = [
        Curve(name, [(row["num_samples"], row["relative_error_mean"], row["standard_error"]) for row in rows])
        for name, rows in by_sampler.items()
    ]
    curves = record["variance_curves"]
    variances = [
        Curve(
            "phase_carried" if curve["sampler"] == "systematic" else curve["sampler"],
            [(*pair, None) for pair in zip(curve["num_samples"], curve["relative_variance"], strict=False)],
        )
        for curve in curves
    ]
    return {
        "largest_sampled": max(row["relative_error_mean"] for row in record["sampled_rows"]),
        "by_sampler": by_sampler,
        "sampler_names": SAMPLERS,
        "samplers_chart": draw(errors),
        "variance_chart": draw(variances),
        "paper_slopes": PAPER_SLOPES,
        "sampled_sentences": [*_on_values(record), *_on_variance(curves), *_on_scores(record)],
        "slope": slope,
    }


def slope(value: float | None) -> str:
    """A slope in two decimals with a minus sign; a dash where there is none."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _on_values(record: dict[str, Any]) -> Iterator[str]:
    iid, stratified, flash, prop, systematic = (_typical(_of(record, "santa", sampler)) for sampler in SAMPLERS)
    rows, share = systematic["rows_per_kv_head"], percent(systematic["bytes_share"])
    yield (
        f"Sampled values (SANTA) need every key and few values. With {_TYPICAL} systematic draws a head, a KV head "
        f"reads {rows:.0f} value rows; keys and values are {share} of the bytes of dense attention. The error is "
        f"{_error(systematic)}, {relation(systematic, stratified)} that of stratified draws ({_error(stratified)}) and "
        f"{relation(systematic, iid)} that of independent ones ({_error(iid)})."
    )
    yield (
        f"Flash, with equal budgets for all tiles, has {_error(flash)}, {relation(flash, iid)} independent draws, and "
        f"reads {flash['rows_per_kv_head']:.0f} rows."
    )
    fewest = _of(record, "santa", "biased_prop")[0]
    yield (
        f"Prop, with rounded budgets, has {_error(prop)}, {relation(prop, systematic)} systematic draws. It is biased: "
        f"an average over any number of draws still errs by {percent(prop['relative_bias'])}, with "
        f"{fewest['settings']['num_samples']} draws by {percent(fewest['relative_bias'])}. The others have no bias."
    )


def _on_variance(curves: list[Row]) -> Iterator[str]:
    iid, stratified, systematic = curves
    if None in (iid["slope"], stratified["slope"], systematic["slope"]):
        yield "No head has a variance to fit a slope to."
        return
    yield (
        "The exact variance falls with the number of draws S as S to the power "
        f"{slope(systematic['slope'])} for systematic draws ({_range(systematic)} for eight heads in ten), "
        f"{slope(stratified['slope'])} for stratified ({_range(stratified)}) and {slope(iid['slope'])} for independent "
        "ones, for which it can be no other."
    )


def _on_scores(record: dict[str, Any]) -> Iterator[str]:
    alone = [row for row in record["sampled_rows"] if row["method"] == "bernoulli"]
    middle = sorted({row["settings"]["num_vectors"] for row in alone})[1]
    iid, own, shared = (row for row in alone if row["settings"]["num_vectors"] == middle)
    yield (
        f"Bernoulli scores from {middle} ternary vectors have an error of {_error(own)} when stratified, {_error(iid)} "
        f"when independent, and {_error(shared)} when the heads of a group share a draw. A KV head then reads "
        f"{percent(own['key_share'])}, {percent(iid['key_share'])} and {percent(shared['key_share'])} of its key "
        "features: only what is left of 100 % can be saved, and only where keys are stored feature by feature."
    )
    few, *_, many = (row for row in record["sampled_rows"] if row["method"] == "bernoulli_santa")
    yield (
        f"Sampling the values as well goes from {_error(few)} with {few['settings']['num_samples']} draws to "
        f"{_error(many)} with {many['settings']['num_samples']}, {relation(many, own)} the error of these scores alone."
    )


def _of(record: dict[str, Any], method: str, sampler: str) -> list[Row]:
    return [row for row in record["sampled_rows"] if row["method"] == method and row["settings"]["sampler"] == sampler]


def _typical(rows: list[Row]) -> Row:
    return next(row for row in rows if row["settings"]["num_samples"] == _TYPICAL)


def _range(curve: Row) -> str:
    return f"{slope(curve['slope_p10'])} to {slope(curve['slope_p90'])}"


def _error(row: Row) -> str:
    return percent(row["relative_error_mean"])
