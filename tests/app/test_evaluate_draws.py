"""An evaluation draws anew at each position and trial, and judges outputs before they are rounded."""

from __future__ import annotations

import numpy as np
import pytest

from socket_theory import Dense, HardLSH, Key, Santa
from socket_theory.core.selection import Budget
from socket_theory.evaluate import ranking
from socket_theory.evaluate.accuracy import measure_layer
from socket_theory.evaluate.capture import Capture
from socket_theory.evaluate.contenders import Contender
from socket_theory.evaluate.replayed_step import MEASURES
from socket_theory.evaluate.sampled_attention import measure_layer as measure_sampled

KEY = Key.from_seed(4)
DRAW = KEY.generator()
Q, K, V = DRAW.normal(size=(4, 1, 8)), DRAW.normal(size=(2, 40, 8)), DRAW.normal(size=(2, 40, 8))


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_no_array_of_a_capture_holds_nan(name: str) -> None:
    given = {"q": Q[None].copy(), "k": K[None].copy(), "v": V[None].copy()}
    given[name][0, 0, 0, 3] = np.nan
    with pytest.raises(ValueError, match=f"{name} contains NaN or infinity"):
        Capture(**given, positions=np.array([39]))


def test_an_output_is_judged_before_it_is_rounded_to_the_query_dtype() -> None:
    field = [Contender("dense", Dense())]
    measured, _ = measure_layer(Q.astype(np.float32), K, V, np.array([39]), field, Budget(tokens=4), KEY)
    assert measured[..., -1].max() < 1e-12


def test_each_position_has_a_draw_of_its_own() -> None:
    """Tokens between the two positions weigh nothing, so the law is the same at both."""
    keys = K.copy()
    keys[:, 30:] = 0
    keys[:, 30:, 0] = -1e4
    query = np.abs(np.repeat(Q, 2, axis=1))
    measured, _ = measure_sampled(query, keys, V, np.array([29, 39]), [Santa(9, "iid")], KEY)
    error = measured[0, ..., MEASURES.index("relative_error")]
    assert (np.abs(error[:, 0] - error[:, 1]) > 1e-9).all()


def test_each_trial_of_a_ranking_has_planes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    scores_of = ranking.scores_of
    monkeypatch.setattr(ranking, "scores_of", lambda *given: seen.append(given[2].sample) or scores_of(*given))
    size = ranking.RankingSize(num_keys=20, head_dim=4, num_trials=2, num_queries=1)
    for trial in range(3):
        ranking.run_trial([HardLSH(2, 3)], [5], size, KEY.fold_in("trial", trial))
    assert len({planes.weights.tobytes() for planes in seen}) == 3
