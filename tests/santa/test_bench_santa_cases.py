"""What `bench santa` measures: random inputs, and the layers of a capture beside random inputs of their shape."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from socket_gpu.bench import captured, record
from socket_gpu.bench.clock import Timing
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.inputs import QUERIES, Inputs
from socket_gpu.bench.rows import Row, row_records
from socket_gpu.bench.shape import Shape
from socket_gpu.santa import bench as santa
from socket_gpu.socket_lsh import bench as decode
from socket_theory import Key, Santa
from socket_theory.core.checks import bfloat16
from socket_theory.evaluate.capture import Capture

LAYERS, HEADS, KV_HEADS, TOKENS, DIM = 3, 6, 2, 100, 8


def a_capture(positions, tokens=TOKENS):
    draw = Key.from_seed(1).generator()
    keys, values = draw.standard_normal((2, LAYERS, KV_HEADS, tokens, DIM)).astype(np.float16)
    return Capture(draw.standard_normal((LAYERS, HEADS, len(positions), DIM)), keys, values, np.array(positions))


CAPTURE = a_capture([99, 60, 75, 85, 90, 91, 97, 98, 96])


@pytest.fixture(autouse=True)
def numpy_for_cupy(monkeypatch):
    monkeypatch.setattr(captured, "import_module", lambda name: np)
    monkeypatch.setattr(captured, "REPEATED_LEN", 256)
    monkeypatch.setattr(record, "free_memory", lambda: None)
    monkeypatch.setattr(santa, "free_memory", lambda: None)


def test_the_cases_of_the_issue_and_their_samples():
    found = {case.shape: case.methods for case in santa.santa_cases(None)}
    assert found == {
        Shape(1, 32, 8, 131072): (*map(Santa, (128, 256, 512, 1024)), Santa(128, "flash", 256)),
        Shape(8, 32, 8, 32768): (Santa(128), Santa(256)),
        Shape(1, 32, 8, 32768): (Santa(128), Santa(128, "flash", 256)),
    }
    assert all(case.source is None for case in santa.santa_cases(None))


def test_every_layer_of_a_capture_is_measured_short_and_repeated_and_random_inputs_beside_it():
    cases = santa.santa_cases(CAPTURE)
    short, long = Shape(1, HEADS, KV_HEADS, 64, DIM), Shape(1, HEADS, KV_HEADS, 256, DIM)
    expected = [(short, f"capture layer {i}") for i in range(LAYERS)]
    expected += [(long, f"capture layer {i}, repeated") for i in range(LAYERS)]
    assert [(case.shape, case.source) for case in cases if case.source] == expected
    random = [case for case in cases if not case.source]
    assert [case.shape for case in random] == [short, long, *santa.GAUSSIAN]
    assert [case.methods for case in cases[: len(expected) + 2]] == [(Santa(128),)] * (len(expected) + 2)
    assert str(cases[0]) == "batch 1, 6/2 heads, 64 tokens, capture layer 0"


def test_steps_are_the_last_ones_and_see_no_token_after_them():
    inputs = captured.layer_inputs(CAPTURE, 1, 64)
    last = np.argsort(CAPTURE.positions)[-QUERIES:]
    assert CAPTURE.positions[last].min() == 75 > inputs.keys.shape[2]
    assert all(array.dtype == bfloat16() and array.flags.c_contiguous for array in vars(inputs).values())
    np.testing.assert_array_equal(inputs.keys[0], CAPTURE.k[1, :, :64].astype(bfloat16()))
    np.testing.assert_array_equal(inputs.values[0], CAPTURE.v[1, :, :64].astype(bfloat16()))
    assert inputs.queries.shape == (QUERIES, 1, HEADS, DIM)
    for step, place in enumerate(last):
        np.testing.assert_array_equal(inputs.queries[step, 0], CAPTURE.q[1, :, place].astype(bfloat16()))


def test_repeated_tokens_come_in_the_same_order_again():
    short, long = (captured.layer_inputs(CAPTURE, 2, length) for length in (64, 256))
    for name in ("keys", "values"):
        np.testing.assert_array_equal(getattr(long, name), np.tile(getattr(short, name), (1, 1, 4, 1)))
    np.testing.assert_array_equal(long.queries, short.queries)


@pytest.mark.parametrize(("last", "tokens"), [(5, 6), (15, 16), (36, 32), (255, 256), (699, 688)])
def test_captures_of_every_length_have_a_shape(last, tokens):
    shapes = captured.captured_shapes(a_capture([last], 700))
    assert [shape.kv_len for shape in shapes] == sorted({tokens, max(tokens, 256)})
    assert captured.layer_inputs(a_capture([last], 700), 0, tokens).keys.shape[2] == tokens


def test_a_case_names_its_inputs_in_every_row(monkeypatch):
    shape = Shape(1, HEADS, KV_HEADS, 64, DIM)

    def row(method, settings):
        return Row(method=method, settings=settings, shape=shape, bytes=1, timing=Timing(1.0, (1.0, 1.0), 1.0, 1.0))

    monkeypatch.setattr(santa, "measure_dense", lambda *_: [row("sdpa_flash", {"call": "HND"})])
    monkeypatch.setattr(santa, "measure_santa", lambda inputs, shape, method, clock: row("santa", {"num_samples": 128}))
    monkeypatch.setattr(Inputs, "draw", lambda shape: None)
    named, random = santa.santa_cases(CAPTURE)[0], santa.santa_cases(CAPTURE)[2 * LAYERS]
    assert [row.settings for row in named.measure(None)] == [
        {"call": "HND", "input": "capture layer 0"},
        {"num_samples": 128, "input": "capture layer 0"},
    ]
    assert [row.settings for row in random.measure(None)] == [{"call": "HND"}, {"num_samples": 128}]


def test_the_socket_bench_measures_every_layer_at_its_longest(monkeypatch):
    seen = []

    def measure(inputs, shape, *_):
        seen.append((shape.kv_len, inputs.keys.shape[2]))
        return Row(method="socket", settings={"num_planes": 10}, shape=shape, bytes=1, timing=None)

    monkeypatch.setattr(decode, "measure_dense", lambda *_: [])
    monkeypatch.setattr(decode, "measure_socket", measure)
    monkeypatch.setattr(decode, "free_memory", lambda: None)
    monkeypatch.setattr(decode, "make_record", lambda measure, commit: measure(None))
    rows = decode.bench_decode([], CAPTURE, "c0ffee", lambda case: None)
    assert [row.settings["input"] for row in rows] == [f"capture layer {i}, repeated" for i in range(LAYERS)]
    assert seen == [(256, 256)] * LAYERS


def test_a_layer_is_compared_with_the_dense_kernels_on_the_same_layer():
    def row(method, us, source):
        settings = {} if source is None else {"input": source}
        timing = Timing(us, (us, us), us, us)
        return Row(method=method, settings=settings, shape=Shape(1, 4, 2, 64), bytes=1, timing=timing, kept_tokens=9)

    rows = [row("sdpa_flash", us, source) for us, source in ((30.0, None), (24.0, "one"), (20.0, "two"))]
    rows += [row("santa", 10.0, source) for source in (None, "one", "two")]
    assert [record["ratio_to_best_dense"] for record in row_records(rows, 3.0)][3:] == [3.0, 2.4, 2.0]


def test_the_first_wrong_result_ends_the_run_and_names_the_case(monkeypatch):
    heard = []

    def fail(case, clock):
        raise GateError("the draws are wrong.")

    monkeypatch.setattr(santa.Case, "measure", fail)
    monkeypatch.setattr(santa, "make_record", lambda measure, commit: measure(nullcontext()))
    with pytest.raises(
        GateError, match=r"failed at batch 1, 6/2 heads, 64 tokens, capture layer 0, .* draws are wrong"
    ):
        santa.bench_santa(CAPTURE, "c0ffee", heard.append)
    assert heard == ["batch 1, 6/2 heads, 64 tokens, capture layer 0"]
