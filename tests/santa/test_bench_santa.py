"""The measurement of a SANTA step, the reference in the place of the kernels: what it reports, and what it stops at."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from socket_gpu.bench import stages
from socket_gpu.bench.byte_model import santa_bytes
from socket_gpu.bench.clock import Timing
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.inputs import QUERIES, Inputs
from socket_gpu.bench.shape import SEED, Shape
from socket_gpu.core.backend import CupyBackend
from socket_gpu.santa import bench_step as santa_step
from socket_gpu.santa.plan import SantaPlan
from socket_theory import Key, Santa
from socket_theory.core.attention import attention_logits
from socket_theory.core.checks import bfloat16
from socket_theory.core.rng import uniform
from socket_theory.santa.tiles import flash_budgets, tiled_counts

SHAPE = Shape(2, 4, 2, 600, head_dim=64)
METHODS = [Santa(40), Santa(40, "flash", 64)]


class NumpyUnderCupysName(ModuleType):
    asnumpy = staticmethod(np.asarray)

    def __getattr__(self, name):
        return getattr(np, name)


class FakeClock:
    """Counts a microsecond for every stage that a launch runs, and leaves its work done."""

    def time(self, launch, *, before=lambda run: None, after=lambda: None):
        for run in range(3):
            before(run)
            start = ReferencePlan.stages_run
            launch()
            taken = float(ReferencePlan.stages_run - start)
            after()
        return Timing.of([taken] * 3)


class ReferencePlan(SantaPlan):
    """The plan as it is, its two stages made of the reference."""

    stages_run = 0

    def _score(self, query):
        ReferencePlan.stages_run += 1
        for row, (sequence, head) in enumerate(np.ndindex(query.shape[:2])):
            logits = attention_logits(query[sequence, head], self.cache.keys[sequence, head // self.group])
            self.scores[row, : self.slots] = logits / np.log(2)

    def _draw(self):
        ReferencePlan.stages_run += 1
        for row, (sequence, head) in enumerate(np.ndindex(self.value.shape[:2])):
            uniforms = self.offsets(row, self.method.num_uniforms(self.slots))
            scores = self.scores[row, : self.slots].astype(np.float64)
            weights, values = np.exp2(scores - scores.max()), self.cache.values[sequence, head // self.group]
            drawn = self.tokens(weights, uniforms)
            self.draws[sequence, head] = -1
            self.draws[sequence, head, : len(drawn)] = drawn
            self.value[sequence, head] = self.method.draws(weights, uniforms) @ values.astype(np.float64)
            self.lse[sequence, head] = np.log(2) * (scores.max() + np.log2(weights.sum()))
        self.steps += np.uint64(1)

    def offsets(self, row, count):
        return uniform(self.key, (row << 32) + np.arange(count), int(self.steps[row]))

    def tokens(self, weights, uniforms):
        if self.method.sampler == "flash":
            budgets = flash_budgets(len(uniforms), self.method.num_samples)
            counts = tiled_counts(weights, self.method.tile_len, budgets, uniforms)
        else:
            counts = np.rint(self.method.num_samples * self.method.draws(weights, uniforms)).astype(int)
        return np.repeat(np.arange(len(weights)), counts)


class StaleQuery(ReferencePlan):
    def _score(self, query):
        self.first = getattr(self, "first", query.copy())
        super()._score(self.first)


class WrongScale(ReferencePlan):
    def _score(self, query):
        super()._score((1.01 * query.astype(np.float64)).astype(query.dtype))


class OneOffset(ReferencePlan):
    """The released kernels' seed: the same offset at every step."""

    def offsets(self, row, count):
        return uniform(self.key, (row << 32) + np.arange(count), 0)


class SharedOffset(ReferencePlan):
    def offsets(self, row, count):
        return super().offsets(0, count)


class StuckSteps(ReferencePlan):
    def _draw(self):
        super()._draw()
        self.steps -= np.uint64(1)


class LateSteps(ReferencePlan):
    """Counts two steps of one head in a launch after the first."""

    def _draw(self):
        super()._draw()
        self.steps[3] += np.uint64(self.steps[0] == 2)


class NextToken(ReferencePlan):
    def tokens(self, weights, uniforms):
        return np.minimum(super().tokens(weights, uniforms) + 1, len(weights) - 1)


class LostDraw(ReferencePlan):
    def _draw(self):
        super()._draw()
        self.draws[1, 3, -1] = -1


class OtherHead(ReferencePlan):
    def _draw(self):
        super()._draw()
        self.value[...] = self.value[:, ::-1].copy()


class OneDrawTooMany(ReferencePlan):
    """An average over S draws divided by S - 1."""

    def _draw(self):
        super()._draw()
        self.value[...] = self.value * np.float32(40 / 39)


class WrongLse(ReferencePlan):
    def _draw(self):
        super()._draw()
        self.lse += np.float32(2e-4)


class Unwritten(ReferencePlan):
    def _draw(self):
        before = self.value[0, 1].copy()
        super()._draw()
        self.value[0, 1] = before


class Reported(ReferencePlan):
    def check(self):
        raise RuntimeError("an output is not finite.")


@pytest.fixture
def inputs():
    draw = Key.from_seed(5).generator()
    rows = (2, SHAPE.batch, SHAPE.num_kv_heads, SHAPE.kv_len, SHAPE.head_dim)
    keys, values = draw.standard_normal(rows).astype(bfloat16())
    queries = draw.standard_normal((QUERIES, SHAPE.batch, SHAPE.num_qo_heads, SHAPE.head_dim)).astype(bfloat16())
    return Inputs(keys, values, queries)


