"""One training run: the same batches, optimiser and schedule whatever the attention, and its curve of losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from socket_theory.core.checks import require_count, require_positive
from socket_theory.core.rng import Key
from socket_theory.evaluate.learning.kinds import Kind
from socket_theory.evaluate.learning.model import LanguageModel, ModelSize
from socket_theory.evaluate.learning.text import ALPHABET, Corpus, encode

MOMENTS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
LARGEST_GRADIENT = 1.0
WARMUP = 0.05
LEAST_RATE = 0.1
MEASURED = 8
"""Batches of which a loss is measured."""


@dataclass(frozen=True)
class Plan:
    """`steps` batches of `batch` windows of `context` characters. The loss on the validation text, on eight batches
    that are spread over it, is measured before the first step and after each of `evaluations` equal parts.

    AdamW, with its learning rate raised to `learning_rate` over the first 5 % of the steps and lowered to a tenth of it
    by a cosine; weight decay 0.1 on matrices only, gradients no longer than 1.
    """

    steps: int = 1000
    batch: int = 64
    context: int = 512
    learning_rate: float = 2e-3
    evaluations: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "context", "evaluations"):
            require_count(name, getattr(self, name))
        require_positive("learning_rate", self.learning_rate)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        warm = max(1, round(WARMUP * self.steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * (LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class Run:
    """Curves in nats per character: `training[i]` is the mean over the steps since `steps[i - 1]`, of the first one
    before any; `betas[i]` holds one of each layer that has one."""

    kind: str
    settings: dict[str, Any]
    seed: int
    parameters: int
    steps: list[int] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    betas: list[list[float]] = field(default_factory=list)
    seconds_per_step: float = 0.0


class Windows:
    """Both texts as codes on a device."""

    def __init__(self, corpus: Corpus, context: int, device: Any) -> None:
        self.training, self.validation = (
            torch.from_numpy(encode(text)).to(device) for text in (corpus.training, corpus.validation)
        )
        if min(len(self.training), len(self.validation)) < context + 2:
            raise ValueError(f"context={context} was given for a text of {len(self.validation)} characters: pass less.")
        self._reach = torch.arange(context + 1, device=device)

    @property
    def context(self) -> int:
        return len(self._reach) - 1

    def cut(self, text: Any, starts: Any) -> tuple[Any, Any]:
        """Characters [B, context] from `starts`, and those that follow each of them."""
        found = text[starts[:, None] + self._reach].long()
        return found[:, :-1], found[:, 1:]


def train(
    kind: Kind,
    seed: int,
    size: ModelSize,
    plan: Plan,
    windows: Windows,
    *,
    on_evaluation: Callable[[], None] = lambda: None,
) -> Run:
    """Train one model on the device that the windows lie on: in bfloat16 by autocast on a GPU, in float32 on a CPU.

    The seed draws the weights, RACE's planes and the batches, each for itself, so kinds differ in their attention only.

    Raises
    ------
    ValueError
        If a loss is not a finite number.
    """
    device, key = windows.training.device, Key.from_seed(seed)
    model = LanguageModel(
        len(ALPHABET) + 1, size, lambda layer: kind.attention(size.head_dim, key.fold_in("layer", layer)), seed
    ).to(device)
    optimiser = torch.optim.AdamW(_groups(model), lr=plan.learning_rate, betas=MOMENTS)
    draw = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(windows.training) - windows.context, (plan.steps, plan.batch), generator=draw).to(device)
    run = Run(kind.name, asdict(kind), seed, sum(weights.numel() for weights in model.parameters()))
    seconds = []
    for first, stop in _parts(plan):
        begin, losses = perf_counter(), torch.zeros((), device=device)
        for step in range(first, stop):
            for group in optimiser.param_groups:
                group["lr"] = plan.rate(step)
            loss = _loss(model, *windows.cut(windows.training, starts[step]))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
            optimiser.step()
            losses += loss.detach()
        mean = float(losses) / max(1, stop - first)  # waits for the device
        if stop > first:
            seconds.append((perf_counter() - begin) / (stop - first))
        else:
            mean = _measured(model, windows, windows.training, plan)
        run.steps.append(stop)
        run.training.append(mean)
        run.validation.append(_measured(model, windows, windows.validation, plan))
        run.betas.append(
            [float(layer.attention.beta.detach()) for layer in model.blocks if hasattr(layer.attention, "beta")]
        )
        if not math.isfinite(mean + run.validation[-1]):
            raise ValueError(f"the loss of {kind} with seed {seed} is {mean} at step {stop}: lower the learning rate.")
        on_evaluation()
    return Run(**asdict(run) | {"seconds_per_step": median(seconds)})


def _parts(plan: Plan) -> Iterator[tuple[int, int]]:
    """(first, stop) of the steps between measurements; the first part is empty."""
    ends = np.unique(np.linspace(0, plan.steps, plan.evaluations + 1).round().astype(int)).tolist()
    yield from zip([0, *ends], ends, strict=False)


def _groups(model: Any) -> list[dict[str, Any]]:
    matrices = [weights for weights in model.parameters() if weights.ndim == 2]
    others = [weights for weights in model.parameters() if weights.ndim != 2]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


def _loss(model: Any, characters: Any, following: Any) -> Any:
    with torch.autocast(characters.device.type, torch.bfloat16, enabled=characters.device.type != "cpu"):
        logits = model(characters)
    return cross_entropy(logits.float().flatten(0, 1), following.flatten())


@torch.no_grad()  # type: ignore[untyped-decorator]
def _measured(model: Any, windows: Windows, text: Any, plan: Plan) -> float:
    """The mean loss over windows that are spread evenly over a text."""
    last = len(text) - windows.context - 1
    count = min(MEASURED * plan.batch, max(1, (len(text) - 1) // windows.context))
    starts = torch.from_numpy(np.linspace(0, last, count).astype(np.int64)).to(text.device)
    total = sum(float(_loss(model, *windows.cut(text, part))) * len(part) for part in starts.split(plan.batch))
    return total / count
