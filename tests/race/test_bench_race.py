"""The measurement of RACE over whole sequences, N x N weights in the place of the kernels: its rows, and its gates."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from whole_sequences import CountingClock, DenseSequences, NumpyUnderCupysName

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from socket_gpu.bench import stages
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.shape import Shape
from socket_gpu.race import bench_pass, border_gate, exact, exact_law, gate, inputs
from socket_gpu.race.cases import BETA, PLANES, TABLES, Case
from socket_gpu.race.exact import Head, exact_parts
from socket_gpu.race.exact_law import Law
from socket_gpu.race.inputs import SequenceInputs
from socket_gpu.race.traffic import passes, race_bytes
from socket_theory import Key, SignHash, race_attention
from socket_theory.core.checks import bfloat16
from socket_theory.race.gradient import race_gradients
from socket_theory.race.gradient_scale import gradient_scale

TOKENS, TILE = 256, 32
SHAPE = Shape(1, 2, 1, TOKENS, head_dim=16)


@pytest.fixture(autouse=True)
def numpy_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", NumpyUnderCupysName("cupy"))
    for module in (bench_pass, stages):
        monkeypatch.setattr(module, "capture", lambda work: work)
    monkeypatch.setattr(bench_pass, "held_bytes", lambda: bench_pass.FLUSH_BYTES + 1000)
    monkeypatch.setattr(border_gate, "TILE", TILE)
    monkeypatch.setattr(inputs, "PIECE", 300)


def measure(monkeypatch, kernels=DenseSequences, causal=True, dtype="bfloat16"):
    monkeypatch.setattr(bench_pass, "RaceSequences", kernels)
    return bench_pass.measure_sequences(Case(SHAPE, causal, dtype), CountingClock())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("beta", [0.7, 3.0])
def test_the_exact_parts_are_the_reference_and_its_sizes(monkeypatch, causal, beta):
    monkeypatch.setattr(exact, "CHUNK", 16)
    monkeypatch.setattr(exact, "BLOCK", 64)
    rng = Key.from_seed(1).generator()
    shapes = (1, 4, 160, 8), (1, 2, 160, 8), (1, 2, 160, 5), (1, 4, 160, 5)
    query, keys, values, above = (rng.standard_normal(shape) for shape in shapes)
    planes = SignHash(3, 2, 8).draw(Key.from_seed(2))
    given = query, keys, values, planes, beta
    right, sizes = race_gradients(*given, above, causal), gradient_scale(*given, above, causal)
    value = race_attention(*given, causal)
    sums = {"planes": np.zeros((2, 3, 2, 8)), "beta": np.zeros(2)}
    seen = set()
    for kv in range(2):
        for name, span, found, size in exact_parts(
            Head.of(kv, query, keys, values, above, causal), Law.of(planes.weights, beta)
        ):
            seen.add(name)
            if name in sums:
                sums[name] += np.stack([found, size])
                continue
            rows = slice(2 * kv, 2 * kv + 2) if name in ("total", "value", "query") else slice(kv, kv + 1)
            if name == "total":
                np.testing.assert_allclose(found[..., 0], 3 * np.exp(value.lse[0, rows, span]), rtol=1e-10)
            elif name == "value":
                np.testing.assert_allclose(found, value.value[0, rows, span], rtol=1e-10, atol=1e-12)
            else:
                np.testing.assert_allclose(found, getattr(right, name)[0, rows, span], rtol=1e-9, atol=1e-11)
                np.testing.assert_allclose(size, getattr(sizes, name)[0, rows, span], rtol=1e-9)
    assert seen == {"total", "value", "query", "keys", "values", "planes", "beta"}
    for name, (found, size) in sums.items():
        np.testing.assert_allclose(found, getattr(right, name), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(size, getattr(sizes, name), rtol=1e-9)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("causal", [False, True])
def test_correct_kernels_give_a_row_forward_and_one_with_the_backward_run(monkeypatch, causal, dtype):
    rows = measure(monkeypatch, causal=causal, dtype=dtype)
    for row, backward in zip(rows, (False, True), strict=True):
        settings = {"causal": causal, "backward": backward, "dtype": dtype}
        outputs = ["value", "d_query", "d_keys", "d_values", "d_planes", "d_beta"][: None if backward else 1]
        assert row.settings.pop("outputs") == outputs
        assert row.settings == settings | {"num_planes": PLANES, "num_tables": TABLES, "beta": BETA}
        assert row.bytes == race_bytes(SHAPE, causal, backward, 2 if dtype == "bfloat16" else 4)
        assert list(row.stage_us) == list(passes(causal, backward))
        assert row.timing.us == len(row.stage_us)
        assert set(row.stage_us.values()) == {1.0}
        assert (row.timing.runs, row.peak_bytes, row.method) == (30, 1000, "race")


class LostKey(DenseSequences):
    """A key at the end of a tile is in no sum."""

    def seen(self, pass_name):
        mask = super().seen(pass_name)
        mask[4 * TILE :, 4 * TILE - 1] = 0
        return mask


class LostQuery(DenseSequences):
    """A query at the start of a tile is in no sum that keys read."""

    def seen(self, pass_name):
        mask = super().seen(pass_name)
        if pass_name == "keys":
            mask[4 * TILE, : 4 * TILE] = 0
        return mask


class PrefixForSuffix(DenseSequences):
    def seen(self, pass_name):
        mask = super().seen(pass_name)
        return mask.T if pass_name == "keys" else mask


class NoNormaliser(DenseSequences):
    def along(self, towards):
        return 0 * towards


class Changed(DenseSequences):
    """An output that is off by 2 %."""

    name, factor = "value", 1.02

    def wrote(self):
        array = getattr(self, self.name)
        array[...] = (self.factor * array.astype(np.float64)).astype(array.dtype)


class OtherHead(DenseSequences):
    def _read(self):
        super()._read()
        self.value[...] = self.value[:, ::-1].copy()


class Unwritten(DenseSequences):
    def _read(self):
        kept = self.value[0, 1, 200].copy()
        super()._read()
        self.value[0, 1, 200] = kept


class CopiedInputs(DenseSequences):
    """Reads the values that there were when it was made."""

    def __init__(self, query, keys, values, *others):
        super().__init__(query, keys, values.copy(), *others)


@pytest.mark.parametrize(
    ("defect", "sentence"),
    [
        (LostKey, "is off by|lacks a token"),
        (LostQuery, "is off by|lacks a token"),
        (PrefixForSuffix, "gradient of the (keys|values) of KV head 0 is off by"),
        (NoNormaliser, "gradient of the query of KV head 0 is off by"),
        (Changed, "the value of KV head 0 is off by"),
        (OtherHead, "the value of KV head 0 is off by"),
        (Unwritten, "the value of KV head 0 is off by nan"),
        (CopiedInputs, "lacks a token"),
    ],
)
def test_a_defect_ends_in_the_gate(monkeypatch, defect, sentence):
    with pytest.raises(GateError, match=sentence):
        measure(monkeypatch, defect)


@pytest.mark.parametrize("name", ["d_query", "d_keys", "d_values", "d_planes", "d_beta"])
def test_every_gradient_is_looked_at(monkeypatch, name):
    class Wrong(Changed):
        factor = 1.02 if name != "d_beta" else 3.0  # one number, whose terms cancel

        def _differentiate(self):
            self.name = name
            super()._differentiate()
            self.name = "unused"

        def wrote(self):
            if self.name == name:
                super().wrote()

    with pytest.raises(GateError, match=f"gradient of the {name.removeprefix('d_')}"):
        measure(monkeypatch, Wrong)


@pytest.mark.parametrize(("defect", "output"), [(LostKey, "value"), (LostQuery, "gradient of the values")])
@pytest.mark.parametrize("causal", [False, True])
def test_the_borders_alone_show_a_lost_token(monkeypatch, defect, output, causal):
    """As among millions of tokens, where no row of the outputs shows it."""
    totals = {}

    def only_totals(sequences, given, above, is_causal, watched):
        law = gate.law_of(given)
        weights = [law.features(exact.wide(given.query[0, head])) for head in range(2)]
        held = law.features(exact.wide(given.keys[0, 0]))
        mask = np.tril(np.ones((TOKENS, TOKENS))) if is_causal else 1.0
        totals["found"] = np.stack([((asked @ held.T) * mask).sum(axis=1)[watched] for asked in weights])
        return totals["found"]

    monkeypatch.setattr(bench_pass, "require_exact", only_totals)
    measure(monkeypatch, causal=causal)
    with pytest.raises(GateError, match=f"{output} of .* lacks a token at the border of a tile"):
        measure(monkeypatch, defect, causal=causal)


def test_a_replay_that_writes_something_else_ends_in_the_gate(monkeypatch):
    def stale(work):
        runs = []

        def replay():
            runs.append(None)
            if len(runs) < 5:
                work()

        return replay

    monkeypatch.setattr(bench_pass, "capture", stale)
    with pytest.raises(GateError, match="value of a replayed graph, compared with the gated run, has a relative RMS"):
        measure(monkeypatch)


def test_inputs_are_standard_normal_rounded_to_nearest_and_drawn_again_the_same():
    case = Case(SHAPE, True)
    first, second = SequenceInputs.draw(case), SequenceInputs.draw(case)
    assert first.query.dtype == bfloat16()
    assert (first.query == second.query).all()
    assert not (first.keys == first.values).all()
    numbers = exact.wide(first.query)
    assert abs(numbers.mean()) < 0.02
    assert abs(numbers.std() - 1) < 0.02
    kept = first.values.copy()
    first.values.fill(0)
    inputs.fill(first.values, 2)
    assert (first.values == kept).all()
    wanted = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1.003, 1e-3])
    np.testing.assert_array_equal(
        inputs.rounded(wanted, bfloat16()), wanted.astype(np.float32).astype(bfloat16()).astype(np.float64)
    )


def test_the_law_is_in_float64_whatever_the_planes_are():
    law = exact_law.Law.of(SignHash(2, 3, 8).draw(Key.from_seed(0)).weights.astype(np.float32), 2.0)
    assert law.weights.dtype == np.float64
    features = law.features(np.ones((1, 5, 8)))
    np.testing.assert_allclose(features.sum(axis=-1), 2.0)