@pytest.fixture(autouse=True)
def numpy_kernels(monkeypatch):
    prepare = Santa.prepare
    monkeypatch.setitem(sys.modules, "cupy", NumpyUnderCupysName("cupy"))
    monkeypatch.setattr("socket_gpu.core.backend.missing_requirement", lambda: None)
    monkeypatch.setattr("socket_gpu.santa.draw.shared_memory_limit", lambda: 227 * 1024)
    monkeypatch.setattr("socket_gpu.santa.draw.multiprocessors", lambda: 132)
    for module in ("plan", "rows"):
        monkeypatch.setattr(f"socket_gpu.core.{module}.checked", lambda name, array, *_, **__: array)
    monkeypatch.setattr("socket_gpu.core.rows._is_readable", lambda array: True)
    for module in ("core.plan", "santa.plan"):
        monkeypatch.setattr(f"socket_gpu.{module}.settle", lambda: None)
    monkeypatch.setattr(Santa, "prepare", lambda *arguments: prepare(*arguments, backend=CupyBackend()))
    for module in (santa_step, stages):
        monkeypatch.setattr(module, "capture", lambda work: work)


def measure(inputs, monkeypatch, plan=ReferencePlan, method=METHODS[0]):
    monkeypatch.setattr(santa_step, "SantaPlan", plan)
    return santa_step.measure_santa(inputs, SHAPE, method, FakeClock())


class Recorded(ReferencePlan):
    """Keeps the draws of every step by the step's number."""

    def _draw(self):
        step = int(self.steps[0])
        super()._draw()
        Recorded.last = step, self.draws.copy()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.sampler)
def test_a_correct_step_gives_a_row_of_what_it_drew(inputs, monkeypatch, method):
    row = measure(inputs, monkeypatch, Recorded, method)
    assert row.timing.us == 2
    assert row.stage_us == {"score": 1, "draw": 1}
    step, draws = Recorded.last
    # One eager run, three timed ones, three for the stages, two replays of the liveness check.
    assert step == 8
    distinct = [len(set(head.tolist()) - {-1}) for head in draws.reshape(8, -1)]
    assert row.kept_tokens == round(np.mean(distinct))
    unions = [len(set(pair.ravel().tolist()) - {-1}) for pair in draws.reshape(4, -1)]
    assert sum(unions) < sum(distinct)
    one = inputs.keys[0, 0, 0].nbytes
    assert row.bytes == inputs.keys.nbytes + sum(unions) * one == santa_bytes(SHAPE, sum(unions))
    expected = {"num_samples": 40, "sampler": method.sampler, "tile_len": method.tile_len, "seed": SEED}
    assert row.settings == expected
    assert (row.method, row.nominal_bits, row.bits_per_token, row.misses) == ("santa", 0, 0, None)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.sampler)
@pytest.mark.parametrize(
    ("defect", "sentence"),
    [
        (StaleQuery, "scores of sequence"),
        (WrongScale, "scores of sequence"),
        (OneOffset, "draws of sequence .* are other tokens"),
        (SharedOffset, "draws of sequence .* are other tokens"),
        (StuckSteps, "does not count as one step"),
        (LateSteps, "does not count as one step"),
        (NextToken, "draws of sequence .* are other tokens"),
        (LostDraw, "tokens are to be drawn"),
        (OtherHead, "output of sequence"),
        (OneDrawTooMany, "output of sequence"),
        (WrongLse, "the lse of sequence"),
        (Unwritten, "NaN"),
        (Reported, "an output is not finite"),
    ],
)
def test_a_defect_ends_in_the_gate(inputs, monkeypatch, defect, sentence, method):
    with pytest.raises(GateError, match=sentence):
        measure(inputs, monkeypatch, defect, method)


def test_a_graph_that_draws_what_it_drew_at_capture_ends_in_the_gate(inputs, monkeypatch):
    """The offset is baked in: draws, value and lse come back at every replay, and even the steps are counted."""
    plans = []

    class Kept(ReferencePlan):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            plans.append(self)

    def baked(work):
        plan = plans[0]
        kept = {name: getattr(plan, name).copy() for name in ("draws", "value", "lse")}

        def replay():
            work()
            for name, array in kept.items():
                getattr(plan, name)[...] = array

        return replay

    monkeypatch.setattr(santa_step, "capture", baked)
    with pytest.raises(GateError, match="other tokens"):
        measure(inputs, monkeypatch, Kept)


def test_a_replay_that_differs_from_an_eager_run_ends_in_the_gate(inputs, monkeypatch):
    """Also in a row that is not among the sampled ones."""
    plans = []

    class Kept(ReferencePlan):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            plans.append(self)

    def shifted(work):
        def replay():
            work()
            plans[0].draws[0, 1] += 1

        return replay

    monkeypatch.setattr(santa_step, "capture", shifted)
    with pytest.raises(GateError, match="other tokens than an eager run"):
        measure(inputs, monkeypatch, Kept)


def test_replays_have_to_draw_anew(inputs, monkeypatch):
    """Told by the liveness check alone: the gate of each run is away, and the eager plan repeats itself too."""
    monkeypatch.setattr(santa_step, "checked_run", lambda plan, query, run: run())
    with pytest.raises(GateError, match="two replays of the graph draw the same tokens"):
        measure(inputs, monkeypatch, OneOffset)
