"""SANTA's draws as their kernel's own source makes them, on a CPU, from scores and tile states made here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from socket_gpu.core import _compile
from socket_gpu.core.rows import DeviceRows
from socket_gpu.santa import draw
from socket_gpu.santa.draw_gate import DrawLaw, require_draws
from socket_theory import Key, Santa
from socket_theory.core.rng import uniform

KEY, HEAD_DIM, GROUP, SPARE = Key.from_seed(9), 64, 2, 5
SAMPLERS = ("phase_carried", "flash")


class Drawn(NamedTuple):
    """What a launch leaves for every row; row r is a head of sequence r // 4."""

    value: Any
    lse: Any
    draws: Any
    steps: Any


def draw_rows(engine: Any, method: Santa, tile: int, rows: list[Any], starts: list[int], values: Any, step: int) -> Any:
    """A launch over rows of scores (log 2): two KV heads of two query heads for every sequence, spans at `starts`."""
    cupy, lengths = engine.cupy, [len(row) for row in rows[::4]]
    tiles = -(-max(lengths) // tile)
    scores, states = cupy.empty((len(rows), tiles * tile), np.float32), cupy.empty((len(rows), tiles, 2), np.float32)
    for row, own in enumerate(rows):
        padded = np.full(-(-len(own) // tile) * tile, -np.inf)
        padded[: len(own)] = own
        tops = padded.reshape(-1, tile).max(axis=1)
        masses = np.exp2(padded.reshape(-1, tile) - tops[:, None]).sum(axis=1)
        scores[row, : len(own)], states[row, : len(tops)] = own, np.stack([tops, masses], axis=1)
    most = max(method.num_samples, tiles) if method.sampler == "flash" else method.num_samples
    batch = len(starts)
    output, lse = cupy.empty((batch, 4, HEAD_DIM), np.float32), cupy.empty((batch, 4), np.float32)
    draws, steps, status = cupy.empty((batch, 4, most), np.int32), cupy.zeros(len(rows), np.uint64), cupy.zeros(1, "u4")
    steps += np.uint64(step)
    buffers = draw.DrawBuffers.empty(len(rows), HEAD_DIM, most)
    spans = cupy.asarray(np.stack([starts, lengths], axis=1))
    given = scores, states, DeviceRows(values, values, None, values.shape), spans
    shape = draw.TileShape(HEAD_DIM, GROUP, tile)
    draw.draw_values_into((output, lse, draws), given, method, shape, (KEY, steps), buffers, status)
    assert (int(status[0]), buffers.tickets.any()) == (0, False)
    return Drawn(*(np.asarray(a).reshape(len(rows), *a.shape[2:]) for a in (output, lse, draws)), np.asarray(steps))


def require_rows(
    method: Santa, tile: int, rows: list[Any], starts: list[int], values: Any, step: int, found: Drawn, offset: Any
) -> None:
    """Every row draws the tokens of its law with its own offsets, and averages their values."""
    for row, own in enumerate(rows):
        start, exact = starts[row // 4], own.astype(np.float64)
        tiles = np.arange(-(-len(own) // tile) if method.sampler == "flash" else 1)
        uniforms = uniform(KEY, (row << 32) + tiles, step) if offset is None else np.full(len(tiles), offset)
        law = DrawLaw.of(method, np.log(2) * exact, uniforms, tile)
        draws = found.draws[row]
        require_draws(f"row {row}", np.where(draws < 0, draws, draws - start), law)
        used = draws[: len(law.goals)]
        expected = law.weights @ values[row // 4, row % 4 // GROUP, used].astype(np.float64)
        np.testing.assert_allclose(found.value[row], expected, rtol=1e-4, atol=1e-5)
        assert found.lse[row] == pytest.approx(np.log(2) * (exact.max() + np.log2(np.exp2(exact - exact.max()).sum())))
        assert found.steps[row] == step + 1


def random_rows(lengths: list[int], spread: float) -> list[Any]:
    draw = np.random.default_rng(5)
    return [(spread * draw.standard_normal(n)).astype(np.float32) for n in lengths for _ in range(4)]


def random_values(engine: Any, starts: list[int], lengths: list[int]) -> Any:
    """NaN outside the spans."""
    slots = max(np.add(starts, lengths)) + SPARE
    values = np.full((len(starts), 2, slots, HEAD_DIM), np.nan, np.float32)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        draw = np.random.default_rng(row)
        values[row, :, start : start + length] = draw.standard_normal((2, length, HEAD_DIM))
    return engine.cupy.asarray(values.astype(np.float16))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("lengths", "samples", "step"),
    [
        ([1, 31], 3, 0),
        ([33, 1000], 65, 2),
        ([1000, 7], 1500, 2**40),
        # More tiles than a block has threads, and no multiple of it: 700, 513 and 512.
        ([22_390, 16_390], 900, 1),
        ([16_384, 300], 40, 7),
    ],
)
def test_every_row_draws_by_its_scores_and_its_own_offsets(
    gpu_on_cpu: Any, sampler: Any, lengths: list[int], samples: int, step: int
) -> None:
    method, starts, tile = Santa(samples, sampler, 32), [2, 0], 32
    rows, values = random_rows(lengths, 3.0), random_values(gpu_on_cpu, starts, lengths)
    found = draw_rows(gpu_on_cpu, method, tile, rows, starts, values, step)
    require_rows(method, tile, rows, starts, values, step, found, None)


def test_a_tile_of_flash_without_mass_draws_nothing(gpu_on_cpu: Any) -> None:
    """Beside 16 and 8 tiles of equal weights, so that all sums over masses are exact; those draw as they did before."""
    method, starts, lengths, tile = Santa(37, "flash", 32), [1, 0], [19 * 32, 11 * 32], 32
    values, rows = random_values(gpu_on_cpu, starts, lengths), random_rows(lengths, 0.0)
    gone = [np.isin(np.arange(len(row)) // tile, [0, 3, len(row) // tile - 1]) for row in rows]
    cold = [np.where(where, np.float32(-3000), row) for where, row in zip(gone, rows, strict=True)]
    before, found = (draw_rows(gpu_on_cpu, method, tile, given, starts, values, 3) for given in (rows, cold))
    for row, where in enumerate(gone):
        slots = before.draws[row]
        vanished = (slots >= 0) & where[slots - starts[row // 4]]
        assert vanished.sum() >= 3
        np.testing.assert_array_equal(found.draws[row], np.where(vanished, -1, slots))


def test_masses_before_tiles_are_added_in_double(gpu_on_cpu: Any) -> None:
    """One token of a tile has all of its mass, so that a draw tells the tile, which float32 sums would move."""
    method, starts, tile, tiles = Santa(3000), [1], 32, 700
    tops = random_rows([tiles], 2.0)
    rows = [np.where(np.arange(tiles * tile) % tile == 5, np.repeat(top, tile), np.float32(-500)) for top in tops]
    values = random_values(gpu_on_cpu, starts, [tiles * tile])
    found = draw_rows(gpu_on_cpu, method, tile, rows, starts, values, 0)
    for row, top in enumerate(tops):
        reached = np.cumsum(np.exp2(top.astype(np.float64) - top.max()))
        goals = (np.arange(1, 3001) - uniform(KEY, np.array([row << 32]))) / 3000
        expected = np.searchsorted(reached / reached[-1], goals)
        np.testing.assert_array_equal(found.draws[row], starts[0] + tile * expected + 5)


@pytest.fixture
def at_offset(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Builds the kernel with an offset in the place of its random number: no key is known that gives such a one."""
    source, random = _compile.kernel_source("santa/value_draws.cu"), "return (double)(c[0] >> 11) * 0x1p-53;"
    assert random in source

    def build_at(offset: float) -> None:
        monkeypatch.setattr(_compile, "kernel_source", lambda file: source.replace(random, f"return {offset!r};"))
        _compile._kernel.cache_clear()

    yield build_at
    _compile._kernel.cache_clear()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("offset", [0.0, 1 - 2.0**-53])
def test_offsets_at_the_ends_of_their_range_draw_tokens_that_have_weight(
    gpu_on_cpu: Any, at_offset: Callable[[float], None], sampler: Any, offset: float
) -> None:
    """With an offset of 0 the last goal is S itself, which the last edge reaches although no tile behind it can."""
    at_offset(offset)
    method, lengths, starts, tile = Santa(37, sampler, 32), [500, 700], [1, 0], 32
    rows = random_rows(lengths, 2.0)
    if sampler == "phase_carried":
        rows = [np.where(np.arange(len(row)) < len(row) - 200, row, np.float32(-3000)) for row in rows]
    values = random_values(gpu_on_cpu, starts, lengths)
    found = draw_rows(gpu_on_cpu, method, tile, rows, starts, values, 3)
    require_rows(method, tile, rows, starts, values, 3, found, offset)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_goals_on_the_borders_of_tiles_and_tokens_belong_to_what_ends_there(
    gpu_on_cpu: Any, at_offset: Callable[[float], None], sampler: Any
) -> None:
    """As many draws as tokens of equal weight, at offset 0: every goal is an edge, and all arithmetic is exact."""
    at_offset(0.0)
    length, tile = 515 * 32, 32
    method, rows = Santa(length, sampler, tile), [np.zeros(length, np.float32)] * 4
    values = random_values(gpu_on_cpu, [1], [length])
    found = draw_rows(gpu_on_cpu, method, tile, rows, [1], values, 0)
    np.testing.assert_array_equal(found.draws, np.tile(1 + np.arange(length), (4, 1)))
