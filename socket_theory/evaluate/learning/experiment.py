"""The experiment: every kind of attention with every seed, at equal budget, and the record of what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError(f"training needs an extra ({error}): pip install 'socket-theory[torch]'.") from error

from socket_theory.core.checks import require_count
from socket_theory.evaluate.learning.gate import require_right
from socket_theory.evaluate.learning.kinds import Angular, Kind, Race, Softmax
from socket_theory.evaluate.learning.model import ModelSize
from socket_theory.evaluate.learning.text import Corpus
from socket_theory.evaluate.learning.train import Plan, Run, Windows, train

SCHEMA = 1
Start = Callable[[str, int], Callable[[], None]]


def kinds_of(num_planes: int, num_tables: Sequence[int], beta: float) -> list[Kind]:
    """RACE with each number of tables, what it estimates, and softmax."""
    race = [Race(num_planes, tables, beta) for tables in num_tables]
    return [*race, Angular(float(require_count("num_planes", num_planes))), Softmax()]


def device_to_train_on() -> Any:
    """A GPU if torch has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: Any) -> str:
    """Whose name a result bears."""
    return (
        str(torch.cuda.get_device_name(device))
        if device.type == "cuda"
        else f"CPU (threads: {torch.get_num_threads()})"
    )


def trained(
    corpus: Corpus,
    kinds: Sequence[Kind],
    seeds: Sequence[int],
    size: ModelSize,
    plan: Plan,
    device: Any,
    start: Start = lambda sentence, total: lambda: None,
) -> Iterator[Run]:
    """A run of each kind with the first seed, then with the next one.

    Before the first of them every kind is checked on this device, by `require_right`. `start(sentence, total)` is
    called before a run, and what it returns after each of its `total` evaluations.

    Raises
    ------
    ValueError
        If a kind is not right on this device, a loss is not finite, or the text is too short.
    """
    windows = Windows(corpus, plan.context, device)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    for kind in kinds:
        require_right(kind, size.head_dim, plan.context, device, dtype)
    for seed in seeds:
        for kind in kinds:
            advance = start(f"training {kind}, seed {seed}, on {device_name(device)}", plan.evaluations + 1)
            yield train(kind, seed, size, plan, windows, on_evaluation=advance)


def record(corpus: Corpus, size: ModelSize, plan: Plan, device: Any, runs: Sequence[Run]) -> dict[str, Any]:
    """What a result says of its text, model, training and device, and its runs."""
    return {
        "schema": SCHEMA,
        "device": device_name(device),
        "precision": "float32" if device.type == "cpu" else "bfloat16 by autocast",
        "text": corpus.record(),
        "model": asdict(size),
        "training": asdict(plan) | {"tokens": plan.steps * plan.batch * plan.context},
        "runs": [asdict(run) for run in runs],
    }
