"""Methods that rank tokens, keep the best and attend to those exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from socket_theory.core.estimate import Outcome
from socket_theory.core.method import Method
from socket_theory.core.step import Step


@dataclass(frozen=True)
class Selector(Method, abstract=True):
    """A method that gives `scores`: the budget's tokens with the largest get exact softmax attention.

    Without a budget everything is kept, and the step is dense attention.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"sm_scale", "budget"})

    def scores(self, step: Step) -> Any:
        """What tokens are ranked by, the largest first: all that a selecting method of your own has to define.

        It returns floats [B, Hq, N] in the array type of `step.query` [B, Hq, D]; `step.rows.keys` is [B, Hkv, N, D].
        They are ranked in float32. Slots outside the valid ones are not looked at; NaN inside is refused.
        """
        raise NotImplementedError(f"{type(self).__name__} must define scores.")

    def captured_mass(self, step: Step, lse: Any) -> Any | None:
        """Exact softmax mass of the kept tokens [B, Hq], where the method knows it."""
        return None

    def step(self, step: Step) -> Outcome:
        if step.budget is None:
            used = step.everything()
        else:
            scores = step.checked_scores(self.scores(step))
            used = step.backend.select(scores, step.rows.kv_range, step.budget, step.rows.shape[1])
        value, lse = step.backend.attend(step.query, step.rows, used, step.sm_scale)
        return Outcome(value, lse, used, captured_mass=self.captured_mass(step, lse))
