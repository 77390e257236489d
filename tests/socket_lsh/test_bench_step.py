"""The measurement of a step, with NumPy in the place of the kernels: what it reports, and which defects it stops at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from socket_gpu.bench import stages
from socket_gpu.bench.byte_model import socket_bytes
from socket_gpu.bench.clock import Timing
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.inputs import QUERIES, Inputs
from socket_gpu.bench.shape import Shape
from socket_gpu.socket_lsh import bench_step as socket_step
from socket_gpu.socket_lsh.cases import RELEASED, Setting
from socket_gpu.socket_lsh.codes import CodeLayout
from socket_theory import Budget, Key, Socket
from socket_theory.core.checks import bfloat16
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.socket_lsh.operations import NumpyOperations

SHAPE = Shape(2, 4, 2, 320, head_dim=32)
LAYOUT = CodeLayout(60, 10)


SMALL = Budget(tokens=40, sink=8, window=8)


class FakeClock:
    """Counts a microsecond for every stage that a launch runs, and leaves its work done."""

    def time(self, launch, *, before=lambda run: None, after=lambda: None):
        for run in range(3):
            before(run)
            start = NumpyPlan.stages_run
            launch()
            taken = float(NumpyPlan.stages_run - start)
            after()
        return Timing.of([taken] * 3)


class NumpyPlan:
    """A decode plan made of the reference."""

    stages_run = 0

    def __init__(self, cache, *, num_qo_heads, budget):
        self.cache, self.budget = cache, budget
        batch, _, slots, dim = cache.keys.shape
        self.scores = np.empty((batch, num_qo_heads, slots), np.float32)
        self.indices = np.empty((batch, num_qo_heads, budget.kept(slots)), np.int32)
        self.value = np.empty((batch, num_qo_heads, dim), bfloat16())
        self.lse = np.empty((batch, num_qo_heads), np.float32)
        self.searches, self.known = np.zeros(batch * num_qo_heads, np.uint32), False

    def forget(self):
        self.known = False

    def stages(self, query):
        return {"score": lambda: self.score(query), "select": self.select, "attend": lambda: self.attend(query)}

    def run(self, query):
        for launch in self.stages(query).values():
            launch()

    def score(self, query):
        NumpyPlan.stages_run += 1
        cache, method = self.cache, self.cache.method
        codes = LAYOUT.unpack(cache.index.arrays["codes"], cache.keys.shape[2])
        settings = (cache.kv_range, cache.sample, method.query_map, method.temperature)
        scores = NumpyOperations().soft_scores(query, codes, *settings)
        norms = cache.index.arrays.get("value_norms")
        self.scores[...] = scores if norms is None else NumpyOperations().weigh_scores(scores, norms)

    def select(self):
        NumpyPlan.stages_run += 1 if self.known else 2
        self.searches[3] += not self.known
        self.known = True
        self.indices[...] = self.cache.backend.select(self.scores, self.cache.kv_range, self.budget, SHAPE.num_kv_heads)

    def attend(self, query):
        NumpyPlan.stages_run += 1
        rows, scale = self.cache.rows, 1 / np.sqrt(query.shape[-1])
        self.value[...], self.lse[...] = self.cache.backend.attend(query, rows, self.indices, scale)

    def check(self):
        pass


class StaleQuery(NumpyPlan):
    def score(self, query):
        self.first = getattr(self, "first", query.copy())
        super().score(self.first)


class WrongMap(NumpyPlan):
    def score(self, query):
        super().score((query.astype(np.float32) * np.float32(1.5)).astype(query.dtype))


class NoNorms(NumpyPlan):
    def score(self, query):
        super().score(query)
        self.scores[...] = self.scores / self.cache.index.arrays["value_norms"].repeat(2, axis=1)


class AnotherHeadsSelection(NumpyPlan):
    def select(self):
        super().select()
        self.indices[1, 1] = self.indices[1, 2]


class OtherHead(NumpyPlan):
    def attend(self, query):
        super().attend(query)
        self.value[...] = self.value[:, ::-1].copy()


class Unwritten(NumpyPlan):
    def attend(self, query):
        before = self.value[0, 1].copy()
        super().attend(query)
        self.value[0, 1] = before


class LastRow(NumpyPlan):
    def attend(self, query):
        super().attend(query)
        self.value[-1, -1] *= bfloat16().type(1.1)


class Reported(NumpyPlan):
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
    prepare = Socket.prepare

    def packed(self, keys, values, **options):
        cache = prepare(self, keys, values, **options)
        codes = {"codes": LAYOUT.pack(cache.index.arrays["codes"])}
        return replace(cache, index=replace(cache.index, arrays=cache.index.arrays | codes))

    monkeypatch.setattr(Socket, "prepare", packed)
    for module in (socket_step, stages):
        monkeypatch.setattr(module, "capture", lambda work: work)


def measure(inputs, monkeypatch, plan=NumpyPlan, method=RELEASED.method):
    monkeypatch.setattr(socket_step, "DecodePlan", plan)
    return socket_step.measure_socket(inputs, SHAPE, Setting(method, SMALL), FakeClock())


def test_a_correct_step_gives_a_row_whose_stages_add_up(inputs, monkeypatch):
    row = measure(inputs, monkeypatch)
    assert row.timing.us == 3
    assert row.stage_us == {"score": 1, "select": 1, "attend": 1}
    assert (row.kept_tokens, row.nominal_bits) == (40, 600)
    assert row.bits_per_token == LAYOUT.bits_per_token + 32
    assert row.bytes == socket_bytes(SHAPE, 40, row.bits_per_token // 8)
    assert row.settings["sink"] == 8
    assert row.settings["value_weight"] is True
    assert "seed" in row.settings


def test_a_method_without_norms_has_a_row_and_a_gate_of_its_own(inputs, monkeypatch):
    row = measure(inputs, monkeypatch, method=Socket())
    assert row.settings["value_weight"] is False
    assert row.bits_per_token == LAYOUT.bits_per_token
    with pytest.raises(GateError, match="scores of sequence"):
        measure(inputs, monkeypatch, WrongMap, Socket())


class AlwaysMissing(NumpyPlan):
    def select(self):
        self.known = False
        super().select()


@pytest.mark.parametrize(("plan", "share"), [(NumpyPlan, 0), (AlwaysMissing, 1)])
def test_misses_are_counted_and_timed(inputs, monkeypatch, plan, share):
    row = measure(inputs, monkeypatch, plan)
    assert row.misses == {"steps": share, "us": 4}
    assert row.timing.us == 3 + share


@pytest.mark.parametrize(
    ("defect", "sentence"),
    [
        (StaleQuery, "scores of sequence"),
        (WrongMap, "scores of sequence"),
        (NoNorms, "scores of sequence"),
        (AnotherHeadsSelection, "planned selection differs"),
        (OtherHead, "output of sequence"),
        (LastRow, "output of sequence 1, query head 3"),
        (Unwritten, "NaN"),
        (Reported, "an output is not finite"),
    ],
)
def test_a_defect_ends_in_the_gate(inputs, monkeypatch, defect, sentence):
    with pytest.raises(GateError, match=sentence):
        measure(inputs, monkeypatch, defect)


def test_a_graph_that_keeps_its_first_query_ends_in_the_gate(inputs, monkeypatch):
    def stale_capture(work):
        first = {}

        def replay():
            if not first:
                work()
                first.update(
                    scores=plans[0].scores.copy(), indices=plans[0].indices.copy(), value=plans[0].value.copy()
                )
            for name, array in first.items():
                getattr(plans[0], name)[...] = array

        return replay

    plans = []

    class Kept(NumpyPlan):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            plans.append(self)

    monkeypatch.setattr(socket_step, "capture", stale_capture)
    with pytest.raises(GateError, match="scores of sequence"):
        measure(inputs, monkeypatch, Kept)


def test_an_index_with_wrong_codes_ends_in_the_gate(inputs, monkeypatch):
    packed = Socket.prepare

    def without_a_ring(self, keys, values, **options):
        cache = packed(self, keys, values, **options)
        cache.index.arrays["codes"].setflags(write=True)
        cache.index.arrays["codes"][..., -1:, :] = 0
        return cache

    monkeypatch.setattr(Socket, "prepare", without_a_ring)
    with pytest.raises(GateError, match="codes of sequence 0, KV head 0 differ"):
        measure(inputs, monkeypatch)


@pytest.mark.parametrize("wrong", ["last codes", "norms", "last norm"])
def test_an_index_that_is_wrong_anywhere_ends_in_the_gate(inputs, monkeypatch, wrong):
    packed = Socket.prepare

    def broken(self, keys, values, **options):
        cache = packed(self, keys, values, **options)
        arrays = {name: array.copy() for name, array in cache.index.arrays.items()}
        if wrong == "last codes":
            arrays["codes"][1, 1, -1] ^= np.uint32(1)
        else:
            arrays["value_norms"][..., -1 if wrong == "last norm" else slice(None)] *= 1.05 if wrong == "norms" else 2
        return replace(cache, index=replace(cache.index, arrays=arrays))

    monkeypatch.setattr(Socket, "prepare", broken)
    with pytest.raises(GateError, match="codes of sequence 1" if wrong == "last codes" else "value norms of sequence"):
        measure(inputs, monkeypatch)


def test_a_selection_that_is_wrong_in_the_backend_too_ends_in_the_gate(inputs, monkeypatch):
    select = NumpyBackend.select

    def lowest(self, scores, *arguments):
        return select(self, -scores, *arguments)

    monkeypatch.setattr(NumpyBackend, "select", lowest)
    with pytest.raises(GateError, match="selection of sequence 0, query head 0 is not that of its scores"):
        measure(inputs, monkeypatch)
