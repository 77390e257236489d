"""The runs of a record by their attention: final losses, their spread over the seeds, and distances to softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """One kind of attention. `final` has the last validation loss of each seed, in nats per character, and `above` what
    it is above softmax with the same seed; `betas` is the least and the largest that was learned."""

    name: str
    runs: tuple[Record, ...]
    final: tuple[float, ...]
    above: tuple[float, ...]
    betas: tuple[float, float] | None
    seconds_per_step: float

    @property
    def mean(self) -> float:
        return fmean(self.final)

    @property
    def bits(self) -> float:
        """The mean in bits per character."""
        return self.mean / math.log(2)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for one seed."""
        return deviation(self.final)

    @property
    def mean_above(self) -> float | None:
        """Mean of `above`; None where no seed has both, and for softmax itself."""
        return fmean(self.above) if self.above else None

    def curve(self, name: str) -> tuple[list[float], list[float], list[float]]:
        """Mean, least and largest of the seeds' losses at each evaluation; `name` is "training" or "validation"."""
        losses = list(zip(*(run[name] for run in self.runs), strict=True))
        return [fmean(at) for at in losses], [min(at) for at in losses], [max(at) for at in losses]


def deviation(values: tuple[float, ...]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def name_of(run: Record) -> str:
    """What a kind of attention is called in tables and figures."""
    settings = run["settings"]
    if run["kind"] == "race":
        return f"RACE, P={settings['num_planes']}, L={settings['num_tables']}"
    return f"angular, γ={settings['gamma']:g}" if run["kind"] == "angular" else str(run["kind"])


def summaries(record: Record) -> list[Summary]:
    """One for each kind of attention, in the order of the record."""
    softmax = {run["seed"]: run["validation"][-1] for run in record["runs"] if run["kind"] == "softmax"}
    found = []
    for name in dict.fromkeys(map(name_of, record["runs"])):
        runs = tuple(run for run in record["runs"] if name_of(run) == name)
        others = [run for run in runs if run["kind"] != "softmax" and run["seed"] in softmax]
        betas = [beta for run in runs for beta in run["betas"][-1]]
        found.append(
            Summary(
                name=name,
                runs=runs,
                final=tuple(run["validation"][-1] for run in runs),
                above=tuple(run["validation"][-1] - softmax[run["seed"]] for run in others),
                betas=(min(betas), max(betas)) if betas else None,
                seconds_per_step=median(run["seconds_per_step"] for run in runs),
            )
        )
    return found
