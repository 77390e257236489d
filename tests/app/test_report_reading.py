"""The sentences on real attention follow the numbers, not the other way round."""

from __future__ import annotations

from typing import Any

import pytest

from socket_theory.evaluate.contenders import Contender, socket_grid
from socket_theory.report.reading import percent, reading, relation


def row(
    method: str, error: float, *, settings: dict[str, Any] | None = None, density: float = 0.05, bits: int = 600
) -> dict[str, Any]:
    return {
        "method": method,
        "settings": settings or {},
        "nominal_bits": bits,
        "density": density,
        "relative_error_mean": error,
        "standard_error": 0.01,
    }


def record(**errors: float) -> dict[str, Any]:
    """A run in which SOCKET's error is `plain`, `weighted` with value_weight, `centred` more with center_keys."""
    error = {"oracle_top_k": 0.05, "window": 0.4, "random": 0.5, "hard_lsh": 0.2, "socket_sampling": 1.35, **errors}
    plain, weighted, centred = (
        error.pop(name, value) for name, value in (("plain", 0.1), ("weighted", 0.45), ("centred", 0.0))
    )
    socket = [
        row(
            "socket",
            (weighted if method.value_weight else plain) + centred * method.center_keys,
            settings=Contender("socket", method).settings,
        )
        for method in socket_grid()
    ]
    curves = ("oracle_top_k", "window", "hard_lsh", "socket_released", "socket_best")
    return {
        "rows": [*(row(name, value) for name, value in error.items()), *socket],
        "by_density": [row(name, 0.01 / density, density=density) for density in (0.02, 0.1, 0.2) for name in curves],
        "by_bits": [row(name, 60 / bits, bits=bits) for bits in (80, 150, 600) for name in curves[2:]],
    }


def test_the_sentences_hold_the_numbers_of_the_run() -> None:
    text = " ".join(reading(record()))
    assert "leaves a mean error of 5 %" in text
    assert "The best of 24 SOCKET settings, tanh_scaled τ=0.3, has 10 %, 2 times the oracle's." in text
    assert "Hard LSH with 600 bits a token has 20 %, the latest tokens (window) 40 %, random ones 50 %." in text
    assert "SOCKET as released (tanh_scaled τ=0.4 ×|v|) has 45 %" in text
    assert "Weighing scores by |v| raises the error in 12 of 12 pairs" in text
    assert "the mean change is +35.0 points" in text
    assert "Centring keys raises the error in 0 of 12 pairs" in text
    assert "SOCKET sampling has 135 %" in text
    assert "Going from 2 % to 20 % of the tokens takes the oracle from 50 % to 5 %" in text
    assert (
        "With 80 bits a token in place of 600, the best SOCKET has 75 % in place of 10 %, clearly above hard LSH"
        in text
    )


def test_other_numbers_give_other_sentences() -> None:
    text = " ".join(reading(record(weighted=0.06, centred=-0.02, oracle_top_k=0.0)))
    assert "Weighing scores by |v| raises the error in 0 of 12 pairs" in text
    assert "the mean change is −4.0 points" in text
    assert "the mean change is −2.0 points" in text
    assert "times the oracle's" not in text
    assert "has 6 %, clearly below the window and clearly below random tokens" in text


def test_nothing_is_compared_where_no_score_decides() -> None:
    run = record()
    for name in ("rows", "by_density", "by_bits"):
        run[name] = [each | {"forced_only": 1.0} for each in run[name]]
    (sentence,) = reading(run)
    assert sentence.startswith("The budget leaves scores no choice at any position")
    run["by_density"] = record()["by_density"]
    _, densities = reading(run)
    assert densities.startswith("Going from 2 % to 20 %")


def test_positions_without_a_choice_among_others_are_told() -> None:
    run = record()
    run["rows"] = [each | {"forced_only": 0.25} for each in run["rows"]]
    first, densities = reading(run)
    assert first.startswith("At 25 % of the positions the budget leaves scores no choice")
    assert densities.startswith("Going from 2 % to 20 %")


@pytest.mark.parametrize(
    ("error", "standard_error", "words"),
    [
        (0.5, 0.01, "clearly above"),
        (0.3, 0.01, "clearly below"),
        (0.42, 0.01, "not clearly apart from"),
        (0.5, None, "with no standard error to judge it by, beside"),
    ],
)
def test_a_relation_needs_two_standard_errors(error: float, standard_error: float | None, words: str) -> None:
    assert relation({**row("a", error), "standard_error": standard_error}, row("b", 0.4)) == words


@pytest.mark.parametrize(("value", "shown"), [(0.0554, "5.5 %"), (0.2, "20 %"), (0.0, "0 %"), (1.349, "135 %")])
def test_percentages(value: float, shown: str) -> None:
    assert percent(value) == shown
