"""Which cases are measured, the bytes they have to move, and the rows of the record, dense peers included."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from socket_gpu.bench import byte_model, dense
from socket_gpu.bench.clock import Timing
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.inputs import Inputs
from socket_gpu.bench.layouts import LAYOUTS, OWN
from socket_gpu.bench.peers import Call, Tensors
from socket_gpu.bench.rows import Row, row_records
from socket_gpu.bench.shape import Shape
from socket_gpu.socket_lsh.cases import GROUP_NAMES, INDEX, RECOMMENDED, RELEASED, Setting, cases, keeping
from socket_theory import Budget, Key, Socket
from socket_theory.cli.evaluate import attention_command
from socket_theory.core.attention import softmax_attention

SHAPE = Shape(1, 4, 2, 64, head_dim=8)
ATTENTION = Path(__file__).parents[2] / "docs" / "benchmarks" / "attention-smollm2.json"
SCHEMA = [
    *("method", "settings", "batch", "num_qo_heads", "num_kv_heads", "kv_len", "head_dim", "nominal_bits"),
    *("bits_per_token", "kept_tokens", "us", "us_quartiles", "us_longest", "us_mean", "ratio_to_best_dense", "bytes"),
    *("fraction_of_read_bandwidth", "stage_us", "misses", "runs", "peak_bytes", "note"),
]


def row(method, us, shape=SHAPE, **options):
    timing = None if us is None else Timing(us, (us, us), us, us)
    return Row(method=method, settings={}, shape=shape, bytes=3_000_000, timing=timing, **options)


def test_the_groups_hold_the_cases_of_the_issue_once():
    found = cases(GROUP_NAMES)
    gqa = Shape(1, 32, 8, 131072)
    released = [setting for setting in found[gqa] if setting.budget.sink == 128 and setting.layout == OWN]
    laid_out = [setting for setting in found[gqa] if replace(setting, layout=OWN) == RELEASED]
    assert [setting.layout for setting in laid_out] == list(LAYOUTS)
    eight_planes = Setting(replace(Socket.as_released(), num_planes=8), RELEASED.budget)
    assert released == [RELEASED, eight_planes, keeping(10), keeping(50)]
    assert {Shape(1, 32, 32, 131072), Shape(8, 32, 8, 32768), Shape(1, 32, 8, 32768)} <= set(found)
    assert [s.kv_len for s in cases(["growth"])] == [16384, 32768, 65536, 131072, 262144, 524288, 1048576]
    assert cases([INDEX]) == {}
    assert [s.budget.kept(gqa.kv_len) for s in released] == [3972, 3972, 13107, 2621]
    assert all(s.method.value_weight and s.method.num_tables == 60 for s in released)


def test_settings_are_compared_under_the_budget_their_errors_are_measured_with():
    defaults = {option.name: option.default for option in attention_command.params}
    evaluated = Budget(fraction=defaults["density"], sink=defaults["sink"], window=defaults["window"])
    for settings in cases(["settings"]).values():
        assert [setting.method for setting in settings] == [Socket.as_released(), Socket(), RECOMMENDED]
        assert {setting.budget for setting in settings} == {evaluated}


def test_the_recommended_setting_is_the_one_with_the_least_error_of_those_evaluated():
    rows = json.loads(ATTENTION.read_text())["rows"]
    best = min((row for row in rows if row["method"] == "socket"), key=lambda row: row["relative_error_mean"])
    assert Socket(**best["settings"]) == RECOMMENDED


def test_bytes_are_those_of_the_arrays_a_step_reads():
    keys = np.zeros((1, 2, 64, 8), np.float16)
    codes, norms = np.zeros((1, 2, 64, 20), np.uint32), np.zeros((1, 2, 64), np.float32)
    assert byte_model.dense_bytes(SHAPE) == 2 * keys.nbytes
    kept = 5
    rows_of_all_lists = 4 * kept * 2 * keys[0, 0, 0].nbytes
    assert byte_model.socket_bytes(SHAPE, kept, 84) == codes.nbytes + norms.nbytes + rows_of_all_lists
    assert byte_model.build_bytes(SHAPE, 84) == 2 * keys.nbytes + codes.nbytes + norms.nbytes
    assert byte_model.append_bytes(SHAPE, 84) == 2 * (2 * 2 * keys[0, 0, 0].nbytes + 84)


def test_every_sequence_of_a_batch_is_counted():
    three = replace(SHAPE, batch=3)
    counts = [
        lambda shape: byte_model.dense_bytes(shape),
        lambda shape: byte_model.socket_bytes(shape, 5, 84),
        lambda shape: byte_model.build_bytes(shape, 84),
        lambda shape: byte_model.append_bytes(shape, 84),
        lambda shape: byte_model.santa_bytes(shape, 9 * shape.batch),
    ]
    for count in counts:
        assert count(three) == 3 * count(SHAPE)


def test_records_follow_the_schema_and_hold_no_nan():
    stages = {"score": 6.0, "select": 2.0, "attend": 2.0}
    rows = [
        row("sdpa_flash", 30.0, kept_tokens=64),
        row("sdpa_cudnn", 25.0, kept_tokens=64),
        row("flashinfer", None, kept_tokens=64, note="all not run: ModuleNotFoundError"),
        row("socket", 10.0, kept_tokens=5, nominal_bits=600, bits_per_token=672, stage_us=stages),
        row("socket", 10.0, shape=Shape(2, 4, 2, 64), kept_tokens=5),
        row("socket_append", 4.0),
    ]
    records = json.loads(json.dumps(row_records(rows, read_bandwidth=3.0), allow_nan=False))
    assert [list(record) for record in records] == [SCHEMA] * len(rows)
    assert [record["ratio_to_best_dense"] for record in records] == [0.8333, 1.0, None, 2.5, None, None]
    assert [record["fraction_of_read_bandwidth"] for record in records[:3]] == [0.0333, 0.04, None]
    assert records[3]["stage_us"] == stages
    assert records[2]["us"] is None
    assert records[2]["note"].endswith("ModuleNotFoundError")


def test_timings_are_medians_quartiles_the_longest_and_means():
    timing = Timing.of([5.0, 1.0, 2.0, 3.0, 400.0])
    assert (timing.us, timing.quartiles, timing.longest, timing.mean) == (3.0, (2.0, 5.0), 400.0, 82.2)


class HostArray(np.ndarray):
    def get(self):
        return np.asarray(self)


@pytest.fixture
def inputs():
    arrays = Key.from_seed(2).generator().standard_normal((2, 1, 2, 64, 8)).view(HostArray)
    queries = Key.from_seed(4).generator().standard_normal((1, 1, 4, 8)).view(HostArray)
    return Inputs(arrays[0], arrays[1], queries)


def exact(inputs):
    heads = [
        softmax_attention(inputs.queries[0, 0, h].get(), inputs.keys[0, h // 2].get(), inputs.values[0, h // 2].get())
        for h in range(4)
    ]
    return np.stack([head.value for head in heads])[None]


def test_a_dense_output_is_compared_with_float64_and_with_the_other_kernels(inputs):
    truth, right = dense.Truth.of(inputs, SHAPE), exact(inputs)
    truth.check("one", right.reshape(1, 2, 2, 8))
    truth.check("another", 1.001 * right)
    with pytest.raises(GateError, match="sequence 0, query head 0"):
        truth.check("a third", 1.02 * right)
    middle = right.copy()
    middle[0, 1:3] = middle[0, 2:0:-1]
    with pytest.raises(GateError, match="a fourth, compared with another kernel"):
        truth.check("a fourth", middle)


def test_peers_that_fail_become_notes_and_wrong_ones_stop_the_run(inputs, monkeypatch):
    def no_library(tensors, shape):
        raise ImportError("No module named 'flashinfer'")

    def refused():
        raise RuntimeError("No available kernel.\nAborting execution.")

    monkeypatch.setattr(Tensors, "of", lambda inputs: None)
    monkeypatch.setattr(
        dense,
        "sdpa_calls",
        lambda backend, tensors: [Call("HND", lambda: None), Call("NHD", refused), Call("packed", refused)],
    )
    monkeypatch.setattr(dense, "flash_infer_calls", no_library)

    def run_call(name, call, truth, clock):
        call.attend()
        return Timing(7.0, (6.0, 8.0), 9.0, 7.5)

    monkeypatch.setattr(dense, "_measure_call", run_call)
    flash, cudnn, flashinfer = dense.measure_dense(inputs, SHAPE, clock=None)
    assert [r.method for r in (flash, cudnn, flashinfer)] == ["sdpa_flash", "sdpa_cudnn", "flashinfer"]
    assert (flash.settings["call"], flash.timing.us) == ("HND", 7.0)
    assert flash.note == "NHD, packed not run: RuntimeError: No available kernel."
    assert flashinfer.timing is None
    assert flashinfer.note == "all not run: ImportError: No module named 'flashinfer'"

    def wrong(name, call, truth, clock):
        raise GateError("the output of sdpa_flash is wrong")

    monkeypatch.setattr(dense, "_measure_call", wrong)
    with pytest.raises(GateError, match="sdpa_flash is wrong"):
        dense.measure_dense(inputs, SHAPE, clock=None)


def test_without_torch_every_peer_says_so(inputs, monkeypatch):
    def no_torch(inputs):
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr(Tensors, "of", no_torch)
    rows = dense.measure_dense(inputs, SHAPE, clock=None)
    assert [r.note for r in rows] == ["all not run: ImportError: No module named 'torch'"] * 3
