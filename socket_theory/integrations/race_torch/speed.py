"""How fast RACE attention trains on a CPU, and in how much memory.

`python -m socket_theory.integrations.race_torch.speed 131072` measures with that many tokens, in a fresh process.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from socket_theory.core.hashing import SignHash
from socket_theory.core.rng import Key
from socket_theory.integrations.torch_layers import race_attention

PAPER = {"tokens": 75e6, "cores": 18, "seconds": 100}
"""RACE's report of one layer of 4 heads, d = 128, forward and backward, on a Xeon 5220R."""
SQUARE = 2048


@dataclass(frozen=True)
class TrainingSpeed:
    """One forward and one backward pass, no projections, as the fastest of a few rounds.

    seconds : forward, backward; cores : threads of torch; operations : of the matrix products; sgemm : operations a
    second of a product of 2048 x 2048 matrices, the best of the same rounds; peak_bytes : above what was there before
    the tensors, in the first round; tensor_bytes : queries, keys, values, outputs and the gradients of all four.
    """

    tokens: int
    causal: bool
    cores: int
    seconds: tuple[float, float]
    operations: float
    sgemm: float
    peak_bytes: int
    tensor_bytes: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / sum(self.seconds)

    @property
    def share_of_sgemm(self) -> float:
        """Operations a second of the matrix products alone, by those of sgemm; other work counts as lost time."""
        return self.operations / sum(self.seconds) / self.sgemm

    @property
    def memory_ratio(self) -> float:
        return self.peak_bytes / self.tensor_bytes

    @property
    def extrapolated_seconds(self) -> float:
        """For the paper's tokens on the paper's number of cores like these, if both scale linearly."""
        return PAPER["tokens"] / (self.tokens_per_second * PAPER["cores"] / self.cores)

    def __str__(self) -> str:
        forward, backward = self.seconds
        return "\n".join(
            [
                f"{self.tokens} tokens, {'causal' if self.causal else 'non-causal'}, on {self.cores} cores: "
                f"forward {forward:.2f} s, backward {backward:.2f} s, {self.tokens_per_second / 1e6:.3f} M tokens/s",
                f"sgemm {self.sgemm / 1e9:.0f} GFLOP/s in the same run, of which the matrix products here reach "
                f"{self.share_of_sgemm:.0%}",
                f"peak memory {self.peak_bytes / 2**30:.2f} GiB, {self.memory_ratio:.2f} times inputs, outputs and "
                f"gradients ({self.tensor_bytes / 2**30:.2f} GiB)",
                f"extrapolated, not measured: {PAPER['tokens'] / 1e6:.0f}M tokens on {PAPER['cores']} cores like these "
                f"in {self.extrapolated_seconds:.0f} s, if time is linear in tokens and in cores; the paper "
                f"reports about {PAPER['seconds']} s on a Xeon 5220R",
            ]
        )


def measure_training(
    tokens: int,
    causal: bool = False,
    *,
    rounds: int = 3,
    num_heads: int = 4,
    head_dim: int = 128,
    num_planes: int = 4,
    num_tables: int = 4,
) -> TrainingSpeed:
    """Time and memory of `race_attention` in float32 on the CPU, with gradients of queries, keys, values and beta.

    Linux only: the peak is the kernel's record of resident memory, which is set back before the tensors are made.
    """
    draws = torch.Generator().manual_seed(0)
    planes = torch.tensor(SignHash(num_tables, num_planes, head_dim).draw(Key.from_seed(0)).weights).float()
    beta = torch.tensor(2.0, requires_grad=True)
    square = torch.randn(SQUARE, SQUARE, generator=draws)

    def heads(count: int) -> Any:
        return torch.randn(num_heads, count, head_dim, generator=draws)

    def run(query: Any, keys: Any, values: Any, above: Any) -> tuple[float, float]:
        leaves = [tensor.requires_grad_() for tensor in (query, keys, values)]
        start = perf_counter()
        value = race_attention(query, keys, values, planes, beta, causal)
        between = perf_counter()
        torch.autograd.grad(value, [*leaves, beta], above)
        return between - start, perf_counter() - between

    def sgemm() -> float:
        start = perf_counter()
        torch.mm(square, square)
        return 2 * SQUARE**3 / (perf_counter() - start)

    run(*(heads(256) for _ in range(4))), sgemm()
    before = _reset_peak()
    tensors = [heads(tokens) for _ in range(4)]
    found = [(run(*tensors), sgemm())]
    peak = _resident("VmHWM") - before
    found += [(run(*tensors), sgemm()) for _ in range(rounds - 1)]
    size = num_tables * (2**num_planes + num_planes) * head_dim
    return TrainingSpeed(
        tokens=tokens,
        causal=causal,
        cores=torch.get_num_threads(),
        seconds=min((seconds for seconds, _ in found), key=sum),
        operations=12.0 * num_heads * tokens * size,
        sgemm=max(rate for _, rate in found),
        peak_bytes=peak,
        tensor_bytes=8 * tensors[0].nbytes,
    )


def _reset_peak() -> int:
    """Bytes resident now, from which the peak counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(entry: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry + ":"))


if __name__ == "__main__":
    print(measure_training(int(sys.argv[1]) if len(sys.argv) > 1 else 2**18))
